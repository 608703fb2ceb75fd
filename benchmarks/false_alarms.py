"""How often a comparison alarms for nothing on this machine, and how often it finds what was planted.

    python benchmarks/false_alarms.py --bundle export/dist/dense --comparisons 100 --planted 20 --slowdown 5 \
        --out benchmarks/results/DATE-false-alarms

A/A: the same bundle against itself, each time from fresh processes; an interval that excludes 1 is a false alarm.
Planted: against a worker that spins for 5 % of each inference (slowed_worker.py); found if called slower.
Accuracy: real logits on their test clips with 1 point of clips turned wrong (planted_drop.py).
Every finished comparison is a line of comparisons.jsonl in the folder: the same command goes on after a kill.
Exit 3 if a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import environment, markdown_table
from planted_drop import planted_drop
from result_files import exit_code_of, machine_lines, save

from edgelip.bench.compare import PERCENTS, Comparison, Effort, Side, compare_sides
from edgelip.bench.isolate import Subject, deployed_logits
from edgelip.bench.statistics import wilson_interval
from edgelip.bench.suite import TestClips
from edgelip.bench.worker import worker_command
from edgelip.cli.pairing import find_clips
from edgelip.errors import GoalMissed, UsageError
from edgelip.files import write_atomic
from edgelip.progress import Progress
from edgelip.runtime.bundle import Bundle

MOST_ALARMS_PCT, FEWEST_FOUND_PCT = 9.0, 90.0  # 9 of 100, 18 of 20
DISCORDANT_PCT = 2.0  # where the drop must be called: with more, 2,500 clips do not have the power
DONE, STEM = "comparisons.jsonl", "false_alarms"
LEAST_PCT = 2.0
_SLOWED = Path(__file__).resolve().with_name("slowed_worker.py")


def run(argv: Sequence[str] | None) -> None:
    options = _parser().parse_args(argv)
    effort = Effort(pairs=options.pairs, blocks=options.blocks, window_ms=options.window_ms)
    subject = Subject(options.bundle, engine=options.engine)
    bundle = Bundle.open(options.bundle)
    progress = Progress()
    clips = options.clips or find_clips(bundle, bundle)
    accuracy_result = planted_drop(deployed_logits(subject, clips), TestClips.open(clips))
    plan = planned(options.comparisons, options.planted, options.slowdown)
    setting = {"bundle_sha256": bundle.sha256, "engine": options.engine, "effort": asdict(effort), "threads": 1}
    rows = resumed(options.out / DONE, setting)
    with progress.task("comparisons", total=len(plan), unit="comparisons", done=len(rows)) as task:
        for index in range(len(rows), len(plan)):
            begin_s = time.monotonic()
            row = _compared(subject, effort, slowdown_pct=plan[index], seed=index)
            rows.append({**row, "seconds": round(time.monotonic() - begin_s, 2)})
            _keep(options.out / DONE, setting, rows)
            mean_s = sum(row["seconds"] for row in rows) / len(rows)
            task.advance(1, note=f"{mean_s:.1f} s each; {_alarms(rows, 50)} false alarms, {_found(rows)} found")
    numbers = {
        "command": f"python benchmarks/false_alarms.py {' '.join(argv if argv is not None else sys.argv[1:])}",
        "setting": setting,
        "bundle": bundle.name,
        "slowdown_pct": options.slowdown,
        "least_pct": LEAST_PCT,
        "summary": summary(rows),
        "accuracy": accuracy_result,
        "environment": environment({"numpy": np.__version__}),
        "comparisons": rows,
    }
    save(options.out, STEM, numbers=numbers, sections=_sections(numbers))
    print((options.out / f"{STEM}.md").read_text())
    _refuse_missed(numbers)


def planned(num_controls: int, num_planted: int, slowdown_pct: float) -> list[float]:
    """Slowdown of each comparison in turn; the planted ones are spread evenly among the controls."""
    total = num_controls + num_planted
    return [
        slowdown_pct if (index + 1) * num_planted // total > index * num_planted // total else 0.0
        for index in range(total)
    ]


def resumed(path: Path, setting: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What an earlier run of the same setting finished. Raises UsageError for another setting or a damaged file."""
    if not path.exists():
        return []
    try:
        first, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error}). Move it away and run again.") from error
    if first != json.loads(json.dumps(setting)):
        raise UsageError(f"{path} holds comparisons of another bundle or effort. Choose another --out.")
    return rows


