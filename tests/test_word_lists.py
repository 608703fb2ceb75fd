"""Word lists: the line of a word is its label, whatever the order it came in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgelip.data.synthetic.words import pronunciations
from edgelip.errors import UsageError
from edgelip.words import eflip_order, in_order, read_words, words_beside, write_words

LRW = tuple(pronunciations())
a_word = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)


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


def test_a_missing_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^There is no word list .*words\.txt; expected a UTF-8 text file"):
        read_words(tmp_path / "words.txt")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(words=st.lists(a_word, min_size=1, max_size=30, unique=True))
def test_words_written_are_read_in_the_same_order(words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    write_words(path, words)
    assert read_words(path) == tuple(words)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_words_or_a_usage_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    try:
        words = read_words(path)
    except UsageError:
        return
    assert words
    assert len(set(words)) == len(words)
    assert all(word and word.isprintable() for word in words)


def test_the_order_of_eflip_is_the_published_one() -> None:
    # First entries of the label files of sadevans/EfLipReading; the list of 100 begins the list of 500.
    assert in_order(LRW, "eflip", first=6) == ("FOREIGN", "SERIOUS", "BEHIND", "FINAL", "BILLION", "CENTRAL")
    assert eflip_order(reversed(LRW)) == eflip_order(LRW)
    assert in_order(LRW, "eflip", first=100) == eflip_order(LRW)[:100]


def test_orders_and_how_many_of_them() -> None:
    given = ("b", "c", "a")
    assert in_order(given) == given
    assert in_order(given, "alphabetical") == ("a", "b", "c")
    assert in_order(given, first=2) == ("b", "c")
    with pytest.raises(UsageError, match=r"^order is 'alphabetic'; expected file, alphabetical, eflip\. Did you mean"):
        in_order(given, "alphabetic")
    with pytest.raises(UsageError, match=r"^the first 4 words of 3; expected 1 to 3\.$"):
        in_order(given, first=4)


def test_the_words_of_weights_stand_beside_them() -> None:
    assert words_beside(Path("runs/lips.safetensors")) == Path("runs/lips.words.txt")
