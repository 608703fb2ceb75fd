"""From what a reader found to a listing: the words asked for, their order, names that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from edgelip.data.clip_files import ENDINGS_TEXT
from edgelip.data.readers.samples import Listing, Sample
from edgelip.data.unusable import UnusableClip
from edgelip.errors import UsageError
from edgelip.registry import nearest

_MOST_NAMED = 5


def make_listing(
    root: Path,
    samples: Iterable[Sample],
    *,
    words: Sequence[str] | None,
    unusable: Mapping[str, UnusableClip],
    notes: Sequence[str] = (),
) -> Listing:
    """Keep the samples of `words`, in label order; all words that occur, sorted, if None.

    Raises UsageError for a word without a sample, and where there is no sample at all.
    """
    found = sorted(samples, key=lambda sample: sample.name)
    counts = Counter(sample.word for sample in found)
    if not found:
        first = f". {_first(unusable)}" if unusable else ""
        raise UsageError(f"{root} has no clip that can be used{first or f' ({ENDINGS_TEXT}). Check it.'}")
    chosen = tuple(sorted(counts)) if words is None else checked_words(words)
    for word in chosen:
        if word not in counts:
            lost = [name for name in unusable if word in name.split("/")]
            why = f"All {len(lost)} are unusable: {unusable[lost[0]]}" if lost else closest(word, counts)
            raise UsageError(f"{root} has no clip of {word!r}, one of the words asked for. {why}")
    if words is not None:
        wanted = set(chosen)
        found = [sample for sample in found if sample.word in wanted]
        notes = [*notes, *left_out({word: number for word, number in counts.items() if word not in wanted})]
    return Listing(root, tuple(found), chosen, dict(sorted(unusable.items())), tuple(notes))


def checked_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words as they are given. Raises UsageError unless they are different, printable words."""
    good = not isinstance(words, str) and all(isinstance(word, str) and word and word.isprintable() for word in words)
    if not good or not words or len(set(words)) != len(words):
        raise UsageError(f"words is {words!r:.200}; expected a list of different words.")
    return tuple(words)


def closest(word: str, known: Iterable[str]) -> str:
    """End of an error message: the word that is meant, where it differs by case alone or by a letter."""
    known = sorted(known)
    same = [other for other in known if other.casefold() == word.casefold()]
    return f"Did you mean {same[0]!r}?" if same else nearest(word, known)


def left_out(counts: Mapping[str, int]) -> list[str]:
    """A note on words that are not in the list given, and how many clips each has; none where there are none."""
    if not counts:
        return []
    named = [f"{word} ({number})" for word, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    words = "1 word is" if len(named) == 1 else f"{len(named)} words are"
    return [
        f"{words} not in the word list, so {sum(counts.values())} clips are left out: "
        + ", ".join(named[:_MOST_NAMED])
        + more
    ]


def _first(unusable: Mapping[str, UnusableClip]) -> str:
    return str(next(iter(unusable.values()), ""))
