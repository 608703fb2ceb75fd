"""A sitting of made-up rows of every kind: six variants, one of them on two targets, one throttled."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from typing import Any

from edgelip.report.from_results import ledger_from_rows
from edgelip.report.history import Drift, Point, Series
from edgelip.report.ledger import Ledger
from edgelip.report.metrics import metric
from edgelip.report.results import ResultRow, Sitting, Target
from edgelip.runtime.measurement import Measurement

# Name, kB, MMAC, p50 in ms, top-1 in %, precision, badge.
VARIANTS = (
    ("dense", 3_612, 124.0, 2.51, 92.4, "fp32", "VALID"),
    ("phm4", 941, 124.0, 2.49, 92.0, "fp32", "VALID"),
    ("pruned", 1_804, 61.5, 1.42, 91.1, "fp32", "VALID"),
    ("phm4-int8", 262, 124.0, 1.18, 91.7, "int8", "VALID"),
    ("pruned-phm4-int8", 148, 61.5, 0.71, 90.2, "int8", "NOISY"),
    ("int8-nncf", 933, 124.0, 1.15, 91.9, "int8", "THROTTLED"),
)
REASONS = {"NOISY": ("the clock spread by 7.1 %",), "THROTTLED": ("throttle bit 0x4 was set after launch 3",)}
CONDITIONS = {"dropped_10": 1.4, "fps_15": 3.2, "low_light": 6.3, "jpeg_30": 0.4, "jitter_8px": 12.1, "occluded": 24.0}
WORDS = ("about", "people", "million", "billion", "minister", "because")
SITTING = Sitting(
    suite="benchmarks/suites/quick.toml",
    tier="quick",
    device="here",
    first="dense",
    command="edgelip bench benchmarks/suites/quick.toml --tier quick",
    started_at="2026-11-22T02:00:00+00:00",
    finished_at="2026-11-22T02:08:00+00:00",
    environment={
        "cpu": "Example Core i5-1 at 2.1 GHz",
        "cores": 2,
        "versions": {"onnxruntime": "1.31", "numpy": "2.4"},
    },
    notes=("Synthetic mouths.",),
)


def made_up_rows(*, names: Mapping[str, str] | None = None, **changes: Any) -> list[ResultRow]:
    """Rows of all kinds. names: other names for variants; changes: fields of every row."""
    rows = []
    for variant, size_kb, mmac, p50_ms, top1, precision, badge in VARIANTS:
        name, target = (names or {}).get(variant, variant), Target("here", "ort", precision, 1)
        rows += _rows(name, target, size_kb, mmac, p50_ms, top1, badge, changes)
    other = Target("here", "openvino", "fp32", 1, {"hint": "latency"})
    return rows + _rows((names or {}).get("phm4", "phm4"), other, 941, 124.0, 1.9, 92.0, "VALID", changes)


def made_up_ledger(rows: list[ResultRow] | None = None) -> Ledger:
    return ledger_from_rows(SITTING, rows or made_up_rows())


def made_up_drift() -> Drift:
    points = tuple(
        Point(
            f"2026-11-{day}-quick",
            f"2026-11-{day}T02:00:00+00:00",
            value,
            value * 0.98,
            value * 1.02,
            "VALID",
            day == 22,
        )
        for day, value in ((20, 2.2), (21, 2.21), (22, 2.51))
    )
    series = Series(
        "here", "dense", "ort fp32 1t", "SingleStream", "latency_p50_ms", "ms", points, 14.1, "worse", ("onnxruntime",)
    )
    return Drift("2026-11-20", 3, (), (series,))


def contact_sheet(width_px: int = 160, height_px: int = 32) -> str:
    """A PNG of grey stripes in base64."""
    import numpy as np
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    grey = (np.add.outer(np.arange(height_px) * 3, np.arange(width_px)) % 64) / 64
    imsave(buffer, grey, cmap="gray", format="png", metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()


def _rows(
    name: str, target: Target, size_kb: float, mmac: float, p50_ms: float, top1: float, badge: str, changes: Any
) -> list[ResultRow]:
    single = {
        **{f"latency_{key}_ms": p50_ms * by for key, by in _SPREAD.items()},
        **{f"end_to_end_{key}_ms": p50_ms * _SPREAD[key] + 0.9 for key in ("p50", "p90", "p95")},
        "decode_p50_ms": 0.31, "crop_p50_ms": 0.22, "normalise_p50_ms": 0.29, "copy_p50_ms": 0.02,
        "model_p50_ms": p50_ms, "label_p50_ms": 0.01, "peak_memory_mib": 55 + size_kb / 400, "rss_load_mib": 9.0,
        "pss_mib": 61.5, "arena_mib": 4.2, "energy_gross_j": p50_ms / 90, "energy_above_idle_j": p50_ms / 140,
        "latency_ratio": p50_ms / 2.51, "latency_between_launches_pct": 1.3,
    }  # fmt: skip
    accuracy = {
        "top1_pct": top1, "top5_pct": 99.0, "top1_drop_points": 92.4 - top1, "mcnemar_p": 0.0004,
        "hard_top1_pct": top1 - 9, "calibration_error_pct": 2.1, "agreement_pct": 98.2, "kl_nats": 0.004,
        **{f"robust_{each}_pct": top1 - drop for each, drop in CONDITIONS.items()},
        **{f"robust_{each}_drop_points": drop for each, drop in CONDITIONS.items()},
    }  # fmt: skip
    cold = {"imports": 210.0, "bundle": 31.0, "engine": 64.0 + size_kb / 60, "first": 8.5, "new_shape": 9.9}
    static = {
        "parameters": size_kb * 250, "macs": mmac * 1e6, "file_bytes": size_kb * 1e3, "resident_weights_bytes": 3.59e6,
        "int8_coverage_pct": 99.2 if target.precision == "int8" else 0.0,
    }  # fmt: skip
    cold_ms = {f"cold_{key}_ms": value for key, value in cold.items()}
    kinds = {
        "Static": (static, {"method": name.replace("-", ", ")}),
        "Accuracy": (accuracy, {"words": _words(top1), "sheet_png": contact_sheet(), "speakers": 100}),
        "SingleStream": (single, {"layers": _layers(p50_ms)}),
        "MultiStream": ({"query_p50_ms": p50_ms * 8, "query_p90_ms": p50_ms * 9.1, "query_p99_ms": p50_ms * 11}, {}),
        "Offline": ({"clips_per_s": 1000 / p50_ms * 1.1}, {}),
        "Streaming": ({"last_frame_to_word_p50_ms": p50_ms + 1, "last_frame_to_word_p99_ms": p50_ms * 2.2,
                       "miss_pct": 0.04, "real_time_factor": p50_ms / 40}, {}),
        "ColdStart": ({**cold_ms, "cold_start_ms": math.fsum(cold.values()) - 9.9}, {}),
    }  # fmt: skip
    common = {
        "variant": name, "bundle_sha256": f"{round(size_kb * 1e6):064x}", "target": target,
        "measured_at": "2026-11-22T02:03:00+00:00", "command": f"edgelip bench quick.toml --only '{name}'",
        "num_launches": 5, "environment": {"energy_boundary": "VDD_IN"},
    }  # fmt: skip
    rows = []
    for kind, (values, details) in kinds.items():
        own = badge if kind == "SingleStream" else "VALID"
        found = {each: _measurement(each, value, own) for each, value in values.items()}
        fields = {
            "scenario": kind,
            "measurements": found,
            "details": details,
            "badge": own,
            "reasons": REASONS.get(own, ()),
        }
        rows.append(ResultRow(**{**common, **fields, **changes}))
    return rows


_SPREAD = {"min": 0.94, "p50": 1.0, "p90": 1.09, "p95": 1.16, "p99": 1.4, "max": 2.7}


def _measurement(name: str, value: float, badge: str) -> Measurement:
    known = metric(name)
    assert known is not None
    wide = {"ms": 0.02, "%": 0.011, "points": 0.3}.get(known.unit)
    interval = None if wide is None else (value * (1 - wide), value * (1 + wide))
    return Measurement(name, float(value), known.unit, 2_500, interval, badge)


def _layers(p50_ms: float) -> list[dict[str, Any]]:
    shares = {
        "stem": 0.31,
        "trunk.stage1": 0.27,
        "trunk.stage2": 0.19,
        "tcn": 0.14,
        "head": 0.01,
        "between layers": 0.08,
    }
    return [
        {"name": name, "ms": p50_ms * share, "share_pct": 100 * share, "gmac": share / 8, "int8_pct": 100.0,
         "gops": 41.2, "ceiling_pct": 37.0, "limits": "arithmetic" if share > 0.2 else "memory"}
        for name, share in shares.items()
    ]  # fmt: skip


def _words(top1: float) -> list[dict[str, Any]]:
    words = []
    for place, word in enumerate(WORDS):
        right = round(100 * top1 / 100) - 2 * place
        words.append({"word": word, "clips": 100, "right": right, "taken_for": [[WORDS[place - 1], 100 - right]]})
    return words
