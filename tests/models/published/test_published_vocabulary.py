"""The words of published checkpoints: given, assumed, or numbers."""

from __future__ import annotations

import pytest

from edgelip.data.synthetic.words import pronunciations
from edgelip.errors import UsageError
from edgelip.models.published.vocabulary import vocabulary
from edgelip.words import eflip_order

LRW = tuple(pronunciations())


def test_500_classes_are_the_lrw_words() -> None:
    made = vocabulary(500, "mpc001", given=None, listed=None, lrw=LRW)
    assert (made.words[0], made.words[499], len(made.words)) == ("ABOUT", "YOUNG", 500)
    assert made.origin.startswith("assumed: the LRW words in alphabetical order")
    made = vocabulary(500, "eflip", given=None, listed=None, lrw=LRW)
    assert made.words == eflip_order(LRW)


def test_fewer_classes_of_eflip_are_the_first_of_its_order_and_said_to_be_assumed() -> None:
    made = vocabulary(100, "eflip", given=None, listed=None, lrw=LRW)
    assert made.words == eflip_order(LRW)[:100]
    assert made.origin.startswith("assumed: the first 100 of the LRW words in the shuffled order of EfLipReading")


def test_a_words_list_is_sorted_and_shuffled_as_eflip_does() -> None:
    made = vocabulary(2, "eflip", given=None, listed=("no", "yes", "no", "maybe"), lrw=LRW)
    assert made.words == eflip_order(("yes", "no", "maybe"))[:2]
    with pytest.raises(UsageError, match="words_list has 1 words and the checkpoint 2 classes"):
        vocabulary(2, "eflip", given=None, listed=("no", "no"), lrw=LRW)


@pytest.mark.parametrize(("num_words", "published"), [(3, "mpc001"), (501, "vsr_phm"), (501, "eflip")])
def test_other_classes_are_numbers_until_words_are_given(num_words: int, published: str) -> None:
    made = vocabulary(num_words, published, given=None, listed=None, lrw=LRW)  # type: ignore[arg-type]
    assert made.words[:2] == ("word_000", "word_001")
    assert made.origin == "unknown: labels are numbers until --words FILE names them"


def test_given_words_must_be_one_a_class() -> None:
    assert vocabulary(2, "mpc001", given=("no", "yes"), listed=None, lrw=LRW).words == ("no", "yes")
    with pytest.raises(
        UsageError, match="the word list has 2 words and the checkpoint 3 classes; expected one a class"
    ):
        vocabulary(3, "mpc001", given=("no", "yes"), listed=None, lrw=LRW)
