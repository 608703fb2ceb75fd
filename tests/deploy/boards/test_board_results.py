"""What a board answers: whatever it is, it is understood or refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundles import write_bundle

from edgelip.deploy.boards.results import (
    BadAnswer,
    DeviceResult,
    built_files,
    built_key,
    json_from_answer,
    parity_from_answer,
    report_from_answer,
    result_from,
    results_table,
    run_from_answer,
)
from edgelip.deploy.boards.wanted import Wanted, wanted_models
from edgelip.runtime.check import Parity
from edgelip.runtime.measurement import BenchRun

KEY = "x86-avx2-ort1.31"


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Wanted:
    return wanted_models([write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")], "ort", None)[0]


def parity(wanted: Wanted) -> Parity:
    return Parity("tiny", 3, 8, "ort", "fp32", None, 1e-7, wanted.model.entry.tolerance, 8)


def bench_run(wanted: Wanted, num_samples: int = 100) -> BenchRun:
    samples = tuple(range(1_000_000, 1_000_000 + num_samples))
    return BenchRun(
        "tiny", wanted.bundle.sha256, "ort", "fp32", 1, "SingleStream", 1, "VALID", (), "bench", {}, {},
        {"total": 1.0, "new_shape": None}, {"peak": 60.0}, {"latency": samples, "end_to_end": samples},
        {"num_clips": num_samples, "clips_per_s": 900.5},
    )  # fmt: skip


def sidecar(wanted: Wanted, files: dict[str, Any]) -> bytes:
    known = {"engine": "ort", "device_key": KEY, "bundle_sha256": wanted.bundle.sha256, "model": "model.fp32.onnx"}
    return json.dumps({**known, "files": files}).encode()


REPORT = {
    "python": {"version": "3.8.10", "executable": "/usr/bin/python3"},
    "numpy": {"version": "1.24.4", "why_not": None},
    "engines": {
        "ort": {"package": "onnxruntime", "version": "1.19.2", "device_key": KEY, "why_not": None, "mend": None}
    },
    "machine": {"machine": "aarch64"},
}
TOLD = {"engine": "ort", "device_key": KEY}
VALID: dict[str, tuple[Callable[[Wanted], Any], Callable[[bytes, Wanted], object]]] = {
    "report": (lambda wanted: REPORT, lambda content, wanted: report_from_answer(content)),
    "check": (lambda wanted: [parity(wanted).to_json()], parity_from_answer),
    "bench": (lambda wanted: bench_run(wanted).to_json(), run_from_answer),
    "build": (lambda wanted: [TOLD], lambda content, wanted: built_key(content, "ort", KEY)),
    "sidecar": (
        lambda wanted: json.loads(sidecar(wanted, {"plan": {"sha256": "0" * 64, "bytes": 5}})),
        lambda content, wanted: built_files(content, wanted, KEY),
    ),
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def refusal(read: Callable[[], object]) -> str:
    """Text of a BadAnswer; empty if the answer is understood."""
    try:
        read()
    except BadAnswer as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", VALID)
def test_a_good_answer_is_understood(name: str, wanted: Wanted) -> None:
    make, read = VALID[name]
    assert read(json.dumps(make(wanted)).encode(), wanted)


@pytest.mark.parametrize("name", VALID)
@given(answer=ANYTHING)
def test_any_json_is_understood_or_refused(name: str, wanted: Wanted, answer: Any) -> None:
    _, read = VALID[name]
    with pytest.raises(BadAnswer) as caught:
        read(json.dumps(answer).encode(), wanted)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", VALID)
@given(data=st.data())
def test_an_answer_with_one_value_replaced_is_understood_or_refused(name: str, wanted: Wanted, data: Any) -> None:
    make, read = VALID[name]
    answer = json.loads(json.dumps(make(wanted)))
    spot = answer
    while True:
        keys = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(spot[key], (dict, list)) or not spot[key] or data.draw(st.booleans()):
            break
        spot = spot[key]
    spot[key] = data.draw(ANYTHING)
    assert "\n" not in refusal(lambda: read(json.dumps(answer).encode(), wanted))


@given(content=st.binary(max_size=200))
def test_any_bytes_are_json_or_refused(content: bytes) -> None:
    assert refusal(lambda: json_from_answer(content)).partition(" (")[0] in ("", "is no JSON that can be read")


@pytest.mark.parametrize("text", ["NaN", "[1e999]", '{"a": 1, "a": 2}', "[" * 10_000, "9" * 5000])
def test_numbers_without_end_and_double_keys_are_refused(text: str) -> None:
    with pytest.raises(BadAnswer, match=r"^is no JSON that can be read"):
        json_from_answer(text.encode())


def test_a_check_of_another_limit_is_refused(wanted: Wanted) -> None:
    answer = json.dumps([{**asdict(parity(wanted)), "limit": 1.0, "max_difference": 0.5}]).encode()
    with pytest.raises(BadAnswer, match=r"^has max_difference 0\.5 within 1\.0; the limit of this model is 0\.0001$"):
        parity_from_answer(answer, wanted)


def test_more_equal_words_than_clips_are_refused(wanted: Wanted) -> None:
    answer = json.dumps([{**asdict(parity(wanted)), "num_equal_words": 9}]).encode()
    with pytest.raises(BadAnswer, match=r"^has 9 equal words of 8 clips$"):
        parity_from_answer(answer, wanted)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"../evil": {"sha256": "0" * 64, "bytes": 1}}, r"lists the file '\.\./evil'; expected a plain name"),
        ({"artefact.json": {"sha256": "0" * 64, "bytes": 1}}, r"^lists artefact\.json itself$"),
        ({f"p{i}": {"sha256": "0" * 64, "bytes": 2 << 30} for i in range(9)}, "^lists more than 8 GiB of files$"),
        ({"plan": {"sha256": "0" * 64, "bytes": -1}}, "says plan has -1 bytes"),
    ],
)
def test_files_that_a_build_may_not_list_are_refused(wanted: Wanted, files: dict[str, Any], message: str) -> None:
    with pytest.raises(BadAnswer, match=message):
        built_files(sidecar(wanted, files), wanted, KEY)


def row(wanted: Wanted, num_samples: int = 100) -> DeviceResult:
    return result_from("pi5", KEY, wanted, parity(wanted), bench_run(wanted, num_samples))


def test_percentiles_are_by_nearest_rank_and_left_out_below_their_count(wanted: Wanted) -> None:
    assert row(wanted).latency_p50_ms == 1.000049
    assert row(wanted).latency_p90_ms == 1.000089
    few = row(wanted, 20)
    assert few.latency_p50_ms == 1.000009
    assert few.latency_p90_ms is None


def test_the_table_shows_every_row_and_the_invalid_ones_last(wanted: Wanted) -> None:
    good = row(wanted)
    noisy = replace(row(wanted, 20), bundle="other", badge="NOISY", reasons=("the clock moved",), peak_memory_mib=None)
    lines = results_table([noisy, good]).splitlines()
    assert lines == [
        "bundle  device key        engine  precision  max diff  words  p50 ms  p90 ms  n    badge  MiB",
        "tiny    x86-avx2-ort1.31  ort     fp32       1.0e-07   8/8    1.000   1.000   100  VALID  60",
        "other   x86-avx2-ort1.31  ort     fp32       1.0e-07   8/8    1.000   —       20   NOISY  —",
        "other: the clock moved",
    ]


def streaming_run(wanted: Wanted) -> dict[str, Any]:
    samples_ns = {"last_frame_to_word": [2_000_000] * 70, "latency": [1_000_000] * 70, "late": [0] * 70}
    return {**bench_run(wanted).to_json(), "scenario": "Streaming", "samples_ns": samples_ns}


def test_a_row_of_streaming_runs_from_the_last_frame(wanted: Wanted) -> None:
    run = run_from_answer(json.dumps(streaming_run(wanted)).encode(), wanted, scenario="Streaming")
    found = result_from("pi5", KEY, wanted, parity(wanted), run)
    assert (found.scenario, found.latency_p90_ms, found.num_samples) == ("Streaming", 2.0, 70)


def test_a_run_of_another_scenario_or_without_its_samples_is_refused(wanted: Wanted) -> None:
    answer = streaming_run(wanted)
    with pytest.raises(BadAnswer, match=r"^has the scenario 'Streaming'; expected 'SingleStream'$"):
        run_from_answer(json.dumps(answer).encode(), wanted)
    del answer["samples_ns"]["last_frame_to_word"]
    with pytest.raises(BadAnswer, match=r"^has last_frame_to_word that are not all whole nanoseconds$"):
        run_from_answer(json.dumps(answer).encode(), wanted, scenario="Streaming")


def test_a_run_of_an_older_runtime_is_refused(wanted: Wanted) -> None:
    answer = {**bench_run(wanted).to_json(), "schema_version": 1}
    with pytest.raises(BadAnswer, match=r"^measurement has schema 1; this edgelip reads 2\. Measure again\.$"):
        run_from_answer(json.dumps(answer).encode(), wanted)


def test_a_row_is_ready_for_json(wanted: Wanted, tmp_path: Path) -> None:
    assert json.loads(json.dumps(row(wanted).to_json()))["bundle_sha256"] == wanted.bundle.sha256
