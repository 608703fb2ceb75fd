"""A convolution or linear layer as two of small rank: to `rank` channels with the kernel, then from them by 1x1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_POINTWISE: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class LowRank(nn.Module):
    """Two layers in a row: `first` (in -> rank, stride and kernel), `second` (rank -> out, 1x1, with the bias).

    A normalisation behind it is folded into `second`.
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))  # type: ignore[no-any-return]


def low_rank_like(layer: Any, rank: int) -> LowRank:
    """Two layers in the shape of one dense layer without groups, freshly initialised."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return LowRank(nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features, bias=bias))
    kind = _POINTWISE[layer.weight.ndim - 2]
    first = kind(
        layer.in_channels, rank, layer.kernel_size, layer.stride, layer.padding, layer.dilation, bias=False,
        padding_mode=layer.padding_mode,
    )  # fmt: skip
    return LowRank(first, kind(rank, layer.out_channels, 1, bias=bias))


@torch.no_grad()
def low_rank_from_dense(layer: Any, rank: int) -> LowRank:
    """The nearest product of that rank, both factors of equal norm. Source: Eckart and Young 1936."""
    made: Any = low_rank_like(layer, rank)
    left, strength, right = torch.linalg.svd(layer.weight.detach().double().flatten(1), full_matrices=False)
    root = strength[:rank].sqrt()
    made.first.weight.copy_((root[:, None] * right[:rank]).reshape(made.first.weight.shape))
    made.second.weight.copy_((left[:, :rank] * root).reshape(made.second.weight.shape))
    if layer.bias is not None:
        made.second.bias.copy_(layer.bias)
    return made.train(layer.training)  # type: ignore[no-any-return]


def shares_of_ranks(weight: Tensor) -> Tensor:
    """Share of the squared weight (out, in, *kernel) that the nearest product of rank 1, 2, ... holds."""
    squares = torch.linalg.svdvals(weight.detach().double().flatten(1)).square()
    shares: Tensor = squares.cumsum(0) / squares.sum().clamp_min(1e-300)
    return shares


def low_rank_parameters(shape: Sequence[int], rank: int) -> int:
    """Numbers in the two weights that stand for one of (out, in, *kernel)."""
    return rank * (shape[0] + math.prod(shape[1:]))


def largest_paying_rank(shape: Sequence[int]) -> int:
    """The largest rank at which the two weights are smaller than the one; 0 if there is none."""
    return (math.prod(shape) - 1) // (shape[0] + math.prod(shape[1:]))
