"""Time and memory of `edgelip report` and `edgelip report --since` over thousands of stored rows of results.

    python benchmarks/report_scale.py -o benchmarks/results/DATE-report-scale

Makes 250 sittings of 40 rows in a temporary folder, then runs each command in fresh processes: seconds from start to
end, and the largest resident set. Exit 3 if one takes 10 s or 500 MB, or more.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from result_files import exit_code_of, machine_lines, save

from edgelip.errors import GoalMissed, MeasurementError
from edgelip.progress import Progress
from edgelip.report.metrics import KINDS, METRICS
from edgelip.report.results import ResultRow, Sitting, Target, write_row, write_sitting
from edgelip.runtime.measurement import Measurement
from edgelip.runtime.sensors.process import environment as describe_machine

_MOST_SECONDS, _MOST_MB = 10.0, 500.0
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_COMMANDS: Mapping[str, Sequence[str]] = {
    "newest sitting": (),
    "drift over all": ("--since", "2026-01-01"),
    "drift over all, JSON": ("--since", "2026-01-01", "--json"),
}


@dataclass(frozen=True)
class Cost:
    """One process: from start to end, and its largest resident set."""

    seconds: float
    peak_mb: float


def write_sittings(folder: Path, *, num_sittings: int, num_rows: int) -> int:
    """Sittings with every figure that a row of its kind can have; returns their bytes."""
    chance = random.Random(5)
    machine = describe_machine()
    for number in range(num_sittings):
        moment = (_BEGIN + timedelta(days=number)).isoformat(timespec="seconds")
        environment = {**machine, "engine_settings": {"onnxruntime": f"1.{30 + number // 100}.0"}}
        sitting = Sitting(
            "scale", "standard", "here", "variant-0", "edgelip bench scale.toml", moment, moment, environment
        )
        place = folder / f"{moment.replace(':', '')}-scale"
        write_sitting(place, sitting)
        for index in range(num_rows):
            write_row(place, _row(chance, index, moment, environment))
    return sum(path.stat().st_size for path in folder.rglob("*.json"))


def _row(chance: random.Random, index: int, moment: str, environment: Mapping[str, Any]) -> ResultRow:
    variant, kind = f"variant-{index // len(KINDS)}", KINDS[index % len(KINDS)]
    badge = "NOISY" if chance.random() < 0.1 else "VALID"
    measurements = {}
    for name, metric in METRICS.items():
        if kind in metric.kinds:
            value = chance.uniform(2.0, 2.2)
            interval = (value * 0.98, value * 1.02)
            measurements[name] = Measurement(name, value, metric.unit, 7000, interval, badge)
    return ResultRow(
        variant=variant,
        bundle_sha256=f"{index // len(KINDS):064x}",
        target=Target("here", "ort", "fp32", 1),
        scenario=kind,
        measured_at=moment,
        command=f"edgelip bench scale.toml --only {variant}",
        badge=badge,
        reasons=() if badge == "VALID" else ("clocks moved by 7 %",),
        num_launches=5,
        measurements=measurements,
        environment=environment,
    )


def cost_of(command: Sequence[str]) -> Cost:
    """Run it in a fresh process. Raises MeasurementError if it fails."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise MeasurementError(f"{' '.join(command)} ended with {process.returncode}: {said.strip()[-500:]}")
    return Cost(seconds, usage.ru_maxrss * 1024 / 1e6)


def run(argv: Sequence[str] | None) -> None:
    """Raises GoalMissed where a command takes longer or more memory than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--sittings", type=int, default=250)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(argv)
    if min(options.sittings, options.rows, options.repeats) < 1:
        given = f"--sittings {options.sittings}, --rows {options.rows}, --repeats {options.repeats}"
        parser.error(f"{given}; expected 1 or more of each")
    say = Progress().say
    folder = Path(tempfile.mkdtemp(prefix="report-scale-"))
    try:
        say(f"writing {options.sittings * options.rows:,} rows")
        num_bytes = write_sittings(folder, num_sittings=options.sittings, num_rows=options.rows)
        costs: dict[str, list[Cost]] = {}
        for name, arguments in _COMMANDS.items():
            command = [sys.executable, "-m", "edgelip", "report", str(folder), *arguments]
            costs[name] = [cost_of(command) for _ in range(options.repeats)]
            say(f"{name}: {', '.join(f'{cost.seconds:.1f} s, {cost.peak_mb:.0f} MB' for cost in costs[name])}")
    finally:
        shutil.rmtree(folder)
    worst = {
        name: Cost(max(each.seconds for each in own), max(each.peak_mb for each in own)) for name, own in costs.items()
    }
    _save(options, num_bytes, costs, worst)
    missed = [name for name, cost in worst.items() if cost.seconds >= _MOST_SECONDS or cost.peak_mb >= _MOST_MB]
    if missed:
        raise GoalMissed(f"{', '.join(missed)}: took {_MOST_SECONDS:.0f} s or {_MOST_MB:.0f} MB, or more.")


def _save(
    options: argparse.Namespace, num_bytes: int, costs: Mapping[str, Sequence[Cost]], worst: Mapping[str, Cost]
) -> None:
    machine = describe_machine()
    num_rows = options.sittings * options.rows
    numbers = {
        "machine": machine,
        "num_sittings": options.sittings,
        "num_rows": num_rows,
        "stored_bytes": num_bytes,
        "limits": {"seconds": _MOST_SECONDS, "peak_mb": _MOST_MB},
        "costs": {name: [vars(each) for each in own] for name, own in costs.items()},
    }
    lines = [f"| {name} | {cost.seconds:.1f} | {cost.peak_mb:.0f} |" for name, cost in worst.items()]
    sections = [
        "# Reporting over many stored results",
        f"{num_rows:,} rows of results in {options.sittings} sittings, {num_bytes / 1e6:.0f} MB of JSON. Worst of "
        f"{options.repeats} fresh processes a command, with all imports and every file written.",
        f"Limits: {_MOST_SECONDS:.0f} s and {_MOST_MB:.0f} MB.",
        "\n".join(["| command | seconds | largest resident set, MB |", "| --- | ---: | ---: |", *lines]),
        "## Machine",
        machine_lines(machine),
    ]
    save(options.out, "report_scale", numbers=numbers, sections=sections)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0, 3 for a limit missed, or that of the error that ended it."""
    return exit_code_of(run, argv, name="report_scale")


if __name__ == "__main__":
    sys.exit(main())
