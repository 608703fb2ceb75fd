from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgelip.runtime.clip import ClipSpec, network_input
from edgelip.runtime.errors import ClipError
from edgelip.train.augment import training_batch
from edgelip.train.landmark_augment import (
    LandmarkAugmentation,
    LandmarkDraws,
    drawn_landmarks,
    landmark_clips,
    mirrored,
    resampled,
    varied_landmarks,
)

SPEC = ClipSpec(kind="landmarks", timing="span", frames=8, points="holistic130", axes=3)
POINTS = SPEC.point_set
EVERY = LandmarkAugmentation(
    flip=True,
    scale=0.2,
    rotate_deg=10,
    shear=0.1,
    shift=0.2,
    time_warp=0.4,
    shortest_share=0.6,
    noise=0.02,
    drop_part=0.2,
    drop_joint=0.1,
    drop_frames=3,
    drop_box=0.5,
)


def stored(num_clips: int = 4, *, seed: int = 0, lost: float = 0.15) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    clips = rng.normal(0.5, 0.2, (num_clips, 8, 130, 3)).astype(np.float32)
    clips[rng.random((num_clips, 8, 130)) < lost] = np.nan
    return torch.from_numpy(clips)


def varied(augmentation: LandmarkAugmentation, *, seed: int = 0, lost: float = 0.15) -> torch.Tensor:
    clips = stored(lost=lost)
    boundaries = torch.tensor([[0, 7]] * len(clips))
    draws = torch.Generator().manual_seed(seed)
    return varied_landmarks(clips, boundaries, SPEC, augmentation, draws).clips


@pytest.mark.parametrize("normalise", ["body", "parts"])
def test_without_augmentation_training_sees_what_the_device_sees(normalise: str) -> None:
    spec = ClipSpec(kind="landmarks", timing="span", frames=8, points="holistic130", axes=3, normalise=normalise)
    got = training_batch(stored(), torch.tensor([[0, 7]] * 4), spec, LandmarkAugmentation(), torch.Generator())
    assert got.clips.shape == (4, 1, 8, 130, 3)
    assert got.lengths_B is None
    np.testing.assert_allclose(got.clips.numpy(), network_input(stored().numpy(), spec), rtol=0, atol=1e-6)


def test_draws_come_from_the_generator_alone() -> None:
    first = varied(EVERY, seed=3)
    torch.manual_seed(99)
    assert torch.equal(varied(EVERY, seed=3), first)
    assert not torch.equal(varied(EVERY, seed=4), first)
    assert bool(first.isfinite().all())


