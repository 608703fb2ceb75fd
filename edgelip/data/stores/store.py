"""Prepared clips of one split on disk: decoded or rendered once, read by memory map ever after.

`shards` says which files make up a store; `building` fills one from samples in parallel, `StoreWriter` from arrays in
order. torch is not needed.
Axes: N clips of the store, B clips of a batch, T frames, S stored pixels a side, P points, A axes of a point.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from edgelip.data.stores import shards
from edgelip.data.stores.npy_files import REMEDY, map_npy
from edgelip.data.stores.shards import ROW, ShardRecord
from edgelip.data.stores.store_folder import StoreFolder
from edgelip.data.stores.store_index import check_rows, read_index, refuse_names
from edgelip.data.stores.stored_frames import StoredFrames
from edgelip.registry import nearest
from edgelip.runtime.clip import ClipSpec
from edgelip.runtime.errors import ClipError, ShapeError, UsageError


@dataclass(frozen=True, eq=False)
class Store:
    """A finished store, read only. frames: (N, T, S, S) uint8 or (N, T, P, A) float32, read as it is indexed.

    labels: int32 (N,), index into `words`; speakers: int32 (N,), index into `speaker_names` where there are names;
    boundaries: int32 (N, 2), first and last word frame; durations_s: float32 (N,), nan where nobody knows it.
    source_sha256: hash of what the clips were asked to be; sha256: hash of what they are, on any machine and in any
    folder. kept: the clips of the folder that these are; None means all.
    """

    folder: Path
    spec: ClipSpec
    words: tuple[str, ...]
    speaker_names: tuple[str, ...]
    source_sha256: str
    sha256: str
    frames: StoredFrames
    labels: np.ndarray
    speakers: np.ndarray
    boundaries: np.ndarray
    durations_s: np.ndarray
    kept: np.ndarray | None = None

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Raises ClipError if the store is missing, not finished, or its files do not fit its index."""
        folder = Path(folder)
        index = read_index(folder)
        spec, num_clips = index["spec"], index["num_clips"]
        frames = StoredFrames(folder, spec, [(number, clips) for number, clips, _ in index["shards"]])
        rows = map_npy(folder / shards.ROWS, (num_clips,), ROW)
        words, speaker_names = tuple(index["words"]), tuple(index["speaker_names"])
        check_rows(rows, len(words), len(speaker_names), spec.frames, f"{folder}: clip", 0)
        columns = [np.ascontiguousarray(rows[name]) for name in ("label", "speaker", "duration_s")]
        columns.append(np.stack([rows["first"], rows["last"]], axis=1))
        for column in columns:
            column.flags.writeable = False
        labels, speakers, durations_s, boundaries = columns
        hashes = (index["source_sha256"], index["sha256"])
        return cls(folder, spec, words, speaker_names, *hashes, frames, labels, speakers, boundaries, durations_s)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Name of each clip's sample. Reads and splits 40 bytes a clip, once."""
        total = len(self) if self.kept is None else read_index(self.folder)["num_clips"]
        names = shards.read_names(self.folder / shards.NAMES, total)
        return names if self.kept is None else tuple(names[number] for number in self.kept.tolist())

    def verify(self) -> None:
        """Read every byte and compare its sha256 with the index. Raises ClipError on a difference."""
        index = read_index(self.folder)
        expected = {shards.ROWS: index["rows_sha256"], shards.NAMES: index["names_sha256"]}
        expected |= {shards.shard_name(number): sha256 for number, _, sha256 in index["shards"]}
        for name, sha256 in expected.items():
            path = self.folder / name
            got = shards.file_sha256(path) if path.is_file() else "nothing"
            if got != sha256:
                raise ClipError(f"{path} has sha256 {got[:12]}; expected {sha256[:12]}. {REMEDY}")

    def relabelled(self, words: Sequence[str]) -> Store:
        """The clips of these words alone, labelled in this order. Raises UsageError for a word that is not there."""
        for word in words:
            if word not in self.words:
                raise UsageError(f"{self.folder} has no word {word!r}. {nearest(word, self.words)}")
        if tuple(words) == self.words:
            return self
        new_labels = np.full(len(self.words), -1, np.int32)
        new_labels[[self.words.index(word) for word in words]] = np.arange(len(words))
        kept = np.flatnonzero(new_labels[self.labels] >= 0)
        if not len(kept):
            raise UsageError(f"{self.folder} has no clip of these words ({', '.join(words[:3])} ...). Prepare others.")
        return replace(
            self,
            words=tuple(words),
            sha256=hashlib.sha256(json.dumps([self.sha256, list(words)]).encode()).hexdigest(),
            source_sha256=hashlib.sha256(json.dumps([self.source_sha256, list(words)]).encode()).hexdigest(),
            frames=self.frames.only(kept),
            labels=new_labels[self.labels[kept]],
            speakers=self.speakers[kept],
            boundaries=self.boundaries[kept],
            durations_s=self.durations_s[kept],
            kept=kept if self.kept is None else self.kept[kept],
        )


