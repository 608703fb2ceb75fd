"""Which layers become PHM, with what n: by rule, by name, or group by group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from edgelip.compress.phm_layers import Factors, convolutions, linear_layers
from edgelip.errors import ShapeError, StageError, UsageError
from edgelip.models.factored import FACTORED_RATIO, factored_macs_ratio
from edgelip.models.kronecker import phm_parameters
from edgelip.models.name_patterns import matching
from edgelip.models.phm_parts import refuse_growth, weight_shape

HEAD = "head"


def choose_layers(model: nn.Module, config: Any) -> dict[str, Factors]:
    """What becomes of each layer that is to be PHM; config: HypercomplexConfig without a budget.

    Raises StageError if no layer fits the rule, or a named one does not fit its n.
    """
    convs, linear = convolutions(model), linear_layers(model)
    sizes: dict[str, tuple[int, int | None]] = {}
    if config.groups:
        for group in config.groups:
            names = [name for name in named(group.layers, convs, linear) if name not in sizes]
            if not names:
                raise StageError(f"Groups before it name all layers of group {list(group.layers)}. Remove it.")
            sizes.update(dict.fromkeys(names, (group.n, group.terms)))
    elif config.layers is not None:
        sizes = dict.fromkeys(named(config.layers, convs, linear), (config.n, config.terms))
    explicit = list(sizes)
    if not config.groups and config.layers is None:
        sizes = {name: (config.n, config.terms) for name, conv in convs.items() if pays(conv, config.n, config.terms)}
        if not sizes:
            raise StageError(_no_layer(len(convs), config.n, config.terms))
    if config.head:
        explicit += [HEAD] if HEAD not in sizes else []
        sizes[HEAD] = (config.n, config.terms)
    for name in explicit:
        refuse_named(model, name, *sizes[name])
    return {name: with_execution(model, name, n, terms, config.execution) for name, (n, terms) in sizes.items()}


def named(patterns: Sequence[str], convs: dict[str, nn.Module], linear: dict[str, nn.Module]) -> list[str]:
    """Layers by patterns: convolutions, and linear layers where a pattern fits no convolution."""
    reach = {**convs, **linear}
    fitting = [name for name in reach if name in convs or not _under_convolutions(name, patterns, convs)]
    try:
        return matching(patterns, fitting, what="convolution or linear layer")
    except UsageError as error:
        raise StageError(str(error)) from error


def _under_convolutions(name: str, patterns: Sequence[str], convs: dict[str, nn.Module]) -> bool:
    """Whether only patterns that also fit convolutions fit a linear layer."""
    wanted = [pattern for pattern in patterns if not pattern.startswith("!") and fnmatchcase(name, pattern)]
    return bool(wanted) and all(any(fnmatchcase(conv, pattern) for conv in convs) for pattern in wanted)


def refuse_named(model: nn.Module, name: str, n: int, terms: int | None) -> None:
    """Raises StageError if n does not fit a layer that was asked for, or would make it larger."""
    try:
        layer = model.get_submodule(name)
        refuse_growth(name, weight_shape(layer), n=n, terms=terms)
    except AttributeError as error:
        raise StageError(f"The model has no layer called {name!r}; leave head = true out and name layers.") from error
    except ShapeError as error:
        remedy = " Stages 'low_rank' and 'store' make it smaller too." if name == HEAD else ""
        raise StageError(f"{error}{remedy}") from error


def pays(layer: nn.Module, n: int, terms: int | None = None) -> bool:
    """Whether PHM with n blocks a side at least halves a layer."""
    shape = weight_shape(layer)
    fits = shape[0] % n == 0 and shape[1] % n == 0
    return fits and 2 * phm_parameters(shape, n=n, terms=terms) < math.prod(shape)


def with_execution(model: nn.Module, name: str, n: int, terms: int | None, execution: str) -> Factors:
    """Run factored where told, or where that leaves few enough multiply-adds."""
    terms = n if terms is None else terms
    ratio = factored_macs_ratio(weight_shape(model.get_submodule(name)), n=n, terms=terms)
    if execution == "factored" and ratio >= 1:
        raise StageError(
            f"{name} run factored with n={n} and {terms} terms takes {ratio:.2f} times the multiply-adds of its dense "
            'weight. Take fewer terms, or execution = "auto".'
        )
    return Factors(n, terms, execution == "factored" or (execution == "auto" and ratio <= FACTORED_RATIO))


def _no_layer(num_convs: int, n: int, terms: int | None) -> str:
    rule = "n^3 + |W|/n" if terms is None else f"{terms} (n^2 + |W|/n^2)"
    return (
        f"PHM n={n} fits none of the {num_convs} convolutions: it must divide their channels and {rule} must be below "
        "|W|/2. Choose another n, or name layers."
    )
