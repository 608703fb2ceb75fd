"""Percentiles, intervals and paired tests that say how sure a number is. Needs numpy; scipy where a quantile is asked.

Axes: R resamples, L launches, N clips, S speakers, T trainings, V words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from edgelip.registry import require
from edgelip.runtime.errors import MeasurementError
from edgelip.runtime.measurement import percentile

__all__ = [
    "Estimate",
    "PairedDifference",
    "accuracy",
    "bootstrap_mean",
    "early_stopping_estimate",
    "launch_percentile",
    "launch_ratio",
    "mcnemar_p",
    "minimum_count",
    "order_statistic_interval",
    "paired_accuracy_difference",
    "percentile",
    "pooled_accuracy_difference",
    "wilson_interval",
]

_NUM_RESAMPLES = 4000

Samples = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """Share correct of `other` minus that of `base` on the same clips, its 95 % interval, and McNemar's p."""

    value: float
    low: float
    high: float
    p: float


def minimum_count(percent: float, *, confidence: float = 0.99) -> int:
    """Fewest samples that allow an early-stopping estimate.

    The smallest q with P[Bin(q, 1 - p) <= 1] <= 1 - confidence; runtime.measurement.MINIMUM_COUNT holds the usual ones.
    """
    above = 1 - percent / 100
    count = 2
    while (1 - above) ** count + count * above * (1 - above) ** (count - 1) > 1 - confidence:
        count += 1
    return count


def early_stopping_estimate(samples: Sequence[float], percent: float, *, confidence: float = 0.99) -> float:
    """An upper bound of the percentile that holds with `confidence`, as MLPerf's early stopping computes it.

    With t the largest number that P[Bin(q, 1 - p) <= t] <= 1 - confidence, the t - 1 highest of q samples are dropped
    and the highest left is the estimate. Raises MeasurementError below minimum_count. Source: MLPerf inference rules.
    """
    needed = minimum_count(percent, confidence=confidence)
    if len(samples) < needed:
        raise MeasurementError(f"p{percent:g} of {len(samples)} samples; expected at least {needed}. Measure longer.")
    binom = require("scipy.stats", extra="report").binom

    count = len(samples)
    above = int(binom.ppf(1 - confidence, count, 1 - percent / 100))
    if binom.cdf(above, count, 1 - percent / 100) > 1 - confidence:
        above -= 1
    return float(sorted(samples)[count - above])


def order_statistic_interval(samples: Sequence[float], percent: float, *, confidence: float = 0.95) -> Estimate:
    """Percentile with an interval that assumes independent samples and no distribution.

    Bounds are the samples of rank l and u with P[l <= Bin(n, p) < u] >= confidence, tails cut equally.
    Raises MeasurementError if there are too few samples for both bounds.
    """
    binom = require("scipy.stats", extra="report").binom

    count, share, tail = len(samples), percent / 100, (1 - confidence) / 2
    low = int(binom.ppf(tail, count, share))
    high = int(binom.isf(tail, count, share)) + 1
    if low < 1 or high > count:
        raise MeasurementError(f"interval of p{percent:g} from {count} samples; expected more. Measure longer.")
    ordered = sorted(samples)
    return Estimate(percentile(ordered, percent), float(ordered[low - 1]), float(ordered[high - 1]))


def launch_percentile(launches: Sequence[Samples], percent: float, *, seed: int = 0) -> Estimate:
    """Mean over launches of each launch's percentile; the interval is that between launches.

    Bootstrap over launches, then within each. With few launches a plain percentile interval is too narrow (it
    covers 85 % at 5 launches where 95 % is asked), so it is taken at the tails that give Student's width (94 %).
    Source: the expanded percentile interval of Hesterberg, The American Statistician 69(4), 2015.
    It says how sure a row's figure is, samples and launches together; where a difference is judged from one number a
    launch, Student's t takes its place (effects.mean_effect, which says why).
    Samples within a launch count as independent: their autocorrelation is small beside the spread between launches.
    Raises MeasurementError without samples; one launch has an interval from within alone.
    """
    rng = np.random.default_rng(seed)
    drawn_RL = _resampled_percentiles(launches, percent, _resampled_launches(len(launches), rng), rng)
    value = float(np.mean(_percentiles(launches, percent)))
    low, high = _expanded_interval(drawn_RL.mean(axis=1), len(launches))
    return Estimate(value, min(low, value), max(high, value))


