from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import lively
from torch import nn

from edgelip.models.frontend import StackedFrontend, stack_frames


@pytest.mark.parametrize("training", [False, True])
def test_the_stacked_stem_is_a_3d_convolution(training: bool) -> None:
    torch.manual_seed(0)
    stacked = lively(StackedFrontend(6, depth=5, kernel=5)).train(training)
    conv = nn.Conv3d(1, 6, (5, 5, 5), stride=(1, 2, 2), padding=(2, 2, 2), bias=False)
    norm = nn.BatchNorm3d(6)
    norm.load_state_dict(stacked.stem.norm.state_dict())
    with torch.no_grad():
        conv.weight.copy_(stacked.stem.conv.weight[:, None])
    solid = nn.Sequential(conv, norm, nn.ReLU(), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))).train(training)
    clips = torch.randn(2, 1, 7, 20, 18)
    expected_BCTHW = solid(clips)
    got = stacked(clips)
    assert got.shape == (2 * 7, 6, 5, 5)
    torch.testing.assert_close(got.reshape(2, 7, 6, 5, 5).transpose(1, 2), expected_BCTHW, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stacked.stem.norm.running_mean, norm.running_mean)
    # One frame at a time or all at once, the number of values is the same, and so is the unbiased variance.
    torch.testing.assert_close(stacked.stem.norm.running_var, norm.running_var)


@given(depth=st.sampled_from([1, 3, 5, 7]), frames=st.integers(1, 8), seed=st.integers(0, 9))
def test_each_frame_stands_among_its_neighbours(depth: int, frames: int, seed: int) -> None:
    clips = torch.randn(2, 1, frames, 3, 2, generator=torch.Generator().manual_seed(seed))
    stacked = stack_frames(clips, depth).reshape(2, frames, depth, 3, 2)
    for t in range(frames):
        for d in range(depth):
            source = t + d - depth // 2
            wanted = clips[:, 0, source] if 0 <= source < frames else torch.zeros(2, 3, 2)
            assert torch.equal(stacked[:, t, d], wanted)
