"""The figures that a row of results may hold: their units, what is better, and which rows a table takes them from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edgelip.runtime.measurement import (
    COLD_START,
    MINIMUM_COUNT,
    MULTI_STREAM,
    OFFLINE,
    SCENARIOS,
    SINGLE_STREAM,
    STREAMING,
    Measurement,
)

Better = Literal["lower", "higher", "neither"]

STATIC, ACCURACY = "Static", "Accuracy"
KINDS = (STATIC, ACCURACY, *SCENARIOS)  # of rows: what a file is, what it gets right, how it runs


@dataclass(frozen=True)
class Metric:
    """unit: as in the name's end; label: heading of a column, without the unit.

    kinds: of the rows that a table takes it from, the first that has it; in other scenarios it is another figure.
    """

    unit: str
    label: str
    better: Better
    kinds: tuple[str, ...] = ()


def _of(*kinds: str, **metrics: Metric) -> dict[str, Metric]:
    return {name: replace(each, kinds=kinds) for name, each in metrics.items()}


def _times(prefix: str, label: str, *percents: str) -> dict[str, Metric]:
    return {f"{prefix}_{each}_ms": Metric("ms", f"{label} {each}", "lower") for each in percents}


# A robustness column is robust_<condition>_pct and robust_<condition>_drop_points: see edgelip.data.disturbances.
ROBUST = "robust_"

METRICS: Mapping[str, Metric] = {
    **_of(
        STATIC,
        parameters=Metric("numbers", "parameters", "lower"),
        macs=Metric("MAC", "compute", "lower"),
        file_bytes=Metric("B", "file", "lower"),
        bundle_bytes=Metric("B", "bundle", "lower"),
        resident_weights_bytes=Metric("B", "resident weights", "lower"),
        int8_coverage_pct=Metric("%", "int8 share of MACs", "higher"),
        training_hours=Metric("h", "training", "lower"),
        training_seeds=Metric("", "seeds", "neither"),
    ),
    # tensor -> logits, frames -> word, and the steps of the latter
    **_of(
        SINGLE_STREAM,
        **_times("latency", "latency", "min", "p50", "p90", "p95", "p99", "p99.9", "max"),
        latency_p90_early_ms=Metric("ms", "latency p90, early stopping 99 %", "lower"),
        latency_ratio=Metric("", "p50 to the first row", "lower"),
        latency_between_launches_pct=Metric("%", "sd of p50 between launches", "lower"),
        **_times("end_to_end", "frames to word", "p50", "p90", "p95", "p99"),
        **_times("decode", "decode", "p50"),
        **_times("mouth", "find and crop the mouth", "p50"),
        **_times("crop", "crop", "p50"),
        **_times("normalise", "normalise", "p50"),
        **_times("copy", "copy in", "p50"),
        **_times("model", "model", "p50"),
        **_times("label", "label", "p50"),
    ),
    # a query of several clips
    **_of(
        MULTI_STREAM,
        **_times("query", "query", "p50", "p90", "p99"),
        query_p99_early_ms=Metric("ms", "query p99, early stopping 99 %", "lower"),
    ),
    # all at once
    **_of(
        OFFLINE,
        clips_per_s=Metric("clips/s", "throughput", "higher"),
        end_to_end_clips_per_s=Metric("clips/s", "throughput, frames to word", "higher"),
    ),
    # open loop, from the scheduled arrival of the last frame to the word
    **_of(
        STREAMING,
        **_times("last_frame_to_word", "last frame to word", "p50", "p90", "p95", "p99", "max"),
        miss_pct=Metric("%", "deadlines missed", "lower"),
        real_time_factor=Metric("s/s", "compute time a second of video", "lower"),
    ),
    **_of(
        COLD_START,
        SINGLE_STREAM,
        cold_imports_ms=Metric("ms", "imports", "lower"),
        cold_bundle_ms=Metric("ms", "bundle verified", "lower"),
        cold_engine_ms=Metric("ms", "engine loaded", "lower"),
        cold_first_ms=Metric("ms", "first inference", "lower"),
        cold_new_shape_ms=Metric("ms", "first inference of a new shape", "lower"),
        cold_start_ms=Metric("ms", "cold start", "lower"),
        cold_start_dropped_ms=Metric("ms", "cold start, files not in memory", "lower"),
    ),
    # of the process, of the machine where CPU and GPU share it, of a GPU of its own
    **_of(
        SINGLE_STREAM,
        STREAMING,
        STATIC,
        rss_load_mib=Metric("MiB", "RSS taken by loading", "lower"),
        rss_run_mib=Metric("MiB", "RSS taken by running", "lower"),
        peak_memory_mib=Metric("MiB", "peak memory", "lower"),
        pss_mib=Metric("MiB", "PSS", "lower"),
        uss_mib=Metric("MiB", "USS", "lower"),
        arena_mib=Metric("MiB", "engine's activations", "lower"),
        gpu_mapped_mib=Metric("MiB", "mapped by the GPU driver", "lower"),
        available_drop_mib=Metric("MiB", "fall of MemAvailable", "lower"),
        device_memory_mib=Metric("MiB", "device memory of the model", "lower"),
        device_context_mib=Metric("MiB", "device memory of context and libraries", "lower"),
    ),
    # of one clip, inside the boundary that environment["energy_boundary"] of the row names
    **_of(
        SINGLE_STREAM,
        OFFLINE,
        energy_gross_j=Metric("J", "energy, gross", "lower"),
        energy_above_idle_j=Metric("J", "energy above idle", "lower"),
    ),
    # of the deployed file; drops are to the first variant, on the same clips, above 0 is worse
    **_of(
        ACCURACY,
        top1_pct=Metric("%", "top-1", "higher"),
        top5_pct=Metric("%", "top-5", "higher"),
        top1_drop_points=Metric("points", "drop of top-1 to the first row", "lower"),
        mcnemar_p=Metric("", "McNemar p", "neither"),
        hard_top1_pct=Metric("%", "top-1 of words with a look-alike", "higher"),
        calibration_error_pct=Metric("%", "calibration error", "lower"),
        agreement_pct=Metric("%", "same word as float32", "higher"),
        max_logit_difference=Metric("", "largest logit difference to float32", "lower"),
        kl_nats=Metric("nats", "KL from float32", "lower"),
    ),
}
_UNIT_ENDS = ("_ms", "_pct", "_points", "_bytes", "_mib", "_j", "_nats")
_PERCENTILE = re.compile(r"_p(\d+(?:\.\d+)?)(?:_early)?_ms$")


def metric(name: str) -> Metric | None:
    """What is known of a figure by its name; robustness columns by their prefix. None if nothing is."""
    if name.startswith(ROBUST):
        condition = name.removeprefix(ROBUST)
        if condition.endswith("_drop_points"):
            label = f"drop at {condition.removesuffix('_drop_points').replace('_', ' ')}"
            return Metric("points", label, "lower", (ACCURACY,))
        if condition.endswith("_pct"):
            label = f"top-1 at {condition.removesuffix('_pct').replace('_', ' ')}"
            return Metric("%", label, "higher", (ACCURACY,))
    return METRICS.get(name)


def end_name(name: str, end: Literal["low", "high"]) -> str:
    """Name of an end of a figure's interval, the unit last: latency_p50_low_ms."""
    unit = next((unit for unit in _UNIT_ENDS if name.endswith(unit)), "")
    return f"{name.removesuffix(unit)}_{end}{unit}"


def has_enough(measurement: Measurement) -> bool:
    """Whether a percentile has the samples that it needs at least; other figures have."""
    percent = _PERCENTILE.search(measurement.name)
    return percent is None or measurement.num_samples >= MINIMUM_COUNT.get(float(percent[1]), 0)
