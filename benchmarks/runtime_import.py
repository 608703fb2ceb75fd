"""How long `python -m edgelip.runtime check` takes before it touches an engine.

    python benchmarks/runtime_import.py             # half a minute
    python benchmarks/runtime_import.py --check     # exit 3 above the limit, 6 if the machine was too busy to tell

A folder as on a board: edgelip/runtime and numpy, nothing installed besides. Three programs take turns, each in a fresh
process with its bytecode cached: python that does nothing; python that imports numpy; and `check`, which ends where it
finds no onnxruntime, having imported all of its own. Import time is wall clock above the python that does nothing, in
the same round. Processor time stands beside it, since a busy machine stretches the wall clock.
Medians and 95 % intervals, which assume no distribution. The limit is held against the median.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from interleaved import Median, environment, interleave, markdown_table, median_interval, ratio

import edgelip.runtime
from edgelip.errors import EdgelipError, GoalMissed, MeasurementError, MissingError
from edgelip.files import write_atomic

LIMIT_MS = 150.0
BARE, NUMPY, RUNTIME = "python", "import numpy", "edgelip.runtime check"
_CHECK = (
    "import sys; sys.modules['onnxruntime'] = None; from edgelip.runtime.__main__ import main; "
    "sys.exit(main(['check', 'bundle']) - 4)"
)
PROGRAMS = {BARE: "pass", NUMPY: "import numpy", RUNTIME: _CHECK}
_IMPORT_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


def write_board(folder: Path) -> None:
    """edgelip/runtime, and links to the numpy that is installed here."""
    runtime = Path(edgelip.runtime.__path__[0])
    shutil.copytree(runtime, folder / "edgelip" / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    spec = importlib.util.find_spec("numpy")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parent
    for part in (installed, installed.with_name("numpy.libs")):
        if part.exists():
            (folder / part.name).symlink_to(part)


def command(program: str, *flags: str) -> list[str]:
    return [sys.executable, "-S", "-s", *flags, "-c", PROGRAMS[program]]


def timed(program: str, board: Path) -> tuple[float, float]:
    """Milliseconds of one fresh process, on the wall clock and of the processor."""
    start = time.perf_counter_ns()
    process = subprocess.Popen(command(program), env=_environment(board), stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_ms = (time.perf_counter_ns() - start) / 1e6
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise MeasurementError(f"`{program}` ended with exit code {process.returncode}; it should find no engine.")
    return wall_ms, 1000 * (usage.ru_utime + usage.ru_stime)


def shares_ms(board: Path) -> dict[str, float]:
    """Milliseconds by who is imported, in one run under -X importtime, which itself takes time."""
    lines = subprocess.run(
        command(RUNTIME, "-X", "importtime"), env=_environment(board), capture_output=True, text=True, check=True
    ).stderr
    shares: dict[str, float] = defaultdict(float)
    for microseconds, module in _IMPORT_LINE.findall(lines):
        root = module.partition(".")[0]
        shares[root if root in ("numpy", "edgelip") else "standard library"] += int(microseconds) / 1000
    return dict(shares)


def _environment(board: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(board), "OMP_NUM_THREADS": "1"}


def findings(samples: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Median]:
    """Every reported number by name, in ms unless it is a ratio."""
    wall = {name: [sample[0] for sample in each] for name, each in samples.items()}
    cpu = {name: [sample[1] for sample in each] for name, each in samples.items()}

    def above(times: Mapping[str, Sequence[float]], name: str, base: str) -> Median:
        return median_interval([over - under for over, under in zip(times[name], times[base], strict=True)])

    return {
        **{f"whole process, {name}, ms": median_interval(wall[name]) for name in PROGRAMS},
        f"import time, {NUMPY}, ms": above(wall, NUMPY, BARE),
        f"import time, {RUNTIME}, ms": above(wall, RUNTIME, BARE),
        "of that beside numpy, ms": above(wall, RUNTIME, NUMPY),
        f"processor time, {RUNTIME}, ms": above(cpu, RUNTIME, BARE),
        "whole process, check / import numpy": ratio(wall[RUNTIME], wall[NUMPY]),
    }


JUDGED = f"import time, {RUNTIME}, ms"


def table(found: Mapping[str, Median]) -> str:
    rows = []
    for name, median in found.items():
        limit = f"<= {LIMIT_MS:g}" if name == JUDGED else ""
        verdict = ("pass" if median.value <= LIMIT_MS else "MISS") if limit else ""
        rows.append([name, median.text(), limit, verdict])
    return markdown_table(["measured", "median (95 %)", "limit", ""], rows)


def run(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/DATE-runtime-import")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--check", action="store_true", help="exit 3 if the limit is missed")
    arguments = parser.parse_args(argv)
    if sys.platform != "linux":
        raise MissingError("this system does not report the processor time of a child; run it on Linux.")
    with tempfile.TemporaryDirectory(prefix="edgelip-import-") as temporary:
        board = Path(temporary)
        write_board(board)
        subjects: dict[str, Callable[[], tuple[float, float]]] = {
            name: lambda name=name: timed(name, board)  # type: ignore[misc]
            for name in PROGRAMS
        }
        for subject in subjects.values():  # writes the bytecode
            subject()
        samples = interleave(subjects, rounds=arguments.rounds)
        shares = shares_ms(board)
    found = findings(samples)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    about = {
        "date": today,
        "command": shlex.join(["python", "benchmarks/runtime_import.py", *(sys.argv[1:] if argv is None else argv)]),
        "rounds": arguments.rounds,
        "environment": environment({"numpy": np.__version__}),
        "shares_ms": shares,
    }
    folder = arguments.out or Path(__file__).parent / "results" / f"{today}-runtime-import"
    result = {
        "schema_version": 1,
        **about,
        "limit_ms": LIMIT_MS,
        "findings": {name: median.to_json() for name, median in found.items()},
        "samples_ms": {
            name: {"wall": [s[0] for s in each], "cpu": [s[1] for s in each]} for name, each in samples.items()
        },
    }
    write_atomic(folder / "runtime_import.json", json.dumps(result, indent=1) + "\n")
    split = ", ".join(f"{who} {share:.1f} ms" for who, share in sorted(shares.items(), key=lambda item: -item[1]))
    lines = [f"- {key}: {value}" for key, value in environment({"numpy": np.__version__}).items() if value is not None]
    text = [
        f"# What `edgelip.runtime check` imports before it touches an engine, {today}",
        table(found),
        f"One run under `-X importtime`, which slows it: {split}.",
        f"`{about['command']}`",
        "\n".join(lines),
    ]
    write_atomic(folder / "runtime_import.md", "\n\n".join(text) + "\n")
    print(table(found))
    if arguments.check and found[JUDGED].value > LIMIT_MS:
        load, num_cpus = os.getloadavg()[0], len(os.sched_getaffinity(0))
        if load > num_cpus:
            raise MeasurementError(f"{load:.1f} programs wanted {num_cpus} processors. Repeat it when they are free.")
        raise GoalMissed(f"the import takes {found[JUDGED].text()} ms; the limit is {LIMIT_MS:g}. See {folder}.")


def main(argv: Sequence[str] | None = None) -> int:
    try:
        run(argv)
    except EdgelipError as error:
        print(f"runtime_import: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
