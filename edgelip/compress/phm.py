"""Stage `phm`: weights become sums of Kronecker products, about n times smaller in the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from edgelip.compress.stage import Record, Stage, StageConfig, Tools
from edgelip.errors import StageError
from edgelip.models.hypercomplex import CONVOLUTIONS, PHMLayer, phm_from_dense
from edgelip.models.kronecker import divisor_message, factorise
from edgelip.registry import nearest


class HypercomplexConfig(StageConfig):
    """n and the layers it applies to.

    `layers` are name patterns such as "trunk.*"; none means the rule: n divides both channel counts and the factors
    are less than half of the weight, n^3 + |W|/n < |W|/2. A layer named explicitly that n does not fit is an error.
    """

    stage: Literal["phm"] = "phm"
    n: int = Field(4, ge=2, le=64)
    layers: tuple[str, ...] | None = None
    start: Literal["nearest", "random"] = "nearest"  # nearest Kronecker sum of the trained weight, or fresh factors


class Hypercomplex(Stage):
    """Replaces convolutions by PHM layers (Zhang et al., ICLR 2021; for lip reading Panagos et al. 2024)."""

    name = "phm"
    phase = "structure"
    rank: ClassVar[int] = 2
    config_model = HypercomplexConfig

    @property
    def label(self) -> str:
        return f"PHM n={self.config.n}"

    def prepare(self, model: nn.Module, tools: Tools) -> tuple[nn.Module, Record]:
        chosen = choose_layers(model, self.config)
        _replace(model, dict.fromkeys(chosen, self.config.n), start=self.config.start)
        return model, {"n": self.config.n, "layers": list(chosen)}

    def restore(self, model: nn.Module, record: Mapping[str, Any]) -> nn.Module:
        _replace(model, dict.fromkeys(record["layers"], int(record["n"])), start="random")
        return model


def choose_layers(model: nn.Module, config: HypercomplexConfig) -> tuple[str, ...]:
    """Names of the convolutions to replace. Raises StageError if none fits or a named one does not."""
    convs = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, CONVOLUTIONS) and module.groups == 1
    }
    if any(isinstance(module, PHMLayer) for module in model.modules()):
        raise StageError("The model has PHM layers already; stage 'phm' applies once. Remove one of the two.")
    if config.layers is None:
        chosen = tuple(name for name, conv in convs.items() if pays(conv, config.n))
        if not chosen:
            raise StageError(
                f"PHM n={config.n} fits none of the {len(convs)} convolutions: it must divide their channels and "
                "n^3 + |W|/n must be below |W|/2. Choose another n, or name layers."
            )
        return chosen
    chosen_list: list[str] = []
    for pattern in config.layers:
        matching = [name for name in convs if fnmatch(name, pattern)]
        if not matching:
            raise StageError(f"No convolution is called {pattern!r}. {nearest(pattern, convs)}")
        chosen_list += [name for name in matching if name not in chosen_list]
    for name in chosen_list:
        conv = convs[name]
        if conv.out_channels % config.n or conv.in_channels % config.n:
            raise StageError(divisor_message(name, conv.out_channels, conv.in_channels, config.n))
    return tuple(chosen_list)


def pays(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d, n: int) -> bool:
    """Whether PHM with n terms at least halves a layer."""
    size = conv.out_channels * conv.in_channels * math.prod(conv.kernel_size)
    fits = conv.out_channels % n == 0 and conv.in_channels % n == 0
    return fits and n**3 + size / n < size / 2


@torch.no_grad()
def _replace(model: nn.Module, layers: Mapping[str, int], *, start: str) -> None:
    for name, n in layers.items():
        dense = model.get_submodule(name)
        layer = phm_from_dense(dense, n=n, name=name)
        if start == "nearest":
            factors, blocks = factorise(dense.weight, n)  # type: ignore[arg-type]
            # The nearest sum of n terms has less energy than the weight; the norm of the weight is kept.
            kept = (factors.square().sum((1, 2)) * blocks.flatten(1).square().sum(1)).sum()
            gain = (dense.weight.square().sum() / kept.clamp_min(1e-12)).sqrt()  # type: ignore[operator]
            layer.A.copy_(factors)
            layer.F.copy_(blocks * gain)
        if layer.bias is not None:
            layer.bias.copy_(dense.bias)  # type: ignore[arg-type]
        model.set_submodule(name, layer)
