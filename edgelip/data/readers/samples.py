"""One word to prepare: where it lies and what is known of it. Every reader of a data set gives these."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgelip.data.unusable import UnusableClip
from edgelip.errors import UsageError
from edgelip.registry import nearest

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")  # a generator's clips depend on the place in this order


@dataclass(frozen=True, slots=True)
class Sample:
    """A word in a file.

    path: the file; name: what tells it from all others of its data set, a path below the root with slashes, followed by
    `:first:last` where the file holds several words. Order, shards and hashes go by the name, never by the path.
    first, last: frames of the word, inclusive, counted in the file; both None means the whole file.
    duration_s: length of a word that is centred in its file (LRW); None where it is not known.
    category, clip_id: what a manifest says of it; no clip depends on them.
    """

    word: str
    path: Path
    name: str
    split: Split
    first: int | None = None
    last: int | None = None
    duration_s: float | None = None
    speaker: str = ""
    category: str = ""
    clip_id: str = ""

    @property
    def num_frames(self) -> int | None:
        """Length of the span; None where the whole file is meant, which must be opened to know."""
        return None if self.first is None or self.last is None else self.last - self.first + 1

    @property
    def identity(self) -> tuple[str | int | float | None, ...]:
        """What a store keeps of it, for keys and hashes: not where the file lies, not what it holds."""
        return (self.name, self.word, self.split, self.first, self.last, self.duration_s, self.speaker)


@dataclass(frozen=True, eq=False)
class Listing:
    """What a reader found in a data set, before any video is opened.

    samples: sorted by name. words: the vocabulary in label order; each has a sample, and each sample's word is one.
    unusable: what was found and cannot be used, by the name that it would have had, or by its line in a manifest.
    notes: what else a user should know, one line each.
    """

    root: Path
    samples: tuple[Sample, ...]
    words: tuple[str, ...]
    unusable: Mapping[str, UnusableClip] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def of(self, split: Split) -> tuple[Sample, ...]:
        return tuple(sample for sample in self.samples if sample.split == split)


def select(
    samples: Iterable[Sample],
    *,
    split: Split | None = None,
    category: str | None = None,
    words: Iterable[str] | None = None,
) -> list[Sample]:
    """The samples that meet every condition given, order kept. Raises UsageError for a name that none has."""
    chosen = list(samples)
    if category is not None:
        known = sorted({sample.category for sample in chosen})
        if category not in known:
            raise UsageError(f"no span has category {category!r}. {nearest(category, known)}")
        chosen = [sample for sample in chosen if sample.category == category]
    if words is not None:
        wanted, known = set(words), sorted({sample.word for sample in chosen})
        for word in sorted(wanted.difference(known)):
            raise UsageError(f"no span has word {word!r}. {nearest(word, known)}")
        chosen = [sample for sample in chosen if sample.word in wanted]
    return [sample for sample in chosen if split is None or sample.split == split]


def group_by_file(samples: Iterable[Sample]) -> list[Sample]:
    """The same samples, those of one file together, files in order of first appearance: each is then decoded once."""
    groups: dict[Path, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.path, []).append(sample)
    return [sample for group in groups.values() for sample in group]


def samples_sha256(samples: Sequence[Sample]) -> str:
    """Hash of what the samples are, in this order; what their files hold is not read."""
    return hashlib.sha256("\n".join(repr(sample.identity) for sample in samples).encode()).hexdigest()
