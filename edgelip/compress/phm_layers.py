"""Dense layers replaced by sums of Kronecker products, and what a record says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from edgelip.errors import StageError
from edgelip.models.hypercomplex import CONVOLUTIONS, PHMConv, PHMLinear, phm_from_dense
from edgelip.models.kronecker import factorise
from edgelip.models.transformer import Attention

LARGEST_N = 64
Start = Literal["nearest", "random"]


@dataclass(frozen=True)
class Factors:
    """How a layer becomes PHM: n x n blocks, a sum of `terms` products, run factored or folded."""

    n: int
    terms: int
    factored: bool = False


def convolutions(model: nn.Module) -> dict[str, nn.Module]:
    """The convolutions that can become PHM, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, CONVOLUTIONS) and module.groups == 1
    }


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers that can become PHM, by name: not those inside attention, which cuts their weights."""
    inside = {id(layer) for module in model.modules() if isinstance(module, Attention) for layer in module.modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in inside
    }


@torch.no_grad()
def phm_layer(dense: Any, factors: Factors, *, name: str, start: Start) -> PHMConv | PHMLinear:
    """What takes the place of a dense layer. start "nearest": the nearest Kronecker sum, with the norm of the weight.

    The nearest sum of few terms has less energy than the weight; norms and activations behind it expect the latter's.
    """
    layer = phm_from_dense(dense, n=factors.n, terms=factors.terms, factored=factors.factored, name=name)
    if start == "nearest":
        found_factors, blocks = factorise(dense.weight, factors.n, terms=factors.terms)
        kept = (found_factors.square().sum((1, 2)) * blocks.flatten(1).square().sum(1)).sum()
        gain = (dense.weight.square().sum() / kept.clamp_min(1e-12)).sqrt()
        layer.A.copy_(found_factors)
        layer.F.copy_(blocks * gain)
    if layer.bias is not None:
        layer.bias.copy_(dense.bias)
    return layer


def replace(model: nn.Module, chosen: Mapping[str, Factors], *, start: Start) -> None:
    """Put PHM layers in the place of those named, in place."""
    for name, factors in chosen.items():
        dense = model.get_submodule(name)
        model.set_submodule(name, phm_layer(dense, factors, name=name, start=start).train(dense.training))


def record_of(chosen: Mapping[str, Factors]) -> dict[str, Any]:
    return {name: asdict(factors) for name, factors in chosen.items()}


def factors_from_record(model: nn.Module, record: Mapping[str, Any]) -> dict[str, Factors]:
    """What a record replaces in `model`. Raises StageError if it names no layer of it, or numbers that cannot be.

    Older records have one n for a list of layers.
    """
    entries = record["layers"]
    if not isinstance(entries, Mapping):
        entries = {name: {"n": record["n"], "terms": record["n"], "factored": False} for name in entries}
    known = {**convolutions(model), **linear_layers(model)}
    chosen: dict[str, Factors] = {}
    for name, entry in entries.items():
        if name not in known:
            raise StageError(f"The record of stage 'phm' names a layer {str(name)!r:.80} that the model has not.")
        n, terms, factored = entry["n"], entry["terms"], entry["factored"]
        whole = all(isinstance(number, int) and not isinstance(number, bool) for number in (n, terms))
        if not whole or not 1 <= terms <= n <= LARGEST_N or not isinstance(factored, bool):
            raise StageError(
                f"The record of stage 'phm' gives {name} n={n!r:.20}, terms={terms!r:.20}, factored={factored!r:.20}; "
                f"expected whole numbers, 1 <= terms <= n <= {LARGEST_N}, and true or false."
            )
        chosen[name] = Factors(n, terms, factored)
    return chosen
