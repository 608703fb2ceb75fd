"""The figures of one row of results from the processes that ran for it.

A percentile stands where every launch has the samples that it needs; its interval is that between launches, or with one
launch that of order statistics within. Figures that a process has once are medians over launches.

Axes: L launches.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from edgelip.bench.statistics import (
    Estimate,
    early_stopping_estimate,
    launch_percentile,
    launch_ratio,
    order_statistic_interval,
    percentile,
    wilson_interval,
)
from edgelip.errors import MeasurementError
from edgelip.registry import require
from edgelip.report.metrics import METRICS
from edgelip.runtime.measurement import (
    COLD_START,
    MINIMUM_COUNT,
    MULTI_STREAM,
    OFFLINE,
    SINGLE_STREAM,
    STREAMING,
    BenchRun,
    Measurement,
)

Interval = tuple[float, float]

# (samples, prefix of the figures, percentiles); min and max beside them where METRICS knows such a figure.
_STAGES = [(name, name, (50.0,)) for name in ("crop", "normalise", "copy", "model", "label")]
_SAMPLES: Mapping[str, Sequence[tuple[str, str, tuple[float, ...]]]] = {
    SINGLE_STREAM: [
        ("latency", "latency", (50, 90, 95, 99, 99.9)),
        ("end_to_end", "end_to_end", (50, 90, 95, 99)),
        *_STAGES,
    ],
    MULTI_STREAM: [("query", "query", (50, 90, 99))],
    OFFLINE: [],
    STREAMING: [
        ("last_frame_to_word", "last_frame_to_word", (50, 90, 95, 99)),
        ("end_to_end", "end_to_end", (50, 90, 95, 99)),
        *_STAGES,
    ],
    COLD_START: [],
}
_EARLY = {SINGLE_STREAM: ("latency", 90), MULTI_STREAM: ("query", 99)}
_COLD = {
    "cold_imports_ms": "imports",
    "cold_bundle_ms": "bundle",
    "cold_engine_ms": "engine",
    "cold_first_ms": "first_inference",
    "cold_new_shape_ms": "new_shape",
    "cold_start_ms": "total",
}
_MEMORY: Mapping[str, Callable[[Mapping[str, float | None]], float | None]] = {
    "rss_load_mib": lambda mib: _minus(mib.get("rss_after_load"), mib.get("rss_before_load")),
    "rss_run_mib": lambda mib: _minus(mib.get("rss_after_run"), mib.get("rss_after_load")),
    "peak_memory_mib": lambda mib: mib.get("peak"),
    "pss_mib": lambda mib: mib.get("pss"),
    "uss_mib": lambda mib: mib.get("uss"),
    "arena_mib": lambda mib: mib.get("arena"),
    "gpu_mapped_mib": lambda mib: mib.get("gpu_mapped"),
    "available_drop_mib": lambda mib: mib.get("available_drop"),
    "device_memory_mib": lambda mib: _plus(mib.get("device_model"), mib.get("device_run")),
    "device_context_mib": lambda mib: mib.get("device_context"),
}


def measurements_of(
    runs: Sequence[BenchRun],
    *,
    base: Sequence[BenchRun] = (),
    dropped: Sequence[BenchRun] = (),
    badge: str = "VALID",
) -> dict[str, Measurement]:
    """All figures of the launches of one row, by name.

    base: the launches of the first row, which ran beside these; for the first row `runs` itself, whose ratio is exactly
    1. dropped: cold starts with the page cache dropped.
    Raises MeasurementError without runs, or if they are of several scenarios.
    """
    scenarios = {run.scenario for run in runs}
    if len(scenarios) != 1:
        raise MeasurementError(f"{len(runs)} runs of {sorted(scenarios) or 'no scenario'}; expected runs of one.")
    (scenario,) = scenarios
    found = _Figures(badge)
    for name, prefix, percents in _SAMPLES[scenario]:
        _add_percentiles(found, [run.samples_ns.get(name, ()) for run in runs], prefix, percents)
    if scenario in _EARLY:
        name, percent = _EARLY[scenario]
        _add_early(found, [run.samples_ns.get(name, ()) for run in runs], f"{name}_p{percent}_early_ms", percent)
    if scenario == SINGLE_STREAM:
        _add_spread(found, runs)
        _add_ratio(found, runs, base)
        _add_energy(found, runs)
    _add_throughput(found, runs, "clips_per_s", samples="query")
    _add_throughput(found, runs, "end_to_end_clips_per_s", samples="query_end_to_end")
    if scenario == STREAMING:
        _add_deadlines(found, runs)
    if scenario == COLD_START:
        for figure, name in _COLD.items():
            found.add_median(figure, [run.cold_start_ms.get(name) for run in runs])
        found.add_median("cold_start_dropped_ms", [run.cold_start_ms.get("total") for run in dropped])
    for figure, read in _MEMORY.items():
        found.add_median(figure, [read(run.memory_mib) for run in runs])
    return found.by_name


def measurements_of_video(samples_ns: Mapping[str, Sequence[int]]) -> dict[str, Measurement]:
    """What reading a video and finding the mouth takes for one clip, from repeats in one process."""
    found = _Figures("VALID")
    for name, samples in samples_ns.items():
        _add_percentiles(found, [samples], name, (50,))
    return found.by_name


def reasons_of(runs: Sequence[BenchRun]) -> tuple[str, ...]:
    """Every reason of the launches, those that differ in their numbers alone once, and how many launches gave it."""
    first: dict[str, str] = {}
    count: dict[str, int] = {}
    for run in runs:
        for kind, reason in {re.sub(r"[-+]?\d+(?:[.,]\d+)*", "#", reason): reason for reason in run.reasons}.items():
            first.setdefault(kind, reason)
            count[kind] = count.get(kind, 0) + 1
    if len(runs) == 1:
        return tuple(first.values())
    return tuple(f"{reason} ({count[kind]} of {len(runs)} launches)" for kind, reason in first.items())


class _Figures:
    """Measurements by name, as they are added."""

    def __init__(self, badge: str) -> None:
        self.badge = badge
        self.by_name: dict[str, Measurement] = {}

    def add(self, name: str, value: float, num_samples: int, interval: Interval | None = None) -> None:
        self.by_name[name] = Measurement(name, value, METRICS[name].unit, num_samples, interval, self.badge)

    def add_median(self, name: str, values: Iterable[float | None]) -> None:
        """The median of what is known, with the order statistics around it where there are 6 or more."""
        known = [value for value in values if value is not None]
        if known:
            self.add(name, float(np.median(known)), len(known), _median_interval(known))


def _add_percentiles(
    found: _Figures, launches_ns: Sequence[Sequence[int]], prefix: str, percents: Sequence[float]
) -> None:
    launches_ms = [np.asarray(samples, np.float64) / 1e6 for samples in launches_ns]
    least, total = min(map(len, launches_ms)), sum(map(len, launches_ms))
    if not least:
        return
    for name, value in (
        ("min", min(each.min() for each in launches_ms)),
        ("max", max(each.max() for each in launches_ms)),
    ):
        if f"{prefix}_{name}_ms" in METRICS:
            found.add(f"{prefix}_{name}_ms", float(value), total)
    for percent in percents:
        if least >= MINIMUM_COUNT[percent]:  # enough for order statistics on both sides too
            one = len(launches_ms) == 1
            estimate = (
                order_statistic_interval(launches_ms[0].tolist(), percent)
                if one
                else launch_percentile(launches_ms, percent)
            )
            found.add(f"{prefix}_p{percent:g}_ms", estimate.value, total, (estimate.low, estimate.high))


def _add_early(found: _Figures, launches_ns: Sequence[Sequence[int]], name: str, percent: int) -> None:
    """The mean of the launches' early-stopping estimates: bounds, so they have no interval."""
    if min(map(len, launches_ns)) >= MINIMUM_COUNT[percent]:
        bounds_ms = [early_stopping_estimate(samples, percent) / 1e6 for samples in launches_ns]
        found.add(name, float(np.mean(bounds_ms)), sum(map(len, launches_ns)))


