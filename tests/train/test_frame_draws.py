from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgelip.train.frame_draws import FrameDraws, drawn_masks, drawn_shifts, drawn_windows

MANY = 6000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shares(rows: torch.Tensor) -> dict[tuple[int, ...], float]:
    return {row: count / len(rows) for row, count in Counter(map(tuple, rows.tolist())).items()}


def test_without_draws_frames_and_words_stay() -> None:
    plain, boundaries = FrameDraws(), torch.tensor([[1, 2], [0, 3]])
    assert plain.sources_BT(2, 4).tolist() == [[0, 1, 2, 3]] * 2
    assert torch.equal(plain.boundaries_B2(boundaries, 4), boundaries)
    assert plain.lengths_B is None
    assert plain.hidden_BT(4) is None


@given(
    shift=st.integers(-6, 6), first=st.integers(0, 5), count=st.integers(1, 6), word=st.tuples(*[st.integers(0, 5)] * 2)
)
def test_a_window_is_cut_from_the_shifted_clip(shift: int, first: int, count: int, word: tuple[int, int]) -> None:
    count = min(count, 6 - first)
    draws = FrameDraws(torch.tensor([shift]), torch.tensor([[first, count]]))
    shifted = [min(5, max(0, t + shift)) for t in range(6)]
    assert draws.sources_BT(1, 6)[0].tolist() == shifted[first : first + count]
    moved = draws.boundaries_B2(torch.tensor([sorted(word)]), 6)[0].tolist()
    assert moved == [min(count - 1, max(0, min(5, max(0, t - shift)) - first)) for t in sorted(word)]


def test_shorter_clips_repeat_their_last_frame_until_they_are_cleared() -> None:
    draws = FrameDraws(windows_B2=torch.tensor([[1, 4], [2, 1]]))
    assert draws.sources_BT(2, 6).tolist() == [[1, 2, 3, 4], [2, 2, 2, 2]]
    assert draws.lengths_B is not None
    assert draws.lengths_B.tolist() == [4, 1]


def test_shifts_are_uniform() -> None:
    found = shares(drawn_shifts(MANY, 2, generator())[:, None])
    assert sorted(found) == [(-2,), (-1,), (0,), (1,), (2,)]
    assert all(share == pytest.approx(0.2, abs=0.03) for share in found.values())


def test_every_window_around_the_word_is_equally_likely() -> None:
    found = shares(drawn_windows(torch.tensor([[1, 3]] * MANY), 6, generator()))
    expected = {(left, right - left) for left in (0, 1) for right in (4, 5, 6)}
    assert set(found) == expected
    assert all(share == pytest.approx(1 / 6, abs=0.03) for share in found.values())


def test_a_word_as_long_as_its_clip_keeps_it_whole() -> None:
    assert drawn_windows(torch.tensor([[0, 5]] * 50), 6, generator()).unique(dim=0).tolist() == [[0, 6]]


def test_own_masks_lie_inside_the_clip_and_are_uniform() -> None:
    found = shares(drawn_masks(torch.tensor([5]).repeat(MANY), 3, generator()))
    expected = {(start, count): 1 / 4 / (6 - count) for count in range(4) for start in range(6 - count)}
    assert set(found) == set(expected)
    assert all(found[mask] == pytest.approx(share, abs=0.02) for mask, share in expected.items())


def test_own_masks_are_no_longer_than_the_clip() -> None:
    lengths = torch.arange(1, 5).repeat(200)
    start, count = drawn_masks(lengths, 9, generator()).unbind(dim=1)
    assert (start + count <= lengths).all()
    assert (count == lengths).any()


def test_published_masks_follow_their_two_draws() -> None:
    """Frames of 5, draws t and m in 0..3: nothing for t = 0, else a start below 5 - t and m frames."""
    found = shares(drawn_masks(torch.tensor([5]).repeat(4 * MANY), 4, generator(), law="published"))
    counts = {m: sum(share for (_, count), share in found.items() if count == m) for m in range(4)}
    assert counts == pytest.approx({0: 7 / 16, 1: 3 / 16, 2: 3 / 16, 3: 3 / 16}, abs=0.01)
    starts = {s: sum(share for (start, count), share in found.items() if count == 3 and start == s) for s in range(5)}
    places = {s: sum(1 / (5 - t) for t in (1, 2, 3) if s < 5 - t) / 16 for s in range(5)}
    assert starts == pytest.approx(places, abs=0.01)


def test_published_masks_skip_clips_that_are_too_short() -> None:
    masks = drawn_masks(torch.tensor([1, 2]).repeat(300), 15, generator(), law="published")
    assert (masks[::2, 1] == 0).all()
    assert (masks[1::2, 1] > 0).any()
    assert (masks[:, 0] < 2).all()


def test_hidden_frames_are_those_of_the_stretch_and_none_where_it_is_empty() -> None:
    hidden = FrameDraws(masks_B2=torch.tensor([[1, 2], [3, 9], [2, 0]])).hidden_BT(5)
    assert hidden is not None
    assert [row.nonzero()[:, 0].tolist() for row in hidden] == [[1, 2], [3, 4], []]
