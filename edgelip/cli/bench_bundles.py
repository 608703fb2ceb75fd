"""`edgelip bench`: bundles side by side in fresh processes of this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.bench.isolate import Subject, bench_launches
from edgelip.bench.statistics import Estimate, launch_percentile, launch_ratio
from edgelip.cli.tables import aligned
from edgelip.progress import Progress
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.measurement import MINIMUM_COUNT, BenchRun
from edgelip.runtime.validity import GRAVITY, badge_words, not_valid

COLUMNS = ("bundle", "model", "p50 ms", "p90 ms", "p50 to first", "cold start ms", "peak MiB", "badge")


def bench_text(
    bundles: Sequence[Path],
    *,
    engine: str,
    precision: str | None,
    threads: int,
    launches: int,
    seconds: float,
    as_json: bool,
) -> str:
    """A row a bundle: latency with its interval between launches, cold start, memory. Raises what a run raises."""
    subjects = [Subject(path, engine=engine, precision=precision, threads=threads) for path in bundles]
    for path in bundles:
        Bundle.open(path)  # all are whole before the first is measured
    runs = bench_launches(subjects, launches=launches, seconds=seconds, say=Progress().say)
    rows = [_row(launched, runs[0]) for launched in runs]
    note = note_of(bundles, runs)
    if as_json:
        raw = [[run.to_json() for run in launched] for launched in runs]
        return json.dumps({"rows": rows, "note": note, "runs": raw}, indent=1)
    environment = runs[0][0].environment
    heading = f"{engine}, {threads} threads, batch 1, {launches} launches, {environment.get('cpu') or 'this machine'}"
    return "\n".join([heading, *aligned([COLUMNS, *(_cells(row) for row in rows)]), *([note] if note else [])])


def note_of(bundles: Sequence[Path], runs: Sequence[Sequence[BenchRun]]) -> str | None:
    """Which of several bundles spoil their comparison, and why; None if there is none to spoil."""
    worst = [min(launched, key=lambda run: GRAVITY.index(run.badge)) for launched in runs]
    spoilt = [
        badge_words(str(bundle), run.badge, *run.reasons[:1])
        for bundle, run in zip(bundles, worst, strict=True)
        if run.badge != "VALID"
    ]
    return not_valid(spoilt) if len(bundles) > 1 else None


def _row(runs: Sequence[BenchRun], base: Sequence[BenchRun]) -> dict[str, Any]:
    samples_ms, base_ms = ([np.asarray(run.latency_ns) / 1e6 for run in each] for each in (runs, base))
    enough = all(len(samples) >= MINIMUM_COUNT[90] for samples in samples_ms)
    peaks = [run.memory_mib["peak"] for run in runs if run.memory_mib["peak"] is not None]
    return {
        "bundle": runs[0].bundle,
        "model": runs[0].environment["engine_settings"]["model"],
        "latency_p50_ms": _triple(launch_percentile(samples_ms, 50)),
        "latency_p90_ms": _triple(launch_percentile(samples_ms, 90)) if enough else None,
        "latency_ratio": _triple(launch_ratio(samples_ms, base_ms, 50)) if runs is not base else [1.0, 1.0, 1.0],
        "cold_start_ms": float(np.median([run.cold_start_ms["total"] for run in runs])),
        "peak_memory_mib": float(np.median(peaks)) if peaks else None,
        "badges": sorted({run.badge for run in runs}),
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    figures = [_shown(row[key]) for key in ("latency_p50_ms", "latency_p90_ms", "latency_ratio")]
    peak = "-" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.1f}"
    return (row["bundle"], row["model"], *figures, f"{row['cold_start_ms']:.0f}", peak, " ".join(row["badges"]))


def _triple(estimate: Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]


def _shown(triple: list[float] | None) -> str:
    return "-" if triple is None else f"{triple[0]:.2f} [{triple[1]:.2f}, {triple[2]:.2f}]"
