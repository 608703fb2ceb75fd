"""Stage `sparsify`: single weights become zero and stay so; shapes, file and work stay as they are.

"2:4" is the pattern that sparse tensor cores skip: at most two of any four neighbouring input channels are not zero,
for each output channel and each tap. TensorRT uses it where it is built with `sparse = "yes"` and finds it faster;
it pays from about 256 channels. No other engine here does. "unstructured" zeros speed nothing up and shrink no file:
they show in what a compressed copy of the file takes.
PHM factors stay dense: a zero in them is none in the weight that runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from edgelip.compress.fake_quant import QuantisedLayer
from edgelip.compress.stage import Record, Stage, StageConfig, Tools
from edgelip.compress.stored_layer import StoredLayer
from edgelip.errors import StageError
from edgelip.models.hypercomplex import CONVOLUTIONS, PHMLayer
from edgelip.models.zero_masks import keep_zero, masked_layers
from edgelip.registry import nearest

GROUP, KEPT = 4, 2
DEFAULT_SPARSITY = 0.5


class SparsifyConfig(StageConfig):
    """Which weights become zero.

    pattern "2:4": the two smaller of each four along the input channels. "unstructured": the smallest `sparsity` of
    each layer (half if not given), in storage only.
    layers: name patterns; none means all with at least `min_channels` inputs, but for the head.
    """

    stage: Literal["sparsify"] = "sparsify"
    pattern: Literal["2:4", "unstructured"] = "2:4"
    sparsity: float | None = Field(None, gt=0, lt=1)
    layers: tuple[str, ...] | None = None
    min_channels: int = Field(256, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.pattern == "2:4" and self.sparsity is not None:
            raise ValueError(f'pattern "2:4" zeroes half of the weights; leave sparsity = {self.sparsity:g} out')
        return self


class Sparsify(Stage):
    """Magnitude pruning of single weights under a mask that training keeps (Mishra et al. 2021 for 2:4)."""

    name = "sparsify"
    phase = "weights"
    rank: ClassVar[int] = 5
    config_model = SparsifyConfig

    @property
    def label(self) -> str:
        if self.config.pattern == "2:4":
            return "2:4 sparse"
        return f"{self._sparsity:.0%} zeros (file and speed as before)"

    @property
    def _sparsity(self) -> float:
        return DEFAULT_SPARSITY if self.config.sparsity is None else float(self.config.sparsity)

    def prepare(self, model: nn.Module, tools: Tools) -> tuple[nn.Module, Record]:
        refuse_unfit(model)
        chosen = choose_layers(model, self.config)
        zeros = weights = 0
        for layer in chosen.values():
            weight: Tensor = layer.weight  # type: ignore[assignment]
            mask = mask_2_of_4(weight) if self.config.pattern == "2:4" else mask_of_largest(weight, self._sparsity)
            keep_zero(layer, mask)
            zeros, weights = zeros + int((~mask).sum()), weights + mask.numel()
        if not zeros:
            raise StageError(
                f"A sparsity of {self._sparsity:g} zeroes no weight of these {len(chosen)} layers. Raise sparsity."
            )
        return model, {"layers": list(chosen), "zeros": zeros, "weights": weights}

    def restore(self, model: nn.Module, record: Mapping[str, Any]) -> nn.Module:
        layers = record["layers"]
        candidates = maskable_layers(model)
        if not isinstance(layers, (list, tuple)) or not all(name in candidates for name in layers):
            raise StageError(f"A sparsity record names {str(layers)[:100]}, which are not all layers of this model.")
        for name in layers:
            weight: Tensor = candidates[name].weight  # type: ignore[assignment]
            keep_zero(candidates[name], torch.ones_like(weight, dtype=torch.bool))
        return model


def refuse_unfit(model: nn.Module) -> None:
    if masked_layers(model):
        raise StageError("The model is sparse already; stage 'sparsify' applies once. Remove one of the two.")
    if any(isinstance(module, (QuantisedLayer, StoredLayer)) for module in model.modules()):
        raise StageError("Stage 'sparsify' chooses among float weights; this model is quantised. Sparsify first.")


def maskable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Convolutions without groups and linear layers, by name: what has a dense weight of its own."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, CONVOLUTIONS) and module.groups == 1)
    }


def choose_layers(model: nn.Module, config: SparsifyConfig) -> dict[str, nn.Module]:
    """The layers to thin out. Raises StageError if there is none, or a named one cannot be."""
    candidates = maskable_layers(model)
    if config.layers is None:
        chosen = {
            name: layer
            for name, layer in candidates.items()
            if name != "head" and fits(layer, config.pattern) and layer.weight.shape[1] >= config.min_channels  # type: ignore[index]
        }
        if not chosen:
            widest = max((layer.weight.shape[1] for layer in candidates.values()), default=0)  # type: ignore[index]
            raise StageError(
                f"No layer with a dense weight has {config.min_channels} input channels"
                f"{' in fours' if config.pattern == '2:4' else ''}; the widest of {len(candidates)} has {widest}. "
                "Lower min_channels, or leave stage 'sparsify' out: sparse kernels pay from about 256."
            )
        return chosen
    chosen = {}
    for pattern in config.layers:
        matching = {name: layer for name, layer in candidates.items() if fnmatch(name, pattern)}
        if not matching:
            factors = [n for n, m in model.named_modules() if isinstance(m, PHMLayer) and fnmatch(n, pattern)]
            why = " It is a PHM layer, whose factors stay dense." if factors else ""
            raise StageError(f"No dense layer is called {pattern!r}.{why} {nearest(pattern, candidates)}")
        chosen |= matching
    for name, layer in chosen.items():
        if not fits(layer, config.pattern):
            raise StageError(
                f"{name} has {layer.weight.shape[1]} input channels; 2:4 sparsity takes them in fours. "  # type: ignore[index]
                "Leave it out of `layers`."
            )
    return chosen


def fits(layer: Any, pattern: str) -> bool:
    return pattern != "2:4" or layer.weight.shape[1] % GROUP == 0


@torch.no_grad()
def mask_2_of_4(weight: Tensor) -> Tensor:
    """True for the two larger of each four neighbours along the input channels: (out, in, *kernel)."""
    channels_last = weight.detach().abs().movedim(1, -1)
    fours = channels_last.reshape(*channels_last.shape[:-1], -1, GROUP)
    kept = torch.zeros_like(fours, dtype=torch.bool).scatter_(-1, fours.topk(KEPT, dim=-1).indices, True)
    return kept.reshape(channels_last.shape).movedim(-1, 1).contiguous()


@torch.no_grad()
def mask_of_largest(weight: Tensor, sparsity: float) -> Tensor:
    """True for all but the smallest share of the weights."""
    flat = weight.detach().abs().flatten()
    kept = torch.ones_like(flat, dtype=torch.bool)
    kept[flat.topk(int(sparsity * len(flat)), largest=False).indices] = False
    return kept.reshape(weight.shape)