def _add_spread(found: _Figures, runs: Sequence[BenchRun]) -> None:
    """Standard deviation of the launches' medians in % of their mean; its interval is that of normal medians."""
    if len(runs) < 2 or min(len(run.latency_ns) for run in runs) < MINIMUM_COUNT[50]:
        return
    medians_L = np.array([percentile(run.latency_ns, 50) for run in runs])
    spread_pct = 100 * float(medians_L.std(ddof=1) / medians_L.mean())
    chi2 = require("scipy.stats", extra="report").chi2
    free = len(runs) - 1
    low, high = (spread_pct * math.sqrt(free / float(chi2.ppf(share, free))) for share in (0.975, 0.025))
    found.add("latency_between_launches_pct", spread_pct, len(runs), (low, high))


def _add_ratio(found: _Figures, runs: Sequence[BenchRun], base: Sequence[BenchRun]) -> None:
    if len(runs) != len(base) or min(len(run.latency_ns) for run in (*runs, *base)) < MINIMUM_COUNT[50]:
        return
    samples, base_samples = ([np.asarray(run.latency_ns) for run in each] for each in (runs, base))
    ratio = Estimate(1.0, 1.0, 1.0) if runs is base else launch_ratio(samples, base_samples, 50)
    found.add("latency_ratio", ratio.value, sum(map(len, samples)), (ratio.low, ratio.high))


