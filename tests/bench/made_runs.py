"""Runs of the device side as they would come from a process, with the samples that a test chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgelip.runtime.measurement import SINGLE_STREAM, BenchRun

COLD_MS = {"imports": 100.0, "bundle": 5.0, "engine": 20.0, "first_inference": 3.0, "total": 128.0, "new_shape": None}
MEMORY_MIB = {"rss_before_load": 40.0, "rss_after_load": 60.0, "rss_after_run": 65.0, "peak": 70.0, "pss": 50.0}


def made_run(
    latency_ns: Sequence[int] = (), *, samples_ns: Mapping[str, Sequence[int]] | None = None, **changes: Any
) -> BenchRun:
    """A VALID SingleStream run of bundle `tiny`; `changes` replace its fields."""
    samples = {"latency": latency_ns, "end_to_end": latency_ns} if samples_ns is None else samples_ns
    fields: dict[str, Any] = {
        "bundle": "tiny",
        "bundle_sha256": "a" * 64,
        "engine": "ort",
        "precision": "fp32",
        "threads": 1,
        "scenario": SINGLE_STREAM,
        "batch": 1,
        "badge": "VALID",
        "reasons": (),
        "command": "python -m edgelip.runtime bench tiny",
        "environment": {"cpu": "none"},
        "warm_up": {"num_runs": 10, "duration_ms": 200.0, "stable": True},
        "cold_start_ms": COLD_MS,
        "memory_mib": MEMORY_MIB,
        "samples_ns": {name: tuple(int(each) for each in values) for name, values in samples.items() if len(values)},
        "summary": {"duration_s": 1.0, "num_clips": len(latency_ns)},
    }
    return BenchRun(**{**fields, **changes})
