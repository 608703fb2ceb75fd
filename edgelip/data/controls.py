"""What can be told without reading lips: baselines that a word classifier on spans must leave far behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from edgelip.data.spans import Span
from edgelip.errors import UsageError


def majority_accuracy_pct(train: Sequence[Span], test: Sequence[Span]) -> float:
    """Share of `test` right when every answer is the most frequent word of `train` (first in the alphabet on a tie)."""
    _check(train, test)
    answer = _most_frequent(span.word for span in train)
    return _accuracy_pct([answer] * len(test), test)


def duration_accuracy_pct(train: Sequence[Span], test: Sequence[Span]) -> float:
    """Share of `test` right when the answer depends on the length of the span alone.

    A length means its most frequent word in `train`; a length never seen means that of the nearest (shorter on a tie).
    """
    _check(train, test)
    lengths = np.array(sorted({span.num_frames for span in train}))
    answers = [_most_frequent(span.word for span in train if span.num_frames == length) for length in lengths]
    nearest = [int(np.argmin(np.abs(lengths - span.num_frames))) for span in test]
    return _accuracy_pct([answers[index] for index in nearest], test)


def lead_in_spans(spans: Sequence[Span], every_span: Sequence[Span]) -> list[Span]:
    """Each span moved to the start of its video, before anything is said; as long as it was, or as the silence is.

    A classifier that does better than chance there reads the room, the light or the session, not the lips.
    Spans of videos that start with speech are left out: compare on as many spans as come back.
    every_span: all words of the videos, which say where speech starts. Raises UsageError if no span is left.
    """
    onset: dict[str, int] = {}
    for span in every_span:
        onset[span.video] = min(span.first, onset.get(span.video, span.first))
    moved = [
        replace(span, first=0, last=min(span.num_frames, silent) - 1)
        for span in spans
        if (silent := min(span.first, onset.get(span.video, span.first))) > 0
    ]
    if not moved:
        raise UsageError(
            f"none of {len(spans)} spans has silence before its video's first word. Leave out this control."
        )
    return moved


def _most_frequent(words: Iterable[str]) -> str:
    return min(Counter(words).items(), key=lambda item: (-item[1], item[0]))[0]


def _accuracy_pct(answers: Sequence[str], test: Sequence[Span]) -> float:
    return 100.0 * sum(answer == span.word for answer, span in zip(answers, test, strict=True)) / len(test)


def _check(train: Sequence[Span], test: Sequence[Span]) -> None:
    if not train or not test:
        raise UsageError(
            f"a baseline of {len(train)} training and {len(test)} test spans; expected at least 1 of each."
        )
