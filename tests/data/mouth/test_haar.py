from __future__ import annotations

import csv
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from written_videos import write_timed

from edgelip.data.mouth.haar import HaarFinder, _calm, _weights
from edgelip.data.mouth.mouth_video import mouth_video
from edgelip.data.unusable import UnusableClip
from edgelip.data.video import read_gray_frames
from edgelip.errors import UsageError

SHARED = Path(__file__).parents[4] / "shared" / "data"
RAW = SHARED / "grid" / "raw"
needs_faces = pytest.mark.skipif(not RAW.is_dir(), reason="the GRID originals are not at ../shared/data/grid/raw")


def frames_of(name: str, num_frames: int = 75) -> np.ndarray:
    return read_gray_frames(RAW / name).frames_THW[:num_frames]


def boxes_of(name: str) -> np.ndarray:
    """Float64 (T, 4) of boxes.csv: mouth x, y, side, roll, from another finder's landmarks."""
    with (RAW / "boxes.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["clip"] == name]
    return np.array([[float(row[key]) for key in ("mouth_x", "mouth_y", "side", "roll_deg")] for row in rows])


def iou_of_squares(first_T4: np.ndarray, second_T4: np.ndarray) -> np.ndarray:
    """Intersection over union of upright squares, the roll left aside."""
    reach = (first_T4[:, 2] + second_T4[:, 2])[:, None] / 2 - np.abs(first_T4[:, :2] - second_T4[:, :2])
    shared = np.clip(reach, 0, np.minimum(first_T4[:, 2], second_T4[:, 2])[:, None]).prod(axis=1)
    result: np.ndarray = shared / (first_T4[:, 2] ** 2 + second_T4[:, 2] ** 2 - shared)
    return result


@needs_faces
@pytest.mark.parametrize("name", ["s22_lbbc2a.mpg", "s5_srahzn.mp4"])
def test_mouths_of_grid_talkers_are_where_landmarks_say(name: str) -> None:
    """benchmarks/mouths.py has all six."""
    track, expected = HaarFinder().track(frames_of(name), source=name), boxes_of(name)
    assert track.found_T.all()
    assert track.notes == ()
    assert iou_of_squares(track.boxes_T4, expected).mean() >= 0.85
    assert (np.hypot(*(track.boxes_T4 - expected)[:, :2].T) <= 6).mean() >= 0.95
    assert np.abs(track.boxes_T4 - expected)[:, 3].mean() < 4


@needs_faces
def test_a_track_does_not_jump_or_tremble() -> None:
    boxes_T4 = HaarFinder().track(frames_of("s3_lwwz6n.mp4"), source="a").boxes_T4  # of a talker who holds still
    assert np.abs(np.diff(boxes_T4, axis=0)).max() < 2  # px and degrees in 40 ms
    assert np.abs(np.diff(boxes_T4, n=2, axis=0)).max() < 0.3  # 0.8 without the last smoothing


@needs_faces
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_size_of_the_face_does_not_matter(scale: float) -> None:
    frames, expected = frames_of("s2_pbwp6s.mp4", 20), boxes_of("s2_pbwp6s.mp4")[:20] * [scale, scale, scale, 1]
    frames = np.stack([cv2.resize(frame, None, fx=scale, fy=scale) for frame in frames])
    track = HaarFinder().track(frames, source="a")
    assert iou_of_squares(track.boxes_T4, expected).mean() >= 0.85
    assert [note.startswith("mouth small, ROIs enlarged (from ") for note in track.notes] == [True] * (scale < 1)


@needs_faces
def test_a_dark_and_swaying_face_is_followed() -> None:
    frames, expected = frames_of("s20_brbk7n.mpg"), boxes_of("s20_brbk7n.mpg")
    swayed, boxes_T4 = [], expected.copy()
    for number, frame in enumerate(frames):
        matrix = cv2.getRotationMatrix2D((180, 144), -8 * np.sin(number / 10), 0.8 + 0.1 * np.sin(number / 12))
        matrix[:, 2] += 30 * np.sin(number / 9), 10 * np.sin(number / 6)
        swayed.append(cv2.warpAffine(frame // 4, matrix, (360, 288), borderMode=cv2.BORDER_REPLICATE))
        boxes_T4[number, :2] = matrix[:, :2] @ expected[number, :2] + matrix[:, 2]
        boxes_T4[number, 2] *= 0.8 + 0.1 * np.sin(number / 12)
    track = HaarFinder().track(np.stack(swayed), source="a")
    assert iou_of_squares(track.boxes_T4, boxes_T4).mean() >= 0.85


@needs_faces
def test_of_two_faces_the_larger_is_followed_and_told() -> None:
    large, small = frames_of("s22_lbbc2a.mpg", 20), frames_of("s3_lwwz6n.mp4", 20)
    both = np.full((20, 288, 720), 90, np.uint8)
    both[:, :, :360] = large
    both[:, 40:248, 400:660] = [cv2.resize(frame, (260, 208), interpolation=cv2.INTER_AREA) for frame in small]
    track = HaarFinder().track(both, source="a")
    assert iou_of_squares(track.boxes_T4, boxes_of("s22_lbbc2a.mpg")[:20]).mean() >= 0.85
    assert track.notes == ("several faces, the largest and steadiest followed (2 in 2 of 2 frames looked at)",)


@needs_faces
def test_frames_without_the_face_are_interpolated_and_told() -> None:
    frames = frames_of("s4_lgbmzs.mp4", 60).copy()
    frames[20:35] = 128
    rois, track = HaarFinder().crop(frames, source="a")
    assert not track.found_T[20:35].any()
    assert track.found_T[:20].all()
    assert track.found_T[45:].all()
    assert track.notes[-1].startswith("mouth interpolated in some frames (")
    assert rois.shape == (60, 96, 96)
    expected = boxes_of("s4_lgbmzs.mp4")[:60]
    assert iou_of_squares(track.boxes_T4[track.found_T], expected[track.found_T]).mean() >= 0.85


@needs_faces
def test_a_single_frame_will_do() -> None:
    track = HaarFinder().track(frames_of("s5_srahzn.mp4", 1), source="a")
    assert iou_of_squares(track.boxes_T4, boxes_of("s5_srahzn.mp4")[:1])[0] >= 0.8


@needs_faces
def test_a_video_held_sideways_or_in_4k_gives_the_same_mouth(tmp_path: Path) -> None:
    frames, expected = frames_of("s20_brbk7n.mpg", 4), boxes_of("s20_brbk7n.mpg")[:4]
    sideways = write_timed(tmp_path / "a.mp4", np.rot90(frames, -1, axes=(1, 2)), turned_deg=90)
    track = mouth_video(sideways, HaarFinder()).track
    assert track is not None
    assert iou_of_squares(track.boxes_T4, expected).mean() >= 0.85
    large = np.stack([cv2.resize(frame, (3840, 3072)) for frame in frames[:2]])[:, 512:]  # 3840 x 2560
    track = mouth_video(write_timed(tmp_path / "b.mp4", large), HaarFinder()).track
    assert track is not None
    scale = 3840 / 360
    in_px = expected[:2] * [scale, scale, scale, 1] - [0, 512, 0, 0]
    assert iou_of_squares(track.boxes_T4, in_px).mean() >= 0.85


@needs_faces
def test_a_talking_face_at_30_frames_a_second_comes_at_25() -> None:
    mouths = mouth_video(SHARED / "faces" / "alfa_1280x720_30fps.mp4", HaarFinder())
    assert mouths.track is not None
    assert mouths.track.found_T.all()
    assert mouths.video.frames_THW.shape == (25, 96, 96)
    assert (mouths.num_source_frames, mouths.source_fps) == (30, 30)
    np.testing.assert_array_equal(np.setdiff1d(np.arange(30), mouths.picks_T), [3, 9, 15, 21, 27])
    x, y, side, roll = mouths.track.boxes_T4.mean(axis=0)
    assert (x, y) == (pytest.approx(683, abs=12), pytest.approx(439, abs=12))  # by eye, on a contact sheet
    assert abs(roll) < 3
    assert 130 < side < 160


@pytest.mark.parametrize("kind", ["noise", "blank", "tiny"])
def test_no_face_says_what_was_looked_for(kind: str) -> None:
    frames = {
        "noise": np.random.default_rng(0).integers(0, 255, (9, 96, 128), np.uint8),
        "blank": np.full((9, 96, 128), 128, np.uint8),
        "tiny": np.zeros((3, 2, 2), np.uint8),
    }[kind]
    with pytest.raises(
        UnusableClip,
        match=r"a\.mp4 shows a face in 0 of \d frames; expected at least 20 %: a frontal face, upright, both eyes "
        r"visible, wider than a twelfth of the picture\. Turn or crop the video, or use another finder\.",
    ) as caught:
        HaarFinder().track(frames, source="a.mp4")
    assert caught.value.reason == "no face"


def test_settings_are_checked_and_travel() -> None:
    finder = pickle.loads(pickle.dumps(HaarFinder(detect_every=5)))
    assert finder.identity() == {"finder": "haar", "detect_every": 5, "min_share": 0.2}
    with pytest.raises(UsageError, match=r"detect_every is 0; expected 1 to 100 frames\. Use 8\."):
        HaarFinder(detect_every=0)
    with pytest.raises(UsageError, match=r"min_share is 0; expected above 0, at most 1\. Use 0\.2\."):
        HaarFinder(min_share=0)


def test_smoothing_keeps_a_steady_motion_and_never_lags() -> None:
    steady = (2 + 1j) * np.arange(30) + 5
    np.testing.assert_allclose(_calm(steady), steady, atol=1e-9)
    np.testing.assert_allclose(_calm(steady[:1]), steady[:1])
    pulse = np.zeros(21)
    pulse[10] = 1
    np.testing.assert_allclose(_calm(pulse), _calm(pulse)[::-1], atol=1e-12)


def test_far_away_frames_still_have_weights() -> None:
    weights = _weights(np.arange(5000), np.array([0, 8]))
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert weights[4999, 1] > 0.99


@needs_faces
def test_the_number_of_threads_changes_no_bit() -> None:
    frames, before = frames_of("s2_pbwp6s.mp4", 20), cv2.getNumThreads()
    rois = []
    try:
        for num_threads in (1, 3):
            cv2.setNumThreads(num_threads)
            rois.append(HaarFinder().crop(frames, source="a")[0])
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(*rois)
