"""feeding.py times two ways to make the same clips."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgelip.runtime.clip import ClipSpec
from edgelip.train.frame_draws import FrameDraws
from edgelip.train.pixels import PixelDraws, clips_from_frames

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
FAST = ["--toy", "--clips", "12", "--batch", "4", "--rounds", "6", "--epochs", "1"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("feeding")


@pytest.mark.parametrize(("flip", "mask"), [(False, (0, 0)), (True, (2, 3)), (True, (4, 9))])
def test_the_published_way_makes_our_clips(script: Any, flip: bool, mask: tuple[int, int]) -> None:
    spec = ClipSpec(frames=6, roi_px=12, crop_px=8)
    frames = np.random.default_rng(0).integers(0, 256, (6, 12, 12), dtype=np.uint8)
    theirs = script.published_clip(frames, spec, top=1, left=3, flip=flip, mask=mask)
    ours = clips_from_frames(
        torch.from_numpy(frames[None]),
        spec,
        PixelDraws(torch.tensor([[1, 3]]), torch.tensor([flip])),
        FrameDraws(masks_B2=torch.tensor([mask])),
    )
    np.testing.assert_allclose(ours[0, 0].numpy(), theirs, rtol=0, atol=1e-6)


def test_the_published_way_is_that_of_the_reference(script: Any, golden: Path) -> None:
    frames = np.load(golden / "preproc" / "roi96_uint8.npy")
    expected = np.load(golden / "preproc" / "train_out_seed1.npz")["data"]
    got = script.published_clip(frames, ClipSpec(), top=1, left=2, flip=True, mask=(15, 11))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_every_way_is_timed_and_the_feed_of_each_work(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert script.main([*FAST, "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "feeding.json").read_text())
    assert script.OURS in result["ms_per_clip"]
    assert script.PUBLISHED_FILES in result["times_ours"]
    assert all(median["value"] > 0 for median in result["ms_per_clip"].values())
    assert {row["ahead"] for row in result["feeds"]} == {0, 2}
    assert all(0 <= row["waited"]["value"] <= 1 for row in result["feeds"])
    monkeypatch.setattr(script, "LIMIT_MS", 1e-9)
    monkeypatch.setattr(script.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert script.main([*FAST, "--out", str(tmp_path), "--check"]) == 3
    monkeypatch.setattr(script.os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    assert script.main([*FAST, "--out", str(tmp_path), "--check"]) == 6
