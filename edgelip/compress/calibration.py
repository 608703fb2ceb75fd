"""The ranges of activations from clips, and biases that make up for what rounding shifts on the mean."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgelip.compress.fake_quant import (
    ActivationQuantiser,
    QuantisedLayer,
    bare,
    unrounded_bias,
    unrounded_weight,
)
from edgelip.compress.magnitudes import Magnitudes
from edgelip.models.hypercomplex import convolve

Ranges = Literal["quantile", "error"]


@torch.no_grad()
def calibrate(model: nn.Module, clips_B1THW: Tensor, *, ranges: Ranges = "quantile", batch_size: int = 32) -> None:
    """Set every activation range, in place, from network inputs.

    ranges: "quantile" holds 99.99 % of the values of every batch on each side; "error" makes the squared error least.
    """
    quantisers = [module for module in model.modules() if isinstance(module, ActivationQuantiser)]
    for quantiser in quantisers:
        quantiser.observing = True
        quantiser.magnitudes = Magnitudes() if ranges == "error" else None
    _run(model, clips_B1THW, batch_size)
    for quantiser in quantisers:
        quantiser.observing = False
        quantiser.settle()


@torch.no_grad()
def correct_biases(model: nn.Module, clips_B1THW: Tensor, *, batch_size: int = 32) -> None:
    """Add to each bias, in place, the mean error of its channel: exact result less rounded one of the same input.

    Source: Nagel et al., ICCV 2019, section 4.2.1, from data. Layers without a bias stay as they are.
    """
    errors: dict[nn.Module, Tensor] = {}
    handles = []

    def note(layer: Any, inputs: tuple[Tensor, ...], result: Tensor) -> None:
        exact = convolve(bare(layer.layer), inputs[0], unrounded_weight(layer.layer), unrounded_bias(layer.layer))
        axes = [axis for axis in range(result.ndim) if axis != 1]
        errors[layer] = errors.get(layer, torch.zeros(())) + (exact - result).double().sum(axes) / result[0, 0].numel()
        counts[layer] = counts.get(layer, 0) + len(result)

    counts: dict[nn.Module, int] = {}
    for module in model.modules():
        if isinstance(module, QuantisedLayer) and bare(module.layer).bias is not None:
            handles.append(module.register_forward_hook(note))
    try:
        _run(model, clips_B1THW, batch_size)
    finally:
        for handle in handles:
            handle.remove()
    for layer, error in errors.items():
        bias = bare(layer.layer).bias
        bias.add_((error / counts[layer]).to(bias.dtype))


def _run(model: nn.Module, clips_B1THW: Tensor, batch_size: int) -> None:
    for start in range(0, len(clips_B1THW), batch_size):
        model(clips_B1THW[start : start + batch_size])
