"""What can be told without reading lips: baselines that a word classifier on spans must leave far behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgelip.data.readers.samples import Sample
from edgelip.data.readers.spans import span_of
from edgelip.errors import UsageError


def majority_accuracy_pct(train: Sequence[Sample], test: Sequence[Sample]) -> float:
    """Share of `test` right when every answer is the most frequent word of `train` (first in the alphabet on a tie)."""
    _check(train, test)
    answer = _most_frequent(span.word for span in train)
    return _accuracy_pct([answer] * len(test), test)


def duration_accuracy_pct(train: Sequence[Sample], test: Sequence[Sample]) -> float:
    """Share of `test` right when the answer depends on the length of the span alone.

    A length means its most frequent word in `train`; a length never seen means that of the nearest (shorter on a tie).
    """
    _check(train, test)
    lengths = np.array(sorted({_num_frames(span) for span in train}))
    answers = [_most_frequent(span.word for span in train if _num_frames(span) == length) for length in lengths]
    nearest = [int(np.argmin(np.abs(lengths - _num_frames(span)))) for span in test]
    return _accuracy_pct([answers[index] for index in nearest], test)


def lead_in_spans(spans: Sequence[Sample], every_span: Sequence[Sample]) -> list[Sample]:
    """Each span moved to the start of its video, before anything is said; as long as it was, or as the silence is.

    A classifier that does better than chance there reads the room, the light or the session, not the lips.
    Spans of videos that start with speech are left out: compare on as many spans as come back.
    every_span: all words of the videos, which say where speech starts. Raises UsageError if no span is left.
    """
    onset: dict[Path, int] = {}
    for span in every_span:
        first, _ = span_of(span)
        onset[span.path] = min(first, onset.get(span.path, first))
    moved = []
    for span in spans:
        first, _ = span_of(span)
        if (silent := min(first, onset.get(span.path, first))) > 0:
            moved.append(replace(span, first=0, last=min(_num_frames(span), silent) - 1))
    if not moved:
        raise UsageError(
            f"none of {len(spans)} spans has silence before its video's first word. Leave out this control."
        )
    return moved


def _num_frames(span: Sample) -> int:
    first, last = span_of(span)
    return last - first + 1


def _most_frequent(words: Iterable[str]) -> str:
    return min(Counter(words).items(), key=lambda item: (-item[1], item[0]))[0]


def _accuracy_pct(answers: Sequence[str], test: Sequence[Sample]) -> float:
    return 100.0 * sum(answer == span.word for answer, span in zip(answers, test, strict=True)) / len(test)


def _check(train: Sequence[Sample], test: Sequence[Sample]) -> None:
    if not train or not test:
        raise UsageError(
            f"a baseline of {len(train)} training and {len(test)} test spans; expected at least 1 of each."
        )
