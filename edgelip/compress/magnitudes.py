"""The range of an activation that loses least by rounding, from a histogram of its magnitudes."""

from __future__ import annotations

import torch
from torch import Tensor

NUM_BINS = 2048


class Magnitudes:
    """A histogram of |x| over many tensors; its bins double in width whenever a value lies beyond them."""

    def __init__(self) -> None:
        self._top = 0.0
        self._counts = torch.zeros(NUM_BINS, dtype=torch.float64)  # of values other than zero, which is always exact

    def add(self, x: Tensor) -> None:
        sizes = x.detach().abs().flatten()
        largest = float(sizes.max())
        if largest == 0.0:
            return
        self._top = self._top or largest
        while largest > self._top:
            halved = self._counts.reshape(-1, 2).sum(1)
            self._counts = torch.cat([halved, torch.zeros_like(halved)])
            self._top *= 2
        counts = torch.histc(sizes, NUM_BINS, 0, self._top).double().cpu()
        counts[0] -= float((sizes == 0).sum())
        self._counts += counts

    def best_range(self, num_levels: int) -> float:
        """The range whose rounding to `num_levels` a side has the least squared error; 0 if all values were zero.

        A value inside the range errs by step^2 / 12 on the mean, one beyond it by its distance from the end.
        """
        width = self._top / NUM_BINS
        ends = (torch.arange(NUM_BINS, dtype=torch.float64) + 1) * width
        centres = ends - width / 2
        beyond = [self._above(self._counts * centres**power) for power in range(3)]
        clipped = beyond[2] - 2 * ends * beyond[1] + ends**2 * beyond[0]
        rounded = (self._counts.sum() - beyond[0]) * (ends / num_levels) ** 2 / 12
        return float(ends[(clipped + rounded).argmin()])

    @staticmethod
    def _above(values: Tensor) -> Tensor:
        """The sum of the values behind each place."""
        return values.flip(0).cumsum(0).flip(0) - values
