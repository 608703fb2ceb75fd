"""Channels that may change places within a block: axes that layers share, and permutations that leave the results.

An axis runs from the layers that make its channels to those that read them, through all that goes with a channel:
norms, slopes, depthwise convolutions. Channels of a concatenation may change places within each of its parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgelip.models.audio import BasicBlock1d
from edgelip.models.blocks import ConvNorm
from edgelip.models.efficientnet import Excitation2d, FusedBlock, MBConvBlock
from edgelip.models.multiscale import Branch, Excitation, MultiScaleBlock, SeparableBranch
from edgelip.models.residual import BasicBlock
from edgelip.models.shufflenet import ShuffleUnit
from edgelip.models.signs import SignTransformerBlock
from edgelip.models.tcn import PublishedBlock, TemporalBlock
from edgelip.models.transformer import PlainSumBlock, TransformerTemporal

TWO_CONVOLUTIONS = (BasicBlock, BasicBlock1d, TemporalBlock, PublishedBlock, PlainSumBlock)
Side = Literal["out", "in", "each"]  # rows of a weight, columns, or one parameter a channel


@dataclass(frozen=True)
class Member:
    """One layer on an axis: which of its sides, and from which of its channels on."""

    layer: str
    side: Side
    first: int = 0


@dataclass(frozen=True)
class Axis:
    """`size` channels that may change places together in all members."""

    size: int
    members: tuple[Member, ...]


@torch.no_grad()
def permute(network: nn.Module, axis: Axis, order: Sequence[int]) -> None:
    """Let channel i of an axis become what channel order[i] was, in place, in all members."""
    index = torch.as_tensor(list(order))
    for member in axis.members:
        layer, span = network.get_submodule(member.layer), slice(member.first, member.first + axis.size)
        for tensor, dim in _tensors(layer, member.side):
            part = tensor[span] if dim == 0 else tensor[:, span]
            part.copy_(part.index_select(dim, index).clone())


def _tensors(layer: Any, side: Side) -> Iterator[tuple[Tensor, int]]:
    if side == "in":
        yield layer.weight, 1
        return
    for name in ("weight", "bias", "running_mean", "running_var"):
        tensor = getattr(layer, name, None)
        if tensor is not None:
            yield tensor, 0


def num_rows(layer: Any) -> int:
    """Channels that a layer makes."""
    conv: Any = layer.conv if isinstance(layer, ConvNorm) else layer
    return int(conv.out_features if isinstance(conv, nn.Linear) else conv.out_channels)


def made_by(name: str, layer: nn.Module) -> list[Member]:
    """A convolution that makes channels, with its norm."""
    if not isinstance(layer, ConvNorm):
        return [Member(name, "out")]
    norms = [] if isinstance(layer.norm, nn.Identity) else [Member(f"{name}.norm", "each")]
    return [Member(f"{name}.conv", "out"), *norms]


def slope(name: str, module: nn.Module, *, first: int = 0) -> list[Member]:
    """The activation, if it has a slope for each channel."""
    layer = module.get_submodule(name)
    return [Member(name, "each", first)] if isinstance(layer, nn.PReLU) and layer.num_parameters > 1 else []


def inner_axes(name: str, module: Any) -> Iterator[Axis]:
    """Axes that begin and end within one block."""

    def at(member: Member) -> Member:
        return Member(f"{name}.{member.layer}", member.side, member.first)

    def axis(producer: str, *rest: Member) -> Axis:
        layer = module.get_submodule(producer)
        return Axis(num_rows(layer), tuple(at(member) for member in (*made_by(producer, layer), *rest)))

    if isinstance(module, TWO_CONVOLUTIONS):
        yield axis("conv1", *slope("act1", module), Member("conv2.conv", "in"))
    elif isinstance(module, ShuffleUnit):
        yield axis("right_reduce", *_depthwise("right_depthwise"), Member("right_expand.conv", "in"))
    elif isinstance(module, (Excitation, Excitation2d)):
        yield axis("reduce", Member("expand", "in"))
    elif isinstance(module, FusedBlock):
        yield axis("fused", Member("project.conv", "in"))
    elif isinstance(module, MBConvBlock):
        squeeze = (Member("excite.reduce", "in"), Member("excite.expand", "out"))
        yield axis("expand", *_depthwise("depthwise"), *squeeze, Member("project.conv", "in"))
    elif isinstance(module, (TransformerTemporal, SignTransformerBlock)):
        yield axis("feedforward1", Member("feedforward2", "in"))
    elif isinstance(module, MultiScaleBlock):
        first = 0
        for position, branch in enumerate(module.first):
            readers = [
                member
                for other, reader in enumerate(module.second)
                for member in branch_reads(f"second.{other}", reader, module, first=first)
            ]
            yield axis(f"first.{position}.conv", *slope(f"first.{position}.act", module), *readers)
            first += num_rows(branch.conv)


def _depthwise(name: str) -> tuple[Member, Member]:
    return Member(f"{name}.conv", "each"), Member(f"{name}.norm", "each")


def branch_reads(name: str, branch: Any, root: nn.Module, *, first: int) -> list[Member]:
    """What one branch of a multi-scale set does to the channels of its input."""
    if isinstance(branch, SeparableBranch):
        inner = [Member(f"{name}.depthwise.conv", "each", first), Member(f"{name}.depthwise.norm", "each", first)]
        return [*inner, *slope(f"{name}.depthwise_act", root, first=first), Member(f"{name}.conv.conv", "in", first)]
    assert isinstance(branch, Branch)
    members = [Member(f"{name}.conv.conv", "in", first)]
    if branch.excite is not None:
        members += [Member(f"{name}.excite.reduce", "in", first), Member(f"{name}.excite.expand", "out", first)]
    return members
