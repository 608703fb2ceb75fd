"""`edgelip pick`: one answer under limits, the reason and the runner-up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgelip.cli.result_folders import default_folder, read_results
from edgelip.errors import GoalMissed, UsageError
from edgelip.registry import nearest
from edgelip.report.ledger import LedgerRow
from edgelip.report.pick import JudgeBy, Limit, Pick, pick
from edgelip.report.quantities import BYTES, JOULES, MEBIBYTES, MILLISECONDS, PERCENT, quantity_from_text

# Option: the units that it takes, and the limit that it sets, 0 until it is given.
OPTIONS: Mapping[str, tuple[Mapping[str, float], Limit]] = {
    "--max-latency-p50": (MILLISECONDS, Limit("latency_p50_ms", "latency p50", "at most", 0, "ms", digits=2)),
    "--max-latency-p90": (MILLISECONDS, Limit("latency_p90_ms", "latency p90", "at most", 0, "ms", digits=2)),
    "--max-bytes": (BYTES, Limit("file_bytes", "file", "at most", 0, "kB", per=1e3)),
    "--max-memory": (MEBIBYTES, Limit("peak_memory_mib", "peak memory", "at most", 0, "MiB")),
    "--max-energy": (JOULES, Limit("energy_gross_j", "energy, gross,", "at most", 0, "mJ", per=1e-3, digits=2)),
    "--max-miss": (PERCENT, Limit("miss_pct", "deadlines missed", "at most", 0, "%", digits=2)),
    "--min-top1": (PERCENT, Limit("top1_pct", "top-1", "at least", 0, "%")),
    "--min-robust": (PERCENT, Limit("robust", "lowest top-1 under disturbance", "at least", 0, "%")),
}
_HOW: Mapping[JudgeBy, str] = {
    "bound": "Judged by the pessimistic end of each 95 % interval; --judge-by value takes the measured values.",
    "value": "Judged by the measured values; --judge-by bound takes the pessimistic end of each 95 % interval.",
}


def pick_variant(
    folder: Path | None,
    limits: Mapping[str, str | None],
    *,
    device: str | None,
    engine: str | None,
    judge_by: str,
    allow_invalid: bool,
    as_json: bool,
) -> tuple[str, GoalMissed | None]:
    """The answer as text, and what to raise after printing it if no variant fits.

    limits: by the names of OPTIONS, None where not given. Raises UsageError for a quantity without a unit, or without
    results.
    """
    if judge_by not in _HOW:
        raise UsageError(f"--judge-by is {judge_by!r}. {nearest(judge_by, _HOW)}")
    by: JudgeBy = "bound" if judge_by == "bound" else "value"
    wanted = limits_from_options(limits)
    results = read_results(folder or default_folder(), device=device, across_devices=False)
    rows = _of_engine(results.ledger.rows, engine, results.folder)
    found = pick(rows, wanted, judge_by=by, allow_invalid=allow_invalid)
    text = json.dumps(found.to_json(), indent=1) + "\n" if as_json else _text(found)
    return text, None if found.variant is not None else GoalMissed(_missed_line(found, results.folder))


def limits_from_options(given: Mapping[str, str | None]) -> list[Limit]:
    """The limits of the options that were given. Raises UsageError for one that is not a quantity."""
    limits = []
    for option, text in given.items():
        units, limit = OPTIONS[option]
        if text is not None:
            limits.append(replace(limit, limit=quantity_from_text(text, units, option=option)))
    return limits


def _of_engine(rows: Sequence[LedgerRow], engine: str | None, folder: Path) -> Sequence[LedgerRow]:
    if engine is None:
        return rows
    known = tuple(dict.fromkeys(str(row.engine) for row in rows))
    found = [row for row in rows if row.engine == engine]
    if not found:
        raise UsageError(f"{folder} holds no row of engine {engine!r}. {nearest(engine, known)}")
    return found


def _text(found: Pick) -> str:
    lines = (
        [] if found.variant is None else [found.variant, f"  {found.reason}", *(f"  {each}" for each in found.limits)]
    )
    if found.variant is not None:
        second = f"{found.runner_up}: {found.runner_up_reason}." if found.runner_up else "none, nothing else fits."
        lines.append(f"Runner-up: {second}")
    if found.excluded:
        lines += ["Excluded:", *(f"  {each.variant}: {'; '.join(each.reasons)}" for each in found.excluded)]
    return "\n".join([*lines, _HOW[found.judged_by]]) + "\n"


def _missed_line(found: Pick, folder: Path) -> str:
    near = next((each for each in found.excluded if each.variant == found.nearest_miss), None)
    if near is None or near.missed_by is None:
        return (
            f"no variant in {folder} fits, and none comes near: each bears a bad badge or lacks a figure. "
            "Measure again on a quiet machine with what is missing; --allow-invalid takes bad badges too."
        )
    return (
        f"no variant in {folder} fits. Nearest: {near.variant}, {'; '.join(near.reasons)}, "
        f"{100 * near.missed_by:.1f} % beyond its limit."
    )
