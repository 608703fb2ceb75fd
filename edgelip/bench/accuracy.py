"""What a deployed file gets right, how it errs and how sure it is, from its logits and those of others.

Axes: N clips, V words, S groups of clips (speakers), C confidence bins, R resamples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgelip.bench import statistics
from edgelip.bench.statistics import Estimate, PairedDifference
from edgelip.runtime.errors import MeasurementError

NUM_BINS = 15  # as Guo et al. have it
_NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class Agreement:
    """How alike two classifiers answer the same clips.

    same: share of clips with the same word. largest_difference: of a logit, anywhere. kl_nats: mean over clips of
    the divergence of the other's probabilities from the reference's, with its interval.
    """

    same: Estimate
    largest_difference: float
    kl_nats: Estimate


def require_logits(logits_NV: np.ndarray, num_clips: int, *, name: str) -> np.ndarray:
    """The same array. Raises MeasurementError unless there is a row of finite numbers for every clip."""
    if logits_NV.ndim != 2 or len(logits_NV) != num_clips:
        raise MeasurementError(f"{name} gave {len(logits_NV)} results for {num_clips} clips.")
    broken = int((~np.isfinite(logits_NV)).any(axis=1).sum())
    if broken:
        raise MeasurementError(
            f"{name} gave infinite or undefined scores for {broken} of {num_clips} clips; expected numbers. "
            "Use a more exact precision, or export it again."
        )
    return logits_NV


def top_share(correct_N: np.ndarray) -> Estimate:
    """Share of clips that are right, with its Wilson interval. Raises MeasurementError without clips."""
    return statistics.wilson_interval(int(correct_N.sum()), len(correct_N))


def paired_drop(top1_N: np.ndarray, base_N: np.ndarray, speakers_N: np.ndarray | None) -> PairedDifference:
    """Share correct that was lost against `base_N` on the same clips: above 0 is worse."""
    return statistics.paired_accuracy_difference(base_N, top1_N, speakers_N=speakers_N)


def accuracy_fields(top1_N: np.ndarray, top5_N: np.ndarray) -> dict[str, float]:
    """top1_pct, top5_pct and the ends of their intervals."""
    row: dict[str, float] = {}
    for name, correct_N in (("top1", top1_N), ("top5", top5_N)):
        row.update(named(name, "_pct", top_share(correct_N), scale=100))
    return row


def paired_fields(top1_N: np.ndarray, base_N: np.ndarray, speakers_N: np.ndarray | None) -> dict[str, float]:
    """top1_drop_points, the ends of its interval, and mcnemar_p."""
    drop = paired_drop(top1_N, base_N, speakers_N)
    return {**named("top1_drop", "_points", Estimate(drop.value, drop.low, drop.high), scale=100), "mcnemar_p": drop.p}


def named(name: str, unit: str, estimate: Estimate, *, scale: float = 1) -> dict[str, float]:
    """An estimate as three columns of a row."""
    fields: Mapping[str, float] = asdict(estimate)
    ends = {"value": "", "low": "_low", "high": "_high"}
    return {f"{name}{ends[key]}{unit}": scale * value for key, value in fields.items()}


def calibration_error(
    logits_NV: np.ndarray, labels_N: np.ndarray, *, speakers_N: np.ndarray | None = None, seed: int = 0
) -> Estimate:
    """Expected calibration error: by how much confidence and share correct differ, 0..1.

    Clips fall by the probability of their likeliest word into 15 bins of equal width, the upper end inside; the error
    is the sum over bins of |clips right - sum of probabilities| / N. Source: Guo et al., ICML 2017.
    A resample has a larger error than its sample for the same reason that a sample has a larger one than the truth, so
    the interval is that of resampled clips (whole speakers) less this excess. Raises MeasurementError without clips.
    """
    if not len(labels_N):
        raise MeasurementError("there are no clips; expected at least one.")
    shares_NV = shares(logits_NV)
    confidence_N = shares_NV.max(axis=1)
    gap_N = statistics.accuracy(logits_NV, labels_N) - confidence_N
    bin_N = np.clip(np.ceil(confidence_N * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    group_N = _groups(len(gap_N), speakers_N)
    size_S = np.bincount(group_N)
    gap_SC = np.bincount(group_N * NUM_BINS + bin_N, gap_N, len(size_S) * NUM_BINS).reshape(-1, NUM_BINS)
    value = float(np.abs(gap_SC.sum(axis=0)).sum() / len(gap_N))
    drawn = [float(np.abs(times_S @ gap_SC).sum() / (times_S @ size_S)) for times_S in _resamples(len(size_S), seed)]
    drawn_R = np.array(drawn) - (np.mean(drawn) - value)
    low, high = np.percentile(drawn_R, [2.5, 97.5])
    return Estimate(value, min(max(float(low), 0.0), value), max(min(float(high), 1.0), value))


def agreement(
    logits_NV: np.ndarray, reference_NV: np.ndarray, *, speakers_N: np.ndarray | None = None, seed: int = 0
) -> Agreement:
    """How alike a classifier answers to a reference. Raises MeasurementError unless both have the same clips, words."""
    if logits_NV.shape != reference_NV.shape or not logits_NV.size:
        raise MeasurementError(
            f"logits of shape {logits_NV.shape} against {reference_NV.shape}; expected the same clips and words."
        )
    same_N = logits_NV.argmax(axis=1) == reference_NV.argmax(axis=1)
    log_N = _log_shares(reference_NV) - _log_shares(logits_NV)
    kl_N = np.maximum((shares(reference_NV) * log_N).sum(axis=1), 0.0)  # below 0 by rounding alone
    largest = np.abs(logits_NV.astype(np.float64) - reference_NV).max()
    return Agreement(top_share(same_N), float(largest), _mean(kl_N, speakers_N, seed))


def word_rows(
    logits_NV: np.ndarray, labels_N: np.ndarray, words: Sequence[str], *, num_taken: int = 3
) -> list[dict[str, Any]]:
    """Of each word that has clips: {word, clips, right, right_low_pct, right_high_pct, taken_for: [[word, n], ...]}.

    The ends are Wilson's; taken_for: the wrong words said most often.
    """
    right_N, said_N = statistics.accuracy(logits_NV, labels_N), logits_NV.argmax(axis=1)
    rows: list[dict[str, Any]] = []
    for label, word in enumerate(words):
        inside_N = labels_N == label
        if not inside_N.any():
            continue
        share = top_share(right_N[inside_N])
        wrong = Counter(said_N[inside_N & ~right_N].tolist())
        taken = sorted(wrong.items(), key=lambda pair: (-pair[1], pair[0]))[:num_taken]
        rows.append(
            {
                "word": word,
                "clips": int(inside_N.sum()),
                "right": int(right_N[inside_N].sum()),
                "right_low_pct": 100 * share.low,
                "right_high_pct": 100 * share.high,
                "taken_for": [[words[index], count] for index, count in taken],
            }
        )
    return rows


def of_words(labels_N: np.ndarray, words: Sequence[str], chosen: Iterable[str]) -> np.ndarray:
    """Which clips are of one of the chosen words, bool (N,)."""
    wanted = set(chosen)
    inside_N: np.ndarray = np.isin(labels_N, [label for label, word in enumerate(words) if word in wanted])
    return inside_N


def shares(logits_NV: np.ndarray) -> np.ndarray:
    """Probabilities, float64."""
    found: np.ndarray = np.exp(_log_shares(logits_NV))
    return found


def _log_shares(logits_NV: np.ndarray) -> np.ndarray:
    shifted_NV = logits_NV.astype(np.float64) - logits_NV.max(axis=1, keepdims=True)
    log_NV: np.ndarray = shifted_NV - np.log(np.exp(shifted_NV).sum(axis=1, keepdims=True))
    return log_NV


def _mean(values_N: np.ndarray, speakers_N: np.ndarray | None, seed: int) -> Estimate:
    """With the interval of resampled clips (whole speakers)."""
    group_N = _groups(len(values_N), speakers_N)
    sum_S, size_S = np.bincount(group_N, values_N), np.bincount(group_N)
    drawn = [float((times_S @ sum_S) / (times_S @ size_S)) for times_S in _resamples(len(size_S), seed)]
    value = float(values_N.mean())
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(value, min(float(low), value), max(float(high), value))


def _groups(num_clips: int, speakers_N: np.ndarray | None) -> np.ndarray:
    """Which group each clip is resampled with, 0..S-1: its speaker's, or its own."""
    groups_N: np.ndarray = np.arange(num_clips) if speakers_N is None else np.unique(speakers_N, return_inverse=True)[1]
    return groups_N


def _resamples(num_groups: int, seed: int) -> Iterator[np.ndarray]:
    """How often each group is in a resample, (S,), so many times."""
    rng = np.random.default_rng(seed)
    for _ in range(_NUM_RESAMPLES):
        yield np.bincount(rng.integers(0, num_groups, num_groups), minlength=num_groups)
