"""Contracts of kind "landmarks", from a file of raw points to the words of a bundle."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgelip.runtime.__main__ import main
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.check import check
from edgelip.runtime.clip import ClipSpec, landmarks_from_raw, network_input, require_stored, require_video
from edgelip.runtime.errors import BundleError, ClipError
from edgelip.runtime.recogniser import Recogniser

SPEC = ClipSpec(kind="landmarks", timing="span", frames=4, points="lips40", axes=2)
WORDS = ("LISTEN", "DONKEY")


def raw(num_frames: int = 7, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = rng.normal(0.5, 0.1, (num_frames, 543, 3)).astype(np.float32)
    points[1, :468] = np.nan
    return points


def write_bundle(folder: Path, **changes: Any) -> Path:
    """Logits: the mean of each point over time and coordinates, times `weights`."""
    from tiny_bundles import file_entry, model_entry

    folder.mkdir()
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["clips"], ["flat"], axes=[1, 2, 4], keepdims=0),
            helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("clips", TensorProto.FLOAT, changes.pop("takes", ["B", 1, 4, 40, 2]))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 2])],
        [
            onnx.numpy_helper.from_array(weights(), "weights"),
            onnx.numpy_helper.from_array(np.zeros(2, np.float32), "bias"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "m.onnx")
    clips = np.stack([landmarks_from_raw(raw(seed=seed), SPEC) for seed in range(4)])
    logits = network_input(clips, SPEC).mean(axis=(1, 2, 4)) @ weights()
    np.savez(folder / "expected.npz", **{"frames": clips, "logits": logits, **changes})
    (folder / "MODEL_CARD.md").write_text("# tiny\n")
    manifest = {
        "schema_version": 2,
        "name": "signs",
        "producer": "edgelip 0.1.0",
        "files": {file.name: file_entry(file) for file in sorted(folder.iterdir())},
        "vocabulary": list(WORDS),
        "clip": SPEC.to_json(),
        "models": [model_entry("m.onnx")],
        "weights_sha256": "0" * 64,
        "lineage": [{"stage": "train", "key": "k", "config": {}}],
        "ledger": {"parameters": 6, "macs": 3, "phm_n": 1},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def weights() -> np.ndarray:
    return np.random.default_rng(9).normal(size=(40, 2)).astype(np.float32)


def test_a_contract_goes_through_json_with_the_fields_that_mean_something() -> None:
    fields = SPEC.to_json()
    assert fields == {
        "kind": "landmarks",
        "timing": "span",
        "frames": 4,
        "points": "lips40",
        "axes": 2,
        "normalise": "body",
    }
    assert ClipSpec.from_json(fields) == SPEC


def test_contracts_of_video_and_audio_are_written_as_before() -> None:
    names = ["kind", "timing", "frames", "fps", "roi_px", "pool", "crop_px", "mean", "std"]
    assert list(ClipSpec().to_json()) == list(ClipSpec(kind="audio").to_json()) == names


def test_shapes_say_what_is_stored_and_what_a_network_takes() -> None:
    assert (SPEC.stored_shape, SPEC.stored_dtype, SPEC.input_shape, SPEC.num_points) == (
        (4, 40, 2),
        "float32",
        (1, 4, 40, 2),
        40,
    )
    video = ClipSpec(frames=5, roi_px=16, pool=2, crop_px=12)
    assert (video.stored_shape, video.stored_dtype, video.input_shape, video.num_points) == (
        (5, 8, 8),
        "uint8",
        (1, 5, 6, 6),
        0,
    )
    audio = ClipSpec(kind="audio")
    assert audio.input_shape == (1, 29 * 640)
    with pytest.raises(ClipError, match=r"takes audio, not frames"):
        _ = audio.stored_shape


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"points": "hands"}, r"clip points is 'hands'; expected one of lips40, holistic118"),
        ({"axes": 4}, r"clip axes is 4; expected 2 \(x, y\) or 3 \(x, y, z\)\."),
        ({"axes": 2.0}, r"clip axes is 2\.0; expected 2"),
        ({"normalise": "none"}, r"clip normalise is 'none'; expected one of body, parts\."),
        ({"timing": "window"}, r"clip timing 'window' of kind 'landmarks'; expected 'span': a sign is resampled\."),
        ({"frames": 0}, r"clip frames is 0; expected a whole number from 1 to 1000\."),
        ({"fps": 25.0}, r"clip contract has fields \[.*'fps'.*\]; expected \['axes', 'frames', 'kind', 'normalise'"),
        ({"kind": "video"}, r"clip contract has fields .*; expected \['crop_px', 'fps', 'frames'"),
    ],
)
def test_contracts_of_landmarks_that_make_no_sense_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ClipError, match=said):
        ClipSpec.from_json({**SPEC.to_json(), **changes})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"kind": "landmarks", "timing": "span", "points": "lips40", "pool": 2},
            r"clip pool has no effect on kind 'lan",
        ),
        ({"points": "lips40"}, r"clip points has no effect on kind 'video'\. Leave it out\."),
        ({"axes": 3}, r"clip axes has no effect on kind 'video'\."),
        ({"kind": "audio", "normalise": "parts"}, r"clip normalise has no effect on kind 'audio'\."),
    ],
)
def test_a_field_without_effect_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ClipError, match=said):
        ClipSpec(**fields)


def test_frames_without_any_point_are_left_out_and_the_rest_is_resampled() -> None:
    clip = landmarks_from_raw(raw(), SPEC)
    assert clip.shape == (4, 40, 2)
    assert not np.isnan(clip).any()
    kept = raw()[[0, 2, 3, 4, 5, 6]][:, list(SPEC.point_set.indices), :2]
    np.testing.assert_array_equal(clip[[0, -1]], kept[[0, -1]])
    np.testing.assert_allclose(clip[1], kept[1] + (kept[2] - kept[1]) * (5 / 3 - 1), rtol=0, atol=1e-6)


def test_doubles_and_halves_are_read_as_well() -> None:
    for dtype in (np.float64, np.float16):
        assert landmarks_from_raw(raw().astype(dtype), SPEC).dtype == np.float32


def test_a_clip_without_a_signer_is_refused() -> None:
    with pytest.raises(ClipError, match=r"no point of lips40 was found in any of 7 frames; expected a signer\."):
        landmarks_from_raw(np.full((7, 543, 3), np.nan, np.float32), SPEC)


def test_infinite_coordinates_are_refused() -> None:
    hostile = raw()
    hostile[3, 61] = np.inf
    with pytest.raises(ClipError, match=r"landmarks hold inf; expected coordinates up to 1e\+06, parts of the image"):
        landmarks_from_raw(hostile, SPEC)
    stored = landmarks_from_raw(raw(), SPEC)[None]
    stored[0, 0, 0, 0] = 1e30
    with pytest.raises(ClipError, match=r"landmarks hold 1e\+30; expected coordinates up to 1e\+06"):
        network_input(stored, SPEC)


@pytest.mark.parametrize(
    "clips",
    [
        np.zeros((1, 4, 40, 3), np.float32),
        np.zeros((1, 4, 40, 2), np.float64),
        np.zeros((1, 5, 40, 2), np.float32),
        np.zeros((4, 40, 2), np.float32),
        np.zeros((1, 4, 48, 48), np.uint8),
    ],
)
def test_stored_clips_of_another_shape_or_dtype_are_refused(clips: np.ndarray) -> None:
    with pytest.raises(ClipError, match=r"expected float32 \(B, 4, 40, 2\), lips40 as stored; of all 543 points"):
        network_input(clips, SPEC)


def test_what_needs_video_says_what_a_sign_classifier_takes() -> None:
    require_stored(SPEC)
    with pytest.raises(
        ClipError, match=r"takes landmarks, not frames; expected float \(T, 543, 3\), MediaPipe Holistic"
    ):
        require_video(SPEC)


def test_a_bundle_of_signs_computes_what_its_exporter_saw(tmp_path: Path) -> None:
    (result,) = check(write_bundle(tmp_path / "signs"))
    assert result.num_equal_words == result.num_clips == 4


def test_raw_points_of_one_sign_are_read_from_a_file_on_the_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_bundle(tmp_path / "signs")
    np.savez(tmp_path / "sign.npz", data=raw(31, seed=3))
    assert main(["predict", str(bundle), str(tmp_path / "sign.npz"), "--json"]) == 0
    with Recogniser(Bundle.open(bundle)) as recogniser:
        (expected,) = recogniser.predict(landmarks_from_raw(raw(31, seed=3), SPEC)[None])
    assert json.loads(capsys.readouterr().out)["clips"] == [expected.to_json()]


def test_stored_clips_are_read_from_a_file_one_or_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_bundle(tmp_path / "signs")
    clips = np.stack([landmarks_from_raw(raw(seed=seed), SPEC) for seed in range(3)])
    for stored, count in ((clips, 3), (clips[0], 1)):
        np.save(tmp_path / "clips.npy", stored)
        assert main(["predict", str(bundle), str(tmp_path / "clips.npy"), "--json", "--batch", "2"]) == 0
        assert len(json.loads(capsys.readouterr().out)["clips"]) == count


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((5, 468, 3), np.float32), r"landmarks are float32 \(5, 468, 3\); expected float \(T, 543, 3\)"),
        (
            np.zeros((0, 4, 40, 2), np.float32),
            r"has shape \(0, 4, 40, 2\); expected float32 \(B, 4, 40, 2\), or \(T, 543",
        ),
        (np.zeros((1, 29, 96, 96), np.uint8), r"clips are uint8 \(1, 29, 96, 96\); expected float32 \(B, 4, 40, 2\)"),
    ],
)
def test_a_file_of_something_else_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], array: np.ndarray, said: str
) -> None:
    np.save(tmp_path / "clips.npy", array)
    assert main(["predict", str(write_bundle(tmp_path / "signs")), str(tmp_path / "clips.npy")]) == 2
    error = capsys.readouterr().err
    assert "clips.npy: " in error
    assert re.search(said, error)


def test_a_bundle_whose_network_takes_squares_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"takes float32 \['B', 1, 4, 16, 5\]; expected float32 \(batch, 1, 4, 40, 2\)"
    ):
        Bundle.open(write_bundle(tmp_path / "signs", takes=["B", 1, 4, 16, 5]))


def test_expected_clips_of_another_dtype_are_refused(tmp_path: Path) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "signs", frames=np.zeros((4, 4, 40, 2), np.uint8)))
    with pytest.raises(BundleError, match=r"frames are uint8 \(4, 4, 40, 2\); expected float32 \(N, 4, 40, 2\)"):
        bundle.expected()
