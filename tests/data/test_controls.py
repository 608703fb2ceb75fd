from __future__ import annotations

from pathlib import Path

import pytest

from edgelip.data.controls import duration_accuracy_pct, lead_in_spans, majority_accuracy_pct
from edgelip.data.readers.samples import Sample, select
from edgelip.data.readers.spans import read_spans, span_of
from edgelip.errors import UsageError

GRID = Path(__file__).parents[3] / "shared" / "data" / "grid"


def _span(word: str, num_frames: int, first: int = 10, video: str = "a.mp4") -> Sample:
    last = first + num_frames - 1
    return Sample(word, Path(video), f"{video}:{first}:{last}", "train", first, last)


TRAIN = [_span("a", 2), _span("a", 2), _span("b", 2), _span("b", 5), _span("c", 9), _span("a", 9), _span("b", 9)]


def test_majority_answers_the_most_frequent_training_word() -> None:
    # a and b both occur 3 times: a comes first.
    assert majority_accuracy_pct(TRAIN, [_span("a", 1), _span("b", 1), _span("c", 1), _span("a", 7)]) == 50.0


def test_duration_answers_the_most_frequent_word_of_that_length_or_the_nearest() -> None:
    # 2 -> a, 5 -> b, 9 -> a (tie of a, b, c); 1 is nearest to 2, 7 lies between 5 and 9: 5 wins; 30 is nearest to 9
    test = [_span("a", 2), _span("b", 5), _span("a", 9), _span("a", 1), _span("b", 7), _span("a", 30), _span("c", 9)]
    assert duration_accuracy_pct(TRAIN, test) == pytest.approx(100 * 6 / 7)


def test_a_baseline_needs_spans() -> None:
    for baseline in (majority_accuracy_pct, duration_accuracy_pct):
        with pytest.raises(
            UsageError, match=r"a baseline of 7 training and 0 test spans; expected at least 1 of each\."
        ):
            baseline(TRAIN, [])


def test_lead_in_spans_lie_in_the_silence_before_the_first_word() -> None:
    said = [_span("a", 3, 6), _span("b", 8, 9), _span("c", 2, 0, "b.mp4"), _span("d", 2, 2, "b.mp4")]
    moved = lead_in_spans(said, said)
    assert [(span.word, span.first, span.last) for span in moved] == [("a", 0, 2), ("b", 0, 5)]
    with pytest.raises(UsageError, match=r"none of 2 spans has silence before its video's first word\. Leave out"):
        lead_in_spans(said[2:], said)


@pytest.mark.skipif(not GRID.is_dir(), reason="the GRID clips are not at ../shared/data/grid")
def test_grid_words_are_not_told_by_duration() -> None:
    spans = read_spans(GRID / "words.csv")
    train, test = select(spans, split="train"), select(spans, split="test")
    majority_pct, duration_pct = majority_accuracy_pct(train, test), duration_accuracy_pct(train, test)
    assert majority_pct < duration_pct < 20
    silent = lead_in_spans(test, spans)
    assert 0.98 * len(test) < len(silent) <= len(test)
    onset: dict[Path, int] = {}
    for span in spans:
        first, _ = span_of(span)
        onset[span.path] = min(onset.get(span.path, 99), first)
    assert all(span_of(span)[1] < onset[span.path] for span in silent)
