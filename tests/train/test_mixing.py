from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgelip.train.batch import NetworkBatch
from edgelip.train.mixing import Mixing, drawn_mixing, mixed
from edgelip.train.pixels import Room

SHAPE = (6, 8, 10)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(lengths: list[int] | None = None) -> NetworkBatch:
    """Clips that say whose they are: clip i is i + 1 within its length and 0 beyond."""
    clips = torch.arange(1.0, 5.0)[:, None, None, None, None].expand(4, 1, *SHAPE).clone()
    if lengths is not None:
        for clip, length in zip(clips, lengths, strict=True):
            clip[:, length:] = 0
    lengths_B = None if lengths is None else torch.tensor(lengths)
    return NetworkBatch(clips, torch.tensor([[1, 2]]).expand(4, 2), lengths_B)


PARTNER = torch.tensor([1, 0, 3, 2])


def test_mixup_weighs_every_pixel_and_label_by_the_share() -> None:
    given_batch = batch([6, 3, 2, 5])
    before = given_batch.clips.clone()
    got, shares = mixed(given_batch, Mixing(PARTNER, 0.3))
    torch.testing.assert_close(got.clips, 0.3 * before + 0.7 * before[PARTNER])
    assert shares.tolist() == pytest.approx([0.3] * 4)
    assert torch.equal(given_batch.clips, before)
    assert got.lengths_B is given_batch.lengths_B
    assert got.boundaries_B2 is given_batch.boundaries_B2


@pytest.mark.parametrize("mixing", [Mixing(PARTNER, 0.3), Mixing(PARTNER, window=(slice(2, 4), slice(3), slice(5)))])
def test_a_room_holds_mixed_clips_too(mixing: Mixing) -> None:
    room = Room()
    expected, _ = mixed(batch(), mixing)
    first, _ = mixed(batch(), mixing, room=room)
    assert torch.equal(first.clips, expected.clips)
    again, _ = mixed(batch(), mixing, room=room)
    assert again.clips.data_ptr() == first.clips.data_ptr()


@given(
    lengths=st.none() | st.lists(st.integers(1, 6), min_size=4, max_size=4),
    window=st.tuples(*(st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted) for size in SHAPE)),
)
def test_cutmix_labels_follow_the_share_of_pixels(lengths: list[int] | None, window: Any) -> None:
    given_batch = batch(lengths)
    before = given_batch.clips.clone()
    frames, rows, columns = (slice(*ends) for ends in window)
    got, shares = mixed(given_batch, Mixing(PARTNER, window=(frames, rows, columns)))
    assert torch.equal(given_batch.clips, before)
    for index, (clip, share) in enumerate(zip(got.clips[:, 0], shares.tolist(), strict=True)):
        length = 6 if lengths is None else lengths[index]
        pasted = clip == PARTNER[index] + 1
        own = clip[:length] == index + 1
        assert share == pytest.approx(float(own.float().mean()), abs=1e-6)
        assert float(own.float().mean() + pasted[:length].float().mean()) == pytest.approx(1, abs=1e-6)
        assert not pasted[length:].any()
        outside = torch.ones(SHAPE, dtype=torch.bool)
        outside[frames, rows, columns] = False
        assert not pasted[outside].any()


@pytest.mark.parametrize(("cut", "whole"), [("tube", (0,)), ("span", (1, 2)), ("box", ())])
def test_a_window_takes_one_minus_the_share_of_the_clip(cut: Any, whole: tuple[int, ...]) -> None:
    volumes, corners = [], set()
    for seed in range(300):
        mixing = drawn_mixing(4, (50, 50, 50), generator(seed), cutmix_alpha=1.0, cut=cut)
        assert mixing is not None
        assert mixing.window is not None
        assert all(mixing.window[axis] == slice(0, 50) for axis in whole)
        sides = [len(range(50)[part]) for part in mixing.window]
        volumes.append(np.prod(sides) / 50**3)
        corners.add(tuple(part.start for part in mixing.window))
    assert len(corners) > 40
    # A uniform share, and windows that lose what lies outside: less than one half, and sometimes nearly all.
    assert 0.2 < np.mean(volumes) < 0.5
    assert max(volumes) > 0.7


def test_mixup_draws_beta_shares_and_partners_from_the_generator() -> None:
    draws = [drawn_mixing(6, SHAPE, generator(seed), mixup_alpha=0.4) for seed in range(600)]
    found = [mixing for mixing in draws if mixing is not None and mixing.window is None]
    assert len(found) == 600
    shares = np.array([mixing.share for mixing in found])
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert shares.mean() == pytest.approx(0.5, abs=0.05)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.1)  # variance of Beta(a, a)
    assert all(sorted(mixing.partner_B.tolist()) == list(range(6)) for mixing in found)
    torch.manual_seed(5)
    again = drawn_mixing(6, SHAPE, generator(3), mixup_alpha=0.4)
    assert again is not None
    assert (again.share, again.partner_B.tolist()) == (found[3].share, found[3].partner_B.tolist())
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)


def test_with_both_each_batch_takes_one() -> None:
    kinds = [drawn_mixing(4, SHAPE, generator(seed), mixup_alpha=0.4, cutmix_alpha=1.0) for seed in range(200)]
    cuts = sum(mixing is not None and mixing.window is not None for mixing in kinds)
    assert 70 < cuts < 130
    assert None not in kinds


def test_neither_draws_nothing() -> None:
    draws = generator(1)
    assert drawn_mixing(4, SHAPE, draws) is None
    assert torch.equal(torch.rand(1, generator=draws), torch.rand(1, generator=generator(1)))
