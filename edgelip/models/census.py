"""Counts of a model: stored parameters and multiply-adds."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from edgelip.models.hypercomplex import PHMConv


def count_parameters(model: nn.Module) -> int:
    """Stored learnable numbers; a PHM layer counts its factors."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def count_macs(model: nn.Module, clip_B1THW: Tensor) -> int:
    """Multiply-adds of convolutions and linear layers for one clip; PHM layers count as the dense layer that runs.

    A module that runs a layer in another way (quantised) holds it as its attribute `layer`.
    """
    total = 0

    def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        module = getattr(module, "layer", module)
        if isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        else:
            total += output.numel() * module.in_channels * math.prod(module.kernel_size)

    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, PHMConv)
    layers = [module for module in model.modules() if isinstance(getattr(module, "layer", module), kinds)]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        model(clip_B1THW[:1])
    finally:
        for handle in handles:
            handle.remove()
    return total
