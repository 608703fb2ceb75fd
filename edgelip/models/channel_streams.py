"""Channels that may change places from block to block: the streams of residual and dense networks.

A block whose input is added to its output keeps the order of its channels; one with a projection may begin a new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from edgelip.models.audio import AudioTrunk
from edgelip.models.blocks import ConvNorm
from edgelip.models.channel_axes import Axis, Member, branch_reads, inner_axes, made_by, num_rows, slope
from edgelip.models.hypercomplex import PHMLayer
from edgelip.models.multiscale import DenselyConnectedNet, MultiScaleBlock, MultiScaleNet
from edgelip.models.residual import ResidualTrunk
from edgelip.models.shufflenet import ShuffleTrunk
from edgelip.models.tcn import PublishedBlock, PublishedNet, TemporalNet


def free_axes(network: nn.Module) -> list[Axis]:
    """Every axis of a dense network of our families; none for layers that are PHM.

    Within ShuffleNet, EfficientNet and transformers, and behind them, only the axes inside blocks are free.
    """
    found = [axis for name, module in network.named_modules() for axis in inner_axes(name, module)]
    return [axis for axis in (*found, *_between_blocks(network)) if axis.size > 1 and _is_dense(network, axis)]


def _is_dense(network: nn.Module, axis: Axis) -> bool:
    return not any(isinstance(network.get_submodule(member.layer), PHMLayer) for member in axis.members)


class _Stream:
    """Channels on their way: parts side by side, each with the layers that it went through."""

    def __init__(self, *parts: tuple[int, list[Member]]) -> None:
        self.parts = list(parts)

    def through(self, members: Iterable[Member]) -> None:
        """All of it enters or passes these layers."""
        first = 0
        members = list(members)
        for size, passed in self.parts:
            passed.extend(Member(member.layer, member.side, member.first + first) for member in members)
            first += size

    def axes(self) -> list[Axis]:
        return [Axis(size, tuple(members)) for size, members in self.parts]


def _between_blocks(network: Any) -> list[Axis]:
    trunk, temporal = getattr(network, "trunk", None), getattr(network, "temporal", None)
    found: list[Axis] = []
    if isinstance(trunk, (ResidualTrunk, AudioTrunk)):
        stem = network.frontend.stem
        begin = [*made_by("frontend.stem", stem), *slope("frontend.act", network)]
        stream = _residual(network, "trunk.blocks", _Stream((num_rows(stem), begin)), found)
    elif isinstance(trunk, ShuffleTrunk):
        stream = _Stream((num_rows(trunk.last), made_by("trunk.last", trunk.last)))
    else:
        return []
    if isinstance(temporal, (TemporalNet, PublishedNet)):
        stream = _residual(network, "temporal.blocks", stream, found)
    elif isinstance(temporal, MultiScaleNet):
        for position in range(len(temporal.blocks)):
            made = _multi_scale(network, f"temporal.blocks.{position}", stream)
            found += stream.axes()
            stream = _Stream(*made)
    elif isinstance(temporal, DenselyConnectedNet):
        stream = _densely_connected(network, stream, found)
    else:
        return found
    stream.through([Member("head", "in")])
    return [*found, *stream.axes()]


def _residual(network: nn.Module, blocks: str, stream: _Stream, found: list[Axis]) -> _Stream:
    """Through a row of blocks of two convolutions; what ends on the way is added to `found`."""
    for position, block in enumerate(_children(network, blocks)):
        name = f"{blocks}.{position}"
        stream.through([Member(f"{name}.conv1.conv", "in")])
        after = "act" if isinstance(block, PublishedBlock) else "act2"
        made = made_by(f"{name}.conv2", block.conv2)
        if isinstance(block, PublishedBlock):
            made += slope(f"{name}.act2", network)
        if not isinstance(block.shortcut, nn.Identity):
            inside = "shortcut.conv" if isinstance(block.shortcut, ConvNorm) else "shortcut"
            stream.through([Member(f"{name}.{inside}", "in")])
            found += stream.axes()
            stream = _Stream((num_rows(block.conv2), made_by(f"{name}.shortcut", block.shortcut)))
        stream.through([*made, *slope(f"{name}.{after}", network)])
    return stream


def _multi_scale(network: nn.Module, name: str, stream: _Stream) -> list[tuple[int, list[Member]]]:
    """`stream` enters a multi-scale block; what leaves it, a part for each branch of the second set."""
    block: Any = network.get_submodule(name)
    assert isinstance(block, MultiScaleBlock)
    for position, branch in enumerate(block.first):
        stream.through(branch_reads(f"{name}.first.{position}", branch, network, first=0))
    stream.through([Member(f"{name}.shortcut", "in")])
    parts, first = [], 0
    for position, branch in enumerate(_children(network, f"{name}.second")):
        path = f"{name}.second.{position}"
        size = num_rows(branch.conv)
        members = [*made_by(f"{path}.conv", branch.conv), *slope(f"{path}.act", network)]
        members += [Member(f"{name}.shortcut", "out", first), *slope(f"{name}.act", network, first=first)]
        parts.append((size, members))
        first += size
    return parts


def _densely_connected(network: nn.Module, stream: _Stream, found: list[Axis]) -> _Stream:
    """Through transitions and dense blocks, each layer of which reads all that came before it in its block."""
    for number, transition in enumerate(_children(network, "temporal.transitions")):
        name = f"temporal.transitions.{number}"
        stream.through([Member(f"{name}.project.conv", "in")])
        found += stream.axes()
        made = [*made_by(f"{name}.project", transition.project), *slope(f"{name}.act", network)]
        stream = _Stream((num_rows(transition.project), made))
        for position in range(len(_children(network, f"temporal.blocks.{number}.layers"))):
            stream.parts += _multi_scale(network, f"temporal.blocks.{number}.layers.{position}", stream)
    stream.through([Member("temporal.norm", "each")])
    return stream


def _children(network: nn.Module, name: str) -> list[Any]:
    return list(network.get_submodule(name).children())
