"""Lists of words in label order: the line of a word, from 0, is its label."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

from edgelip.errors import UsageError
from edgelip.files import write_atomic
from edgelip.registry import nearest

Order = Literal["file", "alphabetical", "eflip"]
WORDS_FILE = "words.txt"
_MAX_BYTES = 8 << 20
_MAX_WORD = 200
_EFLIP_SEED = 42


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
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}). Make it readable.") from error
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


def write_words(path: Path, words: Sequence[str]) -> None:
    """One word a line, in label order, all or nothing: `read_words` gives them back."""
    write_atomic(path, "".join(f"{word}\n" for word in words))


def words_beside(weights: Path) -> Path:
    """Where the words of a file of weights stand: `lips.words.txt` beside `lips.safetensors`."""
    return weights.with_name(f"{weights.stem}.{WORDS_FILE}")


def eflip_order(words: Iterable[str]) -> tuple[str, ...]:
    """The label order of EfLipReading: sorted, then shuffled with a fixed seed."""
    ordered = sorted(words)
    random.Random(_EFLIP_SEED).shuffle(ordered)
    return tuple(ordered)


def in_order(words: Sequence[str], order: str = "file", *, first: int | None = None) -> tuple[str, ...]:
    """The words in label order, and of these the first so many.

    "file": as they come; "alphabetical": as LRW has them; "eflip": as the published EfLipReading checkpoints do.
    Raises UsageError for another order, or more words asked for than there are.
    """
    if order not in get_args(Order):
        raise UsageError(
            f"order is {order!r}; expected {', '.join(get_args(Order))}. {nearest(order, get_args(Order))}"
        )
    ordered = {"file": tuple, "alphabetical": lambda some: tuple(sorted(some)), "eflip": eflip_order}[order](words)
    if first is not None and not 1 <= first <= len(ordered):
        raise UsageError(f"the first {first} words of {len(ordered)}; expected 1 to {len(ordered)}.")
    return ordered[:first]
