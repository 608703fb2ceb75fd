"""Layers that compute with the numbers that their file will hold: factors and weights in 4, 8 or 16 bits.

Integers are symmetric, with one scale a row, which is a float16. A row is one term of A, one row of a block of F, one
output row of a weight without factors. In 8 bits the row's largest value has the last level; in 4 a smaller scale may
round the rest so much better that cutting it pays.
With the large part of a layer go its float numbers: in 16 bits or fewer its bias and row scale are float16.
What runs is the float weight built from these numbers; rounding it to int8 as well is `fake_quant`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from edgelip.errors import StageError
from edgelip.models.factored import factored_convolution, factored_linear, mixing
from edgelip.models.hypercomplex import CONVOLUTIONS, PHMLayer, PHMLinear, convolve, phm_weight
from edgelip.models.made_weight import MadeWeight

FactorBits = Literal[8, 16, 32]
WeightBits = Literal[4, 8, 16, 32]
WEIGHTED = (*CONVOLUTIONS, nn.Linear, PHMLayer)
HALF_LARGEST = 65504.0
MIN_SCALE = 2.0**-24  # smallest float16 above zero
# Of the scale at which nothing is cut. Least squared error gains 0.5 dB on evenly spread rows, 1.3 on Gaussian ones.
_CUTTING = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)


@dataclass(frozen=True)
class Bits:
    """Bits of the Kronecker factors A, of their blocks F, and of a weight without factors; 32 is float, 16 half float.

    A has 8 at least: at 4 it costs 3 dB of the weight and is a small part of it. Raises StageError for other numbers.
    """

    factors: FactorBits = 32
    blocks: WeightBits = 32
    dense: WeightBits = 32

    def __post_init__(self) -> None:
        if self.factors not in get_args(FactorBits):
            raise StageError(
                f"Factors A in {self.factors} bits; expected 8, 16 or 32. Take 8: in fewer they spoil every block."
            )
        for name in ("blocks", "dense"):
            if getattr(self, name) not in get_args(WeightBits):
                raise StageError(f"{name} = {getattr(self, name)} bits; expected 4, 8, 16 or 32. Choose one of those.")


class StoredLayer(MadeWeight):
    """A convolution, linear or PHM layer with its norm folded that runs on what its file holds; gradients pass."""

    def __init__(self, layer: nn.Module, bits: Bits) -> None:
        super().__init__()
        if not isinstance(layer, WEIGHTED):
            raise StageError(f"A {type(layer).__name__} holds no weight to store. Name a convolution or linear layer.")
        self.layer = layer
        self.bits = bits

    @property
    def has_factors(self) -> bool:
        return isinstance(self.layer, PHMLayer)

    @property
    def weight_bits(self) -> int:
        """Bits of the large part: the blocks, or the weight that has none."""
        return self.bits.blocks if self.has_factors else self.bits.dense

    def dense_weight(self) -> Tensor:
        """The float weight that an engine builds from the stored numbers: (out, in, *kernel)."""
        layer: Any = self.layer
        if not self.has_factors:
            return stored(layer.weight, 1, self.bits.dense)
        return phm_weight(self.stored_factors(), self.stored_blocks(), self._float(layer.bnd), self.stored_row_scale())

    def stored_factors(self) -> Tensor:
        """A (terms, n, columns), rounded."""
        layer: Any = self.layer
        return stored(layer.used_factors(), 1, self.bits.factors)

    def stored_blocks(self) -> Tensor:
        """F (terms, out/n, in/n, *kernel), rounded."""
        layer: Any = self.layer
        return stored(layer.F, 2, self.bits.blocks)

    def stored_row_scale(self) -> Tensor | None:
        layer: Any = self.layer
        return self._float(layer.row_scale) if self.has_factors else None

    def stored_bias(self) -> Tensor | None:
        layer: Any = self.layer
        return self._float(layer.bias)

    def _float(self, tensor: Tensor | None) -> Tensor | None:
        return tensor if tensor is None or self.weight_bits == 32 else as_half(tensor)

    def made_weight(self) -> Tensor:
        return self.dense_weight()

    def weight_sources(self) -> list[Tensor]:
        layer: Any = self.layer
        return list(layer.weight_sources()) if self.has_factors else [layer.weight]

    def runs_factored(self) -> bool:
        return isinstance(self.layer, PHMLayer) and self.layer.runs_factored()

    def forward(self, x: Tensor) -> Tensor:
        layer: Any = self.layer
        if self.runs_factored():
            mix, blocks = mixing(self.stored_factors()), self.stored_blocks().flatten(0, 1)
            ends = {"bias": self.stored_bias(), "row_scale": self.stored_row_scale()}
            if isinstance(layer, PHMLinear):
                return factored_linear(x, mix, blocks, **ends)
            return factored_convolution(layer, x, mix, blocks, **ends)
        return convolve(self.layer, x, self.running_weight(), self.stored_bias())

    def extra_repr(self) -> str:
        return f"{self.weight_bits} bits"


def stored(weight: Tensor, num_axes: int, bits: int) -> Tensor:
    """A weight as a file holds it in so many bits; gradients pass. A row is one index of the first `num_axes` axes."""
    if bits == 32:
        return weight
    if bits == 16:
        return as_half(weight)
    scales = stored_scales(weight, num_axes, bits)
    rows = weight.detach().reshape(*scales.shape, -1)
    return weight + (_rounded(rows, scales, bits).reshape(weight.shape) - weight.detach())


def stored_scales(weight: Tensor, num_axes: int, bits: int) -> Tensor:
    """Scale of each row as the file holds it, a float16 in float32.

    8 bits: the largest value over the levels, rounded up. 4 bits: of shares of that, the one with least squared error.
    """
    rows = weight.detach().flatten(num_axes) if weight.ndim > num_axes else weight.detach()[..., None]
    whole = rows.abs().amax(dim=-1) / levels_of(bits)
    if bits > 4:
        return half_above(whole)
    choices = torch.stack([half_above(share * whole) for share in _CUTTING])
    errors = torch.stack([(_rounded(rows, scales, bits) - rows).square().sum(dim=-1) for scales in choices])
    return choices.gather(0, errors.argmin(dim=0, keepdim=True))[0]


def _rounded(rows: Tensor, scales: Tensor, bits: int) -> Tensor:
    """Whole levels times scales, rows being the last axis."""
    limit = levels_of(bits)
    return torch.clamp(torch.round(rows / scales[..., None]), -limit, limit) * scales[..., None]


def half_above(scales: Tensor) -> Tensor:
    """Each rounded up to a float16, to be used as a scale."""
    exact = scales.clamp(MIN_SCALE, HALF_LARGEST)
    half = exact.half()
    above = (half.view(torch.int16) + 1).view(torch.float16)  # the next one; torch.nextafter knows no halves on a GPU
    return torch.where(half.float() < exact, above, half).float()


def levels_of(bits: int) -> int:
    """Levels on either side of zero: 127 or 7."""
    return int(2 ** (bits - 1) - 1)


def as_half(tensor: Tensor) -> Tensor:
    """Rounded to float16 where that holds all of it; gradients pass."""
    value = tensor.detach()
    if not holds_half(value):
        return tensor
    return tensor + (value.half().to(value.dtype) - value)


def holds_half(tensor: Tensor) -> bool:
    """Whether float16 has the range for a tensor; else the file keeps it in float32."""
    return tensor.numel() == 0 or float(tensor.detach().abs().amax()) <= HALF_LARGEST
