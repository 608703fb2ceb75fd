"""Layers whose weight is a sum of Kronecker products of small factors (PHM), and how they replace dense ones.

A model is written with dense layers. `phm_from_dense` gives the layer that takes the place of one; `densified` makes
all of them dense again.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgelip.errors import ShapeError
from edgelip.models.factored import factored_convolution, factored_linear, mixing
from edgelip.models.kronecker import divisor_message, fold
from edgelip.models.made_weight import MadeWeight

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONVOLVE: dict[int, Any] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
DENSE: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
Channels = Literal["exact", "floor"]


class PHMLayer(MadeWeight):
    """Base of the PHM layers: W = sum_r kron(A_r, F_r), rows scaled by `row_scale` if set.

    shape: (out, in, *kernel) of W. A: (terms, n, n); F: (terms, out/n, in/n, *kernel); bias: (out,) or None.
    terms: products in the sum, n if not given; with fewer the layer can run `factored`, for fewer multiply-adds: in
    eval mode the weight is then never built (edgelip.models.factored).
    channels "floor" drops the channels beyond the last multiple of n, as published checkpoints do (import only).
    dense_columns: the last input channels whose columns of W are a plain parameter `bnd` (word-boundary indicator).
    columns: how many of A's n columns there are inputs for; with 1, F has as many input channels as the layer.
    Raises ShapeError if n does not fit the channels.
    Initialised so that Var(W) = 2 / fan_out, the rule of the dense layer it stands for (He et al. 2015).

    W is built in the parameters' own precision.
    """

    bias: Tensor | None
    bnd: Tensor | None
    row_scale: Tensor | None

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        n: int,
        bias: bool,
        channels: Channels = "exact",
        dense_columns: int = 0,
        columns: int | None = None,
        terms: int | None = None,
        factored: bool = False,
        name: str = "this layer",
    ) -> None:
        super().__init__()
        out_channels, in_channels, *kernel = shape
        if n < 1:
            raise ShapeError(f"PHM n={n} for {name}; expected a number of terms from 1 on.")
        self.n, self.columns, self.terms = n, n if columns is None else columns, n if terms is None else terms
        if not 1 <= self.terms <= n:
            raise ShapeError(f"PHM n={n} with {terms} terms for {name}; expected from 1 to {n} terms.")
        if factored and (dense_columns or self.columns != n):
            raise ShapeError(f"{name} has columns of its own beside its factors; it runs folded. Leave factored out.")
        self.factored = factored
        kronecker_in = in_channels - dense_columns
        if channels == "exact" and (out_channels % n or kronecker_in % self.columns):
            raise ShapeError(divisor_message(name, out_channels, kronecker_in, n))
        height, width = out_channels // n, kronecker_in // self.columns
        if not height or not width:
            raise ShapeError(divisor_message(name, out_channels, kronecker_in, n))
        self.out_channels, self.in_channels = height * n, width * self.columns + dense_columns
        self.bias = nn.Parameter(torch.zeros(self.out_channels)) if bias else None
        extra = (self.out_channels, dense_columns, *kernel)
        self.bnd = nn.Parameter(torch.zeros(extra)) if dense_columns else None
        self.A = nn.Parameter(torch.empty(self.terms, n, n))
        self.F = nn.Parameter(torch.empty(self.terms, height, width, *kernel))
        self.register_buffer("row_scale", None)
        bound = math.sqrt(3.0 / self.terms)  # Var(A) = 1/terms, so that Var(W) = terms * Var(A) * Var(F) = Var(F)
        deviation = math.sqrt(2.0 / (out_channels * math.prod(kernel)))
        nn.init.uniform_(self.A, -bound, bound)
        nn.init.normal_(self.F, std=deviation)
        if self.bnd is not None:
            nn.init.normal_(self.bnd, std=deviation)

    def dense_weight(self, blocks: Tensor | None = None) -> Tensor:
        """The weight that runs, (out, in, *kernel), built anew; `blocks` stands in for F."""
        return phm_weight(self.used_factors(), self.F if blocks is None else blocks, self.bnd, self.row_scale)

    def used_factors(self) -> Tensor:
        """A without the columns that no input belongs to: (terms, n, columns)."""
        return self.A if self.columns == self.n else self.A[:, :, : self.columns]

    def runs_factored(self) -> bool:
        """Whether a forward now takes the factors one after the other; in training W is built, as for any other."""
        return self.factored and not self.training

    def made_weight(self) -> Tensor:
        return self.dense_weight()

    def weight_sources(self) -> list[Tensor]:
        tensors = (self.A, self.F, self.bnd, self.row_scale)
        return [tensor for tensor in tensors if tensor is not None]


class PHMConv(PHMLayer):
    """A 1-D, 2-D or 3-D convolution without groups whose weight is a sum of Kronecker products.

    Sources: Zhang et al., ICLR 2021; for convolutions Grassucci et al., arXiv 2110.04176.
    """

    groups = 1

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        **factors: Any,
    ) -> None:
        """factors: n, bias and what else PHMLayer takes."""
        super().__init__(shape, **factors)
        self.kernel_size, self.stride, self.padding, self.dilation = tuple(shape[2:]), stride, padding, dilation

    def forward(self, x: Tensor) -> Tensor:
        if self.runs_factored():
            mix, blocks = mixing(self.A), self.F.flatten(0, 1)
            return factored_convolution(self, x, mix, blocks, bias=self.bias, row_scale=self.row_scale)
        return convolve(self, x, self.running_weight(), self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, n={self.n}{_few(self)}"


class PHMLinear(PHMLayer):
    """A linear layer whose weight is a sum of Kronecker products: (..., in) -> (..., out)."""

    def forward(self, x: Tensor) -> Tensor:
        if self.runs_factored():
            mix, blocks = mixing(self.A), self.F.flatten(0, 1)
            return factored_linear(x, mix, blocks, bias=self.bias, row_scale=self.row_scale)
        return functional.linear(x, self.running_weight(), self.bias)

    @property
    def in_features(self) -> int:
        return self.in_channels

    @property
    def out_features(self) -> int:
        return self.out_channels

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, n={self.n}{_few(self)}"


def _few(layer: PHMLayer) -> str:
    return "" if layer.terms == layer.n else f", terms={layer.terms}"


def phm_weight(factors: Tensor, blocks: Tensor, columns: Tensor | None, row_scale: Tensor | None) -> Tensor:
    """The weight of a PHM layer: the sum of Kronecker products, dense columns beside it, its rows scaled."""
    with _full_precision(factors):
        weight = fold(factors, blocks)
        if columns is not None:
            weight = torch.cat([weight, columns], dim=1)
        if row_scale is None:
            return weight
        return weight * row_scale.reshape(-1, *[1] * (weight.ndim - 1))


def phm_from_dense(layer: nn.Module, *, n: int, name: str = "this layer", **factors: Any) -> PHMConv | PHMLinear:
    """A PHM layer of the shape of a dense convolution or linear layer, freshly initialised.

    factors: what else PHMLayer takes. Raises ShapeError where n does not fit, and for other layers.
    """
    has_bias = getattr(layer, "bias", None) is not None
    if isinstance(layer, nn.Linear):
        return PHMLinear((layer.out_features, layer.in_features), n=n, bias=has_bias, name=name, **factors)
    if (
        not isinstance(layer, CONVOLUTIONS)
        or layer.groups != 1
        or isinstance(layer.padding, str)
        or layer.padding_mode != "zeros"
    ):
        raise ShapeError(
            f"{name} is {layer}; PHM layers replace linear layers, and convolutions without groups and with zero "
            "padding in numbers."
        )
    return PHMConv(
        (layer.out_channels, layer.in_channels, *layer.kernel_size),
        n=n,
        stride=tuple(layer.stride),
        padding=tuple(layer.padding),
        dilation=tuple(layer.dilation),
        bias=has_bias,
        name=name,
        **factors,
    )


@torch.no_grad()
def densified(model: nn.Module) -> nn.Module:
    """A copy in which every PHM layer is the dense layer it stands for: same results, no weight to build."""
    model = deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, PHMLayer):
            model.set_submodule(name, dense_like(module, module.dense_weight(), module.bias).train(module.training))
    return model


@torch.no_grad()
def dense_like(layer: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """A plain convolution or linear layer of the same geometry with `weight` and `bias`."""
    if weight.ndim == 2:
        dense: Any = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    else:
        dense = DENSE[weight.ndim - 2](
            weight.shape[1] * layer.groups,
            weight.shape[0],
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
            bias=bias is not None,
        )
    dense.weight = nn.Parameter(weight.detach().clone())
    dense.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    return dense  # type: ignore[no-any-return]


def convolve(layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Run a convolution or linear layer on x with another weight and bias of the same shape."""
    if weight.ndim == 2:
        return functional.linear(x, weight, bias)
    function = CONVOLVE[weight.ndim - 2]
    return function(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)  # type: ignore[no-any-return]


def _full_precision(tensor: Tensor) -> AbstractContextManager[Any]:
    """Autocast rounds what runs, not what it is built from."""
    kind = tensor.device.type
    active = kind != "meta" and torch.is_autocast_enabled(kind)  # torch refuses to answer for meta
    return torch.autocast(kind, enabled=False) if active else nullcontext()
