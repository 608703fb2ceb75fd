"""Words lost, confusions grown and clips flipped, on answers written down by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgelip.bench.words import flips, group_changes, grown_confusions, holm, word_changes

WORDS = ("A", "B", "C")


def test_holm_is_the_step_down_of_the_textbook() -> None:
    # Holm 1979: 4 * 0.01, 3 * 0.015, 2 * 0.02 held at the one before, 1 * 0.04 likewise.
    assert holm([0.04, 0.01, 0.015, 0.02]) == pytest.approx([0.045, 0.04, 0.045, 0.045])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_word_that_is_lost_comes_first_with_its_exact_p() -> None:
    labels = np.repeat([0, 1, 2], 10)
    before = labels.copy()
    before[20:27] = 0
    after = labels.copy()
    after[10:17] = 2  # B: 7 of 10 lost
    first, *others = word_changes(labels, before, after, WORDS)
    assert (first.name, first.num_clips, first.right_before, first.right_after) == ("B", 10, 10, 3)
    assert (first.lost, first.gained) == (7, 0)
    assert first.p == pytest.approx(2 / 2**7)
    assert first.p_holm == pytest.approx(2 * 2 / 2**7)  # B and C changed; A cannot reach 0.05
    assert [(each.name, each.lost, each.gained, each.p_holm is None) for each in others] == [
        ("A", 0, 0, True),
        ("C", 0, 7, False),  # gained: as sure, and no loss
    ]


def test_words_without_clips_are_left_out() -> None:
    labels = np.array([0, 0])
    assert [each.name for each in word_changes(labels, labels, labels, WORDS)] == ["A"]


def test_groups_may_share_clips() -> None:
    labels = np.repeat([0, 1], 6)
    after = labels.copy()
    after[:6] = 2
    members = {"both": labels >= 0, "first": labels == 0, "none": labels == 2}
    changes = {each.name: each for each in group_changes(labels, labels, after, members)}
    assert {*changes} == {"both", "first"}
    assert changes["both"].lost == changes["first"].lost == 6
    assert changes["both"].p_holm == pytest.approx(2 * 2 / 2**6)


def test_confusions_count_what_was_said_before_and_after() -> None:
    labels = np.repeat([0, 1], 8)
    before, after = labels.copy(), labels.copy()
    before[0] = 1  # A was taken for B once already
    after[:7] = 1
    after[8] = 2
    first, second = grown_confusions(labels, before, after, WORDS)
    assert (first.word, first.said, first.before, first.after) == ("A", "B", 1, 7)
    assert first.p == pytest.approx(2 / 2**6)
    assert first.p_holm == first.p  # the only pair with enough changed clips
    assert (second.word, second.said, second.before, second.after, second.p_holm) == ("B", "C", 0, 1, None)


def test_a_confusion_that_shrank_did_not_grow() -> None:
    labels = np.zeros(4, int)
    assert grown_confusions(labels, labels + 1, labels, WORDS) == []


def test_flips_are_lost_ones_first_and_the_largest_change_first() -> None:
    labels = np.array([0, 0, 0, 0, 0])
    before = np.array([[2.0, 0, 0], [5, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]])
    after = np.array([[0.0, 2, 0], [0, 5, 0], [1, 0, 0], [0, 0, 1], [2, 0, 0]])
    found = [(each.clip, each.word, each.before, each.after, each.kind) for each in flips(labels, before, after, WORDS)]
    assert found == [
        (1, "A", "A", "B", "lost"),
        (0, "A", "A", "B", "lost"),
        (2, "A", "B", "A", "gained"),
        (3, "A", "B", "C", "wrong"),
    ]
