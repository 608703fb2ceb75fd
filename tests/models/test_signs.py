from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_signs import AXES, CONV, FRAMES, LANDMARKS, NUM_WORDS, POINTS, SIGN_NETWORKS, landmark_clips, sign_network
from torch import Tensor, nn

from edgelip.errors import RecipeError, ShapeError
from edgelip.models.census import count_macs, count_parameters, describe
from edgelip.models.classifier import length_mask
from edgelip.models.signs import STEP_GAIN, ChannelAttention, DropPath, SignConvBlock, with_steps
from edgelip.models.zoo import build_classifier

NETWORKS = {name: sign_network(name) for name in SIGN_NETWORKS}
REACH = 2  # frames on either side that a kernel of 5 sees


def test_the_winner_has_the_parameters_that_were_published() -> None:
    """1,836,569 with 6,528 running statistics and the counter of its late dropout, which the Keras model counts too."""
    with torch.device("meta"):
        network = build_classifier("sign_conv_transformer", num_words=250, options={"causal": True})
    statistics = sum(b.numel() for b in network.buffers() if b.is_floating_point())
    assert (count_parameters(network), statistics) == (1_836_569 - 6_528 - 1, 6_528)


def test_the_baseline_has_the_parameters_of_its_three_layers() -> None:
    with torch.device("meta"):
        network = build_classifier("simple_islr", num_words=10)
    assert count_parameters(network) == 1629 * 64 + 64 + 64 * 10 + 10


def test_the_head_of_the_baseline_is_drawn_as_published() -> None:
    head = build_classifier("simple_islr", num_words=250, options=LANDMARKS).head
    assert head.weight.std().item() == pytest.approx(math.sqrt(1 / 250), rel=0.03)  # of 16,000 draws


def test_multiply_adds_are_those_of_the_layers() -> None:
    family, options = SIGN_NETWORKS["centred"]
    network = build_classifier(family, num_words=NUM_WORDS, options=options).eval()
    width, inner, steps = 16, 32, 3 * POINTS * AXES
    conv = 2 * width * inner + 5 * inner  # a frame
    transformer = 4 * width * width + 2 * width * inner + 2 * width * FRAMES
    a_frame = steps * width + 2 * conv + transformer + 2 * width * width
    expected = FRAMES * a_frame + 2 * 5 * inner + 2 * width * NUM_WORDS
    assert count_macs(network, torch.zeros(1, 1, FRAMES, POINTS, AXES)) == expected


def test_the_list_counts_a_sign_of_29_frames() -> None:
    simple = describe("simple_islr")
    assert simple.macs == 29 * 1629 * 64 + 64 * 500
    assert simple.published_top1_pct is None


@torch.no_grad()
def test_the_baseline_is_its_formula() -> None:
    network, clips = NETWORKS["simple"], landmark_clips()
    rows = clips.reshape(8, FRAMES, POINTS * AXES)
    linear: Any = network.trunk.linear
    expected = network.head(torch.relu(rows @ linear.weight.T + linear.bias).mean(dim=1))
    torch.testing.assert_close(network(clips), expected)


@torch.no_grad()
def test_the_published_baseline_averages_padding() -> None:
    family, options = SIGN_NETWORKS["simple"]
    network = build_classifier(family, num_words=NUM_WORDS, options={**options, "as_published": True}).eval()
    clips, lengths = landmark_clips(2), torch.tensor([4, FRAMES])
    clips[0, :, 4:] = 0
    torch.testing.assert_close(network(clips, lengths), network(clips))
    assert (network(clips, lengths)[0] - network(clips[:1, :, :4])[0]).abs().max() > 1e-3


