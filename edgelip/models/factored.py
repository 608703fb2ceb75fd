"""Layers of few Kronecker terms run without building their weight: (sum_r kron(A_r, F_r)) x in two small products.

Each of the n groups of input channels goes through the same blocks F, as one more item of the batch; then A mixes the
groups. What stands between is views: an engine sees Reshape, Conv, Reshape, MatMul, Reshape.

Axes: R terms, P and Q the groups of output and input channels, I and J the channels of an output and an input group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

# Largest share of the dense multiply-adds at which a layer runs factored unless told (benchmarks/factored.py).
FACTORED_RATIO = 0.3

_CONVOLVE: dict[int, Any] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def factored_macs_ratio(shape: Sequence[int], *, n: int, terms: int) -> float:
    """Multiply-adds of a layer run factored over those of its dense weight (out, in, *kernel).

    terms / n for the blocks, n * terms / (in * kernel) for the mixing.
    """
    return terms / n + n * terms / math.prod(shape[1:])


def mixing(factors_RPQ: Tensor) -> Tensor:
    """Factors as one matrix (P, Q*R): output groups from the products of all input groups and terms."""
    return factors_RPQ.permute(1, 2, 0).flatten(1)


def factored_convolution(
    layer: Any, x: Tensor, mix: Tensor, blocks: Tensor, *, bias: Tensor | None, row_scale: Tensor | None
) -> Tensor:
    """(B, Q*J, ...) -> (B, P*I, ...): what the convolution with the folded weight gives, to float rounding.

    layer: has stride, padding and dilation. mix: (P, Q*R) as `mixing` makes it; blocks: (R*I, J, *kernel).
    """
    num_rows, width = blocks.shape[:2]
    columns = x.shape[1] // width
    height = num_rows * columns // mix.shape[1]
    convolve = _CONVOLVE[blocks.ndim - 2]
    products = convolve(x.reshape(-1, width, *x.shape[2:]), blocks, None, layer.stride, layer.padding, layer.dilation)
    size = products.shape[2:]
    mixed = mix @ products.reshape(-1, mix.shape[1], height * math.prod(size))
    return _finished(mixed.reshape(-1, mix.shape[0] * height, *size), bias, row_scale)


def factored_linear(x: Tensor, mix: Tensor, blocks: Tensor, *, bias: Tensor | None, row_scale: Tensor | None) -> Tensor:
    """(..., Q*J) -> (..., P*I): the same for a linear layer; blocks: (R*I, J)."""
    num_rows, width = blocks.shape
    height = num_rows * (x.shape[-1] // width) // mix.shape[1]
    products = functional.linear(x.reshape(-1, width), blocks)
    mixed = mix @ products.reshape(-1, mix.shape[1], height)
    return _finished(mixed.reshape(-1, mix.shape[0] * height), bias, row_scale).reshape(*x.shape[:-1], -1)


def _finished(x: Tensor, bias: Tensor | None, row_scale: Tensor | None) -> Tensor:
    """Each channel scaled and shifted: a folded normalisation, a bias."""
    tail = [1] * (x.ndim - 2)
    if row_scale is not None:
        x = x * row_scale.reshape(-1, *tail)
    return x if bias is None else x + bias.reshape(-1, *tail)


class FactoredLayer(nn.Module):
    """A PHM layer as it runs factored, with its parameters arranged: for the exporter.

    mix (n, n*terms): A; weight (terms*out/n, in/n, *kernel): F; row_scale and bias (out,) or None.
    """

    def __init__(
        self, layer: Any, factors_RPQ: Tensor, blocks_RIJ: Tensor, *, bias: Tensor | None, row_scale: Tensor | None
    ) -> None:
        super().__init__()
        self.is_linear = blocks_RIJ.ndim == 3
        if not self.is_linear:
            self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation
        self.mix, self.weight = _constant(mixing(factors_RPQ)), _constant(blocks_RIJ.flatten(0, 1))
        self.row_scale = None if row_scale is None else _constant(row_scale)
        self.bias = None if bias is None else _constant(bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.is_linear:
            return factored_linear(x, self.mix, self.weight, bias=self.bias, row_scale=self.row_scale)
        return factored_convolution(self, x, self.mix, self.weight, bias=self.bias, row_scale=self.row_scale)


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(), requires_grad=False)
