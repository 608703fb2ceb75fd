"""Layers of fewer channels: which widths a layer has, and how it is given a subset of them.

PHM layers are cut in their blocks: W[a * O + o, b * I + i] = sum_m A[m, a, b] F[m, o, i], so a channel leaves together
with the n - 1 others that have its row o in another block row a. Then F loses row o and A stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgelip.errors import StageError
from edgelip.models.hypercomplex import CONVOLUTIONS, PHMLayer

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CUTTABLE = (*CONVOLUTIONS, nn.Linear, PHMLayer, *NORMS, nn.PReLU)
Widths = dict[str, list[int]]


@dataclass(frozen=True)
class Kept:
    """Indices of the channels that one layer keeps, ascending; None keeps all. One-sided layers have rows alone."""

    rows: Tensor | None = None
    columns: Tensor | None = None


def layer_widths(layer: nn.Module) -> tuple[int, int] | None:
    """Output and input channels; None for a layer that has none of its own."""
    if isinstance(layer, (*CONVOLUTIONS, PHMLayer)):
        return layer.out_channels, layer.in_channels
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    if isinstance(layer, NORMS):
        return layer.num_features, layer.num_features
    if isinstance(layer, nn.PReLU) and layer.num_parameters > 1:
        return layer.num_parameters, layer.num_parameters
    return None


def model_widths(model: nn.Module) -> Widths:
    """The widths of every layer that has any."""
    found = ((name, layer_widths(module)) for name, module in model.named_modules())
    return {name: list(widths) for name, widths in found if widths is not None}


def is_one_sided(layer: nn.Module) -> bool:
    """Whether the layer gives as many channels as it takes, each from the one of its index."""
    return isinstance(layer, (*NORMS, nn.PReLU)) or is_depthwise(layer)


def is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, CONVOLUTIONS) and layer.groups > 1 and layer.groups == layer.in_channels


@dataclass(frozen=True)
class BlockGrid:
    """How a PHM layer's channels fall into blocks: `size` channels each, one F row or column for each of them."""

    num_blocks: int
    size: int

    def expand(self, kept: Tensor) -> Tensor:
        """Indices of channels from indices within a block."""
        starts = torch.arange(self.num_blocks)[:, None] * self.size
        return (starts + kept[None]).flatten()


