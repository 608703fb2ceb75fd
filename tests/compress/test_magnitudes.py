"""The range of least error, against trying every range on the values themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgelip.compress.magnitudes import Magnitudes


def squared_error(values: np.ndarray, end: float, num_levels: int) -> float:
    step = end / num_levels
    rounded = np.clip(np.rint(values / step), -num_levels, num_levels) * step
    return float(np.square(values - rounded).mean())


@pytest.mark.parametrize("kind", ["normal", "laplace", "relu"])
@pytest.mark.parametrize("num_levels", [7, 127])
def test_no_other_range_has_a_smaller_error(kind: str, num_levels: int) -> None:
    rng = np.random.default_rng(0)
    values = {"normal": rng.normal, "laplace": rng.laplace, "relu": rng.normal}[kind](size=40_000).astype(np.float32)
    if kind == "relu":
        values = np.maximum(values, 0)
    found = Magnitudes()
    for part in np.array_split(np.sort(np.abs(values)), 7):  # growing, so that the bins must double
        found.add(torch.from_numpy(part.copy()))
    best = min(squared_error(values, end, num_levels) for end in np.linspace(0.2, 1, 200) * np.abs(values).max())
    got = squared_error(values, found.best_range(num_levels), num_levels)
    assert got <= 1.03 * best
    assert got < squared_error(values, float(np.abs(values).max()), num_levels)


def test_zeros_alone_have_no_range() -> None:
    found = Magnitudes()
    found.add(torch.zeros(5))
    assert found.best_range(127) == 0.0
