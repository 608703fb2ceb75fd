"""Layers whose weight is a sum of Kronecker products of small factors (PHM).

Axes: N terms, P rows and Q columns of a factor A_NPQ, I and J output and input channels of a block F_NIJ...
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgelip.errors import ShapeError

CONVOLVE: dict[int, Any] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def fold(factors_NPQ: Tensor, blocks_NIJ: Tensor) -> Tensor:
    """The dense weight that PHM factors stand for: W = sum_n kron(A_n, F_n).

    factors_NPQ: (n, n, n); blocks_NIJ: (n, out/n, in/n, *kernel). Returns (out, in, *kernel).
    One matrix product and one transpose, without n-fold temporaries. Source: Zhang et al., ICLR 2021.
    """
    num_terms, rows, columns = factors_NPQ.shape
    height, width, *kernel = blocks_NIJ.shape[1:]
    products = factors_NPQ.reshape(num_terms, rows * columns).t() @ blocks_NIJ.reshape(num_terms, -1)
    grid = products.reshape(rows, columns, height, width, -1).permute(0, 2, 1, 3, 4)
    return grid.reshape(rows * height, columns * width, *kernel)


def factorise(weight: Tensor, num_terms: int) -> tuple[Tensor, Tensor]:
    """The nearest sum of `num_terms` Kronecker products of factors (n, n): exact if the weight is one.

    weight: (out, in, *kernel), n dividing out and in. Returns A (n, n, n), F (n, out/n, in/n, *kernel) with
    ||A_m|| = ||F_m|| up to a shared scale. Source: Van Loan and Pitsianis 1993 (rearrangement and SVD).
    """
    n = num_terms
    out_channels, in_channels, *kernel = weight.shape
    if out_channels % n or in_channels % n:
        raise ShapeError(divisor_message("weight", out_channels, in_channels, n))
    height, width = out_channels // n, in_channels // n
    blocks = weight.detach().double().reshape(n, height, n, width, -1).permute(0, 2, 1, 3, 4)
    left, strength, right = torch.linalg.svd(blocks.reshape(n * n, -1), full_matrices=False)
    root = strength[:n].sqrt()
    kept = len(root)
    factors = torch.zeros(n, n * n, dtype=torch.float64)
    spread = torch.zeros(n, right.shape[1], dtype=torch.float64)
    factors[:kept] = (left[:, :kept] * root).t()
    spread[:kept] = root[:, None] * right[:kept]
    return (
        factors.reshape(n, n, n).to(weight.dtype),
        spread.reshape(n, height, width, *kernel).to(weight.dtype),
    )


def divisor_message(name: str, out_channels: int, in_channels: int, n: int) -> str:
    """Error text for an n that does not divide the channels, with those that do."""
    common = math.gcd(out_channels, in_channels)
    divisors = [d for d in range(2, common + 1) if common % d == 0]
    offer = f"Choose n from {divisors}." if divisors else "No n above 1 divides both: leave this layer dense."
    return f"PHM n={n} does not divide the {out_channels} output and {in_channels} input channels of {name}. {offer}"


class PHMConv(nn.Module):
    """A 1-D, 2-D or 3-D convolution whose weight is W = sum_n kron(A_n, F_n), rows scaled by `row_scale` if set.

    A: (n, n, n), F: (n, out/n, in/n, *kernel), bias: (out,) or None. Raises ShapeError if n does not fit the channels.
    Initialised so that Var(W) = 2 / fan_out, the rule of the dense layer it stands for (He et al. 2015).
    """

    row_scale: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, ...],
        *,
        n: int,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        bias: bool,
        name: str = "this layer",
    ) -> None:
        super().__init__()
        if out_channels % n or in_channels % n:
            raise ShapeError(divisor_message(name, out_channels, in_channels, n))
        self.n, self.in_channels, self.out_channels = n, in_channels, out_channels
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.A = nn.Parameter(torch.empty(n, n, n))
        self.F = nn.Parameter(torch.empty(n, out_channels // n, in_channels // n, *kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("row_scale", None)
        bound = math.sqrt(3.0 / n)  # Var(A) = 1/n, so that Var(W) = n * Var(A) * Var(F) = Var(F)
        nn.init.uniform_(self.A, -bound, bound)
        nn.init.normal_(self.F, std=math.sqrt(2.0 / (out_channels * math.prod(kernel_size))))

    @classmethod
    def like(cls, layer: nn.Module, *, n: int, name: str) -> PHMConv:
        """A PHM layer of the shape of a dense, ungrouped convolution, freshly initialised."""
        if (
            not isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
            or layer.groups != 1
            or isinstance(layer.padding, str)
            or layer.padding_mode != "zeros"
        ):
            raise ShapeError(
                f"{name} is {layer}; PHM layers replace convolutions without groups and with zero padding in numbers."
            )
        return cls(
            layer.in_channels,
            layer.out_channels,
            tuple(layer.kernel_size),
            n=n,
            stride=tuple(layer.stride),
            padding=tuple(layer.padding),
            dilation=tuple(layer.dilation),
            bias=layer.bias is not None,
            name=name,
        )

    def dense_weight(self) -> Tensor:
        """The weight that runs: (out, in, *kernel)."""
        weight = fold(self.A, self.F)
        if self.row_scale is None:
            return weight
        return weight * self.row_scale.reshape(-1, *[1] * (weight.ndim - 1))

    def forward(self, x: Tensor) -> Tensor:
        return convolve(self, x, self.dense_weight(), self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, n={self.n}"


def dense_weight(layer: nn.Module) -> Tensor:
    """The dense weight of a convolution or linear layer, PHM or not."""
    return layer.dense_weight() if isinstance(layer, PHMConv) else layer.weight  # type: ignore[return-value]


def convolve(layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Run a convolution or linear layer on x with another weight and bias of the same shape."""
    if isinstance(layer, nn.Linear):
        return functional.linear(x, weight, bias)
    function = CONVOLVE[weight.ndim - 2]
    return function(x, weight, bias, layer.stride, layer.padding, layer.dilation)  # type: ignore[no-any-return]
