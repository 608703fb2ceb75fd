"""Does a spoilt measurement say so? Four faults are planted under `python -m edgelip.runtime bench`, and none once.

    python benchmarks/planted_faults.py                  # half a minute; exit 3 if a row is not badged as it must be

| fault | what is planted | badge |
|---|---|---|
| fallback | ONNX Runtime claims CUDA and computes on the CPU | FALLBACK |
| throttled | files of a clock that falls and of a processor that slows itself, as a root of the watch | THROTTLED |
| neighbour | a process that never rests on the same processor | NOISY |
| swap | pages of the process in swap; where the machine has none, files that say so | UNCONTROLLED |
| none | nothing, so that the others are known to be no habit | VALID |

A reason must name the fault too. The clean run is VALID on a quiet machine only.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from interleaved import environment, markdown_table
from result_files import exit_code_of, machine_lines, save

from edgelip.bench.isolate import PACKAGE_ROOT, THREAD_VARIABLES
from edgelip.errors import GoalMissed, MeasurementError, UsageError
from edgelip.runtime.measurement import BenchRun

WORKER = Path(__file__).with_name("planted_worker.py").resolve()
CLEAN = "none"
# What each must be badged, words of the reason that must be among its reasons, and the engine that is asked for.
EXPECTED: Mapping[str, tuple[str, str, str]] = {
    "fallback": ("FALLBACK", "products ran elsewhere than on CUDAExecutionProvider", "ort-cuda"),
    "throttled": ("THROTTLED", "slow-downs", "ort"),
    "neighbour": ("NOISY", "of the time the processor was taken by others", "ort"),
    "swap": ("UNCONTROLLED", "swapped out", "ort"),
    CLEAN: ("VALID", "", "ort"),
}


@dataclass(frozen=True)
class Row:
    """One run. planted: in words; as_it_must: it has the badge and a reason that names the fault."""

    fault: str
    planted: str
    expected: str
    badge: str
    reasons: tuple[str, ...]
    as_it_must: bool


def run_with(fault: str, bundle: Path, *, seconds: float) -> Row:
    """Measure `bundle` in a fresh process with `fault` under it. Raises MeasurementError if that process fails."""
    badge, words, engine = EXPECTED[fault]
    with tempfile.TemporaryDirectory(prefix="edgelip-planted-") as folder:
        result = Path(folder) / "run.json"
        root = Path(folder) / "machine"
        root.mkdir()
        program = ["-m", "edgelip.runtime"] if fault == CLEAN else [str(WORKER), fault, str(root)]
        measure = ["bench", str(bundle), "--engine", engine, "--seconds", f"{seconds:g}", "-o", str(result)]
        done = subprocess.run(
            [sys.executable, *program, *measure],
            cwd=PACKAGE_ROOT,
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1"), "PYTHONPATH": str(PACKAGE_ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 or not result.is_file():
            last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
            raise MeasurementError(f"the run with the fault {fault!r} ended with code {done.returncode}: {last}")
        run = BenchRun.read(result)
    planted = next((line[9:] for line in done.stderr.splitlines() if line.startswith("planted: ")), "nothing")
    named = not words or any(words in reason for reason in run.reasons)
    return Row(fault, planted, badge, run.badge, run.reasons, run.badge == badge and named)


def table(rows: Sequence[Row]) -> str:
    lines = [
        [row.fault, row.planted, row.expected, row.badge, "; ".join(row.reasons), "yes" if row.as_it_must else "NO"]
        for row in rows
    ]
    return markdown_table(["fault", "planted", "expected", "badge", "reasons", "as it must"], lines)


def check(rows: Sequence[Row]) -> None:
    """Raises GoalMissed naming the rows that are not badged as they must be."""
    wrong = [f"{row.fault} is {row.badge}, expected {row.expected}" for row in rows if not row.as_it_must]
    if wrong:
        quiet = " Repeat on a quiet machine." if any(row.fault == CLEAN and not row.as_it_must for row in rows) else ""
        raise GoalMissed(f"{'; '.join(wrong)}.{quiet}")


def run(argv: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=Path("export/dist/dense"))
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run (default: 3)")
    parser.add_argument("--only", choices=EXPECTED, action="append", help="these faults (default: all, and none)")
    parser.add_argument("--out", type=Path, help="folder for the results (default: benchmarks/results/<date>-...)")
    options = parser.parse_args(argv)
    out = options.out or Path(__file__).parent / "results" / f"{datetime.date.today()}-planted-faults"
    if not (options.bundle / "manifest.json").is_file():
        raise UsageError(f"{options.bundle} is no bundle: it has no manifest.json. `make export` makes bundles.")
    if not 0 < options.seconds <= 86_400:
        raise UsageError(f"--seconds is {options.seconds:g}; expected more than 0, at most 86400.")
    rows = []
    for fault in options.only or EXPECTED:
        print(f"planted_faults: {fault}", file=sys.stderr)
        rows.append(run_with(fault, options.bundle.resolve(), seconds=options.seconds))
    machine = environment({"onnxruntime": version("onnxruntime"), "numpy": version("numpy")})
    shown = table(rows)
    print(shown)
    command = f"python benchmarks/planted_faults.py --bundle {options.bundle} --seconds {options.seconds:g}"
    save(
        out,
        "planted_faults",
        numbers={"command": command, "machine": machine, "rows": [asdict(row) for row in rows]},
        sections=["# Planted faults", f"`{command}`", shown, "## Machine", machine_lines(machine)],
    )
    check(rows)


if __name__ == "__main__":
    sys.exit(exit_code_of(run, sys.argv[1:], name="planted_faults"))
