"""Windows that slide over a video: every frame is seen, all lengths lie about one middle."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.data.windows import Window, default_stride, sliding_windows, window_lengths
from edgelip.errors import UsageError
from edgelip.runtime.clip import ClipSpec

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=4)


def test_windows_of_the_contract() -> None:
    places = sliding_windows(75, lengths=(29,), every=5)
    assert [place[0].first for place in places] == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 46]
    assert places[1] == (Window(5, 33),)
    assert places[1][0].times_s(25.0) == (0.2, 1.36)


def test_a_short_video_is_one_window() -> None:
    assert sliding_windows(20, lengths=(29,), every=5) == ((Window(0, 19),),)
    assert sliding_windows(8, lengths=(6, 9, 13), every=5) == ((Window(1, 6), Window(0, 7), Window(0, 7)),)


def test_lengths_follow_the_contract() -> None:
    assert window_lengths(ClipSpec(frames=29)) == (29,)
    assert window_lengths(ClipSpec(timing="span", frames=16)) == (6, 9, 13)  # 0.24, 0.36 and 0.52 s
    assert window_lengths(ClipSpec(timing="span", frames=16, fps=2.0)) == (1,)
    assert (default_stride(ClipSpec()), default_stride(ClipSpec(timing="span", fps=2.0))) == (5, 1)


@given(num_frames=st.integers(1, 300), lengths=LENGTHS, every=st.integers(1, 50))
def test_windows_stay_inside_and_reach_both_ends(num_frames: int, lengths: list[int], every: int) -> None:
    places = sliding_windows(num_frames, lengths=lengths, every=every)
    longest = [max(place, key=lambda window: window.last - window.first) for place in places]
    assert (longest[0].first, longest[-1].last) == (0, num_frames - 1)
    assert all(0 < later.first - earlier.first <= every for earlier, later in pairwise(longest))
    for place, whole in zip(places, longest, strict=True):
        for window, length in zip(place, lengths, strict=True):
            assert whole.first <= window.first <= window.last <= whole.last
            assert window.last - window.first + 1 == min(length, num_frames)
            assert abs(window.middle - whole.middle) <= 1


@pytest.mark.parametrize(("lengths", "every"), [((29,), 0), ((0,), 1), ((), 1)])
def test_windows_of_nothing_are_refused(lengths: tuple[int, ...], every: int) -> None:
    with pytest.raises(UsageError, match=rf"^windows of .* frames every {every}; expected whole numbers from 1\.$"):
        sliding_windows(75, lengths=lengths, every=every)


def test_too_many_windows_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^9000000 frames give more than 100000 windows\. Raise --every or cut the "):
        sliding_windows(9_000_000, lengths=(29,), every=1)
