"""Figures of accuracy against formulas written out, other libraries and answers written down by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from edgelip.bench.accuracy import (
    agreement,
    calibration_error,
    of_words,
    paired_drop,
    require_logits,
    shares,
    top_share,
    word_rows,
)
from edgelip.runtime.errors import MeasurementError

WORDS = ("A", "B", "C")


def logits_of(shares_NV: list[list[float]]) -> np.ndarray:
    return np.log(np.array(shares_NV)).astype(np.float32)


def some_logits(num_clips: int = 400, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 3, num_clips)
    logits_NV = rng.normal(0, 1.5, (num_clips, 3))
    logits_NV[np.arange(num_clips), labels_N] += 1.0
    return logits_NV.astype(np.float32), labels_N


def error_by_the_book(logits_NV: np.ndarray, labels_N: np.ndarray) -> float:
    """Guo et al. 2017, equations 2 and 3, bin by bin."""
    shares_NV = np.exp(logits_NV.astype(float)) / np.exp(logits_NV.astype(float)).sum(axis=1, keepdims=True)
    total = 0.0
    for number in range(15):
        inside = [
            (share.max(), share.argmax() == label)
            for share, label in zip(shares_NV, labels_N, strict=True)
            if number / 15 < share.max() <= (number + 1) / 15
        ]
        if inside:
            accuracy, confidence = np.mean([right for _, right in inside]), np.mean([sure for sure, _ in inside])
            total += len(inside) / len(labels_N) * abs(accuracy - confidence)
    return total


def test_calibration_error_of_clips_counted_by_hand() -> None:
    # Sure of 0.9 and right on 1 of 2, sure of 0.5 and right on 1 of 1: 2/3 * 0.4 + 1/3 * 0.5.
    logits = logits_of([[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.25, 0.5, 0.25]])
    assert calibration_error(logits, np.array([0, 1, 1])).value == pytest.approx((2 * 0.4 + 0.5) / 3, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_calibration_error_is_that_of_the_paper(seed: int) -> None:
    logits_NV, labels_N = some_logits(seed=seed)
    found = calibration_error(logits_NV, labels_N)
    assert found.value == pytest.approx(error_by_the_book(logits_NV, labels_N), abs=1e-9)
    assert 0 <= found.low < found.value < found.high <= 1


def test_a_certain_clip_falls_into_the_last_bin() -> None:
    certain = np.array([[0.0, 200.0, 0.0]], np.float32)
    assert calibration_error(certain, np.array([1])).value == 0
    assert calibration_error(certain, np.array([0])).value == 1


def test_the_interval_of_the_calibration_error_holds_the_truth_and_widens_with_speakers() -> None:
    """Confidence 0.8 in one bin, accuracy 0.7: an error of 0.1, over 100 draws of 300 clips."""
    rng = np.random.default_rng(0)
    logits_NV = np.repeat(logits_of([[0.8, 0.1, 0.1]]), 300, axis=0)
    held = 0
    for _ in range(100):
        found = calibration_error(logits_NV, np.where(rng.random(300) < 0.7, 0, 1))
        held += found.low <= 0.1 <= found.high
    assert 88 <= held <= 99
    labels_N = np.repeat(np.where(rng.random(30) < 0.7, 0, 1), 10)  # a speaker's ten clips are all right or all wrong
    alone = calibration_error(logits_NV, labels_N)
    grouped = calibration_error(logits_NV, labels_N, speakers_N=np.repeat(np.arange(30), 10))
    assert grouped.value == pytest.approx(alone.value, abs=1e-12)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_agreement_counts_words_logits_and_nats() -> None:
    reference, other = some_logits(seed=1)[0], some_logits(seed=1)[0]
    other[7] += np.array([0.0, 3.0, 0.0], np.float32)
    other[9] -= 5.0  # of all words: the same shares
    found = agreement(other, reference)
    by_scipy = [entropy(shares(reference)[clip], shares(other)[clip]) for clip in range(len(reference))]
    assert found.kl_nats.value == pytest.approx(np.mean(by_scipy), rel=1e-9)
    assert found.largest_difference == pytest.approx(5.0, abs=1e-5)
    assert found.same.value == np.mean(reference.argmax(axis=1) == other.argmax(axis=1))
    assert found.same.low < found.same.value


def test_a_file_agrees_with_itself() -> None:
    logits_NV = some_logits()[0]
    found = agreement(logits_NV, logits_NV)
    assert (found.same.value, found.largest_difference, found.kl_nats.value) == (1.0, 0.0, 0.0)


def test_a_drop_is_above_zero_where_clips_were_lost() -> None:
    base_N = np.ones(100, bool)
    worse_N = base_N.copy()
    worse_N[:10] = False
    drop = paired_drop(worse_N, base_N, None)
    assert drop.value == pytest.approx(0.1)
    assert 0 < drop.low < 0.1 < drop.high
    assert drop.p == pytest.approx(2 / 2**10)


def test_words_have_their_clips_and_what_they_are_taken_for() -> None:
    said = [0, 1, 1, 2, 1, 1]
    logits_NV = np.eye(3, dtype=np.float32)[said]
    first, second = word_rows(logits_NV, np.array([0, 0, 0, 0, 1, 1]), WORDS)
    wilson = top_share(np.array([True, False, False, False]))
    assert first == {
        "word": "A",
        "clips": 4,
        "right": 1,
        "right_low_pct": 100 * wilson.low,
        "right_high_pct": 100 * wilson.high,
        "taken_for": [["B", 2], ["C", 1]],
    }
    assert (second["word"], second["right"], second["taken_for"]) == ("B", 2, [])


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.integers(0, 2**31))
def test_rows_of_words_add_up_to_the_whole(labels: list[int], seed: int) -> None:
    logits_NV = np.random.default_rng(seed).normal(size=(len(labels), 3)).astype(np.float32)
    rows = word_rows(logits_NV, np.array(labels), WORDS)
    assert sum(row["clips"] for row in rows) == len(labels)
    assert sum(row["right"] for row in rows) == (logits_NV.argmax(axis=1) == labels).sum()
    assert all(row["right"] + sum(count for _, count in row["taken_for"]) == row["clips"] for row in rows)
    assert of_words(np.array(labels), WORDS, ["B"]).sum() == labels.count(1)


def test_large_logits_do_not_overflow() -> None:
    assert shares(np.array([[1e4, 0.0]], np.float32)).tolist() == [[1.0, 0.0]]
    assert math.isfinite(agreement(np.array([[0.0, 1e3]]), np.array([[1e3, 0.0]])).kl_nats.value)


def test_scores_that_are_no_numbers_or_too_few_are_refused() -> None:
    with pytest.raises(MeasurementError, match=r"^dense gave 2 results for 3 clips\.$"):
        require_logits(np.zeros((2, 3)), 3, name="dense")
    broken = np.zeros((3, 3))
    broken[1, 2] = np.nan
    with pytest.raises(MeasurementError) as raised:
        require_logits(broken, 3, name="dense")
    assert str(raised.value) == (
        "dense gave infinite or undefined scores for 1 of 3 clips; expected numbers. "
        "Use a more exact precision, or export it again."
    )
    with pytest.raises(MeasurementError, match=r"shape \(1, 3\) against \(2, 3\); expected the same clips and words"):
        agreement(np.zeros((1, 3)), np.zeros((2, 3)))
    with pytest.raises(MeasurementError, match="there are no clips"):
        calibration_error(np.zeros((0, 3)), np.zeros(0, int))
