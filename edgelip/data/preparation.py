"""A whole data set into prepared stores: one folder with train, val and test, the words, and what could not be used."""

from __future__ import annotations

import csv
import io
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgelip.data.clip_maker import ClipMaker
from edgelip.data.plan import Plan, measured_rate
from edgelip.data.readers.samples import SPLITS, Listing, Split
from edgelip.data.stores import shards
from edgelip.data.stores.building import Built, all_failed, build_store, samples_done
from edgelip.data.stores.shards import Failure
from edgelip.data.stores.store_folder import INDEX_BYTES, refuse_full_disk
from edgelip.data.stores.workers import Workers
from edgelip.errors import ClipError, UsageError
from edgelip.files import write_atomic
from edgelip.progress import Progress
from edgelip.words import WORDS_FILE, read_words, write_words

FAILURES_FILE = "failures.csv"
_COLUMNS = ("split", "name", "word", "reason", "message")


@dataclass(frozen=True)
class Prepared:
    """unlisted: what the reader of the data set found and could not use, by name; it belongs to no split."""

    folder: Path
    words: tuple[str, ...]
    found: Mapping[Split, int]
    built: Mapping[Split, Built]
    unlisted: tuple[Failure, ...] = ()

    @property
    def failures(self) -> list[tuple[str, Failure]]:
        """Split ("" where there is none) and failure of all that gave no clip."""
        rows = [("", failure) for failure in self.unlisted]
        return rows + [(split, failure) for split, built in self.built.items() for failure in built.failures]

    @property
    def reasons(self) -> Counter[str]:
        return Counter(failure.reason for _, failure in self.failures)

    @property
    def notes(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for built in self.built.values():
            total.update(built.notes)
        return total

    def refuse_empty(self) -> None:
        """Raises ClipError for a split of which no clip can be used."""
        for split, built in self.built.items():
            if built.store is None:
                raise ClipError(f"{split}: {all_failed(built.failures)}. The list is in {self.folder / FAILURES_FILE}.")


def plan_of(listing: Listing, maker: ClipMaker, folder: Path, workers: Workers) -> Plan:
    """What `prepare` will take; makes a few clips to measure the rate, and keeps none."""
    found = {split: len(listing.of(split)) for split in SPLITS if listing.of(split)}
    done = {split: samples_done(folder / split, number, maker.spec) for split, number in found.items()}
    left = [sample for split, number in found.items() if done[split] < number for sample in listing.of(split)]
    rate, num_timed = measured_rate(left, maker)
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    size = shards.clip_bytes(maker.spec) + INDEX_BYTES
    return Plan(found, done, size, rate, num_timed, workers.num, shutil.disk_usage(there).free)


def prepare(
    listing: Listing, maker: ClipMaker, folder: Path, *, plan: Plan, workers: Workers, progress: Progress
) -> Prepared:
    """Stores `folder`/train, val and test of those splits that have samples; goes on where a killed run stood.

    Raises what `build_store` raises, MissingError where the disk is too small for all of it, UsageError where `folder`
    holds other words. A split without a usable clip is no error here: see `Prepared.refuse_empty`.
    """
    words_file = folder / WORDS_FILE
    if words_file.exists() and read_words(words_file) != listing.words:
        raise UsageError(f"{words_file} lists other words than are prepared now. Delete {folder} or choose another.")
    refuse_full_disk(folder, plan.needs_bytes)
    built: dict[Split, Built] = {}
    for split in plan.found:
        built[split] = build_store(
            folder / split,
            listing.of(split),
            maker,
            words=listing.words,
            progress=progress,
            name=f"prepare {split}",
            workers=workers,
        )
    unlisted = tuple(
        Failure(name, "", error.reason, " ".join(str(error).split())) for name, error in listing.unusable.items()
    )
    prepared = Prepared(folder, listing.words, plan.found, built, unlisted)
    write_words(words_file, listing.words)
    write_atomic(folder / FAILURES_FILE, _csv(prepared))
    return prepared


def _csv(prepared: Prepared) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for split, failure in prepared.failures:
        writer.writerow([split, failure.name, failure.word, failure.reason, failure.message])
    return text.getvalue()
