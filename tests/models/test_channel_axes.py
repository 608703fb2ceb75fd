from __future__ import annotations

import pytest
import torch
from tiny_families import FAMILIES
from tiny_models import lively
from torch import Tensor, nn

from edgelip.models.channel_axes import Axis, Member, permute
from edgelip.models.channel_streams import free_axes
from edgelip.models.hypercomplex import PHMLayer
from edgelip.models.zoo import build_classifier

SMALL = {"stem_width": 8, "trunk_widths": [16, 32], "temporal_width": 32, "temporal_blocks": 2}
NETWORKS = {**FAMILIES, "small": ("small", SMALL)}


def network_and_inputs(name: str) -> tuple[nn.Module, tuple[Tensor | None, ...]]:
    family, options = NETWORKS[name]
    generator = torch.Generator().manual_seed(0)
    network = lively(build_classifier(family, num_words=6, options=options))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:  # slopes too: no two channels alike
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    if name.startswith("audio"):
        return network, (torch.randn(2, 1, 4 * 640, generator=generator),)
    clips = torch.randn(2, 1, 5, 24, 24, generator=generator)
    inside = (torch.rand(2, 5, 1, generator=generator) > 0.5).float()
    return network, (clips, None, inside) if "boundary" in name else (clips,)


@pytest.mark.parametrize("name", sorted(NETWORKS))
@torch.no_grad()
def test_permuting_every_free_axis_leaves_the_results(name: str) -> None:
    network, inputs = network_and_inputs(name)
    before, weights = network(*inputs), {key: value.clone() for key, value in network.state_dict().items()}
    axes, generator = free_axes(network), torch.Generator().manual_seed(1)
    for axis in axes:
        permute(network, axis, torch.randperm(axis.size, generator=generator).tolist())
    torch.testing.assert_close(network(*inputs), before, rtol=1e-4, atol=1e-4)
    changed = [key for key, value in network.state_dict().items() if not torch.equal(value, weights[key])]
    assert bool(changed) == bool(axes)
    if not any(isinstance(module, PHMLayer) for module in network.modules()):
        assert len(axes) >= 3


@torch.no_grad()
def test_a_member_left_out_changes_the_results() -> None:
    network, inputs = network_and_inputs("small")
    before = network(*inputs)
    axis = next(axis for axis in free_axes(network) if axis.members[0].layer == "trunk.blocks.0.conv1.conv")
    assert [member.side for member in axis.members] == ["out", "each", "in"]
    permute(network, Axis(axis.size, axis.members[:-1]), list(range(axis.size))[::-1])
    assert (network(*inputs) - before).abs().max() > 1e-3


@torch.no_grad()
def test_a_permutation_moves_channels_of_its_span_alone() -> None:
    network = nn.Sequential(nn.Linear(6, 2, bias=False))
    network[0].weight.copy_(torch.arange(12.0).reshape(2, 6))  # type: ignore[operator, union-attr]
    permute(network, Axis(3, (Member("0", "in", 2),)), [2, 0, 1])
    assert network[0].weight[0].tolist() == [0, 1, 4, 2, 3, 5]  # type: ignore[index, union-attr]
