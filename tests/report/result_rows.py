"""Rows of results as a suite leaves them, without running anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgelip.report.metrics import METRICS, metric
from edgelip.report.results import ResultRow, Sitting, Target, write_row, write_sitting
from edgelip.runtime.measurement import Measurement

TARGET = Target("here", "ort", "fp32", 1)
ENVIRONMENT = {
    "machine": "x86_64", "system": "Linux 6.1", "cpu": "Two-core CPU", "governor": "performance",
    "engine_settings": {"onnxruntime": "1.30.0", "model": "model.fp32.onnx"},
}  # fmt: skip
SITTING = Sitting(
    suite="quick", tier="quick", device="here", first="dense", command="edgelip bench quick.toml",
    started_at="2026-11-20T10:00:00+00:00", finished_at="2026-11-20T10:09:00+00:00", environment=ENVIRONMENT,
)  # fmt: skip

Values = Mapping[str, float | tuple[float, float, float]]
FIGURES: Mapping[str, Values] = {
    "Static": {"file_bytes": 100_000, "parameters": 25_000, "macs": 1e6, "resident_weights_bytes": 90_000},
    "Accuracy": {
        "top1_pct": (90.0, 88.0, 92.0), "top5_pct": (99.0, 98.0, 99.5), "top1_drop_points": (0.0, 0.0, 0.0),
        "mcnemar_p": 1.0, "robust_dropped_10_pct": (80.0, 78.0, 82.0),
    },
    "SingleStream": {
        "latency_p50_ms": (2.0, 1.9, 2.1), "latency_p90_ms": (3.0, 2.8, 3.2), "latency_p99_ms": (4.0, 3.5, 5.0),
        "peak_memory_mib": (60.0, 59.0, 61.0), "energy_gross_j": 0.02, "cold_start_ms": 400.0,
    },
    "ColdStart": {"cold_start_ms": (300.0, 290.0, 310.0), "cold_imports_ms": 90.0},
    "MultiStream": {"query_p99_ms": (20.0, 19.0, 21.0), "clips_per_s": 400.0, "peak_memory_mib": 90.0},
    "Offline": {"clips_per_s": (500.0, 490.0, 510.0)},
    "Streaming": {"miss_pct": (0.5, 0.2, 0.9), "last_frame_to_word_p99_ms": (6.0, 5.0, 7.0), "real_time_factor": 0.05},
}  # fmt: skip


def measured(name: str, value: float | tuple[float, float, float], *, num_samples: int = 7000) -> Measurement:
    known = metric(name)
    assert known is not None, name
    whole, interval = (value[0], (value[1], value[2])) if isinstance(value, tuple) else (value, None)
    return Measurement(name, whole, known.unit, num_samples, interval)


def result_row(
    variant: str = "dense", scenario: str = "SingleStream", *, badge: str = "VALID", **changes: Any
) -> ResultRow:
    """A row of FIGURES; `figures` replaces some of them."""
    values = {**FIGURES[scenario], **changes.pop("figures", {})}
    row = ResultRow(
        variant=variant, bundle_sha256=f"{variant:a<64}"[:64], target=TARGET, scenario=scenario,
        measured_at="2026-11-20T10:01:00+00:00", command=f"edgelip bench quick.toml --only {variant}", badge=badge,
        reasons=() if badge == "VALID" else ("clocks moved by 9 %",), num_launches=5,
        measurements={name: measured(name, value) for name, value in values.items()}, environment=ENVIRONMENT,
    )  # fmt: skip
    return replace(row, **changes)


def write_results(folder: Path, *rows: ResultRow, **changes: Any) -> Path:
    """A sitting of these rows; default all kinds of rows of one variant."""
    write_sitting(folder, replace(SITTING, **changes))
    for row in rows or [result_row(scenario=kind) for kind in FIGURES]:
        write_row(folder, row)
    return folder


assert set(METRICS) >= {name for values in FIGURES.values() for name in values if not name.startswith("robust_")}