def launch_ratio(launches: Sequence[Samples], base: Sequence[Samples], percent: float, *, seed: int = 0) -> Estimate:
    """Geometric mean over launch pairs of percentile / base percentile, with its interval, as launch_percentile's.

    A column of a table, and no verdict: at 5 launches that differ wildly it would exclude 1 in 8 to 9 % of comparisons
    of equals, where `edgelip compare` keeps 5 % by effects.mean_effect.
    Launch i of both must have run side by side. Raises MeasurementError if their numbers differ.
    """
    if len(launches) != len(base):
        raise MeasurementError(f"{len(launches)} launches against {len(base)}; expected pairs. Measure them together.")
    rng = np.random.default_rng(seed)
    value = float(np.mean(np.log(_percentiles(launches, percent)) - np.log(_percentiles(base, percent))))
    chosen_RL = _resampled_launches(len(launches), rng)
    log_ratio_R = (
        np.log(_resampled_percentiles(launches, percent, chosen_RL, rng))
        - np.log(_resampled_percentiles(base, percent, chosen_RL, rng))
    ).mean(axis=1)
    low, high = _expanded_interval(log_ratio_R, len(launches))
    return Estimate(math.exp(value), math.exp(min(low, value)), math.exp(max(high, value)))


def bootstrap_mean(values_L: Samples, *, expanded: bool = True, seed: int = 0) -> Estimate:
    """Mean of one value a launch, with its interval by bootstrap over launches.

    expanded: at the tails that give Student's width, as launch_percentile does; else the plain percentile interval.
    Raises MeasurementError without values.
    """
    values_L = np.asarray(values_L, float)
    drawn_RL = _resampled_launches(len(values_L), np.random.default_rng(seed))
    low, high = _expanded_interval(values_L[drawn_RL].mean(axis=1), len(values_L) if expanded else 1)
    return Estimate(float(values_L.mean()), low, high)


def wilson_interval(num_hits: int, num_trials: int, *, confidence: float = 0.95) -> Estimate:
    """Share of hits with its score interval. Source: Wilson, JASA 22, 1927.

    Raises MeasurementError without trials.
    """
    if not 0 <= num_hits <= num_trials or num_trials == 0:
        raise MeasurementError(f"{num_hits} hits of {num_trials} trials; expected 0 <= hits <= trials and trials.")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, spread = num_hits / num_trials, z * z / num_trials
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    low = 0.0 if num_hits == 0 else centre - half  # the formula reaches the ends but for rounding
    return Estimate(share, low, 1.0 if num_hits == num_trials else centre + half)


def accuracy(logits_NV: np.ndarray, labels_N: np.ndarray, *, top: int = 1) -> np.ndarray:
    """Whether each clip's label is among its `top` best words, bool (N,); of equal scores the first word is best."""
    ranked_NK = np.argsort(-logits_NV, axis=1, kind="stable")[:, :top]
    found_N: np.ndarray = (ranked_NK == np.asarray(labels_N)[:, None]).any(axis=1)
    return found_N


def mcnemar_p(num_only_first: int, num_only_second: int) -> float:
    """Exact two-sided p that two classifiers err alike, from the clips that only one of them has right.

    Source: McNemar, Psychometrika 12, 1947; exact by the binomial with share 1/2.
    """
    total, fewer = num_only_first + num_only_second, min(num_only_first, num_only_second)
    tail = choices = 1
    for count in range(fewer):
        choices = choices * (total - count) // (count + 1)
        tail += choices
    return min(1.0, float(2 * tail / 2**total))  # whole numbers of any size: exact until the last division


def paired_accuracy_difference(
    other_N: np.ndarray, base_N: np.ndarray, *, speakers_N: np.ndarray | None = None, seed: int = 0
) -> PairedDifference:
    """Change in share correct from `base` to `other` (bool, same clips), by paired bootstrap.

    With speakers, whole speakers are resampled: clips of one mouth succeed and fail together.
    Raises MeasurementError if the clips are not the same number.
    """
    other_N, base_N = np.asarray(other_N, bool), np.asarray(base_N, bool)
    if other_N.shape != base_N.shape or not len(base_N):
        raise MeasurementError(f"{len(other_N)} clips against {len(base_N)}; expected the same clips in both.")
    change_N = other_N.astype(np.int64) - base_N.astype(np.int64)
    rng = np.random.default_rng(seed)
    num_gained, num_lost = int((change_N > 0).sum()), int((change_N < 0).sum())
    if speakers_N is None:
        count = len(change_N)
        shares = np.array([num_gained, num_lost, count - num_gained - num_lost]) / count
        drawn_R3 = rng.multinomial(count, shares, _NUM_RESAMPLES)
        change_R = (drawn_R3[:, 0] - drawn_R3[:, 1]) / count
    else:
        names, group_N = np.unique(speakers_N, return_inverse=True)
        gain_S = np.bincount(group_N, weights=change_N)
        size_S = np.bincount(group_N)
        drawn_RS = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), _NUM_RESAMPLES)
        change_R = (drawn_RS @ gain_S) / (drawn_RS @ size_S)
    low, high = np.percentile(change_R, [2.5, 97.5])
    return PairedDifference(float(change_N.mean()), float(low), float(high), mcnemar_p(num_gained, num_lost))


