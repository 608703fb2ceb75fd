"""The words of published checkpoints: given, assumed, or numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgelip.data.synthetic.words import pronunciations
from edgelip.errors import UsageError
from edgelip.models.published.vocabulary import eflip_order, read_words, vocabulary

LRW = tuple(pronunciations())


def test_the_order_of_eflip_is_the_published_one() -> None:
    # First entries of the label files of sadevans/EfLipReading; the list of 100 begins the list of 500.
    assert eflip_order(LRW)[:6] == ("FOREIGN", "SERIOUS", "BEHIND", "FINAL", "BILLION", "CENTRAL")
    assert eflip_order(reversed(LRW)) == eflip_order(LRW)


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


def test_word_files_are_read_in_label_order(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffzwei\r\nüber\r\nEin Wort\r\n\r\n".encode())
    assert read_words(path) == ("zwei", "über", "Ein Wort")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"yes\nno\nyes\n", "names 'yes' in lines 1 and 3; expected distinct words"),
        (b"yes\n\nno\n", "line 2 is ''; expected one word of 1 to 200 characters"),
        (b"", "line 1 is ''; expected one word"),
        (b"y" * 201, "expected one word of 1 to 200 characters"),
        (b"a\x07b\n", "line 1 is 'a\\x07b'; expected one word"),
        (b"\xff\xfe\x00", "is no UTF-8 text"),
    ],
)
def test_a_file_that_is_no_word_list_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_words(path)
    assert message in str(caught.value)


def test_a_word_list_is_bounded_and_must_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no word list"):
        read_words(tmp_path)
    path = tmp_path / "words.txt"
    path.write_bytes(b"a" * ((8 << 20) + 1))
    with pytest.raises(UsageError, match="has 8388609 bytes; a word list has at most 8388608"):
        read_words(path)
