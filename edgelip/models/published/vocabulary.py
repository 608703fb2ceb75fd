"""Which word each class of a published checkpoint stands for: the files do not say."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgelip.errors import UsageError
from edgelip.models.published.recognise import Published

_MAX_BYTES = 8 << 20
_MAX_WORD = 200
_EFLIP_SEED = 42


@dataclass(frozen=True)
class Vocabulary:
    """words: one a class, in label order; origin: where they are from, for the reader of the result."""

    words: tuple[str, ...]
    origin: str


def read_words(path: Path) -> tuple[str, ...]:
    """One word a line, in label order. Raises UsageError on a repeated, empty or overlong word, or bytes of no text."""
    if not path.is_file():
        raise UsageError(f"There is no word list {path}; expected a UTF-8 text file with one word a line.")
    if path.stat().st_size > _MAX_BYTES:
        raise UsageError(f"{path} has {path.stat().st_size} bytes; a word list has at most {_MAX_BYTES}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no UTF-8 text ({error.reason}); expected one word a line.") from error
    words = [line.strip() for line in text.rstrip().split("\n")]
    first_at: dict[str, int] = {}
    for number, word in enumerate(words, start=1):
        if not word or len(word) > _MAX_WORD or not word.isprintable():
            raise UsageError(
                f"{path} line {number} is {word[:40]!r}; expected one word of 1 to {_MAX_WORD} characters."
            )
        if word in first_at:
            raise UsageError(f"{path} names {word!r} in lines {first_at[word]} and {number}; expected distinct words.")
        first_at[word] = number
    return tuple(words)


def eflip_order(words: Iterable[str]) -> tuple[str, ...]:
    """The label order of EfLipReading: sorted, then shuffled with a fixed seed."""
    ordered = sorted(words)
    random.Random(_EFLIP_SEED).shuffle(ordered)
    return tuple(ordered)


def vocabulary(
    num_words: int,
    published: Published,
    *,
    given: Sequence[str] | None,
    listed: Sequence[str] | None,
    lrw: Sequence[str],
) -> Vocabulary:
    """The words of a checkpoint with `num_words` classes.

    given: by the user, in label order; listed: words_list of an EfLipReading configuration; lrw: the 500 LRW words.
    Raises UsageError if the number of given words is another.
    """
    if given is not None:
        if len(given) != num_words:
            raise UsageError(
                f"the word list has {len(given)} words and the checkpoint {num_words} classes; expected one a class."
            )
        return Vocabulary(tuple(given), "from the word list given")
    if listed is not None:
        if len(set(listed)) < num_words:
            raise UsageError(
                f"words_list has {len(set(listed))} words and the checkpoint {num_words} classes; "
                "expected at least one a class."
            )
        return Vocabulary(eflip_order(set(listed))[:num_words], "words_list, in the order of EfLipReading")
    if published == "eflip" and num_words <= len(lrw):
        some = "" if num_words == len(lrw) else f"the first {num_words} of "
        return Vocabulary(
            eflip_order(lrw)[:num_words],
            f"assumed: {some}the LRW words in the shuffled order of EfLipReading; --words FILE says otherwise",
        )
    if num_words == len(lrw):
        return Vocabulary(
            tuple(sorted(lrw)), "assumed: the LRW words in alphabetical order; --words FILE says otherwise"
        )
    return Vocabulary(
        tuple(f"word_{number:03d}" for number in range(num_words)),
        "unknown: labels are numbers until --words FILE names them",
    )