def pooled_accuracy_difference(
    other_TN: np.ndarray, base_TN: np.ndarray, *, speakers_N: np.ndarray | None = None, seed: int = 0
) -> PairedDifference:
    """The same over T trainings of both, by crossed bootstrap over trainings and over clips (whole speakers).

    McNemar's p is exact over all pairs of clip and training. With few trainings the interval is too narrow by what they
    differ: show each training's own difference beside it. Raises MeasurementError if the shapes differ.
    """
    other_TN, base_TN = np.asarray(other_TN, bool), np.asarray(base_TN, bool)
    if other_TN.shape != base_TN.shape or other_TN.ndim != 2 or not other_TN.size:
        raise MeasurementError(
            f"results of shape {other_TN.shape} against {base_TN.shape}; expected the same trainings and clips in both."
        )
    change_TN = other_TN.astype(np.int64) - base_TN
    num_trainings, num_clips = change_TN.shape
    groups_N = np.arange(num_clips) if speakers_N is None else np.unique(speakers_N, return_inverse=True)[1]
    size_S = np.bincount(groups_N)
    gain_TS = np.stack([np.bincount(groups_N, weights=change_N, minlength=len(size_S)) for change_N in change_TN])
    rng = np.random.default_rng(seed)
    drawn_RS = rng.multinomial(len(size_S), np.full(len(size_S), 1 / len(size_S)), _NUM_RESAMPLES)
    drawn_RT = rng.multinomial(num_trainings, np.full(num_trainings, 1 / num_trainings), _NUM_RESAMPLES)
    change_R = (drawn_RT * (drawn_RS @ gain_TS.T)).sum(axis=1) / (num_trainings * (drawn_RS @ size_S))
    low, high = np.percentile(change_R, [2.5, 97.5])
    p = mcnemar_p(int((change_TN > 0).sum()), int((change_TN < 0).sum()))
    return PairedDifference(float(change_TN.mean()), float(low), float(high), p)


def _percentiles(launches: Sequence[Samples], percent: float) -> list[float]:
    return [percentile(np.asarray(samples, float).tolist(), percent) for samples in launches]


def _resampled_launches(num_launches: int, rng: np.random.Generator) -> np.ndarray:
    if num_launches == 0:
        raise MeasurementError("there are no launches; expected at least one.")
    return rng.integers(0, num_launches, (_NUM_RESAMPLES, num_launches))


def _resampled_percentiles(
    launches: Sequence[Samples], percent: float, chosen_RL: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Percentile of a resample of each chosen launch, drawn without making the resample.

    The k-th of n uniform numbers is Beta(k, n - k + 1), and the k-th of n draws from sorted samples is the sample at
    that share of them.
    """
    drawn_RL = np.empty(chosen_RL.shape)
    for index, samples in enumerate(launches):
        ordered = np.sort(np.asarray(samples, float))
        count = len(ordered)
        rank = math.ceil(percent * count / 100 - 1e-9)
        picked = chosen_RL == index
        share = rng.beta(rank, count - rank + 1, int(picked.sum()))
        drawn_RL[picked] = ordered[np.minimum((share * count).astype(np.int64), count - 1)]
    return drawn_RL


def _expanded_interval(drawn_R: np.ndarray, num_launches: int) -> tuple[float, float]:
    tail = 0.025
    if num_launches > 1:
        t = require("scipy.stats", extra="report").t
        width = math.sqrt(num_launches / (num_launches - 1)) * float(t.ppf(0.975, num_launches - 1))
        tail = NormalDist().cdf(-width)
    low, high = np.quantile(drawn_R, [tail, 1 - tail])
    return float(low), float(high)