def _keep(path: Path, setting: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in [setting, *rows]))


def _compared(subject: Subject, effort: Effort, *, slowdown_pct: float, seed: int) -> dict[str, Any]:
    def command(subject: Subject, cpu: int | None) -> list[str]:
        plain = worker_command(subject.arguments(), cpu=cpu)
        if not slowdown_pct:
            return plain
        return [sys.executable, str(_SLOWED), *plain[4:], "--slowdown", f"{slowdown_pct:g}"]

    other = Side("other", subject, command)
    (found,) = compare_sides(Side("base", subject), [other], replace(effort, seed=seed))
    return {"slowdown_pct": slowdown_pct, "seed": seed, **_row(found)}


def _row(found: Comparison) -> dict[str, Any]:
    row: dict[str, Any] = {"notes": list(found.notes), "invalid": list(found.invalid)}
    for percent in PERCENTS:
        effect = found.effects.get(percent)
        ratios = [pair.log_ratio(percent) for pair in found.pairs]
        row[f"p{percent}"] = None if effect is None else {**effect.to_json(), "verdict": effect.verdict(LEAST_PCT)}
        row[f"p{percent}_log_ratios"] = ratios
    row["latency_p50_ms"] = float(np.median(found.samples_ns("A"))) / 1e6
    return row


def _alarms(rows: Sequence[Mapping[str, Any]], percent: int) -> int:
    """Controls whose interval excludes 1."""
    return sum(not row[f"p{percent}"]["low"] <= 1 <= row[f"p{percent}"]["high"] for row in _controls(rows, percent))


def _controls(rows: Sequence[Mapping[str, Any]], percent: int) -> list[Mapping[str, Any]]:
    return [row for row in rows if not row["slowdown_pct"] and row[f"p{percent}"]]


def _found(rows: Sequence[Mapping[str, Any]], percent: int = 50) -> int:
    """Planted slowdowns that were called slower."""
    return sum(
        row["slowdown_pct"] > 0 and bool(row[f"p{percent}"]) and row[f"p{percent}"]["verdict"] == "slower"
        for row in rows
    )


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """False alarms and finds of each percentile, with Wilson's interval in percent."""
    result: dict[str, Any] = {"minutes": sum(row["seconds"] for row in rows) / 60}
    for percent in PERCENTS:
        controls = _controls(rows, percent)
        planted = [row for row in rows if row["slowdown_pct"] > 0]
        result[f"p{percent}"] = {
            "controls": len(controls),
            "false_alarms": _alarms(rows, percent),
            "false_alarms_pct": _share(_alarms(rows, percent), len(controls)),
            "wrong_verdicts": sum(row[f"p{percent}"]["verdict"] != "no evidence" for row in controls),
            "planted": len(planted),
            "found": _found(rows, percent),
            "found_pct": _share(_found(rows, percent), len(planted)),
            "between_launches_pct": _median([row[f"p{percent}"]["between_launches_pct"] for row in controls]),
            "planted_ratio": _median([row[f"p{percent}"]["ratio"] for row in planted if row[f"p{percent}"]]),
        }
    return result