class StoreWriter:
    """Fill a store in order from arrays; finished shards survive `kill -9`, and a new writer goes on at `num_done`.

    source_sha256: hash of all that determines the clips, 64 hex digits.
    Raises UsageError on a foreign folder or one of other clips, MissingError (exit 4) on a full or read-only disk or a
    second writer.
    """

    def __init__(
        self,
        folder: Path,
        num_clips: int,
        spec: ClipSpec,
        *,
        words: Sequence[str],
        source_sha256: str,
        clips_per_shard: int | None = None,
    ) -> None:
        if num_clips < 1:
            raise UsageError(f"a store of {num_clips} clips; expected at least 1. Check the split and the word list.")
        self.num_clips, self.spec, self.words = num_clips, spec, tuple(words)
        self._per_shard = clips_per_shard or shards.clips_per_shard(spec)
        self._folder = StoreFolder(
            Path(folder), spec, self.words, num_samples=num_clips, per_shard=self._per_shard, source=source_sha256
        )
        self.folder = self._folder.path
        try:
            self._records: list[ShardRecord] = []
            for number in range(self._folder.num_shards):
                record = shards.read_record(self.folder, number, spec)
                if record is None or record.identity != self._folder.identity:
                    break
                self._records.append(record)
            self._folder.refuse_full_disk(num_clips - sum(len(record.rows) for record in self._records))
        except BaseException:
            self.close()
            raise
        self._waiting: list[tuple[np.ndarray, np.ndarray, tuple[str, ...]]] = []  # clips, rows, names of a shard to be

    @property
    def num_done(self) -> int:
        """Clips written so far, those of the shard that is not full yet included."""
        return self._num_stored + sum(len(rows) for _, rows, _ in self._waiting)

    @property
    def is_finished(self) -> bool:
        return self._folder.is_finished

    def write(
        self,
        start: int,
        frames_B: np.ndarray,
        *,
        labels_B: np.ndarray,
        speakers_B: np.ndarray,
        boundaries_B2: np.ndarray | None = None,
        durations_s_B: np.ndarray | None = None,
        names: Iterable[str] | None = None,
    ) -> None:
        """Add clips `start ..` of the contract's shape and dtype; full shards are on disk when this returns.

        boundaries_B2: first and last frame (inclusive) of the word in the clip; the whole clip if None. durations_s_B:
        unknown if None. names: their numbers if None.
        Raises UsageError if `start` is not `num_done`, ShapeError on another shape or dtype, ClipError on a bad label.
        """
        if start != self.num_done or self.is_finished:
            raise UsageError(
                f"clip {start} written to {self.folder}; expected clip {self.num_done}. Write in order, once."
            )
        num_new, shape = len(frames_B), self.spec.stored_shape
        most = self.num_clips - start
        if frames_B.dtype != self.spec.stored_dtype or frames_B.shape[1:] != shape or not 0 < num_new <= most:
            raise ShapeError(
                f"clips are {frames_B.dtype} {frames_B.shape}; expected {self.spec.stored_dtype} "
                f"(B, {', '.join(map(str, shape))}) with B from 1 to {most}."
            )
        rows = np.zeros(num_new, ROW)
        rows["label"], rows["speaker"] = labels_B, speakers_B
        boundaries_B2 = np.array([[0, self.spec.frames - 1]]) if boundaries_B2 is None else boundaries_B2
        rows["first"], rows["last"] = boundaries_B2[:, 0], boundaries_B2[:, 1]
        rows["duration_s"] = np.nan if durations_s_B is None else durations_s_B
        check_rows(rows, len(self.words), 0, self.spec.frames, f"{self.folder}: clip", start)
        named = tuple(f"{number:07d}" for number in range(start, start + num_new)) if names is None else tuple(names)
        refuse_names(named)
        if len(named) != num_new:
            raise ShapeError(f"{len(named)} names for {num_new} clips; expected one a clip.")
        self._waiting.append((np.array(frames_B), rows, named))
        self._write_full_shards()

    def finish(self) -> Store:
        """Write the last shard and the index, and open the store. Raises UsageError while clips are missing."""
        if self.num_done < self.num_clips:
            raise UsageError(
                f"{self.folder} has {self.num_done} of {self.num_clips} clips; write the rest, then finish."
            )
        if not self.is_finished:
            self._folder.finish(self._records)
        self.close()
        return Store.open(self.folder)

    def close(self) -> None:
        """Release the folder for another writer; an unfinished store can be continued."""
        self._folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _num_stored(self) -> int:
        return sum(len(record.rows) for record in self._records)

    def _write_full_shards(self) -> None:
        while self.num_done - self._num_stored >= self._next_size > 0:
            size = self._next_size
            clips, rows = (np.concatenate([entry[part] for entry in self._waiting]) for part in (0, 1))
            names = tuple(name for entry in self._waiting for name in entry[2])
            record = ShardRecord(
                identity=self._folder.identity,
                clips_sha256="",
                names=names[:size],
                rows=tuple(_json_row(row) for row in rows[:size]),
                sources=("0" * 64,) * size,
            )
            number = len(self._records)
            shards.write_shard(self.folder, number, clips[:size], record)
            self._records.append(self._folder.record(number))
            self._waiting = [(clips[size:], rows[size:], names[size:])]

    @property
    def _next_size(self) -> int:
        return min(self._per_shard, self.num_clips - self._num_stored)


def _json_row(row: Any) -> tuple[int, int, int, int, float | None]:
    label, speaker, first, last, duration_s, _ = row.tolist()
    return (label, speaker, first, last, None if np.isnan(duration_s) else duration_s)
