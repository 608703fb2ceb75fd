"""Which variants nothing beats: the Pareto front for any number of objectives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from edgelip.errors import UsageError

T = TypeVar("T")


def pareto_front(
    rows: Sequence[T],
    *,
    minimise: Sequence[str] = (),
    maximise: Sequence[str] = (),
    read: Callable[[T, str], float | None] | None = None,
) -> list[T]:
    """The rows, order kept, that no other row matches in every objective and beats in one; equals all stay.

    minimise, maximise: names of attributes, or of what `read` gives; a row where one is None is left out.
    Raises UsageError without an objective, or for an attribute that a row lacks.
    """
    objectives = [*minimise, *maximise]
    if not objectives:
        raise UsageError("a Pareto front of no objectives; expected at least 1 to minimise or maximise.")
    for row in rows:
        for name in objectives:
            if read is None and not hasattr(row, name):
                raise UsageError(f"a {type(row).__name__} has no {name!r} to compare. Name one of its fields.")
    values: list[list[Any]] = [[(read or getattr)(row, name) for name in objectives] for row in rows]
    measured = [row for row, own in zip(rows, values, strict=True) if None not in own]
    sign = np.array([1.0] * len(minimise) + [-1.0] * len(maximise))
    costs_RO = np.array([own for own in values if None not in own], float).reshape(-1, len(sign))
    costs_RO *= sign
    front = []
    for row, cost_O in zip(measured, costs_RO, strict=True):
        beats_R = (costs_RO <= cost_O).all(axis=1) & (costs_RO < cost_O).any(axis=1)
        if not beats_R.any():
            front.append(row)
    return front
