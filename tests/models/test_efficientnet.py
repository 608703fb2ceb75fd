from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import lively
from torch import Tensor, nn

from edgelip.errors import ShapeError
from edgelip.models.census import count_parameters
from edgelip.models.efficientnet import SIZES, EfficientTrunk, Excitation2d, FusedBlock, MBConvBlock, Row
from edgelip.models.frontend import StackedFrontend
from edgelip.models.published.names import renamed

ROWS = (Row(1, 3, 1, 4, 4, 1, "F"), Row(4, 3, 2, 4, 8, 2, "F"), Row(6, 5, 2, 8, 12, 2, "M"))
BLOCK = {"kernel": 3, "norm_momentum": 0.1}


def tiny() -> EfficientTrunk:
    torch.manual_seed(0)
    trunk: EfficientTrunk = lively(EfficientTrunk(ROWS, last=16))
    return trunk


def maps(num_maps: int = 3, *, channels: int = 4, side: int = 11) -> Tensor:
    return torch.randn(num_maps, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("size", "parameters"), [("T", 2_030_470), ("S", 20_046_280), ("B", 5_772_608)])
def test_published_sizes_have_their_published_parameters(size: str, parameters: int) -> None:
    """Source of the counts: the visual part of the published code, stem included."""
    with torch.device("meta"):
        stem = StackedFrontend(SIZES[size][0].in_channels, depth=3, kernel=5, bias=True, pool=False)
        trunk = EfficientTrunk(SIZES[size])
        assert count_parameters(stem) + count_parameters(trunk) == parameters
        x = stem(torch.zeros(1, 1, 2, 88, 88))
        assert [*x.shape[2:], *trunk.blocks(x).shape[2:]] == [44, 44, 3, 3]
        assert trunk(x).shape == (2, 384) == (2, trunk.num_features)


@torch.no_grad()
def test_the_mean_before_the_last_convolution_equals_the_published_order() -> None:
    trunk, x = tiny(), maps()
    wide = trunk.last(trunk.blocks(x)).mean(dim=(2, 3))
    torch.testing.assert_close(trunk(x), wide[:, :8] * torch.sigmoid(wide[:, 8:]))


@torch.no_grad()
def test_blocks_add_their_input_only_where_the_shape_stays() -> None:
    for kind in (FusedBlock, MBConvBlock):
        same = lively(kind(4, 4, expand=2, stride=1, **BLOCK))
        x, branch = maps(), []
        same.project.register_forward_hook(lambda module, taken, given, seen=branch: seen.append(given))
        torch.testing.assert_close(same(x), x + branch[0])
        assert kind(4, 4, expand=2, stride=2, **BLOCK).add is None
        assert kind(4, 6, expand=2, stride=1, **BLOCK)(x).shape == (3, 6, 11, 11)


@torch.no_grad()
def test_squeeze_excitation_scales_whole_channels_by_their_means() -> None:
    excite, x = lively(Excitation2d(4, 2)), maps()
    squeezed = nn.functional.silu(x.mean(dim=(2, 3)) @ excite.reduce.weight[:, :, 0, 0].t() + excite.reduce.bias)
    scale = torch.sigmoid(squeezed @ excite.expand.weight[:, :, 0, 0].t() + excite.expand.bias)
    torch.testing.assert_close(excite(x), x * scale[:, :, None, None])


def test_blocks_have_the_published_inner_widths() -> None:
    block = MBConvBlock(8, 12, expand=6, stride=2, **BLOCK)
    assert block.depthwise.conv.groups == 48
    assert block.excite.reduce.out_channels == 2  # a quarter of the block's input, not of its inner width
    assert FusedBlock(8, 12, expand=4, stride=2, **BLOCK).project.conv.in_channels == 32


def test_every_normalisation_has_the_momentum_asked_for() -> None:
    norms = [m for m in EfficientTrunk(ROWS, norm_momentum=0.99).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 2 * 3 + 3 * 2
    assert {norm.momentum for norm in norms} == {0.99}


def test_the_trunk_is_one_graph_with_a_free_batch() -> None:
    trunk, x = tiny(), maps()
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(trunk, fullgraph=True, backend="aot_eager")(x), trunk(x))
    program = torch.export.export(trunk, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    torch.testing.assert_close(program.module()(maps(5)), trunk(maps(5)))


def test_rows_that_do_not_follow_each_other_are_refused() -> None:
    with pytest.raises(
        ShapeError, match=r"rows\[1\] takes 5 channels; expected the 4 that rows\[0\] gives\. Make them"
    ):
        EfficientTrunk([(1, 3, 1, 4, 4, 1, "F"), (4, 3, 2, 5, 8, 2, "F")])  # type: ignore[list-item]
    with pytest.raises(ShapeError, match="last is 15 channels; expected an even number, for one half gates the other"):
        EfficientTrunk(ROWS, last=15)


@torch.no_grad()
def test_imported_weights_reproduce_the_reference_features(golden: Path) -> None:
    folder = golden / "eflip_T"
    published = torch.load(folder / "epoch=0.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    stem = StackedFrontend(8, depth=3, kernel=5, bias=True, pool=False)
    model = nn.ModuleDict({"frontend": stem, "trunk": EfficientTrunk(SIZES["T"])}).eval()
    tensors = {}
    for name, tensor in published.items():
        if name.startswith("model.frontend_3d."):
            rule = renamed(name.removeprefix("model."))
            assert rule is not None
            tensors[rule.ours] = tensor if rule.squeeze is None else tensor.squeeze(rule.squeeze)
    model.load_state_dict(tensors)
    clips = torch.from_numpy(np.load(folder / "input.npy"))
    features = model["trunk"](model["frontend"](clips)).reshape(2, 29, 384)
    torch.testing.assert_close(features, torch.from_numpy(np.load(folder / "features.npy")), rtol=0, atol=1e-4)
