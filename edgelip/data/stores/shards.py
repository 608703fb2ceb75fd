"""The files of a prepared store, version 2.

    shard-00000.npy ...   the clips, uint8 (n, T, S, S) or float32 (n, T, P, A), n <= 128
    shard-00000.json ...  what the builder knows of a shard: its samples, their words, sources, failures
    rows.npy names.txt    one row and one line a clip: the index
    index.json            written last: contract, words, sha256 of every other file and of all of it
    made_from.json        written first: what was asked for

Opening reads the index alone; clips are read from maps of their shards (`stored_frames`). numpy only.
Axes: N clips of a shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.data.stores.npy_files import REMEDY, npy_bytes, npy_header, regular_size
from edgelip.files import write_atomic
from edgelip.runtime.clip import ClipSpec
from edgelip.runtime.errors import ClipError

VERSION = 2
INDEX, ROWS, NAMES, MADE_FROM = "index.json", "rows.npy", "names.txt", "made_from.json"
ROW = np.dtype(
    [
        ("label", "<i4"),
        ("speaker", "<i4"),
        ("first", "<i4"),  # frames of the word in the clip, inclusive
        ("last", "<i4"),
        ("duration_s", "<f4"),  # of the word; nan where nobody knows it
        ("source", "u1", (32,)),  # sha256 of the files that the clip is made of
    ]
)
_SHARD_BYTES, _SHARD_CLIPS = 32 << 20, 128
_LARGEST_JSON = 1 << 28
_LARGEST_NAMES = 1 << 30


def clips_per_shard(spec: ClipSpec) -> int:
    """How many clips one file holds: up to 128 in 32 MiB, what a killed preparation makes again at most per worker."""
    return max(1, min(_SHARD_CLIPS, _SHARD_BYTES // clip_bytes(spec)))


def clip_bytes(spec: ClipSpec) -> int:
    """Size of one stored clip."""
    return int(np.prod(spec.stored_shape)) * np.dtype(spec.stored_dtype).itemsize


def shard_name(number: int) -> str:
    """File of a shard's clips; its record ends in .json."""
    return f"shard-{number:05d}.npy"


@dataclass(frozen=True)
class Failure:
    """A sample that gave no clip; source: sha256 of its files, zeros where they cannot be read."""

    name: str
    word: str
    reason: str
    message: str
    source: str = "0" * 64


@dataclass(frozen=True)
class ShardRecord:
    """What a finished shard holds, in the order of its clips.

    identity: hash of what was asked for; a shard of another identity is made again. clips_sha256: "" of an empty shard.
    rows: label, speaker, first, last, duration (None: unknown) of each clip; notes: how often each was made.
    """

    identity: str
    clips_sha256: str
    names: tuple[str, ...]
    rows: tuple[tuple[int, int, int, int, float | None], ...]
    sources: tuple[str, ...]
    failures: tuple[Failure, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)

    def table(self) -> np.ndarray:
        """The rows as the index holds them."""
        table = np.zeros(len(self.rows), ROW)
        for number, (label, speaker, first, last, duration_s) in enumerate(self.rows):
            table[number] = (label, speaker, first, last, np.nan if duration_s is None else duration_s, 0)
        if self.rows:
            hashes = np.frombuffer(bytes.fromhex("".join(self.sources)), np.uint8)
            table["source"] = hashes.reshape(len(self.rows), 32)
        return table


def write_shard(folder: Path, number: int, clips_N: np.ndarray, record: ShardRecord) -> None:
    """Put the clips, then the record that makes the shard count; each whole or not at all, synced."""
    assert len(clips_N) == len(record.rows) == len(record.names) == len(record.sources)
    path = folder / shard_name(number)
    if len(clips_N):
        header = npy_header(clips_N.shape, clips_N.dtype)
        content = b"".join([header, np.ascontiguousarray(clips_N).data.cast("B")])
        write_atomic(path, content)
        record = ShardRecord(**{**vars(record), "clips_sha256": hashlib.sha256(content).hexdigest()})
    write_atomic(path.with_suffix(".json"), json.dumps(asdict(record), separators=(",", ":")) + "\n")


def read_record(folder: Path, number: int, spec: ClipSpec) -> ShardRecord | None:
    """What a finished shard holds; None where it is not finished, damaged or of another size."""
    path = folder / shard_name(number)
    try:
        fields = read_json(path.with_suffix(".json"))
        failures = tuple(Failure(**failure) for failure in fields.pop("failures"))
        rows = tuple(tuple(row) for row in fields.pop("rows"))
        names, sources = (tuple(fields.pop(name)) for name in ("names", "sources"))
        record = ShardRecord(**fields, names=names, rows=rows, sources=sources, failures=failures)
        record.table()
    except (FileNotFoundError, ClipError, ValueError, TypeError, KeyError, AttributeError):
        return None
    size = npy_bytes((len(rows), *spec.stored_shape), spec.stored_dtype) if rows else 0
    if not len(rows) == len(names) == len(sources) or (rows and regular_size(path) != size):
        return None
    return record


def read_json(path: Path) -> dict[str, Any]:
    """Raises ClipError if there is no regular file of that name with one JSON object, or FileNotFoundError."""
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise ClipError(f"{path} is no regular file. {REMEDY}")
        if path.stat().st_size > _LARGEST_JSON:
            raise ClipError(f"{path} has more than {_LARGEST_JSON >> 20} MiB. {REMEDY}")
        fields = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (ValueError, RecursionError, OSError) as error:
        if isinstance(error, ClipError):
            raise
        raise ClipError(f"{path} cannot be read ({error}). {REMEDY}") from error
    if not isinstance(fields, dict):
        raise ClipError(f"{path} holds no JSON object. {REMEDY}")
    return fields


def read_names(path: Path, num_clips: int) -> tuple[str, ...]:
    """One name a clip. Raises ClipError if the file holds another number of lines."""
    try:
        if not 0 <= regular_size(path) <= _LARGEST_NAMES:
            raise ClipError(f"{path} is missing, a link or too large. {REMEDY}")
        names = tuple(path.read_text(encoding="utf-8").split("\n")[:-1])
    except (OSError, UnicodeDecodeError) as error:
        raise ClipError(f"{path} cannot be read ({error}). {REMEDY}") from error
    if len(names) != num_clips:
        raise ClipError(f"{path} has {len(names)} names; expected {num_clips}. {REMEDY}")
    return names


def file_sha256(path: Path) -> str:
    """Of all bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