def test_the_clips_given_are_not_changed() -> None:
    clips = stored()
    before = clips.clone()
    varied_landmarks(clips, torch.tensor([[0, 7]] * 4), SPEC, EVERY, torch.Generator().manual_seed(0))
    assert torch.equal(clips.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize("normalise", ["body", "parts"])
def test_a_flipped_clip_is_that_of_the_mirrored_picture(normalise: str) -> None:
    spec = ClipSpec(kind="landmarks", timing="span", frames=8, points="holistic130", axes=3, normalise=normalise)
    assert POINTS.mirror is not None
    picture = stored()[:, :, list(POINTS.mirror)].clone()
    picture[..., 0] = 1 - picture[..., 0]
    flipped = landmark_clips(stored(), spec, LandmarkDraws(flips_B=torch.tensor([True, False, True, False])))
    expected = torch.from_numpy(network_input(picture.numpy(), spec))
    plain = torch.from_numpy(network_input(stored().numpy(), spec))
    torch.testing.assert_close(flipped[::2], expected[::2], rtol=0, atol=2e-5)
    torch.testing.assert_close(flipped[1::2], plain[1::2], rtol=0, atol=1e-6)


def test_about_half_of_all_clips_are_flipped() -> None:
    draws = drawn_landmarks(400, SPEC, LandmarkAugmentation(flip=True), torch.Generator().manual_seed(0))
    assert draws.flips_B is not None
    assert 160 < int(draws.flips_B.sum()) < 240


def test_points_without_mirror_pairs_cannot_be_flipped() -> None:
    spec = ClipSpec(kind="landmarks", timing="span", frames=8, points="all543", axes=3)
    with pytest.raises(
        ClipError, match=r"points 'all543' have no mirror pairs, so clips cannot be flipped\. Switch flip"
    ):
        drawn_landmarks(2, spec, LandmarkAugmentation(flip=True), torch.Generator())


def test_mirroring_twice_gives_the_clip_back() -> None:
    clips = stored(lost=0)
    assert torch.equal(mirrored(mirrored(clips, POINTS), POINTS), clips)


def test_a_map_turns_scales_and_moves_x_and_y_and_leaves_depth() -> None:
    plain = varied(LandmarkAugmentation(), lost=0)
    quarter = torch.tensor([[0.0, -2.0], [2.0, 0.0]]).expand(4, 1, 2, 2)
    moves = torch.tensor([0.5, -1.0]).expand(4, 1, 2)
    got = landmark_clips(stored(lost=0), SPEC, LandmarkDraws(maps_BK22=quarter, moves_BK2=moves))
    torch.testing.assert_close(got[..., 0], -2 * plain[..., 1] + 0.5, rtol=0, atol=1e-5)
    torch.testing.assert_close(got[..., 1], 2 * plain[..., 0] - 1.0, rtol=0, atol=1e-5)
    assert torch.equal(got[..., 2], plain[..., 2])


@given(st.floats(0, 1), st.floats(0, 90), st.floats(0, 0.5))
def test_maps_stay_within_what_was_asked_for(scale: float, rotate_deg: float, shear: float) -> None:
    asked = LandmarkAugmentation(scale=scale, rotate_deg=rotate_deg, shear=shear, shift=0.1)
    draws = drawn_landmarks(50, SPEC, asked, torch.Generator().manual_seed(1))
    assert draws.maps_BK22 is not None
    assert draws.moves_BK2 is not None
    size = torch.linalg.det(draws.maps_BK22).sqrt()
    assert float(size.max()) <= 1 + scale + 1e-4
    assert float(size.min()) >= 1 / (1 + scale) - 1e-4
    angle = torch.rad2deg(torch.atan2(draws.maps_BK22[..., 1, 0], draws.maps_BK22[..., 0, 0]))
    assert float(angle.abs().max()) <= rotate_deg + 1e-2
    assert float(draws.moves_BK2.abs().max()) <= 0.1


def test_parts_are_moved_each_about_its_own_middle() -> None:
    asked = LandmarkAugmentation(scale=0.5, affine_on="parts")
    got, plain = varied(asked, lost=0), varied(LandmarkAugmentation(), lost=0)
    factors = []
    for positions in POINTS.parts.values():
        before, after = (clips[0, 0][:, list(positions), :2] for clips in (plain, got))
        torch.testing.assert_close(after.mean(dim=(0, 1)), before.mean(dim=(0, 1)), rtol=0, atol=1e-4)
        factors.append(float(after.std() / before.std()))
    assert len({round(factor, 3) for factor in factors}) == len(factors)


@given(st.floats(0, 0.95), st.floats(0.05, 1), st.integers(0, 99))
def test_time_runs_forward_and_stays_inside_the_clip(warp: float, share: float, seed: int) -> None:
    asked = LandmarkAugmentation(time_warp=warp, shortest_share=share)
    positions = drawn_landmarks(20, SPEC, asked, torch.Generator().manual_seed(seed)).positions_BT
    if positions is None:
        assert (warp, share) == (0, 1)
        return
    assert float(positions.min()) >= 0
    assert float(positions.max()) <= 7
    assert bool((positions.diff(dim=1) >= 0).all())
    assert float((positions[:, -1] - positions[:, 0]).min()) >= 7 * share - 1e-3


def test_frames_are_taken_from_between_their_neighbours_and_lost_points_are_no_average() -> None:
    clips = torch.tensor([0.0, 2.0, torch.nan, 6.0])[None, :, None, None]
    got = resampled(clips, torch.tensor([[0.0, 0.5, 1.25, 1.75, 2.75, 3.0]]))
    expected = torch.tensor([0.0, 1.0, 2.0, torch.nan, 6.0, 6.0])
    torch.testing.assert_close(got.flatten(), expected, equal_nan=True)


def test_noise_does_not_touch_lost_points() -> None:
    got, plain = varied(LandmarkAugmentation(noise=0.1)), varied(LandmarkAugmentation())
    lost = stored().isnan()[:, None]
    assert not bool(got[lost].any())
    assert float((got - plain)[~lost].std()) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("asked", "share"),
    [(LandmarkAugmentation(drop_joint=0.3), 0.3), (LandmarkAugmentation(drop_part=0.25), 0.25)],
)
def test_points_and_parts_are_lost_in_whole_clips_at_the_rate_asked_for(
    asked: LandmarkAugmentation, share: float
) -> None:
    lost = drawn_landmarks(300, SPEC, asked, torch.Generator().manual_seed(0)).lost_BTP
    assert lost is not None
    assert bool((lost == lost[:, :1]).all())
    assert float(lost.float().mean()) == pytest.approx(share, abs=0.06)
    if asked.drop_part:
        for positions in POINTS.parts.values():
            part = lost[:, 0, list(positions)]
            assert bool((part == part[:, :1]).all())


def test_a_stretch_of_frames_is_lost_as_a_whole() -> None:
    lost = drawn_landmarks(200, SPEC, LandmarkAugmentation(drop_frames=3), torch.Generator().manual_seed(0)).lost_BTP
    assert lost is not None
    assert bool((lost == lost[:, :, :1]).all())
    frames = lost[:, :, 0]
    assert set(frames.sum(dim=1).tolist()) == {0, 1, 2, 3}
    assert int(frames.long().diff(dim=1).abs().sum(dim=1).max()) <= 2  # one stretch
    got = varied(LandmarkAugmentation(drop_frames=8), seed=2, lost=0)
    assert bool((got == 0).all(dim=-1).all(dim=-1).any())


def test_an_obstacle_hides_what_is_behind_it() -> None:
    plain = varied(LandmarkAugmentation(), lost=0)
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]).repeat(2, 1)
    got = landmark_clips(stored(lost=0), SPEC, LandmarkDraws(boxes_B4=boxes))
    behind = (plain[..., :2].abs() < 0.5).all(dim=-1)
    assert bool(behind.any())
    assert not bool(got[::2][behind[::2]].any())
    assert torch.equal(got[::2][~behind[::2]], plain[::2][~behind[::2]])
    assert torch.equal(got[1::2], plain[1::2])
