"""Which word each class of a published checkpoint stands for: the files do not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgelip.errors import UsageError
from edgelip.models.published.recognise import Published
from edgelip.words import eflip_order


@dataclass(frozen=True)
class Vocabulary:
    """words: one a class, in label order; origin: where they are from, for the reader of the result."""

    words: tuple[str, ...]
    origin: str


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
