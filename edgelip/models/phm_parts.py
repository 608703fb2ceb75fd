"""PHM from scratch: the layers of a fresh network that become sums of Kronecker products, and with how many terms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from edgelip.errors import ShapeError, UsageError
from edgelip.models.hypercomplex import CONVOLUTIONS, Channels, PHMLayer, phm_from_dense
from edgelip.models.kronecker import divisor_message, largest_paying, phm_parameters
from edgelip.models.name_patterns import matching

Part = Literal["frontend", "trunk", "temporal"]


def use_phm(
    network: nn.Module,
    *,
    n: int | None = None,
    parts: Sequence[Part] = ("trunk", "temporal"),
    channels: Channels = "exact",
    start: Literal["scaled", "published"] = "scaled",
    groups: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Replace every convolution and linear layer of `parts` that PHM is published for, in place.

    The head stays dense, and so do convolutions with groups. The stem, if asked for, becomes PHM over n channels of
    which the clip fills the first, as published; the columns of absent channels are never built. A boundary indicator
    keeps a dense column. start: the scale of the dense initialisation, or the published, smaller one.
    groups: {"layers": patterns, "n": n, "terms": terms or None}; the first that names a layer decides, `n` is for the
    others, which stay dense without one.
    Raises ShapeError if n does not fit the channels of a layer, or makes a layer of a group larger.
    """
    layers: dict[str, nn.Module] = {}
    for part in parts:
        found = replaceable_layers(network.get_submodule(part))
        if not found:
            raise ShapeError(f"There is no layer in the {part} that PHM can replace. Leave it out of `parts`.")
        layers |= {f"{part}.{name}": layer for name, layer in found.items()}
    for name, factors in _factors_of(layers, n, groups).items():
        indicator = bool(getattr(network, "boundary", False)) and name == "temporal.transitions.0.project.conv"
        made = phm_from_dense(
            layers[name],
            channels=channels,
            dense_columns=int(indicator),
            columns=1 if name.startswith("frontend.") else None,
            name=name,
            **factors,
        )
        if start == "published":
            draw_as_published(made)
        network.set_submodule(name, made)


def _factors_of(
    layers: Mapping[str, nn.Module], n: int | None, groups: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """n and terms of each layer that becomes PHM, in the order of the network."""
    chosen: dict[str, dict[str, Any]] = {}
    for group in groups:
        try:
            names = [name for name in matching(group["layers"], layers) if name not in chosen]
        except UsageError as error:
            raise ShapeError(f"PHM group {list(group['layers'])}: {error}") from error
        if not names:
            raise ShapeError(f"Groups before it name all layers of the PHM group {list(group['layers'])}. Remove it.")
        for name in names:
            refuse_growth(name, weight_shape(layers[name]), n=group["n"], terms=group.get("terms"))
            chosen[name] = {"n": group["n"], "terms": group.get("terms")}
    default = {} if n is None else {"n": n}
    return {name: factors for name in layers if (factors := chosen.get(name, default))}


def weight_shape(layer: Any) -> tuple[int, ...]:
    """(out, in, *kernel) of a convolution, linear or PHM layer."""
    if isinstance(layer, PHMLayer):
        return (layer.out_channels, layer.in_channels, *layer.F.shape[3:])
    return tuple(layer.weight.shape)


def refuse_growth(name: str, shape: Sequence[int], *, n: int, terms: int | None = None) -> None:
    """Raises ShapeError if n does not divide the channels, or the factors are no smaller than the weight."""
    if shape[0] % n or shape[1] % n:
        raise ShapeError(divisor_message(name, shape[0], shape[1], n))
    size, dense = phm_parameters(shape, n=n, terms=terms), math.prod(shape)
    if size < dense:
        return
    largest = largest_paying(shape, terms=terms)
    remedy = (
        "No n makes this layer smaller: leave it dense" if largest is None else f"The largest n that pays is {largest}"
    )
    few, sides = "" if terms in (None, n) else f" with {terms} terms", "x".join(map(str, shape))
    raise ShapeError(f"PHM n={n}{few} gives {name} {size} numbers for the {dense} of its weight {sides}. {remedy}.")


def refuse_grown(network: nn.Module) -> None:
    """Raises ShapeError for a PHM layer that is no smaller than its weight, but for the published PHM stem."""
    for name, layer in network.named_modules():
        if isinstance(layer, PHMLayer) and layer.columns == layer.n and layer.bnd is None:
            refuse_growth(name, weight_shape(layer), n=layer.n, terms=layer.terms)


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
    n, (_, height, width, *kernel) = layer.n, layer.F.shape
    factor_bound, block_bound = math.sqrt(3.0) / n, math.sqrt(6.0 / ((n + height) * width * math.prod(kernel)))
    nn.init.uniform_(layer.A, -factor_bound, factor_bound)
    nn.init.uniform_(layer.F, -block_bound, block_bound)
    for extra in (layer.bias, layer.bnd):
        if extra is not None:
            nn.init.uniform_(extra, -1 / math.sqrt(layer.in_channels), 1 / math.sqrt(layer.in_channels))
