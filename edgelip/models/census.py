"""Counts of a model: stored parameters and multiply-adds; and those of every named configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgelip.errors import UsageError
from edgelip.models.catalogue import BACKBONES
from edgelip.models.hypercomplex import CONVOLUTIONS, PHMConv, PHMLinear
from edgelip.models.inputs import kind_of
from edgelip.models.transformer import Attention
from edgelip.registry import nearest
from edgelip.runtime.clip import SAMPLES_PER_FRAME, ClipSpec

LRW_WORDS = 500
# Layers that keep the shape and multiply nothing: without them all configurations take 6 s, not 11 (2 cores, Zen 4).
ELEMENTWISE = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.Dropout, nn.ReLU, nn.PReLU, nn.SiLU, nn.LogSoftmax)


@dataclass(frozen=True)
class BackboneDetails:
    """What a named configuration costs, with LRW's 500 words, and what was published about it.

    macs: for one clip of LRW, 29 frames of 88 x 88 px, or its 18,560 samples of sound; for a sign, 29 frames of the
    landmarks that the configuration reads. published_gmac: 1e9 of them in
    the published code, where known.
    fp32_mb: megabytes (1e6 bytes) of all weights and running statistics in float32.
    """

    name: str
    family: str
    parameters: int
    macs: int
    fp32_mb: float
    published_gmac: float | None
    published_top1_pct: float | None
    source: str

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "family": self.family,
            "parameters": self.parameters,
            "gmac": round(self.macs / 1e9, 4),
            "published_gmac": self.published_gmac,
            "fp32_mb": round(self.fp32_mb, 1),
            "published_top1_pct": self.published_top1_pct,
            "source": self.source,
        }


def describe(name: str) -> BackboneDetails:
    """The details of a configuration of the catalogue, counted on a model without memory.

    Raises UsageError naming the nearest configuration if there is none of that name.
    """
    if name not in BACKBONES:
        raise UsageError(f"There is no backbone {name!r}. {nearest(name, BACKBONES)}")
    from edgelip.models.zoo import build_classifier

    backbone, spec = BACKBONES[name], ClipSpec()
    with torch.device("meta"):
        model: Any = build_classifier(name, num_words=LRW_WORDS).eval()
    sizes: dict[str, tuple[int, ...]] = {
        "video": (spec.frames, spec.input_px, spec.input_px),
        "audio": (spec.frames * SAMPLES_PER_FRAME,),
    }
    kind = kind_of(name, backbone.options)
    if kind == "landmarks":
        sizes[kind] = (spec.frames, model.frontend.num_points, model.frontend.num_axes)
    parameters = count_parameters(model)
    numbers = sum(tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
    for module in model.modules():
        for child, layer in module.named_children():
            if isinstance(layer, ELEMENTWISE):
                setattr(module, child, nn.Identity())
    return BackboneDetails(
        name=name,
        family=backbone.family,
        parameters=parameters,
        macs=count_macs(model, torch.empty(1, 1, *sizes[kind], device="meta")),
        fp32_mb=4 * numbers / 1e6,
        published_gmac=backbone.published_gmac,
        published_top1_pct=backbone.published_top1_pct,
        source=backbone.source,
    )


def count_parameters(model: nn.Module) -> int:
    """Stored learnable numbers; a PHM layer counts its factors."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def count_macs(model: nn.Module, clips: Tensor) -> int:
    """Multiply-adds of convolutions, linear layers and attention for the first of `clips`, at its full length.

    PHM layers count as what runs: the dense layer, without the building of its weight, which happens once; or the two
    products of one that runs factored.
    A module that runs a layer in another way (stored in few bits, quantised) holds it as its attribute `layer`.
    """
    total = 0

    def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        factored = hasattr(module, "runs_factored") and module.runs_factored()
        total += (_factored_macs if factored else _macs)(_innermost(module), inputs[0], output)

    kinds = (*CONVOLUTIONS, nn.Linear, PHMConv, PHMLinear, Attention)
    layers = [module for module in model.modules() if isinstance(_innermost(module), kinds)]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    clip = clips[:1]
    try:
        if getattr(model, "boundary", False):
            model(clip, None, clip.new_zeros(1, clip.shape[2], 1))
        else:
            model(clip)
    finally:
        for handle in handles:
            handle.remove()
    return total


def _innermost(module: Any) -> Any:
    while hasattr(module, "layer"):
        module = module.layer
    return module


def _macs(layer: Any, x: Tensor, output: Tensor) -> int:
    if isinstance(layer, Attention):  # its two projections are linear layers of their own
        num_seen = {"token": 0, "batch": x.shape[0], "time": x.shape[1]}[layer.mode]
        return 2 * x.numel() * num_seen  # scores, then the weighted mean
    if isinstance(layer, (nn.Linear, PHMLinear)):
        return output.numel() * layer.in_features
    taps: int = (layer.in_channels // layer.groups) * math.prod(layer.kernel_size)
    return output.numel() * taps


def _factored_macs(layer: Any, x: Tensor, output: Tensor) -> int:
    """The blocks on every input group, then the mixing of what they give."""
    height, width, *kernel = layer.F.shape[1:]
    positions: int = output.numel() // layer.out_channels
    each: int = layer.terms * layer.n * height * (width * math.prod(kernel) + layer.n)
    return positions * each
