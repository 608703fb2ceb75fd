from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgelip.runtime.clip import ClipSpec, network_input
from edgelip.train.augment import Augmentation, drawn, training_batch
from edgelip.train.batch import NetworkBatch

SPEC = ClipSpec(frames=6, roi_px=12, pool=1, crop_px=8)


def frames(num_clips: int = 3, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_clips, 6, 12, 12), dtype=np.uint8)


def batch(seed: int = 0, *, word: tuple[int, int] = (0, 5), **changes: object) -> NetworkBatch:
    draws = torch.Generator().manual_seed(seed)
    augmentation = Augmentation(**changes)  # type: ignore[arg-type]
    return training_batch(torch.from_numpy(frames()), torch.tensor([word] * 3), SPEC, augmentation, draws)


def varied(seed: int = 0, **changes: object) -> np.ndarray:
    return batch(seed, **changes).clips.numpy()  # type: ignore[arg-type]


PLAIN = network_input(frames(), SPEC)


def test_without_augmentation_training_sees_what_the_device_sees() -> None:
    got = varied()
    assert got.shape == (3, 1, 6, 8, 8)
    np.testing.assert_allclose(got, PLAIN, rtol=0, atol=1e-6)


def test_draws_come_from_the_generator_alone() -> None:
    every = {"flip": True, "shift_frames": 2, "time_mask_frames": 3, "brightness": 0.3, "random_crop": True}
    every |= {"variable_length": True, "word": (2, 3)}
    first = varied(3, **every)
    torch.manual_seed(99)
    assert np.array_equal(varied(3, **every), first)
    assert not np.array_equal(varied(4, **every), first)


@pytest.mark.parametrize(
    "more", [{}, {"shift_frames": 2}, {"time_mask_frames": 2}, {"time_mask_frames": 4, "time_mask_draw": "published"}]
)
def test_a_window_of_variable_length_holds_the_word_and_ends_in_zeros(more: dict[str, object]) -> None:
    lengths = set()
    for seed in range(30):
        got = batch(seed, word=(2, 3), variable_length=True, **more)
        assert got.lengths_B is not None
        assert got.clips.shape[2] == got.lengths_B.max()
        for clip, plain, length, (first, last) in zip(
            got.clips[:, 0], PLAIN[:, 0], got.lengths_B.tolist(), got.boundaries_B2.tolist(), strict=True
        ):
            lengths.add(length)
            assert (clip[length:] == 0).all()
            assert 0 <= first <= last < length
            assert last - first == 1
            if "time_mask_frames" not in more:
                np.testing.assert_allclose(clip[first : last + 1], plain[2:4], atol=1e-6)
    assert {2, 3, 4, 5, 6} >= lengths > {2, 6} or more


@given(seed=st.integers(0, 999), most=st.integers(1, 5))
def test_a_shift_repeats_the_ends(seed: int, most: int) -> None:
    got = varied(seed, shift_frames=most)
    for clip, plain in zip(got[:, 0], PLAIN[:, 0], strict=True):
        shifts = [
            s for s in range(-most, most + 1) if np.allclose(clip, plain[np.clip(np.arange(6) + s, 0, 5)], atol=1e-6)
        ]
        assert len(shifts) == 1


@given(seed=st.integers(0, 999), longest=st.integers(1, 6))
def test_a_time_mask_is_one_stretch_of_the_mean(seed: int, longest: int) -> None:
    got = varied(seed, time_mask_frames=longest)
    for clip, plain in zip(got[:, 0], PLAIN[:, 0], strict=True):
        masked = [t for t in range(6) if not np.allclose(clip[t], plain[t], atol=1e-6)]
        assert len(masked) <= longest
        assert masked == list(range(masked[0], masked[0] + len(masked))) if masked else True
        np.testing.assert_allclose(clip[masked], plain.mean(), atol=1e-5)


def test_every_length_and_place_of_a_time_mask_occurs() -> None:
    masks = set()
    for seed in range(150):
        for clip, plain in zip(varied(seed, time_mask_frames=2)[:, 0], PLAIN[:, 0], strict=True):
            masks.add(tuple(t for t in range(6) if not np.allclose(clip[t], plain[t], atol=1e-6)))
    assert masks == {(), *((t,) for t in range(6)), *((t, t + 1) for t in range(5))}


@given(seed=st.integers(0, 999))
def test_a_crop_is_a_window_of_the_stored_frames_and_a_flip_its_mirror(seed: int) -> None:
    got = varied(seed, random_crop=True, flip=True)
    whole = (frames().astype(np.float32) / 255 - SPEC.mean) / SPEC.std
    for clip, stored in zip(got[:, 0], whole, strict=True):
        windows = [stored[:, r : r + 8, c : c + 8] for r in range(5) for c in range(5)]
        assert any(np.allclose(clip, w, atol=1e-4) or np.allclose(clip, w[..., ::-1], atol=1e-4) for w in windows)


@pytest.mark.parametrize("strength", [0.1, 0.5])
def test_brightness_is_one_gain_and_offset_a_clip(strength: float) -> None:
    for clip, plain in zip(varied(1, brightness=strength)[:, 0], PLAIN[:, 0], strict=True):
        gain, offset = np.polyfit(plain.ravel(), clip.ravel(), 1)
        np.testing.assert_allclose(clip, gain * plain + offset, atol=1e-4)
        assert abs(gain - 1) <= strength + 1e-4
        assert abs(gain - 1) + abs(offset) > 1e-3


def test_masks_lie_in_what_the_window_keeps() -> None:
    augmentation = Augmentation(variable_length=True, time_mask_frames=6)
    boundaries = torch.tensor([[2, 3]] * 200)
    _, times = drawn(6, boundaries, SPEC, augmentation, torch.Generator().manual_seed(0))
    assert times.masks_B2 is not None
    assert times.lengths_B is not None
    assert (times.masks_B2.sum(dim=1) <= times.lengths_B).all()
    assert (times.lengths_B < 6).any()
