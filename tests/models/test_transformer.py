from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import lively
from torch import Tensor, nn

from edgelip.errors import ShapeError
from edgelip.models.blocks import fold_norms
from edgelip.models.classifier import length_mask
from edgelip.models.published.names import renamed
from edgelip.models.transformer import Attention, PlainSumBlock, TransformerTemporal, drop_unused_rows

CHANNELS, FRAMES = 8, 7


def temporal(mode: Any, **options: Any) -> TransformerTemporal:
    torch.manual_seed(0)
    sizes = {"num_heads": 2, "feedforward": 6, "num_blocks": 3}
    net: TransformerTemporal = lively(TransformerTemporal(CHANNELS, 10, attention=mode, **(sizes | options)))
    return net


NETS = {mode: temporal(mode) for mode in ("token", "batch", "time")}


def features(num_clips: int = 3, *, seed: int = 0) -> Tensor:
    return torch.randn(num_clips, CHANNELS, FRAMES, generator=torch.Generator().manual_seed(seed))


def mask_from(lengths: list[int]) -> Tensor:
    return length_mask(torch.tensor(lengths), FRAMES).float()


def reference_of(attention: Attention, *, batch_first: bool) -> nn.MultiheadAttention:
    """PyTorch's own layer with the same weights."""
    reference = nn.MultiheadAttention(attention.channels, attention.num_heads, batch_first=batch_first).eval()
    reference.load_state_dict(
        {
            "in_proj_weight": attention.in_projection.weight,
            "in_proj_bias": attention.in_projection.bias,
            "out_proj.weight": attention.out_projection.weight,
            "out_proj.bias": attention.out_projection.bias,
        }
    )
    return reference


@pytest.mark.parametrize(("mode", "batch_first"), [("batch", False), ("time", True)])
@torch.no_grad()
def test_attention_is_that_of_pytorch_over_its_axis(mode: str, batch_first: bool) -> None:
    """The published code hands (B, T, C) to a layer that expects (T, B, C): it attends over the clips."""
    attention, x_BTC = NETS[mode].attention, features().transpose(1, 2)
    expected, _ = reference_of(attention, batch_first=batch_first)(x_BTC, x_BTC, x_BTC)
    torch.testing.assert_close(attention(x_BTC, None), expected)


@torch.no_grad()
def test_attention_over_time_leaves_absent_frames_out() -> None:
    attention, x_BTC, mask_B1T = NETS["time"].attention, features().transpose(1, 2), mask_from([7, 3, 1])
    reference = reference_of(attention, batch_first=True)
    expected, _ = reference(x_BTC, x_BTC, x_BTC, key_padding_mask=mask_B1T[:, 0] == 0)
    torch.testing.assert_close(attention(x_BTC, mask_B1T), expected)


@torch.no_grad()
def test_token_attention_is_the_published_layer_for_one_clip() -> None:
    for clip_1CT in features().split(1):
        torch.testing.assert_close(NETS["token"](clip_1CT, None), NETS["batch"](clip_1CT, None))
    together = NETS["batch"](features(), None)
    assert (together - NETS["token"](features(), None)).abs().max() > 1e-3  # with mates it is another