def _share(hits: int, trials: int) -> list[float] | None:
    if not trials:
        return None
    found = wilson_interval(hits, trials)
    return [100 * found.value, 100 * found.low, 100 * found.high]


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def _sections(numbers: Mapping[str, Any]) -> list[str]:
    found, part = numbers["summary"], numbers["accuracy"]
    rows = []
    for percent in PERCENTS:
        each = found[f"p{percent}"]
        rows.append(
            [
                f"p{percent}",
                f"{each['false_alarms']} of {each['controls']} ({_interval(each['false_alarms_pct'])} %)",
                str(each["wrong_verdicts"]),
                f"{each['found']} of {each['planted']} ({_interval(each['found_pct'])} %)",
                "-" if each["planted_ratio"] is None else f"{each['planted_ratio']:.4f}",
                "-" if each["between_launches_pct"] is None else f"{each['between_launches_pct']:.2f}",
            ]
        )
    slowed = f"{numbers['slowdown_pct']:g} % slower: found"
    head = ["percentile", "A/A false alarms (95 %)", "A/A verdicts of 2 %", slowed, "median ratio", "sd of launches, %"]
    effort = numbers["setting"]["effort"]
    calls = [
        [
            f"{row['discordance_beside_pct']:g} %",
            *(
                f"{row[key]} of {row['of']}"
                for key in ("called", "interval_above_0", "unpaired_called", "no_drop_called")
            ),
        ]
        for row in part["rows"]
    ]
    called = [
        "clips changed beside",
        "McNemar p < 5 %",
        "interval above 0",
        "unpaired p < 5 %",
        "without a drop, p < 5 %",
    ]
    return [
        "# False alarms of a comparison",
        f"{numbers['bundle']} against itself: {effort['pairs']} pairs of launches a comparison, {effort['blocks']} "
        f"blocks of four {effort['window_ms']:g} ms windows; {found['minutes']:.0f} minutes for all. A false alarm "
        "is a 95 % interval of the ratio that excludes 1; found is a verdict of slower by 2 % or more.",
        markdown_table(head, rows),
        f"A drop of {part['drop_points']:g} point planted in {part['num_clips']:,} clips, "
        f"{part['top1_pct']:.2f} % right:",
        markdown_table(called, calls),
        f"Command: `{numbers['command']}`",
        machine_lines(numbers["environment"]),
    ]


def _interval(triple: Sequence[float] | None) -> str:
    return "-" if triple is None else f"{triple[0]:.0f} [{triple[1]:.1f}, {triple[2]:.1f}]"


def _refuse_missed(numbers: Mapping[str, Any]) -> None:
    p50, missed = numbers["summary"]["p50"], []
    if p50["controls"] and p50["false_alarms"] > MOST_ALARMS_PCT / 100 * p50["controls"]:
        missed.append(f"{p50['false_alarms']} false alarms of {p50['controls']}; at most {MOST_ALARMS_PCT:g} % allowed")
    if p50["planted"] and p50["found"] < FEWEST_FOUND_PCT / 100 * p50["planted"]:
        missed.append(f"{p50['found']} of {p50['planted']} slowdowns found; at least {FEWEST_FOUND_PCT:g} % expected")
    for row in numbers["accuracy"]["rows"]:
        total_pct = row["discordance_beside_pct"] + numbers["accuracy"]["drop_points"]
        if total_pct <= DISCORDANT_PCT and row["called"] < FEWEST_FOUND_PCT / 100 * row["of"]:
            what = f"a drop of 1 point with {total_pct:g} % of the clips discordant"
            missed.append(f"{what} called {row['called']} of {row['of']} times; {FEWEST_FOUND_PCT:g} % expected")
    if missed:
        raise GoalMissed(f"{'; '.join(missed)}.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=Path("export/dist/dense"))
    parser.add_argument("--engine", default="ort")
    parser.add_argument("--comparisons", type=int, default=100, help="A/A")
    parser.add_argument("--planted", type=int, default=20)
    parser.add_argument("--slowdown", type=float, default=5.0, metavar="PERCENT")
    parser.add_argument("--pairs", type=int, default=Effort.pairs)
    parser.add_argument("--blocks", type=int, default=Effort.blocks)
    parser.add_argument("--window-ms", type=float, default=Effort.window_ms)
    parser.add_argument("--clips", type=Path, help="default the test clips of the bundle's export")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/false-alarms"))
    return parser


if __name__ == "__main__":
    sys.exit(exit_code_of(run, None, name="false_alarms"))
