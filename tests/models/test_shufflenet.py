from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import lively
from torch import Tensor, nn

from edgelip.errors import ShapeError, UsageError
from edgelip.models.census import count_parameters
from edgelip.models.frontend import StackedFrontend
from edgelip.models.published.names import renamed
from edgelip.models.shufflenet import ShuffleTrunk, ShuffleUnit, interleave, shuffle_trunk


def tiny() -> ShuffleTrunk:
    torch.manual_seed(0)
    trunk: ShuffleTrunk = lively(ShuffleTrunk(6, widths=(8, 12), last=10, repeats=(2, 3)))
    return trunk


def maps(num_maps: int = 3, *, channels: int = 6, side: int = 11) -> Tensor:
    return torch.randn(num_maps, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("width", "parameters"), [(0.5, 341_096), (1.0, 1_252_908)])
def test_published_trunks_have_their_published_size(width: float, parameters: int) -> None:
    """Source of the counts: the published code without its stem, classifier and 3-D front-end."""
    with torch.device("meta"):
        assert count_parameters(shuffle_trunk(width)) == parameters


@pytest.mark.parametrize(("width", "features"), [(0.5, 1024), (1.0, 1024), (1.5, 1024), (2.0, 2048)])
def test_published_trunks_give_their_number_of_features(width: float, features: int) -> None:
    with torch.device("meta"):
        trunk = shuffle_trunk(width, in_channels=24)
        assert trunk.num_features == features
        assert trunk(torch.zeros(2, 24, 22, 22)).shape == (2, features)
        assert trunk.units(torch.zeros(2, 24, 22, 22)).shape[2:] == (3, 3)
        assert [number for number, unit in enumerate(trunk.units) if unit.downsamples] == [0, 4, 12]


@torch.no_grad()
def test_channels_are_shuffled_as_in_two_groups() -> None:
    x = maps(channels=8)
    assert torch.equal(interleave(x), nn.functional.channel_shuffle(x, 2))


@torch.no_grad()
def test_a_unit_of_stride_1_passes_half_of_the_channels_untouched() -> None:
    unit, x = lively(ShuffleUnit(6, 6, stride=1)), maps()
    out = unit(x)
    assert torch.equal(out[:, 0::2], x[:, :3])
    right = unit.right_depthwise(torch.relu(unit.right_reduce(x[:, 3:])))
    assert torch.equal(out[:, 1::2], torch.relu(unit.right_expand(right)))


@torch.no_grad()
def test_a_unit_of_stride_2_reads_the_whole_input_on_both_sides() -> None:
    unit, x = lively(ShuffleUnit(6, 8, stride=2)), maps()
    out = unit(x)
    assert out.shape == (3, 8, 6, 6)
    assert torch.equal(out[:, 0::2], torch.relu(unit.left_pointwise(unit.left_depthwise(x))))
    right = unit.right_depthwise(torch.relu(unit.right_reduce(x)))
    assert torch.equal(out[:, 1::2], torch.relu(unit.right_expand(right)))
    assert unit.left_depthwise.conv.groups == 6
    assert unit.right_depthwise.conv.groups == 4


def test_the_trunk_is_one_graph_with_a_free_batch() -> None:
    trunk, x = tiny(), maps()
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(trunk, fullgraph=True, backend="aot_eager")(x), trunk(x))
    program = torch.export.export(trunk, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    torch.testing.assert_close(program.module()(maps(5)), trunk(maps(5)))


def test_widths_that_cannot_be_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"stages have widths \[8, 11\]; expected even ones\. Change \[11\]\."):
        ShuffleTrunk(6, widths=(8, 11), last=10, repeats=(1, 1))
    with pytest.raises(UsageError, match=r"no published width 0.75; expected one of \[0.5, 1.0, 1.5, 2.0\]\. Give"):
        shuffle_trunk(0.75)


@torch.no_grad()
def test_imported_weights_reproduce_the_reference_features(golden: Path) -> None:
    folder = golden / "snv05x_tcn1x"
    published = torch.load(folder / "model.pth.tar", map_location="cpu", weights_only=True)["model_state_dict"]
    model = nn.ModuleDict({"frontend": StackedFrontend(24, kernel=7, act="prelu"), "trunk": shuffle_trunk(0.5)}).eval()
    tensors = {}
    for name, tensor in published.items():
        if not name.startswith("tcn."):
            rule = renamed(name)
            assert rule is not None
            tensors[rule.ours] = tensor if rule.squeeze is None else tensor.squeeze(rule.squeeze)
    model.load_state_dict(tensors)
    clips = torch.from_numpy(np.load(folder / "input.npy"))
    features = model["trunk"](model["frontend"](clips)).reshape(2, 29, 1024)
    torch.testing.assert_close(features, torch.from_numpy(np.load(folder / "features.npy")), rtol=0, atol=1e-4)
