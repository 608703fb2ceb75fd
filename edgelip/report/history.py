"""How figures moved over sittings: a pointer to what changed, not a judge.

Times of different sittings on a machine that others use do not compare; `edgelip compare` measures two bundles in turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from edgelip.errors import UsageError
from edgelip.report.ledger import VALID
from edgelip.report.metrics import ACCURACY, STATIC, has_enough, metric
from edgelip.report.results import ResultRow
from edgelip.runtime.measurement import COLD_START, MULTI_STREAM, OFFLINE, SINGLE_STREAM, STREAMING

Verdict = Literal["better", "worse", "moved", "no evidence", "no interval", "one sitting", "none valid"]

NOTE = (
    "Times of different sittings do not compare on a machine that others use: this points to what to look at. "
    "`edgelip compare A B` measures two bundles in turn and judges."
)
MAIN_FIGURES: Mapping[str, tuple[str, ...]] = {
    STATIC: ("file_bytes", "parameters"),
    ACCURACY: ("top1_pct",),
    SINGLE_STREAM: ("latency_p50_ms", "latency_p90_ms", "end_to_end_p50_ms", "peak_memory_mib", "energy_gross_j"),
    MULTI_STREAM: ("query_p99_ms",),
    OFFLINE: ("clips_per_s",),
    STREAMING: ("miss_pct", "last_frame_to_word_p99_ms"),
    COLD_START: ("cold_start_ms",),
}
Key = tuple[str, str, str, str, str]  # device, variant, target, scenario, figure
# What of an environment may move a figure; of its tables, all keys or these.
_ENVIRONMENT = (
    "system", "machine", "cpu", "device", "num_cpus", "num_cpus_allowed", "governor", "int8_dot_product", "python",
    "numpy", "energy_boundary",
)  # fmt: skip
_TABLES: Mapping[str, tuple[str, ...] | None] = {
    "engine_settings": None, "board": ("l4t", "jetpack", "power_mode", "clocks_locked"),
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A figure in one sitting.

    moved: its interval and that of the last valid point before do not overlap; reasons: what changed since that one.
    """

    sitting: str
    measured_at: str
    value: float
    low: float | None
    high: float | None
    badge: str
    moved: bool = False
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Series:
    """A figure over time, oldest first. Only VALID points are judged.

    change_pct: last against first valid one, None with fewer than two or from 0. reasons: what of environment and
    bundle changed between them, the likely reasons.
    """

    device: str
    variant: str
    target: str
    scenario: str
    figure: str
    unit: str
    points: tuple[Point, ...]
    change_pct: float | None
    verdict: Verdict
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Drift:
    """Every series over the sittings from `since` on. left_out: sittings that are not finished."""

    since: str
    num_sittings: int
    left_out: tuple[str, ...]
    series: tuple[Series, ...]
    note: str = NOTE

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class History:
    """Collects rows, oldest sitting first, keeping of each only what drift shows."""

    def __init__(self) -> None:
        self._points: dict[Key, list[tuple[Point, int]]] = {}
        self._places: dict[tuple[tuple[str, str], ...], int] = {}

    def add(self, sitting: str, rows: Iterable[ResultRow], *, environment: Mapping[str, Any]) -> None:
        """environment: of the sitting, for what a row does not say itself."""
        for row in rows:
            place = tuple(sorted(_place(row.bundle_sha256, {**environment, **row.environment}).items()))
            number = self._places.setdefault(place, len(self._places))
            for name in MAIN_FIGURES[row.scenario]:
                found = row.measurements.get(name)
                if found is None or not has_enough(found):
                    continue
                low, high = found.interval or (None, None)
                point = Point(sitting, row.measured_at, found.value, low, high, row.badge)
                key = (row.target.device, row.variant, row.target.label, row.scenario, name)
                self._points.setdefault(key, []).append((point, number))

    def drift(self, *, since: str, num_sittings: int, left_out: Sequence[str] = ()) -> Drift:
        """Raises UsageError if nothing was measured."""
        if not self._points:
            raise UsageError(f"no results since {since}. Name an earlier day, or measure: edgelip bench SUITE.toml.")
        places = [dict(place) for place in self._places]
        series = [_series(key, points, places) for key, points in self._points.items()]
        return Drift(since, num_sittings, tuple(left_out), tuple(series))


def _series(key: Key, points: Sequence[tuple[Point, int]], places: Sequence[Mapping[str, str]]) -> Series:
    scenario, known = key[3], metric(key[4])
    assert known is not None
    marked: list[Point] = []
    valid: list[tuple[Point, int]] = []
    for point, place in points:
        moved = point.badge == VALID and bool(valid) and _apart(valid[-1][0], point, scenario) is True
        reasons = _changes(places[valid[-1][1]], places[place]) if moved else ()
        marked.append(replace(point, moved=moved, reasons=reasons))
        if point.badge == VALID:
            valid.append((point, place))
    first, last = (valid[0], valid[-1]) if valid else (None, None)
    change_pct: float | None = None
    verdict: Verdict = "one sitting" if valid else "none valid"
    reasons = ()
    if first is not None and last is not None and len(valid) > 1:
        (before, place_before), (after, place_after) = first, last
        change_pct = 100 * (after.value - before.value) / before.value if before.value else None
        verdict = _verdict(before, after, scenario, known.better)
        reasons = _changes(places[place_before], places[place_after])
    return Series(*key, known.unit, tuple(marked), change_pct, verdict, reasons)


def _verdict(before: Point, after: Point, scenario: str, better: str) -> Verdict:
    apart = _apart(before, after, scenario)
    if apart is None:
        return "no interval"
    if not apart:
        return "no evidence"
    if better == "neither":
        return "moved"
    return "better" if (after.value < before.value) is (better == "lower") else "worse"


def _apart(before: Point, after: Point, scenario: str) -> bool | None:
    """Whether the intervals do not overlap; None where one is missing. What a file is needs no interval."""
    if scenario == STATIC:
        return before.value != after.value
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return None
    return before.high < after.low or after.high < before.low


def _place(bundle_sha256: str, environment: Mapping[str, Any]) -> dict[str, str]:
    """What of a bundle and an environment may explain that a figure moved."""
    place = {key: str(environment[key]) for key in _ENVIRONMENT if environment.get(key) is not None}
    for table, keys in _TABLES.items():
        values = environment.get(table)
        if isinstance(values, Mapping):
            named = {str(key): str(value) for key, value in values.items() if key != "model"}
            place |= {key: value for key, value in named.items() if keys is None or key in keys}
    return {**place, "bundle": bundle_sha256[:12]}


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    keys = sorted(before.keys() | after.keys())
    return tuple(
        f"{key} {before.get(key, 'unknown')} -> {after.get(key, 'unknown')}"
        for key in keys
        if before.get(key) != after.get(key)
    )
