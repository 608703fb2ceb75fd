"""The folder of a store while it is being made: one writer, one identity, an index at the end."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.data.stores import shards
from edgelip.data.stores.npy_files import npy_header
from edgelip.data.stores.shards import ROW, ShardRecord
from edgelip.data.stores.store_index import content_sha256
from edgelip.files import claim, write_atomic, writing
from edgelip.runtime.clip import ClipSpec
from edgelip.runtime.errors import MissingError, UsageError

_OURS = re.compile(
    rf"\.?(shard-\d{{5,7}}\.(npy|json)|{shards.MADE_FROM}|{shards.ROWS}|{shards.NAMES}|{shards.INDEX})(\.partial)?"
)
INDEX_BYTES = 200  # of row and name of one clip, generously


class StoreFolder:
    """Claims `path` for this process until `close`.

    source: hash of what the clips are asked to be. made_by: what else must be the same for a killed writer's shards to
    count. Raises UsageError on a foreign folder or a store of other clips, MissingError if it cannot be written or
    another process is writing it.
    """

    def __init__(
        self,
        path: Path,
        spec: ClipSpec,
        words: Sequence[str],
        *,
        num_samples: int,
        per_shard: int,
        source: str,
        speaker_names: Sequence[str] = (),
        made_by: str = "",
    ) -> None:
        self.path, self.spec = path, spec
        self._asked: dict[str, Any] = {
            "version": shards.VERSION,
            "made_by": made_by,
            "num_samples": num_samples,
            "clips_per_shard": per_shard,
            "spec": spec.to_json(),
            "words": list(words),
            "speaker_names": list(speaker_names),
            "source_sha256": source,
        }
        self.num_shards = -(-num_samples // per_shard)
        text = json.dumps(self._asked, sort_keys=True)
        self.identity = hashlib.sha256(text.encode()).hexdigest()
        self._descriptor = -1
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                claim(self._descriptor, path)
                self._begin(text)
            except BaseException:
                self.close()
                raise

    @property
    def is_finished(self) -> bool:
        return (self.path / shards.INDEX).exists()

    def record(self, number: int) -> ShardRecord:
        """Of a shard that has just been written."""
        record = shards.read_record(self.path, number, self.spec)
        if record is None or record.identity != self.identity:
            name = shards.shard_name(number)
            raise MissingError(
                f"{self.path / name} was written, and is not there as it was written. Is the disk failing, or does a "
                "worker on another machine see another folder? Run it again to go on."
            )
        return record

    def refuse_full_disk(self, num_missing: int) -> None:
        """Raises MissingError if the disk has less room than `num_missing` clips take."""
        refuse_full_disk(self.path, num_missing * (shards.clip_bytes(self.spec) + INDEX_BYTES))

    def reopen(self) -> None:
        """Take the index away: the store is unfinished until `finish`."""
        with writing(self.path):
            (self.path / shards.INDEX).unlink(missing_ok=True)

    def finish(self, records: Sequence[ShardRecord]) -> None:
        """Write the index over the records of all shards, in order; at least one clip."""
        assert len(records) == self.num_shards
        rows = np.concatenate([np.zeros(0, ROW), *(record.table() for record in records)])
        content = npy_header(rows.shape, ROW) + rows.tobytes()
        names = "".join(f"{name}\n" for record in records for name in record.names)
        index: dict[str, Any] = {name: self._asked[name] for name in _INDEXED}
        index |= {
            "num_clips": len(rows),
            "shards": [
                [number, len(record.rows), record.clips_sha256] for number, record in enumerate(records) if record.rows
            ],
            "rows_sha256": hashlib.sha256(content).hexdigest(),
            "names_sha256": hashlib.sha256(names.encode()).hexdigest(),
        }
        index["sha256"] = content_sha256(index)
        write_atomic(self.path / shards.ROWS, content)
        write_atomic(self.path / shards.NAMES, names)
        write_atomic(self.path / shards.INDEX, json.dumps(index) + "\n")

    def close(self) -> None:
        """Release the folder."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _begin(self, asked: str) -> None:
        made_from = self.path / shards.MADE_FROM
        if not made_from.exists():
            strangers = sorted(entry.name for entry in self.path.iterdir() if not _OURS.fullmatch(entry.name))
            if strangers or self.is_finished:
                what = repr(strangers[0]) if strangers else "a store of another version"
                raise UsageError(f"{self.path} holds {what}, not a clip store. Choose an empty folder.")
            write_atomic(made_from, asked + "\n")
            return
        if made_from.read_bytes() != asked.encode() + b"\n":
            state = "a finished" if self.is_finished else "an unfinished"
            raise UsageError(
                f"{self.path} holds {state} store of other clips (other samples, words, settings or version). "
                "Delete it or choose another folder."
            )


_INDEXED = ("version", "spec", "words", "speaker_names", "source_sha256")


def refuse_full_disk(path: Path, needs_bytes: int) -> None:
    """Raises MissingError if the disk that `path` is or will be on has less than `needs_bytes` free."""
    path = Path(path).absolute()
    there = next(folder for folder in (path, *path.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free < needs_bytes:
        raise MissingError(
            f"cannot write {path}: no space left on device (needs {gigabytes(needs_bytes)}, {gigabytes(free)} free). "
            "Free space or choose another --out."
        )


def gigabytes(num_bytes: float) -> str:
    """In the unit that disks are sold in: "133 GB", "4.2 MB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:.{0 if num_bytes >= 10 * size else 1}f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"
