"""The state of a published Adam-type optimiser under our parameter names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgelip.errors import CheckpointError
from edgelip.models.checkpoint import OptimiserState
from edgelip.models.published.names import renamed
from edgelip.models.published.tensors import squeezed

_REMEDY = "Import without it: --without-optimiser."


def optimiser_state(
    stored: Any, parameters: tuple[tuple[str, str], ...], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[OptimiserState | None, str]:
    """The state and how to call it in a result; no state where the file has none, or none of an Adam.

    parameters: (our name, published name) in the order of the published model, which the state is numbered by; shapes:
    of our parameters. Raises CheckpointError where the state does not fit the parameters.
    """
    if not stored:
        return None, "none stored"
    entries, groups = (stored.get("state"), stored.get("param_groups")) if isinstance(stored, dict) else (None, None)
    if not isinstance(entries, dict) or not isinstance(groups, list):
        raise CheckpointError(f"the optimiser's state has no state and param_groups. {_REMEDY}")
    if not entries:
        return None, "none stored"
    if not any(isinstance(entry, dict) and "exp_avg" in entry for entry in entries.values()):
        return None, "not carried over: the stored state is of no Adam-type optimiser"
    numbers = _numbers(groups, len(parameters))
    first: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    steps: set[int] = set()
    for number, (ours, published) in zip(numbers, parameters, strict=True):
        entry = entries.get(number)
        if not isinstance(entry, dict) or not {"step", "exp_avg", "exp_avg_sq"} <= entry.keys():
            raise CheckpointError(
                f"the optimiser's state has no step, exp_avg and exp_avg_sq for parameter {number}, {published}. "
                f"{_REMEDY}"
            )
        first[ours] = _moment(entry["exp_avg"], "exp_avg", published, shapes[ours])
        second[ours] = _moment(entry["exp_avg_sq"], "exp_avg_sq", published, shapes[ours])
        steps.add(_whole(entry["step"], published))
    if len(steps) != 1:
        raise CheckpointError(f"the optimiser took {min(steps)} to {max(steps)} steps; expected one number. {_REMEDY}")
    try:
        state = OptimiserState(steps.pop(), first, second, _settings(groups[0]))
    except CheckpointError as error:
        raise CheckpointError(f"{str(error).rstrip('.')}. {_REMEDY}") from error
    text = f"carried over after {state.step} steps"
    if any("max_exp_avg_sq" in entry for entry in entries.values()):
        text += ", without the maxima of amsgrad"
    return state, text


def _numbers(groups: list[Any], num_parameters: int) -> list[int]:
    """The number of each parameter, in model order."""
    if len(groups) != 1 or not isinstance(groups[0], dict):
        raise CheckpointError(
            f"the optimiser has {len(groups)} parameter groups; with one, its numbers follow the order of the model, "
            f"with others they cannot be told. {_REMEDY}"
        )
    numbers = groups[0].get("params")
    if not isinstance(numbers, list) or not all(isinstance(number, int) for number in numbers):
        raise CheckpointError(f"the optimiser's param_groups have no list of params. {_REMEDY}")
    if len(numbers) != num_parameters or len(set(numbers)) != len(numbers):
        raise CheckpointError(
            f"the optimiser numbers {len(set(numbers))} parameters; the model has {num_parameters}. {_REMEDY}"
        )
    return numbers


def _moment(tensor: Any, kind: str, published: str, shape: tuple[int, ...]) -> Tensor:
    target = renamed(published)
    if not isinstance(tensor, Tensor) or target is None:
        raise CheckpointError(f"the optimiser's {kind} of {published} is no tensor. {_REMEDY}")
    if tensor.layout != torch.strided or tensor.is_meta or not tensor.is_floating_point():
        raise CheckpointError(f"the optimiser's {kind} of {published} is no dense float tensor. {_REMEDY}")
    shaped = squeezed(tensor, target.squeeze)
    if tuple(shaped.shape) != shape:
        raise CheckpointError(
            f"the optimiser's {kind} of {published} has shape {tuple(shaped.shape)}; expected {shape}. {_REMEDY}"
        )
    return shaped.detach().to(torch.float32).contiguous().clone()


def _whole(step: Any, published: str) -> int:
    if isinstance(step, Tensor) and step.numel() == 1 and not step.is_meta:
        step = step.item()
    if not isinstance(step, (int, float)) or step != step or abs(step) == float("inf") or step != int(step):
        raise CheckpointError(f"the optimiser's step of {published} is {step!r:.40}; expected a number. {_REMEDY}")
    return int(step)


def _settings(group: Mapping[str, Any]) -> dict[str, float]:
    betas = group.get("betas")
    try:
        beta1, beta2 = betas  # type: ignore[misc]
        values = {"lr": group["lr"], "weight_decay": group["weight_decay"], "beta1": beta1, "beta2": beta2}
        return {key: float(value) for key, value in {**values, "eps": group["eps"]}.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the optimiser's param_groups lack a number among lr, weight_decay, betas and eps ({error})"
        ) from error
