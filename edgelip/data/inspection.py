"""What is in a data set: counts, lengths, speakers, what cannot be used, what is there twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.data.probe import FileFacts, probe_all
from edgelip.data.readers.duplicates import Duplicates, duplicates, file_contents
from edgelip.data.readers.samples import SPLITS, Listing, Sample
from edgelip.data.stores.workers import Workers
from edgelip.progress import Progress

_FILES_A_TASK = 16
_QUANTILES = {"least": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "most": 1.0}


@dataclass(frozen=True)
class Lengths:
    """How long words are: how many are known, and the least, 5th percentile, median, 95th percentile and most."""

    num_known: int
    least: float
    p5: float
    median: float
    p95: float
    most: float


@dataclass(frozen=True)
class SharedSpeakers:
    """Speakers on both sides of two splits: accuracy there says nothing about unseen talkers."""

    splits: tuple[str, str]
    speakers: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """counts: clips by word and split. num_decoded: of num_files, to find out what follows: sizes, rates, flat, some of
    `unusable`, and lengths where nothing else tells them.

    unusable: reason and message by the clip's name. shared_files: videos with words of more than one split.
    flat: clips whose frames show nothing. doubles: None where files were not compared.
    """

    source: str
    reader: str
    words: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    speakers: Mapping[str, int]
    num_without_speaker: int
    shared_speakers: tuple[SharedSpeakers, ...]
    num_files: int
    num_decoded: int
    frames: Lengths | None
    seconds: Lengths | None
    sizes: Mapping[str, int]
    rates: Mapping[str, int]
    unusable: Mapping[str, tuple[str, str]]
    flat: tuple[str, ...]
    shared_files: int
    doubles: Duplicates | None
    notes: tuple[str, ...]

    @property
    def num_clips(self) -> int:
        return sum(number for by_split in self.counts.values() for number in by_split.values())

    def split_counts(self) -> dict[str, int]:
        """Clips of each split that has some."""
        totals: Counter[str] = Counter()
        for by_split in self.counts.values():
            totals.update(by_split)
        return {split: totals[split] for split in SPLITS if totals[split]}

    def reasons(self) -> dict[str, int]:
        """How many clips each reason makes unusable, most first."""
        return dict(Counter(reason for reason, _ in self.unusable.values()).most_common())


def inspect_listing(
    listing: Listing,
    reader: str,
    *,
    sample: int | None = None,
    compare: bool = True,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Decode every file, or `sample` of them spread over all; compare: look for files that are there twice."""
    progress = progress or Progress(quiet=True)
    paths = sorted({item.path for item in listing.samples})
    chosen = paths if sample is None else [paths[i] for i in spread(len(paths), sample)]
    facts = {fact.path: fact for fact in _probed(chosen, workers or Workers(), progress)}
    unusable = {name: (str(error.reason), str(error)) for name, error in listing.unusable.items()}
    usable: list[Sample] = []
    flat: list[str] = []
    for item in listing.samples:
        fact = facts.get(item.path)
        problem = None if fact is None else _problem(item, fact)
        if problem:
            unusable[item.name] = problem
        else:
            usable.append(item)
            if fact is not None and fact.flat:
                flat.append(item.name)
    good = [fact for fact in facts.values() if fact.reason is None]
    doubles = duplicates(usable, file_contents(usable, progress)) if compare else None
    return Inspection(
        source=str(listing.root),
        reader=reader,
        words=listing.words,
        num_files=len(paths),
        num_decoded=len(facts),
        frames=lengths_of(_frames_of(item, facts) for item in usable),
        seconds=lengths_of(_seconds_of(item, facts) for item in usable),
        sizes=_counted(f"{fact.width_px}x{fact.height_px}" for fact in good if fact.width_px),
        rates=_counted(f"{fact.fps:.6g}" for fact in good if fact.fps),
        unusable=unusable,
        flat=tuple(flat),
        shared_files=_shared_files(listing.samples),
        doubles=doubles,
        notes=listing.notes,
        **facts_of_samples(listing.samples, listing.words),
    )


def spread(total: int, number: int) -> list[int]:
    """`number` different places, or all, evenly over 0 .. total - 1."""
    return np.unique(np.linspace(0, total - 1, min(number, total)).round().astype(int)).tolist() if total else []


def facts_of_samples(samples: Sequence[Sample], words: Sequence[str]) -> dict[str, Any]:
    """The fields that follow from names alone."""
    counts = {word: dict.fromkeys(SPLITS, 0) for word in words}
    by_split: dict[str, set[str]] = {split: set() for split in SPLITS}
    for item in samples:
        counts[item.word][item.split] += 1
        if item.speaker:
            by_split[item.split].add(item.speaker)
    shared = tuple(
        SharedSpeakers((one, other), tuple(sorted(both)))
        for one, other in combinations(SPLITS, 2)
        if (both := by_split[one] & by_split[other])
    )
    return {
        "counts": counts,
        "speakers": {split: len(found) for split, found in by_split.items() if found},
        "num_without_speaker": sum(not item.speaker for item in samples),
        "shared_speakers": shared,
    }


def _probed(paths: Sequence[Path], workers: Workers, progress: Progress) -> list[FileFacts]:
    facts: list[FileFacts] = []
    step = _FILES_A_TASK * max(1, workers.num)
    with progress.task("decode", total=len(paths), unit="files") as task:
        for start in range(0, len(paths), step):
            some = paths[start : start + step]
            parts = [tuple(some[at : at + _FILES_A_TASK]) for at in range(0, len(some), _FILES_A_TASK)]
            for found in workers.run([partial(probe_all, part) for part in parts]):
                facts += found
            task.advance(len(some))
    return facts


def _problem(item: Sample, fact: FileFacts) -> tuple[str, str] | None:
    if fact.reason is not None:
        return fact.reason, fact.message
    if item.last is not None and item.last >= fact.num_frames:
        return "span", (
            f"{item.path} has frames 0..{fact.num_frames - 1}; the word is given as {item.first}..{item.last}. "
            "Correct its span."
        )
    return None


def _frames_of(item: Sample, facts: Mapping[Path, FileFacts]) -> float | None:
    if item.num_frames is not None:
        return float(item.num_frames)
    return float(facts[item.path].num_frames) or None if item.path in facts else None


def _seconds_of(item: Sample, facts: Mapping[Path, FileFacts]) -> float | None:
    if item.duration_s is not None:
        return item.duration_s
    fact = facts.get(item.path)
    if fact is None or not fact.fps:
        return None
    return (item.num_frames or fact.num_frames) / fact.fps


def lengths_of(lengths: Iterable[float | None]) -> Lengths | None:
    known = np.array([length for length in lengths if length is not None])
    if not len(known):
        return None
    return Lengths(len(known), **{name: round(float(np.quantile(known, at)), 4) for name, at in _QUANTILES.items()})


def _counted(texts: Iterable[str]) -> dict[str, int]:
    return dict(Counter(texts).most_common())


def _shared_files(samples: Sequence[Sample]) -> int:
    splits: dict[Path, set[str]] = {}
    for item in samples:
        splits.setdefault(item.path, set()).add(item.split)
    return sum(len(found) > 1 for found in splits.values())
