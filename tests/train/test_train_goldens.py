"""The published preprocessing of training, drawn with Python's and NumPy's generators as published, applied by ours."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgelip.runtime.clip import ClipSpec
from edgelip.train.batch import NetworkBatch
from edgelip.train.frame_draws import FrameDraws, drawn_windows
from edgelip.train.mixing import Mixing, mixed
from edgelip.train.module import Schedule
from edgelip.train.pixels import PixelDraws, _gathered, _settled, clips_from_frames
from edgelip.train.rates import rate_share

LRW = ClipSpec()
UNIT = ClipSpec(mean=0.0, std=1.0)


def array(golden: Path, name: str) -> Any:
    return np.load(golden / "preproc" / f"{name}.npz")["data"]


def check(golden: Path, name: str, spec: ClipSpec, pixels: PixelDraws, times: FrameDraws | None = None) -> None:
    """Both forms of the code, that of the CPU and that of other devices."""
    frames = torch.from_numpy(np.load(golden / "preproc" / "roi96_uint8.npy"))[None]
    times = times or FrameDraws()
    for got in (
        clips_from_frames(frames, spec, pixels, times),
        _gathered(frames, spec.input_px, _settled(1, spec, pixels), times),
    ):
        np.testing.assert_allclose(got.numpy()[0, 0], array(golden, name), rtol=0, atol=1e-6)


def published_pixels() -> PixelDraws:
    column, row = random.randint(0, 8), random.randint(0, 8)
    return PixelDraws(torch.tensor([[row, column]]), torch.tensor([random.random() < 0.5]))


def published_mask(numpy_draws: np.random.RandomState, num_frames: int) -> Tensor:
    drawn, count = numpy_draws.randint(0, 15, 2)
    if drawn >= num_frames:
        return torch.tensor([[0, 0]])
    start = random.randrange(0, num_frames - drawn)
    return torch.tensor([[start, count if drawn else 0]])


def test_clips_of_validation_and_test(golden: Path) -> None:
    check(golden, "eval_out", LRW, PixelDraws())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_clips_of_training(golden: Path, seed: int) -> None:
    random.seed(seed)
    pixels = published_pixels()
    mask = published_mask(np.random.RandomState(seed), 29)
    check(golden, f"train_out_seed{seed}", LRW, pixels, FrameDraws(masks_B2=mask))


def test_a_random_crop(golden: Path) -> None:
    random.seed(3)
    pixels = PixelDraws(published_pixels().corners_B2)
    assert pixels.corners_B2 is not None
    assert pixels.corners_B2.tolist() == [[8, 3]]
    check(golden, "randomcrop_seed3", UNIT, pixels)


def test_a_mirrored_clip(golden: Path) -> None:
    check(golden, "hflip", ClipSpec(mean=0.0, std=1.0, crop_px=96), PixelDraws(flips_B=torch.tensor([True])))


def test_windows_of_variable_length(golden: Path) -> None:
    rows = json.loads((golden / "preproc" / "varlen_table.json").read_text())
    assert len(rows) == 24
    for row in rows:
        first, count = row["boundary"]
        half = int(row["duration"] / 2 * 25)  # words are centred, 29 frames at 25 a second
        last = min(14 + half + 1, 29) - 1
        assert (first, count) == (max(0, 14 - half - 1), last - first + 1)
        random.seed(row["seed"])
        left, right = random.randint(0, first), random.randint(last + 1, 29)
        assert (left, right, right - left) == (row["left"], row["right"], row["length"])
        draws = FrameDraws(windows_B2=torch.tensor([[left, right - left]]))
        boundaries = torch.tensor([[first, last]])
        assert draws.sources_BT(1, 29)[0].tolist() == list(range(left, right))
        assert draws.boundaries_B2(boundaries, 29).tolist() == [[first - left, last - left]]
        ours = drawn_windows(boundaries.repeat(2000, 1), 29, torch.Generator())
        lefts, rights = ours[:, 0], ours.sum(dim=1)  # the same ranges, ends included
        assert (int(lefts.min()), int(lefts.max())) == (0, first)
        assert (int(rights.min()), int(rights.max())) == (last + 1, 29)


def test_mixup(golden: Path) -> None:
    stored = np.load(golden / "preproc" / "mixup_seed0.npz")
    share = float(np.random.RandomState(0).beta(0.4, 0.4))
    assert share == float(stored["lam"])
    torch.manual_seed(0)
    partner = torch.randperm(4)
    batch = NetworkBatch(torch.from_numpy(stored["x"]), torch.zeros(4, 2, dtype=torch.long))
    got, shares = mixed(batch, Mixing(partner, share))
    np.testing.assert_allclose(got.clips.numpy(), stored["mixed"], rtol=2e-7, atol=0)  # one unit in the last place
    assert stored["ya"][partner.numpy()].tolist() == stored["yb"].tolist()
    assert shares.tolist() == pytest.approx([share] * 4)


def test_rates_of_the_published_cosine(golden: Path) -> None:
    expected = json.loads((golden / "preproc" / "cosine_lr_used_per_epoch_80.json").read_text())
    schedule = Schedule(epochs=80, learning_rate=3e-4, rate_schedule="epoch_cosine")
    got = [
        schedule.learning_rate
        * rate_share(schedule.rate_schedule, step, num_steps=80 * 5, epochs=80, warmup_fraction=0.1)
        for step in range(400)
    ]
    assert got == pytest.approx(np.repeat(expected, 5).tolist(), rel=1e-9)
