"""Fill a store from samples, many at a time: local processes or a Ray cluster, one task a shard.

What is in the store depends on the samples, their files and the maker alone: not on the number of workers, their
order, a kill in between or the machine.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from edgelip import __version__
from edgelip.data.clip_maker import ClipMaker
from edgelip.data.readers.samples import Sample, samples_sha256
from edgelip.data.stores import shards
from edgelip.data.stores.shard_task import ShardTask
from edgelip.data.stores.shards import Failure
from edgelip.data.stores.store import Store
from edgelip.data.stores.store_folder import StoreFolder
from edgelip.data.stores.store_index import refuse_names
from edgelip.data.stores.workers import Workers
from edgelip.errors import ClipError, UsageError
from edgelip.progress import Progress, Task
from edgelip.runtime.clip import ClipSpec

_NUM_NAMED = 3  # failures that an error lists
_WATCH_EVERY_S = 0.5


@dataclass(frozen=True)
class Built:
    """store: None where no sample gave a clip; notes: what the maker noted, and of how many clips."""

    store: Store | None
    failures: tuple[Failure, ...]
    notes: Mapping[str, int]
    num_changed: int  # samples whose files had changed since they were first prepared; they were made again

    def usable(self) -> Store:
        """The store. Raises ClipError if no sample gave a clip."""
        if self.store is None:
            raise ClipError(all_failed(self.failures))
        return self.store


def build_store(
    folder: Path,
    samples: Sequence[Sample],
    maker: ClipMaker,
    *,
    words: Sequence[str],
    progress: Progress,
    name: str,
    workers: Workers | None = None,
    clips_per_shard: int | None = None,
) -> Built:
    """The store of one split in `folder`, its clips sorted by name; goes on where a killed run stood.

    Samples that give no clip are left out and listed; the order, the store and the list are the same each time. Shards
    whose files have changed since they were made are made again. workers: one in this process if None.
    Raises UsageError for a foreign folder, one of other samples or settings, and names or words that do not fit;
    MissingError for a full disk, a second writer or a dead worker; what the maker raises beside UnusableClip.
    """
    workers = workers or Workers()
    ordered = _checked(samples, words)
    per_shard = clips_per_shard or shards.clips_per_shard(maker.spec)
    speakers = sorted({sample.speaker for sample in ordered})
    store_folder = StoreFolder(
        Path(folder),
        maker.spec,
        words,
        num_samples=len(ordered),
        per_shard=per_shard,
        source=source_sha256(ordered, maker, words),
        speaker_names=speakers,
        made_by=f"edgelip {__version__}",
    )
    try:
        tasks = [
            ShardTask(
                store_folder.path,
                number,
                tuple(ordered[number * per_shard : (number + 1) * per_shard]),
                maker,
                {word: label for label, word in enumerate(words)},
                {speaker: place for place, speaker in enumerate(speakers)},
                store_folder.identity,
            )
            for number in range(store_folder.num_shards)
        ]
        return _built(store_folder, tasks, workers, progress, name)
    finally:
        store_folder.close()


def samples_done(folder: Path, num_samples: int, spec: ClipSpec) -> int:
    """How many samples a folder has been through already, as far as the names of its files tell; nothing is opened."""
    return min(num_samples, len(list(Path(folder).glob("shard-*.json"))) * shards.clips_per_shard(spec))


def source_sha256(samples: Sequence[Sample], maker: ClipMaker, words: Sequence[str]) -> str:
    """Hash of what a store is asked to be."""
    asked = [samples_sha256(samples), maker.spec.to_json(), dict(maker.identity()), list(words)]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def refuse_failures(failures: Sequence[Failure], num_samples: int) -> None:
    """Raises ClipError if there is one: for callers that cannot do without a clip."""
    if failures:
        raise ClipError(f"{len(failures)} of {num_samples} clips cannot be used: {_listed(failures)}")


def all_failed(failures: Sequence[Failure]) -> str:
    """One line for a split that has no usable clip."""
    counts = Counter(failure.reason for failure in failures)
    reasons = ", ".join(f"{reason} {number}" for reason, number in counts.most_common())
    return f"none of {len(failures)} clips can be used ({reasons}): {_listed(failures)}"


def _listed(failures: Sequence[Failure]) -> str:
    more = f" (and {len(failures) - _NUM_NAMED} more)" if len(failures) > _NUM_NAMED else ""
    return " | ".join(failure.message for failure in failures[:_NUM_NAMED]) + more


def _checked(samples: Sequence[Sample], words: Sequence[str]) -> list[Sample]:
    if not samples:
        raise UsageError("a store of 0 clips; expected at least 1. Check the split and the word list.")
    ordered = sorted(samples, key=lambda sample: sample.name)
    refuse_names(sample.name for sample in ordered)
    for before, after in pairwise(ordered):
        if before.name == after.name:
            raise UsageError(f"two samples are called {after.name!r}; names must differ.")
    for word in sorted({sample.word for sample in ordered} - set(words)):
        raise UsageError(f"the word {word!r} has samples and is not in the list of {len(words)} words.")
    return ordered


def _built(folder: StoreFolder, tasks: Sequence[ShardTask], workers: Workers, progress: Progress, name: str) -> Built:
    old = {task.number: shards.read_record(folder.path, task.number, folder.spec) for task in tasks}
    made = [task for task in tasks if (record := old[task.number]) and record.identity == folder.identity]
    total = sum(len(task.samples) for task in tasks)
    changed: dict[int, int] = {}
    if made:
        with progress.task(f"{name}: check what is there", total=len(made), unit="shards") as shown:
            for task, number in zip(made, workers.run([task.count_changed for task in made]), strict=True):
                shown.advance(1)
                if number:
                    changed[task.number] = number
    missing = [task for task in tasks if task not in made or task.number in changed]
    if missing:
        folder.reopen()
        num_missing = sum(len(task.samples) for task in missing)
        for task in missing:
            task.forget()
        folder.refuse_full_disk(num_missing)
        with (
            progress.task(name, total=total, unit="clips", done=total - num_missing) as shown,
            _watching(missing, shown),
        ):
            workers.run([task.make for task in missing])
    records = [folder.record(task.number) for task in tasks]
    failures = tuple(failure for record in records for failure in record.failures)
    notes: Counter[str] = Counter()
    for record in records:
        notes.update(record.notes)
    if not any(record.rows for record in records):
        return Built(None, failures, notes, sum(changed.values()))
    if not folder.is_finished:
        folder.finish(records)
    return Built(Store.open(folder.path), failures, dict(sorted(notes.items())), sum(changed.values()))


@contextmanager
def _watching(tasks: Sequence[ShardTask], shown: Task) -> Iterator[None]:
    """Advance the line by the records that appear: the same for one process, many and a cluster."""
    stop = threading.Event()

    def watch() -> None:
        waiting = list(tasks)
        while waiting:
            ended = stop.wait(_WATCH_EVERY_S)
            done = [task for task in waiting if task.is_done]
            waiting = [task for task in waiting if task not in done]
            for task in done:
                shown.advance(len(task.samples))
            if ended:
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