@pytest.mark.parametrize("mode", ["token", "time"])
@given(lengths=st.lists(st.integers(1, FRAMES), min_size=3, max_size=3), filler=st.sampled_from([0.0, 50.0, -7.0]))
@torch.no_grad()
def test_a_clip_depends_on_nothing_but_its_own_frames(mode: str, lengths: list[int], filler: float) -> None:
    net, x_BCT, mask_B1T = NETS[mode], features(), mask_from(lengths)
    out_BGT = net(torch.where(mask_B1T > 0, x_BCT, filler), mask_B1T)
    for clip_CT, given_GT, length in zip(x_BCT, out_BGT, lengths, strict=True):
        alone_GT = net(clip_CT[None, :, :length], None)[0]
        torch.testing.assert_close(given_GT[:, :length], alone_GT, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", NETS)
@torch.no_grad()
def test_a_full_mask_changes_nothing(mode: str) -> None:
    torch.testing.assert_close(NETS[mode](features(), mask_from([7, 7, 7])), NETS[mode](features(), None))


@torch.no_grad()
def test_only_attention_over_time_reaches_beyond_the_convolutions() -> None:
    """Without blocks a frame is a function of itself alone, unless attention mixes frames."""
    changed = features()
    changed[:, :, -1] += 1.0
    for mode, mixes in (("token", False), ("batch", False), ("time", True)):
        net = temporal(mode, num_blocks=0)
        moved = (net(changed, None) - net(features(), None))[:, :, 0].abs().max()
        assert bool(moved > 1e-6) == mixes


@torch.no_grad()
def test_a_block_follows_its_formula() -> None:
    block = lively(PlainSumBlock(4, 6, dilation=2, dropout=0.4, norm_momentum=0.1))
    for slope, act in zip((0.1, 0.2, 0.3), (block.act1, block.act2, block.act), strict=True):
        act.weight.fill_(slope)
    x = features()[:, :4]
    hidden = torch.where((first := block.conv1(x)) > 0, first, 0.1 * first)
    branch = torch.where((second := block.conv2(hidden)) > 0, second, 0.2 * 0.3 * second)
    expected = block.shortcut(x) + branch
    torch.testing.assert_close(block(x, None), expected)
    assert (expected < 0).any()  # nothing cuts the sum
    assert block.conv1.conv.bias is not None
    assert isinstance(PlainSumBlock(4, 4, dilation=1, dropout=0.0, norm_momentum=0.1).shortcut, nn.Identity)


def test_dropout_acts_in_training_only_and_momentum_reaches_every_normalisation() -> None:
    net, x = temporal("time", norm_momentum=0.99), features()
    assert {m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm1d)} == {0.99}
    assert torch.equal(net(x, None), net(x, None))
    attention = net.attention.train()
    assert not torch.equal(attention(x.transpose(1, 2), None), attention(x.transpose(1, 2), None))


@torch.no_grad()
def test_folding_normalisation_keeps_the_output() -> None:
    net = temporal("time")
    before = net(features(), None)
    fold_norms(net)
    torch.testing.assert_close(net(features(), None), before, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_unused_rows_of_token_attention_can_go() -> None:
    net, over_time = temporal("token"), temporal("time")
    before = net(features(), None)
    for model in (net, over_time):
        drop_unused_rows(model)
    torch.testing.assert_close(net(features(), None), before)
    assert net.attention.in_projection.weight.shape == (CHANNELS, CHANNELS)
    assert over_time.attention.in_projection.weight.shape == (3 * CHANNELS, CHANNELS)
    drop_unused_rows(net)  # nothing left to drop
    torch.testing.assert_close(net(features(), None), before)


@pytest.mark.parametrize("mode", NETS)
def test_the_net_is_one_graph_with_a_free_batch(mode: str) -> None:
    torch._dynamo.reset()
    net, arguments = NETS[mode], (features(), mask_from([7, 3, 1]))
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), net(*arguments))
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(net, arguments, dynamic_shapes=({0: batch}, {0: batch}))
    others = (features(2, seed=1), mask_from([2, 6]))
    torch.testing.assert_close(program.module()(*others), net(*others))


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(
        ShapeError, match=r"attention has 8 channels; expected a multiple of its 3 heads\. Change num_heads\."
    ):
        Attention(8, num_heads=3, mode="time", dropout=0.0)


@pytest.mark.parametrize(("mode", "file"), [("batch", "logits.npy"), ("token", "logits_single.npy")])
@torch.no_grad()
def test_imported_weights_reproduce_the_reference(golden: Path, mode: Any, file: str) -> None:
    """From the reference's own trunk features to its log-probabilities."""
    folder = golden / "eflip_T"
    published = torch.load(folder / "epoch=0.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    model = nn.ModuleDict({"temporal": TransformerTemporal(attention=mode), "head": nn.Linear(463, 500)}).eval()
    tensors = {}
    for name, tensor in published.items():
        if not name.startswith("model.frontend_3d."):
            rule = renamed(name.removeprefix("model."))
            assert rule is not None
            tensors[rule.ours] = tensor
    model.load_state_dict(tensors)
    features_BTF = torch.from_numpy(np.load(folder / "features.npy"))
    mean_BG = model["temporal"](features_BTF.transpose(1, 2), None).mean(dim=2)
    expected = torch.from_numpy(np.load(folder / file))
    torch.testing.assert_close(model["head"](mean_BG).log_softmax(dim=1), expected, rtol=0, atol=1e-4)