def row_grid(layer: PHMLayer) -> BlockGrid:
    height = layer.F.shape[1]
    return BlockGrid(layer.out_channels // height, height)


def column_grid(layer: PHMLayer) -> BlockGrid:
    """Of the input channels that come from factors; dense columns (`bnd`) follow them."""
    width = layer.F.shape[2]
    return BlockGrid((layer.in_channels - dense_columns(layer)) // width, width)


def dense_columns(layer: PHMLayer) -> int:
    return 0 if layer.bnd is None else layer.bnd.shape[1]


@torch.no_grad()
def cut(model: nn.Module, kept: Mapping[str, Kept]) -> None:
    """Leave the layers of these names with the channels that they keep, in place."""
    for name, channels in kept.items():
        cut_layer(model.get_submodule(name), channels)


@torch.no_grad()
def cut_layer(layer: Any, kept: Kept) -> None:
    """Leave one layer with the channels that it keeps, in place."""
    rows, columns = kept.rows, kept.columns
    if isinstance(layer, PHMLayer):
        _cut_factors(layer, rows, columns)
    elif columns is not None:
        layer.weight = nn.Parameter(layer.weight[:, columns].clone())
    if rows is not None:
        for name in ("weight", "bias", "running_mean", "running_var", "row_scale"):
            tensor = getattr(layer, name, None)
            if isinstance(tensor, nn.Parameter):
                setattr(layer, name, nn.Parameter(tensor[rows].clone()))
            elif isinstance(tensor, Tensor):
                setattr(layer, name, tensor[rows].clone())
    _count(layer, rows, columns)


def _cut_factors(layer: PHMLayer, rows: Tensor | None, columns: Tensor | None) -> None:
    blocks = layer.F
    if rows is not None:
        height = row_grid(layer).size
        blocks = blocks[:, rows[rows < height]]  # type: ignore[assignment]
        if layer.bnd is not None:
            layer.bnd = nn.Parameter(layer.bnd[rows].clone())
    if columns is not None:
        blocks = blocks[:, :, columns[columns < column_grid(layer).size]]  # type: ignore[assignment]
    layer.F = nn.Parameter(blocks.clone())


def _count(layer: Any, rows: Tensor | None, columns: Tensor | None) -> None:
    """Let the layer's own numbers say what it has."""
    out_size, in_size = layer_widths(layer) or (0, 0)
    out_size, in_size = len(rows) if rows is not None else out_size, len(columns) if columns is not None else in_size
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = out_size, in_size
    elif isinstance(layer, NORMS):
        layer.num_features = out_size
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = out_size
    elif is_depthwise(layer):
        layer.out_channels = layer.in_channels = layer.groups = out_size
    else:
        layer.out_channels, layer.in_channels = out_size, in_size


@torch.no_grad()
def silence(model: nn.Module, kept: Mapping[str, Kept]) -> None:
    """Make the channels that would leave zero, in place: the network then computes what the cut one does."""
    for name, channels in kept.items():
        layer: Any = model.get_submodule(name)
        if channels.rows is None:
            continue
        gone = torch.ones(model_widths(layer)[""][0], dtype=torch.bool)
        gone[channels.rows] = False
        if isinstance(layer, PHMLayer):
            layer.F[:, gone[: row_grid(layer).size]] = 0
            if layer.bnd is not None:
                layer.bnd[gone] = 0
        else:
            layer.weight[gone] = 0
        if getattr(layer, "bias", None) is not None:
            layer.bias[gone] = 0


def shrink(model: nn.Module, widths: Any) -> None:
    """Give layers smaller widths (out, in), in place; their values are to be loaded.

    widths: of a record, which is not trusted. Raises StageError if a layer or a width is none of this model.
    """
    if not isinstance(widths, Mapping):
        raise StageError(f"A pruning record has widths {widths!r}; expected a table of layers. Prune again.")
    before = model_widths(model)
    for name, wanted in widths.items():
        if name not in before:
            raise StageError(f"A pruning record names {name!r}, which is no layer of this model with channels.")
        whole = isinstance(wanted, (list, tuple)) and all(type(width) is int for width in wanted)
        if not whole or len(wanted) != 2 or not all(0 < new <= old for new, old in zip(wanted, before[name])):  # noqa: B905
            raise StageError(f"Pruning {name} from {before[name]} to {wanted} channels is no pruning.")
        layer = model.get_submodule(name)
        if is_one_sided(layer) and wanted[0] != wanted[1]:
            raise StageError(f"{name} gives as many channels as it takes; a pruning record says {wanted}.")
        cut_layer(layer, _first(layer, name, wanted))


def _first(layer: nn.Module, name: str, widths: list[int]) -> Kept:
    """The first channels of each block; of a layer without blocks, the first."""
    out_size, in_size = widths
    if not isinstance(layer, PHMLayer):
        return Kept(torch.arange(out_size), None if is_one_sided(layer) else torch.arange(in_size))
    rows, columns, extra = row_grid(layer), column_grid(layer), dense_columns(layer)
    if out_size % rows.num_blocks or (in_size - extra) % columns.num_blocks or in_size <= extra:
        raise StageError(
            f"{name} has {rows.num_blocks} by {columns.num_blocks} blocks, which divide its channels; a pruning record "
            f"says {widths}."
        )
    kept_columns = columns.expand(torch.arange((in_size - extra) // columns.num_blocks))
    dense = torch.arange(layer.in_channels - extra, layer.in_channels)
    return Kept(rows.expand(torch.arange(out_size // rows.num_blocks)), torch.cat([kept_columns, dense]))
