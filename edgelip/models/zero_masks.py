"""Weights that stay zero: a layer's mask says which entries of its weight may be anything else.

The mask is a buffer, so that it is saved with the weights and copied with the layer; training applies it after each
step, whatever wraps the layer by then.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MASK = "weight_mask"


@torch.no_grad()
def keep_zero(layer: Any, mask: Tensor) -> None:
    """Set the entries of a layer's weight to zero where the boolean mask is False, in place, now and in training."""
    layer.register_buffer(MASK, mask)
    layer.weight.mul_(mask)


def masked_layers(model: nn.Module) -> dict[str, Any]:
    """The layers with a mask, by name."""
    return {name: module for name, module in model.named_modules() if module._buffers.get(MASK) is not None}


@torch.no_grad()
def apply_masks(model: nn.Module) -> None:
    """Set to zero again, in place, what a training step has moved."""
    for layer in masked_layers(model).values():
        layer.weight.mul_(layer.weight_mask)
