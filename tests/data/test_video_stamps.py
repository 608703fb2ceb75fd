"""Times, turns, sizes and reasons of edgelip.data.video; test_video.py has whole and damaged files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from written_videos import av, numbered_frames, numbers_of, write_timed

from edgelip.data.unusable import UnusableClip
from edgelip.data.video import frame_size, open_video, read_gray_frames


def stamps(path: Path) -> tuple[list[float], list[float]]:
    with open_video(path, max_frames=1000) as video:
        frames = list(video)
    return [frame.time_s for frame in frames], [frame.duration_s for frame in frames]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_frames_keep_the_times_they_were_written_with(tmp_path: Path, name: str) -> None:
    times_ms = [0, 33, 100, 140, 400, 433]
    times, lasting = stamps(write_timed(tmp_path / name, numbered_frames(6), times_ms=times_ms))
    np.testing.assert_allclose(times, np.array(times_ms) / 1000, atol=1e-6)
    assert min(lasting) > 0


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    times, _ = stamps(write_timed(tmp_path / "a.mkv", numbered_frames(3), times_ms=[700, 740, 800]))
    np.testing.assert_allclose(times, [0, 0.04, 0.1], atol=1e-6)


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(25, 2), 50])
def test_fixed_rates_give_even_times(tmp_path: Path, fps: Fraction | int) -> None:
    path = write_timed(tmp_path / "a.mp4", numbered_frames(7), fps=fps)
    times, lasting = stamps(path)
    np.testing.assert_allclose(times, np.arange(7) / float(fps), atol=1e-4)
    np.testing.assert_allclose(lasting, 1 / float(fps), atol=1e-4)
    assert read_gray_frames(path).fps == pytest.approx(float(fps))


def test_frames_without_times_follow_at_the_declared_rate(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.h264", numbered_frames(5), codec="libx264")
    with av.open(str(path)) as container:
        assert container.format.name == "h264"  # a raw stream
    times, _ = stamps(path)
    np.testing.assert_allclose(times, np.arange(5) / 25, atol=1e-6)


class _Frame:
    def __init__(self, time: float | None) -> None:
        self.time, self.width, self.height = time, 2, 2
        self.is_corrupt, self.duration, self.time_base, self.side_data = False, 0, None, ()

    def to_ndarray(self) -> np.ndarray:
        return np.zeros((2, 2), np.uint8)


class _Stream:
    width = height = 2
    frames = 0

    def __init__(self, rate: Fraction | None) -> None:
        self.average_rate = self.guessed_rate = rate


class _Container:
    """Gives frames with the times it was made with, which no muxer would write."""

    def __init__(self, times: list[float | None]) -> None:
        self.size, self.is_discard, self._times = 1, False, times

    def demux(self, stream: object) -> list[_Container]:
        return [self]

    def decode(self) -> list[_Frame]:
        return [_Frame(time) for time in self._times]


def fake_stamps(monkeypatch: pytest.MonkeyPatch, times: list[float | None], rate: int | None = 25) -> list[float]:
    from edgelip.data.video import GrayFrames

    class Reformatter:
        def reformat(self, frame: _Frame, **_: object) -> _Frame:
            return frame

    monkeypatch.setattr(av.video.reformatter, "VideoReformatter", Reformatter)
    stream = _Stream(None if rate is None else Fraction(rate))
    return [frame.time_s for frame in GrayFrames(Path("a.ts"), _Container(times), stream, 100, None)]


def test_time_stamps_that_stand_still_or_go_back_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [0, 0.04, 0.08, 0.12, 1.0]
    np.testing.assert_allclose(fake_stamps(monkeypatch, [5.0, 5.0, 1.0, None, 6.0]), expected)
    with pytest.raises(
        UnusableClip,
        match=r"a\.ts gives frame 1 no time of its own and declares no frame rate\. Write it again with a fixed rate\.",
    ):
        fake_stamps(monkeypatch, [0.0, 0.0], rate=None)


@pytest.mark.parametrize("turned_deg", [0, 90, 180, -90])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_video_comes_upright(tmp_path: Path, turned_deg: int, mirrored: bool) -> None:
    coded = np.full((48, 64), 60, np.uint8)
    coded[:16, :20] = 220  # a mark that no turn or mirror image leaves where it is
    coded[:16, 40:] = 130
    path = write_timed(tmp_path / "a.mp4", np.stack([coded] * 2), turned_deg=turned_deg, mirrored=mirrored)
    shown = np.rot90(coded, turned_deg // 90)  # counter-clockwise, as the display matrix was asked for
    shown = shown[:, ::-1] if mirrored else shown
    frames_THW = read_gray_frames(path).frames_THW
    assert frames_THW.shape[1:] == shown.shape
    assert np.abs(frames_THW.astype(int) - shown).mean() < 6
    assert frame_size(path) == (64, 48)  # as coded


def test_a_4k_video_is_scaled_as_it_is_decoded(tmp_path: Path) -> None:
    frames_THW = np.full((2, 2160, 3840), 60, np.uint8)
    frames_THW[:, :1080, :1920] = 200
    path = write_timed(tmp_path / "a.mp4", frames_THW)
    assert frame_size(path) == (3840, 2160)
    with open_video(path, max_frames=10) as video:
        assert (video.width_px, video.height_px, video.scale) == (3840, 2160, 0.5)
        small = [frame.gray_HW for frame in video]
    assert [gray_HW.shape for gray_HW in small] == [(1080, 1920)] * 2
    assert small[0][100, 100] > 190
    assert small[0][900, 1800] < 70
    with pytest.raises(UnusableClip, match=r"a\.mp4 is 3840x2160 px; expected at most 2048 px a side") as caught:
        read_gray_frames(path)
    assert caught.value.reason == "too large"


def test_pictures_beyond_8k_are_refused_by_their_header(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.mkv", numbered_frames(1, 64, 8256), codec="ffv1")
    with pytest.raises(UnusableClip, match=r"a\.mkv is 8256x64 px; expected at most 8192 px a side\. Scale it down\."):
        frame_size(path)


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.mp4", numbered_frames(1))
    times, lasting = stamps(path)
    assert times == [0.0]
    assert lasting == [pytest.approx(0.04)]


def test_decoding_on_more_threads_gives_the_same_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write_timed(tmp_path / "a.mp4", rng.integers(0, 255, (6, 64, 64), np.uint8), codec="libx264")
    expected = read_gray_frames(path).frames_THW
    with open_video(path, max_frames=10, num_threads=2) as video:
        np.testing.assert_array_equal(np.stack([frame.gray_HW for frame in video]), expected)
    np.testing.assert_array_equal(numbers_of(numbered_frames(6), 6), np.arange(6))


def test_every_refusal_has_a_reason_that_a_table_can_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video " * 99)
    whole = write_timed(tmp_path / "a.mp4", numbered_frames(9))
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:-900])
    for name, reason in (
        ("gone.mp4", "missing"),
        ("empty.mp4", "damaged"),
        ("text.mp4", "damaged"),
        ("cut.mp4", "damaged"),
        ("", "unreadable"),
    ):
        with pytest.raises(UnusableClip) as caught:
            read_gray_frames(tmp_path / name)
        assert caught.value.reason == reason
    with pytest.raises(UnusableClip, match="more than 3 frames") as caught:
        read_gray_frames(whole, max_frames=3)
    assert caught.value.reason == "too large"

    def denied(*_: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", denied)
    with pytest.raises(
        UnusableClip, match=r"a\.mp4 cannot be opened: permission denied\. Make it readable\."
    ) as caught:
        read_gray_frames(whole)
    assert caught.value.reason == "unreadable"


def test_an_error_of_the_reader_of_frames_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.mp4", numbered_frames(3))

    def stumble() -> None:
        with open_video(path, max_frames=9) as video:
            for _ in video:
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        stumble()


@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_with_wrong_bytes_is_read_or_refused_in_a_line(
    tmp_path: Path, bytes_at: list[tuple[float, int]]
) -> None:
    path = tmp_path / "whole.mp4"
    if not path.exists():
        write_timed(path, numbered_frames(5), turned_deg=90)
    content = bytearray(path.read_bytes())
    for place, value in bytes_at:
        content[int(place * len(content))] = value
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(content)
    times: list[float] = []
    refusal = f"{damaged} said why"
    try:
        with open_video(damaged, max_frames=100) as video:
            times = [frame.time_s for frame in video]
    except UnusableClip as error:
        refusal = str(error)
    assert times == sorted(set(times))
    assert refusal.startswith(str(damaged))
    assert "\n" not in refusal
