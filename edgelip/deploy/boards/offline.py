"""Deployment by hand: a folder to carry to a device with a script to run there, and its results read back."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from edgelip.deploy.boards.device_side import runtime_files, write_files
from edgelip.deploy.boards.results import (
    BadAnswer,
    DeviceResult,
    parity_from_answer,
    report_from_answer,
    result_from,
    run_from_answer,
)
from edgelip.deploy.boards.wanted import Wanted, builds, bundle_files, engine_package
from edgelip.errors import BundleError, UsageError
from edgelip.files import replace_folder
from edgelip.progress import Progress
from edgelip.runtime.effort import Effort
from edgelip.runtime.measurement import SINGLE_STREAM
from edgelip.runtime.plain_files import read_plain

SCRIPT, RESULTS = "run.sh", "results"
DOCTOR, CHECK, BENCH = "doctor.json", "check.json", "bench.json"
_RESULT_LIMIT_BYTES = 64 << 20

Answer = TypeVar("Answer")

_START = """#!/bin/sh
# Runs the bundles of this folder on this machine and writes results/. Stop it when you like: run again, it goes on.
# sh run.sh [PYTHON]     python3 unless another is named, such as /home/me/venv/bin/python
set -eu
cd "$(dirname "$0")"
python=${{1:-python3}}
say() {{ printf '%s\\n' "$*" >&2; }}
lacks() {{ say "edgelip: $*"; exit 4; }}

command -v "$python" >/dev/null 2>&1 ||
  lacks "there is no $python here. Install it: sudo apt-get install python3; or name another: sh run.sh PYTHON"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' ||
  lacks "$python is older than Python 3.8. Name a newer one: sh run.sh PYTHON"
export PYTHONPATH="$PWD" PYTHONDONTWRITEBYTECODE=1
export ORT_DISABLE_TELEMETRY=1  # onnxruntime calls home as soon as it is imported
for package in numpy {package}; do
  "$python" -c "import $package" 2>/dev/null ||
    lacks "$package cannot be imported by $python. Install it: $python -m pip install $package"
done
for name in OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS; do export "$name={threads}"; done
mkdir -p results || lacks "results/ cannot be made here. Copy the folder to a place that can be written."

# keep FILE VERB...: what the verb prints, whole or not at all; a file that is there is kept.
keep() {{
  file=results/$1
  shift
  if [ -s "$file" ]; then
    say "$file is there"
    return 0
  fi
  say "$file"
  mkdir -p "$(dirname "$file")"
  "$python" -m edgelip.runtime "$@" --json >"$file.partial" || exit $?
  mv "$file.partial" "$file"
}}

keep doctor.json doctor
"""
_END = 'say "All done. Take the folder back, and give the same edgelip command again: it reads results/."\n'
_README = """Bundles for a device without a network, packed by edgelip.

Copy this whole folder to the device, run `sh run.sh` in it, and bring it back: the command that made the folder then
reads results/ and prints the table. run.sh needs Python 3.8 or newer, numpy and {package}; it installs nothing.
One folder serves one device.
"""


def write_offline(
    folder: Path,
    wanted: Sequence[Wanted],
    *,
    threads: int = 1,
    effort: Effort | None = None,
    scenario: str = SINGLE_STREAM,
) -> Path:
    """Write the folder to carry, all or nothing: bundles, the runtime and run.sh. Returns the script.

    Raises UsageError for a folder that holds something else, MissingError where the disk does not allow it.
    """
    package = engine_package(wanted[0].engine)
    with replace_folder(folder, only_if_holds=SCRIPT) as work:
        write_files(runtime_files(), work)
        for one in wanted:
            place = work / "bundles" / label(one)
            place.mkdir(parents=True)
            for name in bundle_files(one.bundle):
                shutil.copyfile(one.bundle.path / name, place / name)
        (work / "README.txt").write_text(_README.format(package=package))
        script = _script(wanted, package=package, threads=threads, effort=effort or Effort(), scenario=scenario)
        (work / SCRIPT).write_text(script)
        (work / SCRIPT).chmod(0o755)
    return folder / SCRIPT


def has_results(folder: Path) -> bool:
    """Whether the script has run in that folder."""
    return (folder / RESULTS).is_dir()


def read_offline(
    folder: Path, wanted: Sequence[Wanted], *, device: str, progress: Progress, scenario: str = SINGLE_STREAM
) -> list[DeviceResult]:
    """What run.sh measured of these bundles; one that it has not finished is named in the progress.

    The folder has been elsewhere: nothing in it is trusted. Raises UsageError if a result is not what was asked for, or
    there is none.
    """
    results = folder / RESULTS
    found: list[DeviceResult] = []
    for one in wanted:
        place = results / label(one)
        if not ((place / BENCH).exists() and (place / CHECK).exists() and (results / DOCTOR).exists()):
            progress.say(f"{one.bundle.name}: not done yet in {folder}; run {SCRIPT} there again")
            continue
        report = _read(results / DOCTOR, report_from_answer)
        state = report.get("engines", {}).get(one.engine) or {}
        if not state.get("device_key"):
            raise UsageError(
                f"{results / DOCTOR} knows no device key of {one.engine!r}. Run {SCRIPT} again without it."
            )
        parity = _read(place / CHECK, partial(parity_from_answer, wanted=one))
        run = _read(place / BENCH, partial(run_from_answer, wanted=one, scenario=scenario))
        found.append(result_from(device, state["device_key"], one, parity, run))
    if not found:
        raise UsageError(
            f"{results} holds no finished result of {', '.join(one.bundle.name for one in wanted)}. Run {SCRIPT} in "
            f"{folder} on the device, or choose another folder for these bundles."
        )
    return found


def label(wanted: Wanted) -> str:
    """Folder of a bundle and of its results: its name as every shell and file system takes it, and its hash."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", wanted.bundle.name)
    return f"{name}-{wanted.bundle.sha256[:8]}"


def _script(wanted: Sequence[Wanted], *, package: str, threads: int, effort: Effort, scenario: str) -> str:
    lines = [_START.format(package=package, threads=threads)]
    how_long = " ".join(effort.options(scenario))
    for one in wanted:
        place = label(one)
        chosen = f"bundles/{place} --engine {shlex.quote(one.engine)} --precision {one.precision}"
        if builds(one.engine):
            lines.append(f"keep {place}/build.json build {chosen}\n")
        lines.append(f"keep {place}/{CHECK} check {chosen} --threads {threads}\n")
        lines.append(f"keep {place}/{BENCH} bench {chosen} --threads {threads} {how_long}\n")
    return "".join([*lines, _END])


def _read(path: Path, read: Callable[[bytes], Answer]) -> Answer:
    try:
        return read(read_plain(path, limit_bytes=_RESULT_LIMIT_BYTES))
    except (BadAnswer, BundleError) as error:
        raise UsageError(f"{path} {error}. Remove it and run {SCRIPT} again on the device.") from error
