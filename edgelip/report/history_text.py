"""Drift over sittings, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby

from edgelip.report.columns import text_of
from edgelip.report.history import Drift, Point, Series
from edgelip.report.ledger import VALID
from edgelip.report.metrics import metric

_MOST_POINTS = 8  # a series shows its first, its last, and of the others the newest that moved or are not valid
_UNITS = {"B": ("kB", 1e3), "numbers": ("k", 1e3), "J": ("mJ", 1e-3)}


def drift_text(drift: Drift, *, width: int = 100) -> str:
    """Each figure over time: every point that moved (*) or is not valid, the change from first to last, and why."""
    lines = [f"{sittings_text(drift)} since {drift.since}.", ""]
    if drift.left_out:
        lines[0] += f" Left out, not finished: {', '.join(drift.left_out)}."
    for (device, variant, target), group in groupby(sorted(drift.series, key=_row), key=_row):
        lines.append(f"{variant} @ {target} on {device}")
        for series in group:
            lines += [part for line in _series_lines(series) for part in _wrapped(line, width)]
        lines.append("")
    moved = [each for each in drift.series if each.verdict in ("better", "worse", "moved")]
    lines.append(f"{len(moved):,} of {len(drift.series):,} figures moved between their first and last valid sitting.")
    for sentence in (drift.note, "*: the interval does not overlap that of the valid sitting before it."):
        lines += _wrapped(sentence, width)
    return "\n".join(lines) + "\n"


def sittings_text(drift: Drift) -> str:
    """How many sittings: 1 sitting, 2 sittings."""
    return f"{drift.num_sittings:,} sitting{'' if drift.num_sittings == 1 else 's'}"


def unit_of(series: Series) -> tuple[str, float]:
    """The unit that a reader sees, and what a value is divided by for it."""
    return _UNITS.get(series.unit, (series.unit, 1.0))


def _value_text(series: Series, point: Point) -> str:
    per = unit_of(series)[1]
    value = text_of(point.value / per, 2)
    if point.low is None or point.high is None:
        return value
    return f"{value} [{text_of(point.low / per, 2)}, {text_of(point.high / per, 2)}]"


def _row(series: Series) -> tuple[str, str, str]:
    return series.device, series.variant, series.target


def _series_lines(series: Series) -> Sequence[str]:
    known = metric(series.figure)
    assert known is not None
    unit = unit_of(series)[0]
    heading = f"  {series.scenario}: {known.label}{f', {unit}' if unit else ''}"
    change = "" if series.change_pct is None else f" {series.change_pct:+.1f} %"
    why = f"; changed: {', '.join(series.reasons)}" if series.reasons else ""
    shown = _shown(series.points)
    lines = [f"{heading}:{change} {series.verdict}{why}"]
    for point in shown:
        mark = " *" if point.moved else "" if point.badge == VALID else f"  {point.badge}"
        mark += f" {', '.join(point.reasons)}" if point.reasons != series.reasons else ""
        lines.append(f"    {point.measured_at[:16]}  {_value_text(series, point)}{mark}")
    hidden = len(series.points) - len(shown)
    return [*lines, f"    and {hidden:,} more, all in --json"] if hidden else lines


def _shown(points: Sequence[Point]) -> Sequence[Point]:
    if len(points) <= _MOST_POINTS:
        return points
    telling = [point for point in points[1:-1] if point.moved or point.badge != VALID]
    return [points[0], *telling[-(_MOST_POINTS - 2) :], points[-1]]


def _wrapped(line: str, width: int) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(line.strip(), width, initial_indent=indent, subsequent_indent=f"{indent}    ") or [""]
