from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.data.resample import picks_at, resample, span_at
from edgelip.data.unusable import UnusableClip
from edgelip.data.video import StampedFrame

BLANK = np.zeros((1, 1), np.uint8)
intervals_ms = st.lists(st.integers(1, 400), max_size=40)


def stamped(times_T: np.ndarray, last_s: float) -> Iterator[StampedFrame]:
    lasting = [*np.diff(times_T), last_s]
    return (StampedFrame(float(at), float(long), BLANK) for at, long in zip(times_T, lasting, strict=True))


def at_rate(fps: float, num_frames: int) -> tuple[np.ndarray, float]:
    return np.arange(num_frames) / fps, 1 / fps


def test_the_own_rate_gives_every_frame_once() -> None:
    for fps in (25, 24.99, 25.01, 30000 / 1001):
        np.testing.assert_array_equal(picks_at(*at_rate(fps, 75), fps), np.arange(75))


@pytest.mark.parametrize(
    ("source_fps", "expected"),
    [
        (50, [0, 2, 4, 6, 8, 10, 12, 14]),
        (12.5, [0, 0, 1, 1, 2, 2, 3, 3]),  # half way between two frames is the earlier's
        (30, [0, 1, 2, 4, 5, 6, 7, 8]),  # 0, 1.2, 2.4, 3.6, 4.8, 6, 7.2, 8.4 source frames
        (60, [0, 2, 5, 7, 10, 12, 14, 17]),
        (100 / 3, [0, 1, 3, 4, 5, 7, 8, 9]),  # 0, 1.33, 2.67, 4, ...
    ],
)
def test_other_rates_give_the_nearest_frame(source_fps: float, expected: list[int]) -> None:
    picks = picks_at(*at_rate(source_fps, 40), 25)
    np.testing.assert_array_equal(picks[:8], expected)
    assert len(picks) == round(40 / source_fps * 25)


def test_of_two_frames_as_near_the_earlier_is_shown_whatever_rounding_says() -> None:
    times_T = np.arange(400) * 0.08  # not the floats nearest to those times
    np.testing.assert_array_equal(picks_at(times_T, 0.08, 25), np.repeat(np.arange(400), 2))


def test_a_second_stays_a_second() -> None:
    for fps in (12.5, 15, 24, 25, 29.97, 30, 50, 60, 120):
        times_T, last_s = at_rate(fps, round(fps * 4))
        assert abs(len(picks_at(times_T, last_s, 25)) - 100) <= 1


def test_a_frame_is_held_through_a_gap() -> None:
    picks = picks_at(np.array([0, 0.04, 1.0]), 0.04, 25)
    np.testing.assert_array_equal(picks[1:25], 1)  # 0.96 s is one frame of the result before its time
    np.testing.assert_array_equal(picks[25:], 2)
    assert len(picks) == 26


@given(intervals_ms, st.integers(1, 400), st.sampled_from([10.0, 25.0, 29.97]))
def test_frames_one_by_one_are_picked_as_all_at_once(steps_ms: list[int], last_ms: int, fps: float) -> None:
    times_T = np.concatenate([[0], np.cumsum(steps_ms)]) / 1000
    result = list(resample(stamped(times_T, last_ms / 1000), fps, source="a", max_frames=10**6))
    np.testing.assert_array_equal([number for number, _ in result], picks_at(times_T, last_ms / 1000, fps))
    assert all(frame.time_s == times_T[number] for number, frame in result)


@given(intervals_ms, st.integers(1, 400))
def test_no_frame_comes_earlier_than_one_result_frame_or_later_than_half_a_step(
    steps_ms: list[int], last_ms: int
) -> None:
    times_T = np.concatenate([[0], np.cumsum(steps_ms)]) / 1000
    picks = picks_at(times_T, last_ms / 1000, 25.0)
    assert (np.diff(picks) >= 0).all()
    assert abs(len(picks) / 25 - (times_T[-1] + last_ms / 1000)) <= 1 / 50 + 1e-9 or len(picks) == 1
    early_s = times_T[picks] - np.arange(len(picks)) / 25
    assert early_s.max(initial=0) <= 1 / 25 + 1e-5


@given(st.sampled_from([12.5, 24.0, 25.0, 29.97, 50.0]), st.integers(1, 60), st.data())
def test_a_span_covers_the_frames_of_the_word_and_no_others(fps: float, num_frames: int, data: st.DataObject) -> None:
    picks = picks_at(*at_rate(fps, num_frames), 25.0)
    first = data.draw(st.integers(0, num_frames - 1))
    last = data.draw(st.integers(first, num_frames - 1))
    start, end = span_at(picks, first, last)
    assert 0 <= start <= end < len(picks)
    wanted = (picks >= first) & (picks <= last)
    if wanted.any():
        np.testing.assert_array_equal(np.flatnonzero(wanted), np.arange(start, end + 1))
        assert abs((end - start + 1) / 25 - (last - first + 1) / fps) <= 1 / 25 + 1 / fps
    else:
        assert start == end
    if fps == 25.0:
        assert (start, end) == (first, last)


def test_a_word_of_one_frame_that_the_rate_leaves_out_keeps_a_frame() -> None:
    picks = picks_at(*at_rate(30, 12), 25.0)
    assert 3 not in picks
    assert span_at(picks, 3, 3) == (2, 2)
    assert picks[2] == 2


def test_time_stamps_far_ahead_are_refused_before_frames_are_made() -> None:
    frames = stamped(np.array([0.0, 1e12]), 0.04)
    with pytest.raises(
        UnusableClip, match=r"a\.mp4 lasts \d+ s by its time stamps; expected at most 30 s\. Cut out the part"
    ) as caught:
        list(resample(frames, 25.0, source="a.mp4", max_frames=750))
    assert caught.value.reason == "too large"


def test_one_frame_and_none() -> None:
    assert [number for number, _ in resample(stamped(np.zeros(1), 0.0), 25.0, source="a", max_frames=9)] == [0]
    assert list(resample(iter(()), 25.0, source="a", max_frames=9)) == []