@pytest.mark.parametrize("name", SIGN_NETWORKS)
@given(st.lists(st.integers(1, FRAMES), min_size=1, max_size=4))
@torch.no_grad()
def test_a_clip_depends_on_its_own_frames_alone(name: str, lengths: list[int]) -> None:
    network, clips = NETWORKS[name], landmark_clips(len(lengths))
    alone = torch.cat([network(clip[None, :, :length]) for clip, length in zip(clips, lengths, strict=True)])
    padded = clips.clone()
    for clip, length in zip(padded, lengths, strict=True):
        clip[:, length:] = float("nan")
    torch.testing.assert_close(network(padded, torch.tensor(lengths)), alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_steps_are_differences_between_found_coordinates() -> None:
    x_BTF = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [2.0, 5.0], [0.0, 6.0], [7.0, 8.0]]])
    found = with_steps(x_BTF)[0] / torch.tensor([1, 1, *[STEP_GAIN] * 4])
    expected = [
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [3.0, 0.0, 2.0, 0.0, 0.0, 0.0],
        [2.0, 5.0, -1.0, 0.0, 1.0, 0.0],  # the second coordinate was lost before
        [0.0, 6.0, 0.0, 1.0, 0.0, 0.0],  # and the first is lost now
        [7.0, 8.0, 0.0, 2.0, 5.0, 3.0],
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("num_frames", [1, 2])
@torch.no_grad()
def test_a_clip_may_be_shorter_than_a_step(num_frames: int) -> None:
    clips = landmark_clips(2, frames=num_frames) + 1
    assert NETWORKS["centred"](clips).isfinite().all()


@pytest.mark.parametrize("causal", [False, True])
def test_a_convolution_sees_as_far_as_it_says(causal: bool) -> None:
    block = SignConvBlock(4, kernel=5, expansion=2, causal=causal, drop_path=0.0).eval()
    block.attend = Unweighted()  # which sees all frames
    x_BCT = torch.randn(1, 4, FRAMES, requires_grad=True)
    block(x_BCT, None)[0, :, 4].sum().backward()
    assert x_BCT.grad is not None
    seen = x_BCT.grad[0].abs().sum(dim=0).nonzero().flatten().tolist()
    assert seen == list(range(4 - 2 * REACH, 5) if causal else range(4 - REACH, 5 + REACH))


class Unweighted(nn.Module):
    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        return x_BCT


@torch.no_grad()
def test_channel_attention_is_its_formula() -> None:
    attention, x_BCT = ChannelAttention(3), torch.randn(2, 4, 6)
    mask_B1T = length_mask(torch.tensor([6, 2]), 6).float()
    weights = attention.mix.weight[0, 0]
    for x_CT, mask_1T, found in zip(x_BCT, mask_B1T, attention(x_BCT * mask_B1T, mask_B1T), strict=True):
        mean = torch.cat([torch.zeros(1), x_CT[:, mask_1T[0] > 0].mean(dim=1), torch.zeros(1)])
        scale = torch.stack([torch.sigmoid((mean[c : c + 3] * weights).sum()) for c in range(4)])
        torch.testing.assert_close(found, x_CT * mask_1T * scale[:, None])


def test_every_parameter_learns() -> None:
    for network in (sign_network(name).train() for name in SIGN_NETWORKS):
        network(landmark_clips()).logsumexp(dim=1).sum().backward()
        still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
        assert still == []


def test_a_block_is_left_out_for_a_share_of_the_clips() -> None:
    torch.manual_seed(0)
    path, x_BCT = DropPath(0.25), torch.ones(4000, 2, 3)
    dropped = path(x_BCT)
    assert sorted(dropped.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert (dropped[:, :1, :1] == dropped).all()  # whole clips
    assert float(dropped.mean()) == pytest.approx(1, abs=0.03)
    assert path.eval()(x_BCT) is x_BCT


def test_other_landmarks_are_refused() -> None:
    with pytest.raises(ShapeError) as refused:
        NETWORKS["centred"](torch.zeros(2, 1, FRAMES, 7, AXES))
    assert str(refused.value) == (
        "clips have shape (2, 1, 9, 7, 2); expected (B, 1, T, 5, 2): this network reads 5 landmarks of 2 axes. Prepare "
        "clips with the landmarks of its contract."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 4}, "kernel 4 must be odd, so that convolutions are centred"),
        ({"num_heads": 3}, "num_heads 3 must divide width 16"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as refused:
        build_classifier("sign_conv_transformer", num_words=3, options={**CONV, **options})
    assert str(refused.value) == f"model.options of backbone 'sign_conv_transformer': {message}."