def _add_throughput(found: _Figures, runs: Sequence[BenchRun], name: str, *, samples: str) -> None:
    """samples: of the queries that the rate is made of."""
    rates_L = [run.summary[name] for run in runs if run.summary.get(name) is not None]
    if not rates_L:
        return
    num_clips = sum(int(run.summary.get("num_clips", 0)) for run in runs)
    interval = _mean_interval(rates_L)
    if interval is None:
        # One launch: a rate is clips over time, so its interval is that of the mean query.
        query_ns = runs[0].samples_ns.get(samples, ())
        around = _mean_interval(query_ns)
        if around is not None and around[0] > 0:
            mean_ns = float(np.mean(query_ns))
            interval = (rates_L[0] * mean_ns / around[1], rates_L[0] * mean_ns / around[0])
    found.add(name, float(np.mean(rates_L)), num_clips, interval)


def _add_deadlines(found: _Figures, runs: Sequence[BenchRun]) -> None:
    windows, missed = (sum(int(run.summary.get(name) or 0) for run in runs) for name in ("num_windows", "missed"))
    if windows:
        share = wilson_interval(missed, windows)
        found.add("miss_pct", 100 * share.value, windows, (100 * share.low, 100 * share.high))
    factors = [run.summary["real_time_factor"] for run in runs if run.summary.get("real_time_factor") is not None]
    if factors:
        found.add("real_time_factor", float(np.mean(factors)), len(factors), _mean_interval(factors))


def _add_energy(found: _Figures, runs: Sequence[BenchRun]) -> None:
    measured = [run.energy for run in runs if run.energy is not None]
    for figure, name in (("energy_gross_j", "gross_j_per_clip"), ("energy_above_idle_j", "above_idle_j_per_clip")):
        found.add_median(figure, [energy.get(name) for energy in measured])


def _mean_interval(values: Sequence[float]) -> Interval | None:
    """Student's 95 % interval of a mean; None from one value."""
    if len(values) < 2:
        return None
    t = require("scipy.stats", extra="report").t
    mean, half = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half *= float(t.ppf(0.975, len(values) - 1))
    return mean - half, mean + half


def _median_interval(values: Sequence[float]) -> Interval | None:
    try:
        estimate = order_statistic_interval(values, 50)
    except MeasurementError:
        return None
    return estimate.low, estimate.high


def _minus(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _plus(first: float | None, second: float | None) -> float | None:
    return None if first is None and second is None else (first or 0.0) + (second or 0.0)
