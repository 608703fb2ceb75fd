"""One shard's samples made into clips: what a worker does, in whatever process and on whatever machine."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from edgelip.data.clip_maker import ClipMaker, MadeClip
from edgelip.data.readers.samples import Sample
from edgelip.data.stores import shards
from edgelip.data.stores.shards import Failure, ShardRecord, shard_name, write_shard
from edgelip.errors import ClipError, EdgelipError, MissingError, ShapeError

_UNREAD = "0" * 64


@dataclass(frozen=True, eq=False)
class ShardTask:
    """Picklable; the folder must be the same one for every worker (on a cluster: a shared file system)."""

    folder: Path
    number: int
    samples: tuple[Sample, ...]
    maker: ClipMaker
    labels: Mapping[str, int]
    speakers: Mapping[str, int]
    identity: str

    @property
    def is_done(self) -> bool:
        return (self.folder / shard_name(self.number)).with_suffix(".json").exists()

    def forget(self) -> None:
        """Take the record away: the shard does not count until `make` has made it."""
        (self.folder / shard_name(self.number)).with_suffix(".json").unlink(missing_ok=True)

    def make(self) -> None:
        """Write the shard and its record. Samples that give no clip are in the record's failures."""
        spec = self.maker.spec
        clips_N = np.empty((len(self.samples), *spec.stored_shape), spec.stored_dtype)
        names: list[str] = []
        rows: list[tuple[int, int, int, int, float | None]] = []
        sources: list[str] = []
        failures: list[Failure] = []
        notes: Counter[str] = Counter()
        for sample in self.samples:
            source = source_of(sample, self.maker)
            try:
                made = self._made(sample)
            except ClipError as error:
                reason = str(getattr(error, "reason", "unreadable"))
                failures.append(Failure(sample.name, sample.word, reason, " ".join(str(error).split()), source))
                continue
            clips_N[len(names)] = made.frames
            duration_s = None if np.isnan(made.duration_s) else float(np.float32(made.duration_s))
            rows.append((self.labels[sample.word], self.speakers[sample.speaker], made.first, made.last, duration_s))
            names.append(sample.name)
            sources.append(source)
            notes.update(made.notes)
        record = ShardRecord(
            identity=self.identity,
            clips_sha256="",
            names=tuple(names),
            rows=tuple(rows),
            sources=tuple(sources),
            failures=tuple(failures),
            notes=dict(sorted(notes.items())),
        )
        write_shard(self.folder, self.number, clips_N[: len(names)], record)

    def count_changed(self) -> int:
        """How many samples have other files now than when the shard was made."""
        record = shards.read_record(self.folder, self.number, self.maker.spec)
        if record is None:
            return len(self.samples)
        then = dict(zip(record.names, record.sources, strict=True))
        then |= {failure.name: failure.source for failure in record.failures}
        return sum(source_of(sample, self.maker) != then.get(sample.name) for sample in self.samples)

    def _made(self, sample: Sample) -> MadeClip:
        spec = self.maker.spec
        try:
            made = self.maker.make(sample)
        except EdgelipError:
            raise
        except (OSError, MemoryError) as error:  # of this machine, not of the clip
            reason = getattr(error, "strerror", None) or "out of memory"
            raise MissingError(
                f"{sample.path} cannot be read now ({reason}). What is finished is kept; run the same command again to "
                "go on."
            ) from error
        except Exception as error:
            raise _Mistake(
                f"{sample.path} ({sample.name}) ends in {type(error).__name__}: {error}. Please report it."
            ) from error
        frames = made.frames
        if frames.dtype != spec.stored_dtype or frames.shape != spec.stored_shape:
            raise ShapeError(
                f"{type(self.maker).__name__} made {frames.dtype} {frames.shape} of {sample.name}; expected "
                f"{spec.stored_dtype} {spec.stored_shape}."
            )
        if not 0 <= made.first <= made.last < spec.frames:
            raise ShapeError(
                f"{type(self.maker).__name__} put the word of {sample.name} at frames {made.first}..{made.last}; "
                f"expected frames within 0..{spec.frames - 1}."
            )
        return made


class _Mistake(ClipError):
    """The program's own mistake: counted as any failure, so that the other clips are prepared."""

    reason = "error"


def source_of(sample: Sample, maker: ClipMaker) -> str:
    """sha256 of the file that a clip is made of, or over those of several; zeros where one cannot be read."""
    hashes = [_sha256_of(path) for path in maker.sources(sample)]
    if _UNREAD in hashes:
        return _UNREAD
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _sha256_of(path: Path) -> str:
    try:
        status = path.stat()
        return _read_sha256(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return _UNREAD


@lru_cache(maxsize=4)  # several words of one file come one after another
def _read_sha256(path: Path, size: int, mtime_ns: int) -> str:
    return shards.file_sha256(path)
