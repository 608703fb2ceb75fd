"""The samples of a sitting as pytest-benchmark 5 writes its runs, so that `pytest-benchmark compare` reads them."""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgelip.report.results import ResultRow, Sitting
from edgelip.runtime.measurement import COLD_START, BenchRun

FILE = "pytest-benchmark.json"
VERSION = "5.2.3"  # whose schema this is
_HEADLINES = ("latency", "query", "last_frame_to_word")  # the samples that stand for a row, the first that it has


def pytest_benchmark_json(sitting: Sitting, rows: Iterable[tuple[ResultRow, Sequence[BenchRun]]]) -> dict[str, Any]:
    """A run in pytest-benchmark's words; each row of processes is a benchmark, its samples over all launches.

    Rows without timed samples are left out. Quartiles are pytest-benchmark's, not nearest ranks.
    """
    environment = sitting.environment
    return {
        "machine_info": {
            "node": sitting.device,
            "machine": environment.get("machine"),
            "system": environment.get("system"),
            "python_version": environment.get("python"),
            "cpu": {"brand_raw": environment.get("cpu")},
        },
        "commit_info": {},
        "benchmarks": [entry for row, runs in rows if (entry := _benchmark(sitting, row, runs)) is not None],
        "datetime": sitting.finished_at or sitting.started_at,
        "version": VERSION,
    }


def _benchmark(sitting: Sitting, row: ResultRow, runs: Sequence[BenchRun]) -> dict[str, Any] | None:
    seconds = _headline_s(runs)
    if not seconds:
        return None
    name = f"{row.variant}[{row.target.label}]"
    return {
        "group": row.scenario,
        "name": name,
        "fullname": f"{sitting.suite}.toml::{row.scenario}::{name}",
        "params": None,
        "param": None,
        "extra_info": {"badge": row.badge, "launches": row.num_launches, "device": row.target.device},
        "options": {},
        "stats": stats_of(seconds),
    }


def _headline_s(runs: Sequence[BenchRun]) -> list[float]:
    if runs and runs[0].scenario == COLD_START:
        return [total / 1e3 for run in runs if (total := run.cold_start_ms.get("total")) is not None]
    name = next((name for name in _HEADLINES if runs and runs[0].samples_ns.get(name)), None)
    return [] if name is None else [sample / 1e9 for run in runs for sample in run.samples_ns.get(name, ())]


def stats_of(seconds: Sequence[float]) -> Mapping[str, float | int | str]:
    """The statistics of a benchmark as pytest-benchmark computes them."""
    ordered, count = sorted(seconds), len(seconds)
    mean, deviation = statistics.fmean(ordered), statistics.stdev(ordered) if count > 1 else 0.0
    q1, q3 = _quartiles(ordered)
    iqr = q3 - q1
    low, high = bisect_left(ordered, q1 - 1.5 * iqr), bisect_right(ordered, q3 + 1.5 * iqr)
    beyond = count - (bisect_right(ordered, mean + deviation) - bisect_left(ordered, mean - deviation))
    total = sum(ordered)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": deviation,
        "rounds": count,
        "median": statistics.median(ordered),
        "iqr": iqr,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": count - (high - low),
        "stddev_outliers": beyond,
        "outliers": f"{beyond};{count - (high - low)}",
        "ld15iqr": ordered[low],
        "hd15iqr": ordered[high - 1],
        "ops": count / total if total else 0.0,
        "total": total,
        "iterations": 1,
    }


def _quartiles(ordered: Sequence[float]) -> tuple[float, float]:
    """Tukey's for an even count, the mean of both conventions for an odd one; one sample is its own quartile."""
    count = len(ordered)
    if count == 1:
        return ordered[0], ordered[0]
    if count % 2 == 0:
        return statistics.median(ordered[: count // 2]), statistics.median(ordered[count // 2 :])
    n, rest = divmod(count, 4)
    if rest == 1:
        return 0.25 * ordered[n - 1] + 0.75 * ordered[n], 0.75 * ordered[3 * n] + 0.25 * ordered[3 * n + 1]
    return 0.75 * ordered[n] + 0.25 * ordered[n + 1], 0.25 * ordered[3 * n + 1] + 0.75 * ordered[3 * n + 2]
