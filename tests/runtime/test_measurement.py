from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.runtime.errors import MeasurementError
from edgelip.runtime.measurement import BenchRun, Measurement, percentile


def make_run(**changes: Any) -> BenchRun:
    fields: dict[str, Any] = {
        "bundle": "tiny",
        "bundle_sha256": "0" * 64,
        "engine": "ort",
        "precision": "fp32",
        "threads": 1,
        "badge": "VALID",
        "reasons": (),
        "command": "",
        "environment": {},
        "warm_up": {"stable": True},
        "cold_start_ms": {"total": 150.0},
        "memory_mib": {"peak": 60.0},
        "latency_ns": tuple(range(1_000_000, 1_000_100)),
        "end_to_end_ns": tuple(range(2_000_000, 2_000_100)),
    }
    return BenchRun(**{**fields, **changes})


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.integers(1, 1000))
def test_percentile_is_numpys_inverted_cdf(samples: list[float], permille: int) -> None:
    rank = -(-permille * len(samples) // 1000)  # in whole numbers
    assert percentile(samples, permille / 10) == sorted(samples)[rank - 1]


def test_percentile_agrees_with_numpy() -> None:
    samples = np.random.default_rng(0).normal(size=37).tolist()
    for percent in (1, 50, 90, 99, 100):
        assert percentile(samples, percent) == np.percentile(samples, percent, method="inverted_cdf")


@pytest.mark.parametrize(("samples", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_percentile_refuses_nonsense(samples: list[float], percent: float) -> None:
    with pytest.raises(MeasurementError, match="expected 0 < percent <= 100 and at least one sample"):
        percentile(samples, percent)


def test_measurement_survives_json() -> None:
    measurement = Measurement("latency_p50_ms", 1.5, "ms", 64, (1.4, 1.6))
    assert Measurement.from_json(json.loads(json.dumps(measurement.to_json()))) == measurement
    with pytest.raises(MeasurementError, match="measurement has fields"):
        Measurement.from_json({"name": "x"})


def test_measurement_refuses_an_unknown_badge() -> None:
    with pytest.raises(MeasurementError, match="badge is 'FINE'; expected one of VALID, NOISY"):
        Measurement("x", 1.0, "ms", 1, badge="FINE")


def test_run_survives_json() -> None:
    run = make_run()
    assert BenchRun.from_json(json.loads(json.dumps(run.to_json()))) == run


def test_run_of_another_schema_is_refused() -> None:
    with pytest.raises(MeasurementError, match=r"has schema 2; this edgelip reads 1\. Measure again"):
        BenchRun.from_json({**make_run().to_json(), "schema_version": 2})
    with pytest.raises(MeasurementError, match="measurement has fields"):
        BenchRun.from_json({"schema_version": 1})


def test_run_leaves_out_percentiles_with_too_few_samples() -> None:
    names = [measurement.name for measurement in make_run().measurements()]
    assert "latency_p90_ms" in names  # 100 samples: 64 are enough for p90, 130 are not reached for p95
    assert "latency_p95_ms" not in names
    values = {measurement.name: measurement.value for measurement in make_run().measurements()}
    assert values["latency_p50_ms"] == 1.000049
    assert values["end_to_end_p90_ms"] == 2.000089
