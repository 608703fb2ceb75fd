"""n of each layer under a budget of stored bytes: least harm in sum, the harm of every choice measured alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgelip.compress.phm_choice import HEAD, named, refuse_named, with_execution
from edgelip.compress.phm_layers import Factors, convolutions, linear_layers, phm_layer
from edgelip.compress.sensitivity import layer_harms
from edgelip.compress.stage import LabelledClips
from edgelip.errors import StageError, UnreachableError
from edgelip.models.hypercomplex import dense_like
from edgelip.models.kronecker import phm_parameters
from edgelip.models.phm_parts import weight_shape
from edgelip.progress import Progress
from edgelip.registry import require

Options = Mapping[str, Mapping[int, int]]  # bytes of each layer by n, 0 being dense


def choose_within_budget(
    model: nn.Module, config: Any, probe: LabelledClips
) -> tuple[dict[str, Factors], dict[str, Any]]:
    """What becomes of each layer, and what the record says of it; config: HypercomplexConfig with a budget.

    Costs one pass over `config.probe_clips` for each layer and n. Clips without a sha256 belong to a rehearsal: there
    every choice counts as harmless. Raises StageError where no choice, or every choice, is within the budget.
    """
    options = options_of(model, config)
    fixed = stored_bytes(model, config.stored_bits) - sum(sizes[0] for sizes in options.values())
    budget = int(config.budget_kb * 1000)
    refuse_budget(options, fixed, budget, config)
    harms = {(name, n): 0.0 for name, sizes in options.items() for n in sizes}
    if probe.sha256:
        harms.update(_measured(model, options, probe.first(config.probe_clips).clips_B1THW))
    chosen = least_harm(options, harms, budget - fixed)
    record = {
        "bytes": fixed + sum(options[name][n] for name, n in chosen.items()),
        "budget_bytes": budget,
        "divergence": {name: round(harms[name, n], 6) for name, n in chosen.items() if n},
    }
    return {name: with_execution(model, name, n, None, config.execution) for name, n in chosen.items() if n}, record


def options_of(model: nn.Module, config: Any) -> dict[str, dict[int, int]]:
    """Bytes of every layer that may become PHM, for each n that makes it smaller, and dense (0)."""
    convs, linear = convolutions(model), linear_layers(model)
    names = list(convs) if config.layers is None else named(config.layers, convs, linear)
    if config.head and HEAD not in names:
        names.append(HEAD)
    options: dict[str, dict[int, int]] = {}
    for name in names:
        shape = weight_shape(model.get_submodule(name))
        dense = weight_bytes(shape, None, config.stored_bits)
        fitting = [n for n in sorted(set(config.choices)) if n > 1 and not (shape[0] % n or shape[1] % n)]
        sizes = {n: size for n in fitting if (size := weight_bytes(shape, n, config.stored_bits)) < dense}
        if sizes:
            options[name] = {0: dense, **sizes}
        elif config.layers is not None or name == HEAD:
            refuse_named(model, name, min((n for n in config.choices if n > 1), default=2), None)
    if not options:
        raise StageError(f"No layer is smaller as PHM with n of {list(config.choices)}. Give other choices.")
    return options


def weight_bytes(shape: Sequence[int], n: int | None, bits: int) -> int:
    """Bytes of a weight (out, in, *kernel), dense or as factors, with a float16 scale a row in 8 bits or fewer.

    A has 8 bits at least.
    """
    if n is None:
        return _packed(math.prod(shape), bits) + (2 * shape[0] if bits <= 8 else 0)
    blocks = phm_parameters(shape, n=n) - n**3
    scales = 2 * (shape[0] + n) if bits <= 8 else 0  # a row of a block of each term, a term of A
    return _packed(blocks, bits) + _packed(n**3, max(bits, 8)) + scales


def stored_bytes(model: nn.Module, bits: int) -> int:
    """Bytes of all of a dense network: weights in `bits`, what has one number a channel in 16 bits or in 32."""
    total = 0
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            total += weight_bytes(parameter.shape, None, bits)
        else:
            total += _packed(parameter.numel(), 32 if bits == 32 else 16)
    return total


def _packed(count: int, bits: int) -> int:
    return -(-count * bits // 8)


def refuse_budget(options: Options, fixed: int, budget: int, config: Any) -> None:
    """Raises UnreachableError, naming the nearest that can be met, and StageError for a budget that asks nothing."""
    least = fixed + sum(min(sizes.values()) for sizes in options.values())
    if least > budget:
        reachable = math.ceil(least / 100) / 10
        raise UnreachableError(
            f"budget_kb = {budget / 1000:g} cannot be met: with n of {list(config.choices)} and {config.stored_bits} "
            f"bits a weight, the network takes {reachable} kB at least. Set budget_kb = {reachable}, or allow more "
            "layers, other choices or fewer stored_bits."
        )
    dense = fixed + sum(sizes[0] for sizes in options.values())
    if dense <= budget:
        raise StageError(
            f"budget_kb = {budget / 1000:g} asks for nothing: the dense network takes {dense / 1000:.1f} kB. Lower it, "
            "or leave stage 'phm' out."
        )


def _measured(model: nn.Module, options: Options, clips_B1THW: Tensor) -> dict[tuple[str, int], float]:
    """Divergence that the nearest Kronecker sum in one place does."""
    places = [(name, n) for name, sizes in options.items() for n in sizes if n]

    def changes() -> Iterator[tuple[str, nn.Module]]:
        for name, n in places:
            dense: Any = model.get_submodule(name)
            layer = phm_layer(dense, Factors(n, n), name=name, start="nearest")
            yield name, dense_like(layer, layer.dense_weight(), layer.bias).eval()

    found = {}
    with torch.no_grad(), Progress().task("sensitivity to PHM", total=len(places), unit="changes") as bar:
        for place, (_, harm) in zip(places, layer_harms(model, changes(), clips_B1THW), strict=True):
            found[place] = harm.divergence
            bar.advance(1)
    return found


def least_harm(options: Options, harms: Mapping[tuple[str, int], float], budget: int) -> dict[str, int]:
    """One choice for each layer, of the least harm in sum within `budget` bytes: exact, by mixed-integer programming.

    The cheapest choices together must be within it.
    """
    optimize = require("scipy.optimize", extra="compress")
    places = [(name, n) for name, sizes in options.items() for n in sizes]
    sizes = np.array([options[name][n] for name, n in places], dtype=float)
    cost = np.array([harms[place] for place in places])
    one_each = np.array([[name == layer for name, _ in places] for layer in options], dtype=float)
    room = float(budget)
    while True:
        found = optimize.milp(
            cost / max(cost.max(), 1e-12),
            integrality=np.ones(len(places)),
            bounds=optimize.Bounds(0, 1),
            constraints=[
                optimize.LinearConstraint(one_each, 1, 1),
                optimize.LinearConstraint(sizes[None] / max(budget, 1), -np.inf, room / max(budget, 1)),
            ],
            options={"mip_rel_gap": 0.0, "time_limit": 60.0},
        )
        if found.x is None:  # nothing below the rounding of the solver: the cheapest of each is all there is
            return {name: min(choice, key=choice.__getitem__) for name, choice in options.items()}
        chosen = {name: n for (name, n), taken in zip(places, found.x > 0.5, strict=True) if taken}
        excess = sum(options[name][n] for name, n in chosen.items()) - budget
        if excess <= 0:
            return chosen
        room -= excess
