from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.runtime.errors import MeasurementError, MissingError
from edgelip.runtime.measurement import BenchRun, Measurement, percentile


def make_run(**changes: Any) -> BenchRun:
    fields: dict[str, Any] = {
        "bundle": "tiny",
        "bundle_sha256": "0" * 64,
        "engine": "ort",
        "precision": "fp32",
        "threads": 1,
        "scenario": "SingleStream",
        "batch": 1,
        "badge": "VALID",
        "reasons": (),
        "command": "",
        "environment": {},
        "warm_up": {"stable": True},
        "cold_start_ms": {"total": 150.0, "new_shape": None},
        "memory_mib": {"peak": 60.0, "arena": None},
        "samples_ns": {
            "latency": tuple(range(1_000_000, 1_000_100)),
            "end_to_end": tuple(range(2_000_000, 2_000_100)),
        },
        "summary": {"num_clips": 100, "clips_per_s": 950.0},
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 1}, "measurement has schema 1; this edgelip reads 2. Measure again."),
        ({"batch": "<b>"}, "measurement has the batch '<b>'; expected 1 or more."),
        ({"threads": 0}, "measurement has the threads 0; expected 1 or more."),
        ({"command": ["rm"]}, "measurement has the command ['rm']; expected a text."),
        ({"schema_version": "2"}, "measurement has schema '2'; this edgelip reads 2. Measure again."),
        ({"latency_ns": [1]}, "measurement has the unknown field 'latency_ns'. Measure again."),
        ({"scenario": "Server"}, "scenario is 'Server'; expected one of SingleStream, MultiStream, Offline, Streaming"),
        ({"badge": "FINE"}, "badge is 'FINE'; expected one of VALID, NOISY"),
        ({"memory_mib": [60.0]}, "measurement has the memory_mib [60.0]; expected an object."),
        ({"reasons": 7}, "measurement has fields ['badge', 'batch', "),
        ({"samples_ns": [1]}, "measurement has the samples_ns [1]; expected lists by name."),
        ({"samples_ns": {"latency": [1.5]}}, "measurement has latency that are not all whole nanoseconds."),
        ({"samples_ns": {"latency": [-1]}}, "measurement has latency that are not all whole nanoseconds."),
        ({"samples_ns": {"latency": [True]}}, "measurement has latency that are not all whole nanoseconds."),
        ({"samples_ns": {"../x": [1]}}, "measurement has samples called '../x'; expected a word like latency."),
    ],
)
def test_run_of_another_schema_or_kind_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MeasurementError) as caught:
        BenchRun.from_json({**make_run().to_json(), **changes})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "measurement is a list; expected an object"), ({"schema_version": 2}, "measurement has fields")],
)
def test_what_is_no_run_is_refused(values: Any, message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        BenchRun.from_json(values)


def test_run_survives_its_two_files(tmp_path: Path) -> None:
    run = make_run()
    run.write(tmp_path / "run.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "run.npz"]
    assert BenchRun.read(tmp_path / "run.json") == run
    entry = json.loads((tmp_path / "run.json").read_text())["samples"]
    assert entry["sha256"] == hashlib.sha256((tmp_path / "run.npz").read_bytes()).hexdigest()
    assert entry["counts"] == {"latency": 100, "end_to_end": 100}
    with np.load(tmp_path / "run.npz", allow_pickle=False) as samples:
        assert samples["latency"].tolist() == list(run.latency_ns)


def test_run_with_inline_samples_is_read_as_well(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(make_run().to_json()))
    assert BenchRun.read(tmp_path / "run.json") == make_run()


def test_run_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"nowhere/run\.npz cannot be written \(No such file or directory\)"):
        make_run().write(tmp_path / "nowhere" / "run.json")


def edited(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    values["samples"].update(changes)
    path.write_text(json.dumps(values))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickled(folder: Path) -> None:
    """Another array under a hash that is right: what somebody who means harm would send."""
    np.savez(folder / "run.npz", latency=np.array([{}], dtype=object), end_to_end=np.zeros(100, np.int64))
    edited(folder / "run.json", sha256=hashlib.sha256((folder / "run.npz").read_bytes()).hexdigest())


def negative(folder: Path) -> None:
    np.savez(folder / "run.npz", latency=np.full(100, -1), end_to_end=np.zeros(100, np.int64))
    edited(folder / "run.json", sha256=hashlib.sha256((folder / "run.npz").read_bytes()).hexdigest())


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "samples cut": (lambda folder: cut(folder / "run.npz"), "run.npz has changed: sha256 "),
    "samples lost": (lambda folder: (folder / "run.npz").unlink(), "run.npz is missing. Measure again"),
    "json cut": (lambda folder: cut(folder / "run.json"), "Measure again, or bring both of its files anew."),
    "json lost": (lambda folder: (folder / "run.json").unlink(), "run.json is missing."),
    "nested": (lambda folder: (folder / "run.json").write_text("[" * 100_000), "Measure again"),
    "a count": (
        lambda folder: edited(folder / "run.json", counts={"latency": 99}),
        "'latency' is int64 (100,); expected int64 (99,)",
    ),
    "a name": (
        lambda folder: edited(folder / "run.json", counts={"label": 1}),
        "'label' has no array 'label'; it holds",
    ),
    "a path": (
        lambda folder: edited(folder / "run.json", file="../run.npz"),
        "its samples lie in '../run.npz'; expected a plain name",
    ),
    "no counts": (
        lambda folder: edited(folder / "run.json", counts=7),
        "its samples have the counts 7; expected a number",
    ),
    "a count that is none": (
        lambda folder: edited(folder / "run.json", counts={"latency": "9"}),
        "its samples have the counts {'latency': '9'}; expected whole numbers",
    ),
    "more than memory holds": (
        lambda folder: edited(folder / "run.json", counts={"latency": 60_000_000, "end_to_end": 60_000_000}),
        "its samples unpack to 960000000 bytes; expected 536870912 at most",
    ),
    "pickled": (pickled, "'latency' holds Python objects; expected plain numbers"),
    "negative": (negative, "latency that are not all whole nanoseconds"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, case: str) -> None:
    damage, message = DAMAGE[case]
    make_run().write(tmp_path / "run.json")
    damage(tmp_path)
    with pytest.raises(MeasurementError) as caught:
        BenchRun.read(tmp_path / "run.json")
    assert str(caught.value).startswith(f"{tmp_path / 'run.json'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(data=st.data())
def test_any_byte_of_the_samples_may_be_wrong(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("run")
    make_run().write(folder / "run.json")
    content = bytearray((folder / "run.npz").read_bytes())
    spot = data.draw(st.integers(0, len(content) - 1))
    content[spot] ^= data.draw(st.integers(1, 255))
    (folder / "run.npz").write_bytes(content)
    # With the hash of what is there: the reader of the arrays must stand alone.
    edited(folder / "run.json", sha256=hashlib.sha256(content).hexdigest())
    refusal = ""
    try:
        assert len(BenchRun.read(folder / "run.json").latency_ns) == 100
    except MeasurementError as error:
        refusal = str(error)
    assert "\n" not in refusal


def test_run_leaves_out_percentiles_with_too_few_samples() -> None:
    names = [measurement.name for measurement in make_run().measurements()]
    assert "latency_p90_ms" in names  # 100 samples: 64 are enough for p90, 130 are not reached for p95
    assert "latency_p95_ms" not in names
    values = {measurement.name: measurement.value for measurement in make_run().measurements()}
    assert values["clips_per_s"] == 950.0
    assert values["latency_p50_ms"] == 1.000049
    assert values["end_to_end_p90_ms"] == 2.000089
