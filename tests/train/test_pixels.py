from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgelip.errors import ShapeError
from edgelip.runtime.clip import ClipSpec
from edgelip.train.frame_draws import FrameDraws
from edgelip.train.pixels import PixelDraws, Room, _gathered, _settled, clips_from_frames

SPEC = ClipSpec(frames=6, roi_px=12, pool=1, crop_px=8)
FRAMES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 6, 12, 12), dtype=np.uint8))


def by_hand(pixels: PixelDraws, times: FrameDraws) -> np.ndarray:
    """One clip after another in float64, in the published order: window, scale, crop, flip, normalise, mask."""
    clips = []
    longest = 6 if times.lengths_B is None else int(times.lengths_B.max())
    for index, stored in enumerate(FRAMES.numpy()):
        shift = 0 if times.shifts_B is None else int(times.shifts_B[index])
        clip = stored[np.clip(np.arange(6) + shift, 0, 5)] / 255.0
        if times.windows_B2 is not None:
            first, count = times.windows_B2[index].tolist()
            clip = clip[first : first + count]
        top, left = (2, 2) if pixels.corners_B2 is None else pixels.corners_B2[index].tolist()
        clip = clip[:, top : top + 8, left : left + 8]
        if pixels.flips_B is not None and pixels.flips_B[index]:
            clip = clip[..., ::-1]
        clip = (clip - SPEC.mean) / SPEC.std
        if pixels.gains_B is not None and pixels.lifts_B is not None:
            clip = clip * float(pixels.gains_B[index]) + float(pixels.lifts_B[index])
        if times.masks_B2 is not None:
            start, count = times.masks_B2[index].tolist()
            clip = clip.copy()
            clip[start : start + count] = clip.mean()
        clips.append(np.concatenate([clip, np.zeros((longest - len(clip), 8, 8))]))
    return np.stack(clips)[:, None]


@st.composite
def draws(draw: st.DrawFn) -> tuple[PixelDraws, FrameDraws]:
    def ints(low: int, high: int, *shape: int) -> Tensor:
        size = int(np.prod(shape))
        values = draw(st.lists(st.integers(low, high), min_size=size, max_size=size))
        return torch.tensor(values).reshape(shape)

    def maybe(tensor: Tensor) -> Tensor | None:
        return tensor if draw(st.booleans()) else None

    firsts = ints(0, 5, 3)
    windows = torch.stack([firsts, torch.minimum(ints(1, 6, 3), 6 - firsts)], dim=1)
    varied_grey = draw(st.booleans())
    gains, lifts = (ints(-3, 9, 3) / 4, ints(-4, 4, 3) / 8) if varied_grey else (None, None)
    pixels = PixelDraws(maybe(ints(0, 4, 3, 2)), maybe(ints(0, 1, 3).bool()), gains, lifts)
    return pixels, FrameDraws(maybe(ints(-5, 5, 3)), maybe(windows), maybe(ints(0, 7, 3, 2)))


@given(drawn=draws())
def test_clips_are_those_made_one_by_one_on_every_device(drawn: tuple[PixelDraws, FrameDraws]) -> None:
    expected = by_hand(*drawn)
    np.testing.assert_allclose(clips_from_frames(FRAMES, SPEC, *drawn).numpy(), expected, rtol=0, atol=2e-6)
    on_device = _gathered(FRAMES, 8, _settled(3, SPEC, drawn[0]), drawn[1])  # what a GPU runs
    np.testing.assert_allclose(on_device.numpy(), expected, rtol=0, atol=2e-6)


def test_stored_frames_stay_as_they_are_and_may_lie_apart_in_memory() -> None:
    apart = FRAMES.permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3)
    before = apart.clone()
    times = FrameDraws(masks_B2=torch.tensor([[1, 2]] * 3))
    got = clips_from_frames(apart, SPEC, PixelDraws(flips_B=torch.tensor([True] * 3)), times)
    assert torch.equal(got, clips_from_frames(FRAMES, SPEC, PixelDraws(flips_B=torch.tensor([True] * 3)), times))
    assert torch.equal(apart, before)


def test_a_room_holds_the_clips_of_the_last_batch() -> None:
    room = Room()
    first = clips_from_frames(FRAMES, SPEC, PixelDraws(), FrameDraws(), room=room)
    kept = first.clone()
    short = FrameDraws(windows_B2=torch.tensor([[0, 2], [1, 3], [2, 1]]))
    second = clips_from_frames(FRAMES, SPEC, PixelDraws(), short, room=room)
    assert second.data_ptr() == first.data_ptr()
    assert torch.equal(second, clips_from_frames(FRAMES, SPEC, PixelDraws(), short))
    assert not torch.equal(first, kept)
    assert torch.equal(clips_from_frames(FRAMES, SPEC, PixelDraws(), FrameDraws(), room=room), kept)


@pytest.mark.parametrize(
    ("frames", "got"),
    [
        (torch.zeros(2, 6, 12, 12), "torch.float32 (2, 6, 12, 12)"),
        (torch.zeros(2, 6, 12, 10, dtype=torch.uint8), "torch.uint8 (2, 6, 12, 10)"),
        (torch.zeros(6, 12, 12, dtype=torch.uint8), "torch.uint8 (6, 12, 12)"),
    ],
)
def test_frames_of_another_contract_are_refused(frames: Tensor, got: str) -> None:
    with pytest.raises(ShapeError) as caught:
        clips_from_frames(frames, SPEC, PixelDraws(), FrameDraws())
    assert str(caught.value) == (
        f"stored frames are {got}; expected torch.uint8 (B, T, 12, 12). Prepare the clips for this contract."
    )
