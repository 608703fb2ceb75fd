from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import expected_logits, make_clips, model_entry, write_bundle, write_model

from edgelip.bench.suite import Result, TestClips, measure_bundles
from edgelip.runtime.errors import ClipError

ROW_KEYS = set(
    """
variant method parameters macs file_bytes resident_weights_bytes peak_memory_mib cold_start_ms latency_p50_ms
latency_p50_low_ms latency_p50_high_ms latency_p90_ms latency_p90_low_ms latency_p90_high_ms latency_ratio
latency_ratio_low latency_ratio_high top1_pct top1_low_pct top1_high_pct top5_pct top5_low_pct top5_high_pct
top1_drop_points top1_drop_low_points top1_drop_high_points mcnemar_p int8_coverage_pct num_clips num_launches engine
precision threads badge bundle_sha256
""".split()  # noqa: SIM905
)
NUM_CLIPS = 60


def _write_clips(path: Path, **changes: Any) -> Path:
    frames = make_clips(NUM_CLIPS, seed=5)
    labels = expected_logits(frames).argmax(axis=1)
    labels[:6] = (labels[:6] + 1) % 3  # a perfect model is right on 54 of 60
    np.savez_compressed(path, **{"frames": frames, "labels": labels, **changes})
    return path


def _write_worse(path: Path) -> None:
    """The tiny model with its weights upside down."""
    import onnx

    write_model(path)
    model = onnx.load(path)
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(-weights, "weights"))
    onnx.save(model, path)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    folder = tmp_path_factory.mktemp("suite")
    first = write_bundle(folder / "first", name="first", edit=lambda m: m["ledger"].update(method="dense"))
    worse = write_bundle(folder / "worse", name="worse", write_model=_write_worse)
    return measure_bundles([first, worse], _write_clips(folder / "clips.npz"), launches=2, seconds=0.02)


def test_row_has_every_key_of_the_report(results: list[Result]) -> None:
    for result in results:
        assert set(result.row) >= ROW_KEYS
        json.dumps(result.to_json(), allow_nan=False)


def test_accuracy_is_that_of_the_deployed_file(results: list[Result]) -> None:
    first, worse = (result.row for result in results)
    assert first["top1_pct"] == 90.0
    assert first["top1_low_pct"] < 90.0 < first["top1_high_pct"]
    assert first["top5_pct"] == 100.0
    assert worse["top1_pct"] == pytest.approx(100 * results[1].top1_N.mean())
    assert worse["top1_pct"] < 50.0


def test_drop_and_ratio_are_to_the_first_bundle(results: list[Result]) -> None:
    first, worse = (result.row for result in results)
    assert (first["top1_drop_points"], first["mcnemar_p"], first["latency_ratio"]) == (0.0, 1.0, 1.0)
    assert worse["top1_drop_points"] == pytest.approx(first["top1_pct"] - worse["top1_pct"])
    assert worse["top1_drop_low_points"] < worse["top1_drop_points"] < worse["top1_drop_high_points"]
    assert worse["top1_drop_low_points"] > 0
    assert worse["mcnemar_p"] < 0.01
    assert worse["latency_ratio_low"] <= worse["latency_ratio"] <= worse["latency_ratio_high"]


def test_ledger_and_raw_samples_are_carried(results: list[Result]) -> None:
    row = results[0].row
    assert (row["variant"], row["method"], row["parameters"], row["macs"]) == ("first", "dense", 6, 3)
    assert (row["resident_weights_bytes"], row["int8_coverage_pct"]) == (24, 0.0)
    assert row["file_bytes"] < row["bundle_bytes"]
    assert [len(run.latency_ns) >= 64 for run in results[0].runs] == [True, True]


def test_an_fp16_row_of_the_first_bundle_stands_beside_it(tmp_path: Path) -> None:
    """Without it an fp32 file would flatter every other row."""

    def write_both(path: Path) -> None:
        write_model(path)
        write_model(path.with_name("model.fp16.onnx"))

    def with_half(manifest: dict[str, Any]) -> None:
        manifest["models"].append(model_entry("model.fp16.onnx", precision="fp16"))
        manifest["ledger"]["method"] = "dense fp32"

    first = write_bundle(tmp_path / "first", name="first", write_model=write_both, edit=with_half)
    other = write_bundle(tmp_path / "other", name="other", write_model=write_both, edit=with_half)
    clips = _write_clips(tmp_path / "clips.npz")
    rows = [result.row for result in measure_bundles([first, other], clips, launches=1, seconds=0.01)]
    assert [(row["variant"], row["method"], row["precision"]) for row in rows] == [
        ("first", "dense fp32", "fp32"),
        ("first-fp16", "dense fp16", "fp16"),
        ("other", "dense fp32", "fp32"),
    ]
    assert rows[1]["bundle_sha256"] == rows[0]["bundle_sha256"]
    assert rows[1]["latency_ratio_low"] <= rows[1]["latency_ratio"] <= rows[1]["latency_ratio_high"]


def test_clips_of_speakers_widen_the_interval_of_the_drop(tmp_path: Path) -> None:
    test = TestClips.open(_write_clips(tmp_path / "clips.npz", speakers=np.repeat(np.arange(6), 10)))
    assert test.speakers_N is not None
    assert len(test.speakers_N) == len(test.labels_N) == NUM_CLIPS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros(5, np.int64)}, r"labels have shape \(5,\); expected \(60,\)"),
        ({"labels": np.zeros(NUM_CLIPS)}, "labels are float64; expected whole numbers"),
        (
            {"frames": np.zeros((NUM_CLIPS, 4, 8, 8))},
            r"frames are float64 .* expected uint8 .* or float32 landmarks \(N > 0",
        ),
        ({"speakers": np.zeros(3, np.int64)}, r"speakers have shape \(3,\); expected \(60,\)"),
    ],
)
def test_clips_that_do_not_fit_together_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ClipError, match=message):
        TestClips.open(_write_clips(tmp_path / "clips.npz", **changes))


def test_landmarks_for_a_bundle_that_takes_frames_are_refused(tmp_path: Path) -> None:
    clips = _write_clips(tmp_path / "clips.npz", frames=np.zeros((NUM_CLIPS, 4, 8, 8), np.float32))
    with pytest.raises(ClipError, match=r"clips are float32 \(1, 4, 8, 8\); .* They are not clips of tiny\."):
        measure_bundles([write_bundle(tmp_path / "tiny")], clips)


def test_label_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    clips = _write_clips(tmp_path / "clips.npz", labels=np.full(NUM_CLIPS, 3))
    with pytest.raises(ClipError, match=r"labels reach from . to 3; tiny has 3 words"):
        measure_bundles([write_bundle(tmp_path / "tiny")], clips)
