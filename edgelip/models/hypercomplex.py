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
from edgelip.models.kronecker import divisor_message, fold

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONVOLVE: dict[int, Any] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
DENSE: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
Channels = Literal["exact", "floor"]


class PHMLayer(nn.Module):
    """Base of the PHM layers: W = sum_n kron(A_n, F_n), rows scaled by `row_scale` if set.

    shape: (out, in, *kernel) of W. A: (n, n, n); F: (n, out/n, in/n, *kernel); bias: (out,) or None.
    channels "floor" drops the channels beyond the last multiple of n, as published checkpoints do (import only).
    dense_columns: the last input channels whose columns of W are a plain parameter `bnd` (word-boundary indicator).
    columns: how many of A's n columns there are inputs for; with 1, F has as many input channels as the layer.
    Raises ShapeError if n does not fit the channels.
    Initialised so that Var(W) = 2 / fan_out, the rule of the dense layer it stands for (He et al. 2015).

    In training W is built in each forward, in the parameters' own precision. In eval it is built once and kept until a
    parameter changes, moves or the mode does; a write through `parameter.data` in eval mode is not seen.
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
        name: str = "this layer",
    ) -> None:
        super().__init__()
        out_channels, in_channels, *kernel = shape
        if n < 1:
            raise ShapeError(f"PHM n={n} for {name}; expected a number of terms from 1 on.")
        self.n, self.columns = n, n if columns is None else columns
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
        self.A = nn.Parameter(torch.empty(n, n, n))
        self.F = nn.Parameter(torch.empty(n, height, width, *kernel))
        self.register_buffer("row_scale", None)
        self._kept: tuple[tuple[Any, ...], tuple[Tensor, ...], Tensor] | None = None
        bound = math.sqrt(3.0 / n)  # Var(A) = 1/n, so that Var(W) = n * Var(A) * Var(F) = Var(F)
        deviation = math.sqrt(2.0 / (out_channels * math.prod(kernel)))
        nn.init.uniform_(self.A, -bound, bound)
        nn.init.normal_(self.F, std=deviation)
        if self.bnd is not None:
            nn.init.normal_(self.bnd, std=deviation)

    def dense_weight(self, blocks: Tensor | None = None) -> Tensor:
        """The weight that runs, (out, in, *kernel), built anew; `blocks` stands in for F."""
        with _full_precision(self.A):
            weight = fold(self.used_factors(), self.F if blocks is None else blocks)
            if self.bnd is not None:
                weight = torch.cat([weight, self.bnd], dim=1)
            if self.row_scale is None:
                return weight
            return weight * self.row_scale.reshape(-1, *[1] * (weight.ndim - 1))

    def used_factors(self) -> Tensor:
        """A without the columns that no input belongs to: (n, n, columns)."""
        return self.A if self.columns == self.n else self.A[:, :, : self.columns]

    def running_weight(self) -> Tensor:
        """The dense weight of this forward: built in training, kept in eval."""
        parameters = self._weight_tensors()
        if (
            self.training
            or torch.compiler.is_compiling()
            or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in parameters))
        ):
            return self.dense_weight()
        try:
            state = tuple((t.data_ptr(), t._version, t.dtype, t.device) for t in parameters)
        except RuntimeError:  # inference tensors count no versions, fake tensors have no address
            return self.dense_weight()
        if self._kept is None or self._kept[0] != state:
            with torch.inference_mode(False), torch.no_grad():
                # The aliases keep the memory from being handed out again, so that an address names one tensor.
                self._kept = state, tuple(tensor.detach() for tensor in parameters), self.dense_weight()
        return self._kept[2]

    def train(self, mode: bool = True) -> Any:
        self._kept = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._kept = None
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        """What deepcopy and pickle take: everything but the kept weight."""
        return {**self.__dict__, "_kept": None}

    def _weight_tensors(self) -> list[Tensor]:
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
        n: int,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        bias: bool,
        channels: Channels = "exact",
        dense_columns: int = 0,
        columns: int | None = None,
        name: str = "this layer",
    ) -> None:
        super().__init__(
            shape, n=n, bias=bias, channels=channels, dense_columns=dense_columns, columns=columns, name=name
        )
        self.kernel_size, self.stride, self.padding, self.dilation = tuple(shape[2:]), stride, padding, dilation

    def forward(self, x: Tensor) -> Tensor:
        return convolve(self, x, self.running_weight(), self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, n={self.n}"


class PHMLinear(PHMLayer):
    """A linear layer whose weight is a sum of Kronecker products: (..., in) -> (..., out)."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.running_weight(), self.bias)

    @property
    def in_features(self) -> int:
        return self.in_channels

    @property
    def out_features(self) -> int:
        return self.out_channels

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, n={self.n}"


def phm_from_dense(
    layer: nn.Module,
    *,
    n: int,
    channels: Channels = "exact",
    dense_columns: int = 0,
    columns: int | None = None,
    name: str = "this layer",
) -> PHMConv | PHMLinear:
    """A PHM layer of the shape of a dense convolution or linear layer, freshly initialised."""
    has_bias = getattr(layer, "bias", None) is not None
    if isinstance(layer, nn.Linear):
        shape = (layer.out_features, layer.in_features)
        return PHMLinear(shape, n=n, bias=has_bias, channels=channels, dense_columns=dense_columns, name=name)
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
        channels=channels,
        dense_columns=dense_columns,
        columns=columns,
        name=name,
    )


def replaceable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that can become PHM, by name: linear ones, and convolutions without groups."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, CONVOLUTIONS) and module.groups == 1)
    }


@torch.no_grad()
def draw_as_published(layer: PHMLayer) -> None:
    """The initialisation of the published PHM layers, in place: Var(W) = 2 / ((out/n + n) * in * kernel).

    A ~ U(+-sqrt(3)/n), F Xavier-uniform over the whole factor tensor, bias and bnd ~ U(+-1/sqrt(in)). Source: the code
    of Panagos et al. 2024.
    """
    n, height, width, *kernel = layer.F.shape
    factor_bound, block_bound = math.sqrt(3.0) / n, math.sqrt(6.0 / ((n + height) * width * math.prod(kernel)))
    nn.init.uniform_(layer.A, -factor_bound, factor_bound)
    nn.init.uniform_(layer.F, -block_bound, block_bound)
    for extra in (layer.bias, layer.bnd):
        if extra is not None:
            nn.init.uniform_(extra, -1 / math.sqrt(layer.in_channels), 1 / math.sqrt(layer.in_channels))


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
