"""Layers that compute as their int8 form will, in float: what quantisation-aware training trains.

Activations: int8, symmetric, one scale a tensor, as TensorRT wants them; `edgelip.deploy.precision` writes the same
arithmetic with unsigned levels for x86 and ARM. Weights: int8, symmetric, one scale a row.
PHM layers quantise twice: their factors F as stored, one scale a row of a block, and the weight built from them as run.
Biases: int32 in steps of input scale x weight scale, since int8 kernels add them to the sums of products. Without that
rounding here, one in a few hundred activations lands on another level than in the engine (logits off by 3 % rms).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgelip.compress.magnitudes import Magnitudes
from edgelip.compress.stored_layer import StoredLayer, half_above, stored_scales
from edgelip.models.hypercomplex import PHMLayer, convolve

LEVELS = 127  # of the largest value, on either side; the exporter wants the full int8 range declared
MIN_SCALE = 1e-6  # weaker rows count as zero: a finer step would push their bias beyond int32


def row_scales(weight: Tensor, num_axes: int) -> Tensor:
    """Scale of each row, a row being one index of the first `num_axes` axes: maximum / 127, at least MIN_SCALE."""
    rows = weight.detach().flatten(num_axes) if weight.ndim > num_axes else weight.detach()[..., None]
    return (rows.abs().amax(dim=-1) / LEVELS).clamp_min(MIN_SCALE)


def fake_quantise_rows(weight: Tensor, num_axes: int, scales: Tensor | None = None) -> Tensor:
    """Round each row to 255 levels of its own scale, or of `scales`; gradients pass."""
    scales = (row_scales(weight, num_axes) if scales is None else scales).flatten()
    rows = weight.reshape(len(scales), -1)
    zero = torch.zeros(len(scales), dtype=torch.int32, device=weight.device)
    quantised = torch.fake_quantize_per_channel_affine(rows, scales, zero, 0, -128, 127)
    return quantised.reshape(weight.shape)


class ActivationQuantiser(nn.Module):
    """Rounds a tensor to the levels -128..127 times `scale`; while `observing`, records its range instead.

    fixed_scale: the scale where the range of the values is known; observing does not change it.
    headroom: by what the scale is larger than the observed range asks for.
    """

    scale: Tensor

    def __init__(self, *, fixed_scale: float | None = None, headroom: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("scale", torch.full((), 1.0 if fixed_scale is None else fixed_scale))
        self.fixed, self.headroom = fixed_scale is not None, headroom
        self.observing = False
        self.magnitudes: Magnitudes | None = None  # where given, the range of least error is taken, not that of most
        self._largest = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if self.observing:
            if self.magnitudes is not None:
                self.magnitudes.add(x)
            else:
                low, high = quantile_range(x)
                self._largest = max(self._largest, -low, high)
            return x
        zero = torch.zeros((), dtype=torch.int32, device=x.device)
        return torch.fake_quantize_per_tensor_affine(x, self.scale, zero, -128, 127)

    def settle(self) -> None:
        """Turn the observed range into the scale, unless that is fixed; zero stays exact."""
        largest = self._largest if self.magnitudes is None else self.magnitudes.best_range(LEVELS)
        self.magnitudes = None
        if not self.fixed:
            self.scale.fill_(max(self.headroom * largest / LEVELS, MIN_SCALE))


def quantile_range(x: Tensor, share: float = 0.9999) -> tuple[float, float]:
    """The range that holds `share` of the values on each side: single outliers would waste levels."""
    flat = x.detach().flatten()
    keep = max(1, round((1 - share) * flat.numel()))
    return float(-torch.topk(-flat, keep).values[-1]), float(torch.topk(flat, keep).values[-1])


class QuantisedLayer(nn.Module):
    """A convolution or linear layer with quantised input and weight; its output too where nothing else rounds it."""

    output: ActivationQuantiser | None

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.input = ActivationQuantiser()
        self.layer = layer
        self.output = None

    def running_parameters(self) -> tuple[Tensor, Tensor | None]:
        """The dense weight and the bias as int8 kernels see them, in float."""
        weight, bias = unrounded_weight(self.layer), unrounded_bias(self.layer)
        scales = running_scales(self.layer, weight)
        if bias is not None and not self.input.observing:
            step = (self.input.scale * scales).detach()
            bias = bias + (torch.round(bias / step) * step - bias).detach()  # gradients pass
        return fake_quantise_rows(weight, 1, scales), bias

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.running_parameters()
        result = convolve(bare(self.layer), self.input(x), weight, bias)
        return result if self.output is None else self.output(result)


def bare(layer: Any) -> Any:
    """The convolution, linear or PHM layer itself: the geometry of one that may be stored in few bits."""
    return layer.layer if isinstance(layer, StoredLayer) else layer


def unrounded_bias(layer: Any) -> Tensor | None:
    """The bias as stored, before it is rounded to the steps of the sums."""
    return layer.stored_bias() if isinstance(layer, StoredLayer) else layer.bias


def running_scales(layer: Any, weight: Tensor) -> Tensor:
    """Scale of each row of the int8 weight that runs.

    A weight that is stored in whole numbers runs in the same ones: it is rounded once. With what is stored in few bits
    go scales in float16.
    """
    if not isinstance(layer, StoredLayer) or layer.weight_bits == 32:
        return row_scales(weight, 1)
    if not layer.has_factors and layer.weight_bits <= 8:
        return stored_scales(layer.layer.weight, 1, layer.weight_bits)  # type: ignore[arg-type]
    return half_above(row_scales(weight, 1))


def unrounded_weight(layer: Any) -> Tensor:
    """The dense weight before its own rounding; what is stored, as blocks of PHM layers are, is rounded already."""
    if isinstance(layer, StoredLayer):
        return layer.dense_weight()
    if not isinstance(layer, PHMLayer):
        return layer.weight  # type: ignore[no-any-return]
    return layer.dense_weight(fake_quantise_rows(layer.F, 2))


class QuantisedAdd(nn.Module):
    """A sum whose two inputs are quantised: without it the convolution before runs in float."""

    def __init__(self) -> None:
        super().__init__()
        self.left = ActivationQuantiser()
        self.right = ActivationQuantiser()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        total: Tensor = self.left(x) + self.right(y)
        return total
