"""Words that look alike on the lips, by the mouth shapes of their pronunciations."""

from __future__ import annotations

from collections.abc import Sequence

from edgelip.data.synthetic.words import VISEME_OF_PHONE, pronunciations


def look_alikes(vocabulary: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Of each word that has any, the other words of the vocabulary that look like it, in its order.

    Two words look alike if a pronunciation of each has the same visemes in the same order (homophenes, as BILLION and
    MILLION) or all but one of them: one other, one more or one less (PRESS and PRICE). Words that the lexicon does not
    pronounce look like none.
    """
    shapes = {word: _shapes(word) for word in vocabulary}
    found = {
        word: tuple(
            other
            for other in vocabulary
            if other != word and any(_within_one(one, two) for one in shapes[word] for two in shapes[other])
        )
        for word in vocabulary
    }
    return {word: others for word, others in found.items() if others}


def _shapes(word: str) -> frozenset[tuple[int, ...]]:
    """Visemes of every pronunciation."""
    variants = pronunciations().get(word.upper(), ())
    return frozenset(tuple(VISEME_OF_PHONE[phone.rstrip("012")] for phone in phones) for phones in variants)


def _within_one(one: tuple[int, ...], two: tuple[int, ...]) -> bool:
    """Whether one edit or none makes the one the other: what is left between common ends is one long at most."""
    start = 0
    while start < min(len(one), len(two)) and one[start] == two[start]:
        start += 1
    end = 0
    while end < min(len(one), len(two)) - start and one[-1 - end] == two[-1 - end]:
        end += 1
    return max(len(one), len(two)) - start - end <= 1
