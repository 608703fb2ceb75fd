"""Which words, and groups of words, one classifier loses against another on the same clips, and what it says instead.

Axes: N clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgelip.bench.accuracy import shares
from edgelip.bench.statistics import mcnemar_p

# With fewer clips that only one of the two has right, the exact p is above 0.05 whichever way they fall. Leaving these
# tests out of the correction is fair: their number says nothing about the direction.
_FEWEST_CHANGED = 6


@dataclass(frozen=True)
class Change:
    """One word or group: clips that only the reference has right (lost), or only the other (gained).

    p: exact McNemar; p_holm: the same corrected for all words (groups) tested, None with too few changed clips.
    """

    name: str
    num_clips: int
    right_before: int
    right_after: int
    lost: int
    gained: int
    p: float
    p_holm: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Confusion:
    """How often a word's clips are taken for another word, before and after; p, p_holm as in Change."""

    word: str
    said: str
    before: int
    after: int
    p: float
    p_holm: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Flip:
    """A clip whose answer changed, and whether that lost it, gained it, or made it wrong in another way."""

    clip: int
    word: str
    before: str
    after: str
    kind: str  # "lost", "gained", "wrong"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected so that one false finding among all has the stated chance. Source: Holm, SJS 6, 1979."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def word_changes(labels_N: np.ndarray, before_N: np.ndarray, after_N: np.ndarray, words: Sequence[str]) -> list[Change]:
    """A Change for each word that has clips, the surest loss first. before_N, after_N: the words said, as indices."""
    members = {word: labels_N == index for index, word in enumerate(words)}
    return group_changes(labels_N, before_N, after_N, members)


def group_changes(
    labels_N: np.ndarray, before_N: np.ndarray, after_N: np.ndarray, members: Mapping[str, np.ndarray]
) -> list[Change]:
    """The same for groups of clips, bool (N,) each, which may overlap."""
    first_N, second_N = before_N == labels_N, after_N == labels_N
    counts = []
    for name, inside_N in members.items():
        if inside_N.any():
            lost, gained = int((inside_N & first_N & ~second_N).sum()), int((inside_N & ~first_N & second_N).sum())
            counts.append((name, inside_N, lost, gained))
    corrected = _corrected([(lost, gained) for *_, lost, gained in counts])
    changes = [
        Change(
            name=name,
            num_clips=int(inside_N.sum()),
            right_before=int((inside_N & first_N).sum()),
            right_after=int((inside_N & second_N).sum()),
            lost=lost,
            gained=gained,
            p=mcnemar_p(lost, gained),
            p_holm=p_holm,
        )
        for (name, inside_N, lost, gained), p_holm in zip(counts, corrected, strict=True)
    ]

    def surest_loss(each: Change) -> tuple[int, float, int, str]:
        return int(np.sign(each.gained - each.lost)), each.p, each.gained - each.lost, each.name

    return sorted(changes, key=surest_loss)


def grown_confusions(
    labels_N: np.ndarray, before_N: np.ndarray, after_N: np.ndarray, words: Sequence[str]
) -> list[Confusion]:
    """Pairs (word, wrong word said) that grew, the surest first; corrected for all pairs that changed."""
    added, removed = _pairs(labels_N, after_N, before_N), _pairs(labels_N, before_N, after_N)
    counts = [(pair, added[pair], removed[pair]) for pair in sorted({*added, *removed})]
    corrected = _corrected([(more, fewer) for _, more, fewer in counts])
    found = []
    for ((label, said), more, fewer), p_holm in zip(counts, corrected, strict=True):
        if more > fewer:
            before = int(((labels_N == label) & (before_N == said)).sum())
            p = mcnemar_p(more, fewer)
            found.append(Confusion(words[label], words[said], before, before + more - fewer, p, p_holm))
    return sorted(found, key=lambda each: (each.p, each.before - each.after, each.word, each.said))


def flips(labels_N: np.ndarray, before_NV: np.ndarray, after_NV: np.ndarray, words: Sequence[str]) -> list[Flip]:
    """Clips whose answer changed: the lost ones, then the gained, then the others; those of the largest change first.

    before_NV, after_NV: logits.
    """
    before_N, after_N = before_NV.argmax(axis=1), after_NV.argmax(axis=1)
    change_N = np.abs(shares(before_NV) - shares(after_NV)).sum(axis=1)
    found: list[tuple[int, float, Flip]] = []
    for clip in np.flatnonzero(before_N != after_N).tolist():
        label, first, second = int(labels_N[clip]), int(before_N[clip]), int(after_N[clip])
        kind = "lost" if first == label else "gained" if second == label else "wrong"
        flip = Flip(clip, words[label], words[first], words[second], kind)
        found.append((("lost", "gained", "wrong").index(kind), -float(change_N[clip]), flip))
    return [flip for *_, flip in sorted(found, key=lambda each: each[:2])]


def _pairs(labels_N: np.ndarray, said_N: np.ndarray, other_N: np.ndarray) -> Counter[tuple[int, int]]:
    """How often a clip's wrong word is said here and not there."""
    chosen: Iterable[tuple[int, int]] = zip(
        labels_N[(said_N != labels_N) & (said_N != other_N)].tolist(),
        said_N[(said_N != labels_N) & (said_N != other_N)].tolist(),
        strict=True,
    )
    return Counter(chosen)


def _corrected(counts: Sequence[tuple[int, int]]) -> list[float | None]:
    """Holm's p of each pair of counts that can reach 0.05 at all."""
    able = [index for index, pair in enumerate(counts) if sum(pair) >= _FEWEST_CHANGED]
    found: list[float | None] = [None] * len(counts)
    for index, p in zip(able, holm([mcnemar_p(*counts[index]) for index in able]), strict=True):
        found[index] = p
    return found
