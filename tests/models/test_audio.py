from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import lively
from torch import Tensor, nn

from edgelip.errors import ShapeError
from edgelip.models.audio import AudioFrontend, AudioNetwork, AudioTrunk, BasicBlock1d
from edgelip.models.census import count_parameters
from edgelip.models.residual import BasicBlock
from edgelip.models.tcn import TemporalNet

FRAMES, WORDS = 5, 6
SAMPLES = 640 * FRAMES
STRIDES = (1, 2, 2, 2)


def network(*, as_published: bool = False) -> AudioNetwork:
    torch.manual_seed(0)
    model: AudioNetwork = lively(
        AudioNetwork(
            frontend=AudioFrontend(4, act="swish"),
            trunk=AudioTrunk(4, (4, 6, 6, 8), strides=STRIDES, act="swish"),
            temporal=TemporalNet(8, 8, num_blocks=2),
            head=nn.Linear(8, WORDS),
            as_published=as_published,
        )
    )
    return model


MODEL, PUBLISHED = network(), network(as_published=True)


def waveforms(num_clips: int = 3, num_samples: int = SAMPLES, *, seed: int = 0) -> Tensor:
    return torch.randn(num_clips, 1, num_samples, generator=torch.Generator().manual_seed(seed))


@given(
    lengths=st.lists(st.integers(640, SAMPLES), min_size=2, max_size=2),
    filler=st.sampled_from([0.0, 9.0, float("nan")]),
)
@torch.no_grad()
def test_a_clip_depends_on_nothing_but_its_own_samples(lengths: list[int], filler: float) -> None:
    alone, together = waveforms(2), waveforms(2)
    for row, length in zip(together, lengths, strict=True):
        row[:, length:] = filler
    logits = MODEL(together, torch.tensor(lengths))
    for i, length in enumerate(lengths):
        cut = MODEL(alone[i : i + 1, :, :length])  # cut to its length: no mask, no mates
        torch.testing.assert_close(logits[i : i + 1], cut, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [640, 641, 1279, 1280, 2001, 3199])
@torch.no_grad()
def test_the_trunks_frames_do_not_see_padding_either(length: int) -> None:
    """1279 samples make one valid frame, though the trunk alone would round up to two."""
    x = waveforms(1)
    padded = MODEL.features(x, torch.tensor([length]))
    alone = MODEL.features(x[:, :, :length])
    num_frames = length // 640
    torch.testing.assert_close(padded[:, :num_frames], alone[:, :num_frames], rtol=0, atol=1e-5)


@given(length=st.integers(160, 400))
@torch.no_grad()
def test_the_trunk_reads_valid_positions_only(length: int) -> None:
    x = torch.randn(1, 4, 400, generator=torch.Generator().manual_seed(0))
    padded = MODEL.trunk(torch.where(torch.arange(400) < length, x, 50.0), torch.tensor([length]))
    num_frames = length // 160
    alone = MODEL.trunk(x[:, :, :length], None)[:, :, :num_frames]
    torch.testing.assert_close(padded[:, :, :num_frames], alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_as_published_the_padding_is_seen_and_full_clips_are_the_same() -> None:
    x = waveforms(2)
    x[1, :, 1300:] = 0.0
    lengths = torch.tensor([SAMPLES, 1300])
    published, corrected = PUBLISHED(x, lengths), MODEL(x, lengths)
    torch.testing.assert_close(published[0], corrected[0])
    assert (published[1] - corrected[1]).abs().max() > 1e-4
    torch.testing.assert_close(PUBLISHED(x), MODEL(x))
    features_BFT = PUBLISHED.features(x).transpose(1, 2)  # by hand: all is seen, the mean alone stops at the length
    by_hand = PUBLISHED.head(PUBLISHED.temporal(features_BFT, None)[1:, :, : 1300 // 640].mean(dim=2))
    torch.testing.assert_close(published[1:], by_hand)


@pytest.mark.parametrize("num_samples", [640, 1279, 1283, 2001, 3199, 19_456, 18_560])
def test_frames_are_640_samples_or_one_more_where_levels_round_up(num_samples: int) -> None:
    with torch.device("meta"):
        frontend, trunk = AudioFrontend(4), AudioTrunk(4, (4, 4, 4, 4), strides=STRIDES)
        x = frontend(torch.zeros(1, 1, num_samples))
        assert x.shape[2] == num_samples // 4
        assert trunk(x, None).shape[2] - num_samples // 640 in (0, 1)


def test_the_published_clips_have_30_and_29_frames() -> None:
    with torch.device("meta"):
        frontend, trunk = AudioFrontend(64), AudioTrunk(64, (64, 128, 256, 512), strides=STRIDES)
        assert trunk(frontend(torch.zeros(1, 1, 19_456)), None).shape == (1, 512, 30)
        assert trunk(frontend(torch.zeros(1, 1, 18_560)), None).shape == (1, 512, 29)
        # 45 214 324 of the published DC-TCN model are 41 365 748 of the temporal net with its head, and these.
        assert count_parameters(frontend) + count_parameters(trunk) == 45_214_324 - 41_365_748


@pytest.mark.parametrize(("out_channels", "stride"), [(4, 1), (6, 2)])
@torch.no_grad()
def test_a_block_is_the_2d_block_on_a_single_row(out_channels: int, stride: int) -> None:
    line = lively(BasicBlock1d(4, out_channels, stride=stride, act="prelu"))
    plane = BasicBlock(4, out_channels, stride=stride, act="prelu").eval()
    tensors: dict[str, Tensor] = {}
    for name, tensor in line.state_dict().items():
        wide = plane.state_dict()[name]
        if tensor.ndim == 3:  # the one row meets the middle row of each kernel
            tensors[name] = torch.zeros_like(wide)
            tensors[name][:, :, wide.shape[2] // 2] = tensor
        else:
            tensors[name] = tensor
    plane.load_state_dict(tensors)
    x = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(line(x, None), plane(x[:, :, None])[:, :, 0])


def test_the_network_is_one_graph_with_a_free_batch() -> None:
    torch._dynamo.reset()
    arguments: tuple[Any, ...] = (waveforms(), torch.tensor([SAMPLES, 1300, 640]))
    for model in (MODEL, PUBLISHED):
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*arguments), model(*arguments))
        batch = torch.export.Dim("batch", min=1)
        program = torch.export.export(model, arguments, dynamic_shapes=({0: batch}, {0: batch}))
        others = (waveforms(2, seed=1), torch.tensor([2000, SAMPLES]))
        torch.testing.assert_close(program.module()(*others), model(*others))


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"shape \(3, 3200\); expected \(B, 1, L\), L at least 640 samples at 16 kHz"):
        MODEL(waveforms()[:, 0])
    with pytest.raises(ShapeError, match=r"shape \(3, 1, 639\); .* Pad shorter ones with zeros\."):
        MODEL(waveforms()[:, :, :639])
    with pytest.raises(ShapeError, match=r"lengths have shape \(1,\); expected \(3,\), one a clip\."):
        MODEL(waveforms(), torch.tensor([640]))
