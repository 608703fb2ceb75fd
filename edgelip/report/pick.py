"""One answer: the best variant under limits, why, and the runner-up; or what excluded each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgelip.errors import UsageError
from edgelip.report.columns import text_of
from edgelip.report.ledger import Figure, LedgerRow
from edgelip.report.metrics import ROBUST, STATIC, metric

JudgeBy = Literal["bound", "value"]
Direction = Literal["at most", "at least"]


@dataclass(frozen=True)
class Limit:
    """figure: by metrics.METRICS, or 'robust', the lowest top-1 over the robustness columns. per: size of `unit`."""

    figure: str
    label: str
    direction: Direction
    limit: float
    unit: str
    per: float = 1.0
    digits: int = 1


@dataclass(frozen=True)
class Judged:
    """One limit on one row. judged: the figure, or the pessimistic end of its interval; missed_by: share of the limit.

    text: as in 'p90 38.1 ms, upper bound 39.0 ms <= 40.0 ms'. missed_by: 0 if it fits, None if it was not measured.
    """

    fits: bool
    judged: float | None
    missed_by: float | None
    text: str


@dataclass(frozen=True)
class Excluded:
    """A row that is not picked, and everything that speaks against it."""

    variant: str
    reasons: tuple[str, ...]
    missed_by: float | None  # the largest share by which it misses a limit; None for a badge or what was not measured


@dataclass(frozen=True)
class Pick:
    """variant: None if none fits. limits: how the variant stands to each, in words."""

    variant: str | None
    reason: str
    limits: tuple[str, ...]
    runner_up: str | None
    runner_up_reason: str | None
    excluded: tuple[Excluded, ...]
    nearest_miss: str | None
    judged_by: JudgeBy

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def pick(
    rows: Sequence[LedgerRow], limits: Sequence[Limit], *, judge_by: JudgeBy = "bound", allow_invalid: bool = False
) -> Pick:
    """Of the rows that fit, the highest top-1; where accuracies are no evidence of a difference, the smaller file.

    judge_by: 'bound': the pessimistic end of the 95 % interval must fit, 'value': the measured value.
    Raises UsageError without rows.
    """
    if not rows:
        raise UsageError("a pick among 0 rows; expected at least 1 measured variant. Measure one first.")
    judged = {row.variant: [judge(row, limit, judge_by) for limit in limits] for row in rows}
    excluded, fitting = [], []
    for row in rows:
        missed = [each for each in judged[row.variant] if not each.fits]
        badge = [] if row.is_valid or allow_invalid else [_badge_reason(row)]
        if missed or badge:
            shares = [each.missed_by for each in missed]
            known = None if badge or None in shares else max(share for share in shares if share is not None)
            excluded.append(Excluded(row.variant, (*badge, *(each.text for each in missed)), known))
        else:
            fitting.append(row)
    if not fitting:
        near = min((each for each in excluded if each.missed_by is not None), key=_missed, default=None)
        reason = f"none of {len(rows)} variants fits."
        return Pick(None, reason, (), None, None, tuple(excluded), near.variant if near else None, judge_by)
    best, reason = _best(fitting)
    others = [row for row in fitting if row is not best]
    second = _best(others)[0] if others else None
    return Pick(
        best.variant,
        reason,
        tuple(each.text for each in judged[best.variant]),
        second.variant if second else None,
        _against(best, second) if second else None,
        tuple(excluded),
        None,
        judge_by,
    )


def judge(row: LedgerRow, limit: Limit, judge_by: JudgeBy) -> Judged:
    """How a row stands to a limit; what was not measured does not fit."""
    figure = _robust(row) if limit.figure == "robust" else row.figure(limit.figure)
    if figure is None:
        return Judged(False, None, None, f"{limit.label} was not measured")
    end = figure.high if limit.direction == "at most" else figure.low
    value = figure.value if judge_by == "value" or end is None else end
    fits = value <= limit.limit if limit.direction == "at most" else value >= limit.limit
    missed_by = 0.0 if fits else abs(value - limit.limit) / limit.limit if limit.limit else float(abs(value))
    bound = "upper bound" if limit.direction == "at most" else "lower bound"
    how = f", {bound} {_shown(end, limit)}" if end is not None else "" if _is_exact(limit.figure) else " (no interval)"
    how = "" if judge_by == "value" else how
    sign = {"at most": ("<=", ">"), "at least": (">=", "<")}[limit.direction][not fits]
    return Judged(
        fits, value, missed_by, f"{limit.label} {_shown(figure.value, limit)}{how} {sign} {_shown(limit.limit, limit)}"
    )


def tied(one: LedgerRow, other: LedgerRow) -> bool:
    """Whether the accuracies of two rows are no evidence of a difference.

    By the paired intervals of their drops to the same first row, whose own is 0; else by the intervals of top-1.
    """
    same_first = one.variant.rpartition("/")[0] == other.variant.rpartition("/")[0]
    for name in ("top1_drop_points", "top1_pct") if same_first else ("top1_pct",):
        mine, its = _ends(one, name), _ends(other, name)
        if mine and its:
            return mine[0] <= its[1] and its[0] <= mine[1]
    return one.top1_pct == other.top1_pct


def _best(rows: Sequence[LedgerRow]) -> tuple[LedgerRow, str]:
    top = min(rows, key=lambda row: (_descending(row.top1_pct), *_size_and_speed(row)))
    alike = [row for row in rows if row is top or (tied(row, top) and not any(_beats(each, row) for each in rows))]
    best = min(alike, key=_size_and_speed)
    if top.top1_pct is None:
        return best, "the smallest file: accuracy was not measured."
    accuracy = f"top-1 {text_of(best.top1_pct, 1)} %"
    if best is top:
        place = "the highest accuracy of those that fit" if len(rows) > 1 else "the only one that fits"
        return best, f"{place}: {accuracy}."
    return best, (
        f"{accuracy} is no evidence of a difference to the {text_of(top.top1_pct, 1)} % of {top.variant} on the same "
        f"clips, and it is {_advantage(best, top)}."
    )


def _beats(one: LedgerRow, other: LedgerRow) -> bool:
    """Whether it is measured as more accurate in a smaller file: a tie by a wide interval is then no reason to pick."""
    more_accurate = _descending(one.top1_pct) < _descending(other.top1_pct)
    return more_accurate and _size_and_speed(one)[0] < _size_and_speed(other)[0]


def _against(best: LedgerRow, second: LedgerRow) -> str:
    if best.top1_pct is None or second.top1_pct is None:
        return f"the picked one is {_advantage(best, second)}"
    if tied(best, second):
        advantage = _advantage(best, second)
        return f"top-1 {text_of(second.top1_pct, 1)} %, no evidence of a difference; the picked one is {advantage}"
    points = best.top1_pct - second.top1_pct
    return (
        f"top-1 {text_of(second.top1_pct, 1)} %, {text_of(abs(points), 1)} points {'lower' if points > 0 else 'higher'}"
    )


def _advantage(row: LedgerRow, other: LedgerRow) -> str:
    if row.file_bytes and other.file_bytes and row.file_bytes != other.file_bytes:
        factor = other.file_bytes / row.file_bytes
        return f"{factor:.2f} times smaller (file)" if factor >= 1 else f"{1 / factor:.2f} times larger (file)"
    if row.latency_p50_ms and other.latency_p50_ms and row.latency_p50_ms != other.latency_p50_ms:
        faster = row.latency_p50_ms < other.latency_p50_ms
        times = f"{text_of(row.latency_p50_ms, 2)} against {text_of(other.latency_p50_ms, 2)} ms"
        return f"{'faster' if faster else 'slower'} (p50 {times})"
    return "alike in file size and latency"


def _size_and_speed(row: LedgerRow) -> tuple[float, float, str]:
    infinite = float("inf")
    size = infinite if row.file_bytes is None else row.file_bytes
    return size, infinite if row.latency_p50_ms is None else row.latency_p50_ms, row.variant


def _descending(value: float | None) -> float:
    return float("inf") if value is None else -value


def _robust(row: LedgerRow) -> Figure | None:
    found = [each for name, each in row.figures.items() if name.startswith(ROBUST) and name.endswith("_pct")]
    return min(found, key=lambda each: each.value if each.low is None else each.low, default=None)


def _is_exact(name: str) -> bool:
    known = metric(name)
    return known is not None and known.kinds == (STATIC,)


def _ends(row: LedgerRow, name: str) -> tuple[float, float] | None:
    figure = row.figure(name)
    return None if figure is None or figure.low is None or figure.high is None else (figure.low, figure.high)


def _badge_reason(row: LedgerRow) -> str:
    why = f" ({'; '.join(row.reasons)})" if row.reasons else ""
    return f"its badge is {row.badge or 'missing'}{why}"


def _missed(each: Excluded) -> float:
    return float("inf") if each.missed_by is None else each.missed_by


def _shown(value: float | None, limit: Limit) -> str:
    assert value is not None
    return f"{text_of(value / limit.per, limit.digits)} {limit.unit}"
