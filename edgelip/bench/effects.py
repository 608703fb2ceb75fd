"""How much slower one subject is than another, from pairs of launches that ran side by side, and what that proves.

Axes: L launches (pairs), N samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgelip.registry import require
from edgelip.runtime.errors import MeasurementError
from edgelip.runtime.measurement import MINIMUM_COUNT, percentile

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Effect:
    """A ratio of latencies, 1.05 for 5 % slower, with its 95 % interval over launches and p that it is 1.

    p_family: p after Holm's correction for all variants that were compared with the same base.
    between_launches_pct: standard deviation of the ratio from one pair of launches to the next.
    """

    ratio: float
    low: float
    high: float
    p: float
    p_family: float
    num_pairs: int
    between_launches_pct: float

    @property
    def excludes_one(self) -> bool:
        return not self.low <= 1 <= self.high

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def verdict(self, least_pct: float) -> str:
        """'faster', 'slower' or 'no evidence': the interval excludes 1, and the ratio is off by `least_pct` or more."""
        least = math.log1p(least_pct / 100)
        if self.p_family >= 1 - CONFIDENCE or not self.excludes_one or abs(math.log(self.ratio)) < least:
            return "no evidence"
        return "slower" if self.ratio > 1 else "faster"

    def excluded(self) -> str:
        """What the interval rules out: 'a slowdown over 1.2 % and a gain over 0.8 %'."""
        slowdown, gain = _pct(self.high - 1), _pct(1 - self.low)
        if self.low > 1:
            return f"a slowdown under {_pct(self.low - 1)} or over {slowdown}"
        if self.high < 1:
            return f"a gain under {_pct(1 - self.high)} or over {gain}"
        return f"a slowdown over {slowdown} and a gain over {gain}"


def mean_effect(log_ratios_L: Sequence[float] | np.ndarray) -> Effect:
    """Geometric mean of one log ratio a launch pair, with Student's interval.

    Of two launches of one bundle the log ratio is symmetric about 0 by design, whatever its tails are; then Student's
    t raises fewer false alarms than its level at 5 pairs, where a bootstrap over pairs raises 8 to 9 % (simulated:
    benchmarks/launch_simulation.py; known for mixtures of normals: Benjamini, JASA 78, 1983).
    The figures of one row keep that bootstrap (statistics.launch_percentile): a latency is symmetric about nothing, its
    samples are drawn anew too, and its interval is shown, while this one is a verdict.
    Raises MeasurementError with fewer than two pairs or values that are not finite.
    """
    values_L = np.asarray(log_ratios_L, float)
    count = len(values_L)
    if count < 2 or not np.isfinite(values_L).all():
        raise MeasurementError(f"{count} launch pairs with finite ratios; expected 2 or more. Measure more pairs.")
    t = require("scipy.stats", extra="report").t
    mean, spread = float(values_L.mean()), float(values_L.std(ddof=1))
    error = spread / math.sqrt(count)
    half = error * float(t.ppf(0.5 + CONFIDENCE / 2, count - 1))
    p = float(2 * t.sf(abs(mean) / error, count - 1)) if error > 0 else float(mean == 0)
    low, high = math.exp(mean - half), math.exp(mean + half)
    return Effect(math.exp(mean), low, high, p, p, count, 100 * spread)


def block_ratios(
    base: Sequence[np.ndarray], other: Sequence[np.ndarray], percent: float, *, fewest: int | None = None
) -> list[float]:
    """Log of the percentile of `other` over that of `base`, of each block of one launch pair.

    base[i], other[i]: all samples of block i. As few neighbouring blocks as hold `fewest` samples of both, by default
    MINIMUM_COUNT, are taken for one; what is left at the end joins the last. Empty where all together hold too few.
    """
    fewest = MINIMUM_COUNT[percent] if fewest is None else fewest
    groups: list[tuple[list[np.ndarray], list[np.ndarray]]] = []
    waiting: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for base_N, other_N in zip(base, other, strict=True):
        waiting[0].append(base_N)
        waiting[1].append(other_N)
        if all(sum(map(len, side)) >= fewest for side in waiting):
            groups.append(waiting)
            waiting = ([], [])
    if not groups:
        return []
    for side, rest in zip(groups[-1], waiting, strict=True):
        side.extend(rest)
    return [_log_percentile(others, percent) - _log_percentile(bases, percent) for bases, others in groups]


def _log_percentile(parts: Sequence[np.ndarray], percent: float) -> float:
    return math.log(percentile(np.concatenate(parts).tolist(), percent))


def _pct(share: float) -> str:
    return f"{100 * share:.1f} %"
