from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_videos import numbered_frames, numbers_of, write_timed

import edgelip.data.mouth.mouth_video as mouth_video_module
from edgelip.data.mouth.finder import MouthFinder
from edgelip.data.mouth.mouth_video import camera_mouths, mouth_video, mouths_in
from edgelip.data.mouth.track import MouthTrack, matrices_from_boxes
from edgelip.data.resample import picks_at
from edgelip.data.unusable import UnusableClip
from edgelip.data.video import StampedFrame


class Follows(MouthFinder):
    """Says that the mouth is where the brightest column is; no face in dark frames."""

    name = "follows"

    def __init__(self) -> None:
        self.num_frames: list[int] = []

    def track(self, frames_THW: np.ndarray, *, source: str) -> MouthTrack:
        self.num_frames.append(len(frames_THW))
        found_T = frames_THW.max(axis=(1, 2)) > 10
        if not found_T.any():
            raise UnusableClip(f"{source} has no face", reason="no face")
        column = frames_THW.mean(axis=1).argmax(axis=1).astype(float)
        boxes_T4 = np.stack([column, column * 0 + 16, column * 0 + 32, column * 0], axis=1)
        boxes_T4[~found_T] = np.nan
        return MouthTrack(matrices_from_boxes(boxes_T4), found_T, (f"seen in {source}",))


class OfTheFile(Follows):
    in_pieces = False


def wandering(num_frames: int, width: int = 160) -> np.ndarray:
    """uint8 (T, 32, W): a bright column that moves one px a frame."""
    frames_THW = np.full((num_frames, 32, width), 20, np.uint8)
    frames_THW[np.arange(num_frames), :, np.arange(num_frames) % width] = 250
    return frames_THW


def at_25(frames_THW: np.ndarray) -> list[StampedFrame]:
    return [StampedFrame(number / 25, 0.04, gray_HW) for number, gray_HW in enumerate(frames_THW)]


@pytest.mark.parametrize("finder", [Follows(), OfTheFile(), None])
def test_a_video_of_another_rate_comes_at_25(tmp_path: Path, finder: MouthFinder | None) -> None:
    times_ms = [0, 33, 67, 100, 133, 167, 200, 260, 290]
    path = write_timed(tmp_path / "a.mkv", numbered_frames(9), times_ms=times_ms)
    mouths = mouth_video(path, finder)
    expected = picks_at(np.array(times_ms) / 1000, 0.04, 25.0)
    np.testing.assert_array_equal(mouths.picks_T, expected)
    assert mouths.video.fps == 25
    assert (mouths.num_source_frames, len(mouths.video.frames_THW)) == (9, len(expected))
    np.testing.assert_allclose(mouths.times_T, np.arange(len(expected)) / 25)
    assert mouths.span(0, 8) == (0, len(expected) - 1)
    if finder is None:
        assert mouths.track is None
        np.testing.assert_array_equal(numbers_of(mouths.video.frames_THW, 9), expected)
    else:
        assert mouths.track is not None
        assert mouths.video.frames_THW.shape[1:] == (96, 96)
        assert len(mouths.track.found_T) == len(expected)


def test_a_finder_that_knows_the_file_gets_all_its_frames(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.mp4", numbered_frames(10), fps=50)
    whole, at_rate = OfTheFile(), Follows()
    mouth_video(path, whole)
    mouth_video(path, at_rate)
    assert (whole.num_frames, at_rate.num_frames) == ([10], [5])


def test_a_long_video_in_pieces_gives_what_the_whole_gives() -> None:
    frames = wandering(260)
    whole = mouths_in(at_25(frames), Follows(), 25.0, source="a")
    finder = Follows()
    pieces = mouths_in(at_25(frames), finder, 25.0, source="a", piece_bytes=1)
    assert finder.num_frames[0] == max(finder.num_frames) == 96
    assert len(finder.num_frames) == 4
    assert whole.track is not None
    assert pieces.track is not None
    np.testing.assert_array_equal(pieces.video.frames_THW, whole.video.frames_THW)
    np.testing.assert_array_equal(pieces.track.matrices_T23, whole.track.matrices_T23)
    assert pieces.track.notes == ("seen in a",)


@pytest.mark.parametrize("num_frames", [1, 95, 96, 97, 128, 160, 161])
def test_every_frame_is_kept_once_however_pieces_fall(num_frames: int) -> None:
    frames = wandering(num_frames, width=200)
    mouths = mouths_in(at_25(frames), Follows(), 25.0, source="a", piece_bytes=1)
    assert mouths.track is not None
    np.testing.assert_allclose(mouths.track.boxes_T4[:, 0], np.arange(num_frames))


def test_parts_without_a_face_are_black_and_told() -> None:
    frames = wandering(260)
    frames[150:] = 0
    mouths = mouths_in(at_25(frames), Follows(), 25.0, source="a", piece_bytes=1)
    assert mouths.track is not None
    np.testing.assert_array_equal(mouths.track.found_T, np.arange(260) < 150)
    assert not mouths.video.frames_THW[240:].any()
    assert mouths.track.notes[-1] == "no face at all in some parts (42 % of frames without a mouth)"
    with pytest.raises(UnusableClip, match="a has no face"):
        mouths_in(at_25(frames[150:]), Follows(), 25.0, source="a", piece_bytes=1)


def test_the_track_is_in_pixels_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames_THW = np.full((2, 32, 160), 20, np.uint8)
    frames_THW[:, :, 80:96] = 250
    path = write_timed(tmp_path / "a.mkv", frames_THW, codec="ffv1")
    monkeypatch.setattr(mouth_video_module, "WORK_PX", 40)
    track = mouth_video(path, Follows()).track
    assert track is not None
    x, y, side, roll = track.boxes_T4[0]
    assert 80 <= x < 96
    assert (y, side, roll) == (pytest.approx(4 * 16), pytest.approx(4 * 32), 0)
    whole = mouth_video(path, OfTheFile()).track
    assert whole is not None
    assert whole.boxes_T4[0, 2] == pytest.approx(32)


def test_too_long_a_video_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mouth_video_module, "_WHOLE_BYTES", 32 * 160 * 3)
    with pytest.raises(UnusableClip, match=r"a has more than 0 MiB of gray frames\. Cut or scale it down\.") as caught:
        mouths_in(at_25(wandering(4)), OfTheFile(), 25.0, source="a")
    assert caught.value.reason == "too large"
    monkeypatch.setattr(mouth_video_module, "MAX_MINUTES", 0.1 / 60)
    with pytest.raises(UnusableClip, match=r"a lasts 0 s by its time stamps; expected at most 0 s"):
        mouths_in(at_25(wandering(4)), Follows(), 25.0, source="a")


def test_a_camera_is_a_source_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fake(index: int, *, seconds: float) -> list[StampedFrame]:
        asked.append((index, seconds))
        return [StampedFrame(number / 30, 1 / 30, gray_HW) for number, gray_HW in enumerate(wandering(60))]

    monkeypatch.setattr(mouth_video_module, "record", fake)
    mouths = camera_mouths(1, Follows(), seconds=2)
    assert asked == [(1, 2)]
    assert len(mouths.video.frames_THW) == 50
    assert mouths.source_fps == pytest.approx(30)
