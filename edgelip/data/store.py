"""Prepared clips of one split on disk: decoded or rendered once, read by memory map ever after.

A store is a folder: `clips.npy` uint8 (N, T, S, S), `labels.npy` int32 (N, 4) with label, speaker, first and last
frame of the word, and `index.json`, which says how many clips are done and, once finished, their sha256.
Axes: N clips, T frames, S stored pixels a side.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.lib import format as npy_format

from edgelip.files import claim, write_atomic, writing
from edgelip.runtime.clip import ClipSpec
from edgelip.runtime.errors import ClipError, ShapeError, UsageError

_VERSION = 1
_FIELDS = ("version", "num_clips", "num_done", "spec", "words", "source_sha256", "clips_sha256", "labels_sha256")
_CLIPS, _LABELS, _INDEX = "clips.npy", "labels.npy", "index.json"
_COLUMNS = 4  # label, speaker, first, last
_CHUNK_BYTES = 1 << 22
_REMEDY = "Delete the store and prepare it again."


class StoreWriter:
    """Fill a store in order; what `write` returned from survives `kill -9`, and a new writer goes on at `num_done`.

    An unfinished store of another identity (spec, words, source or size) is begun anew; a finished one is refused.
    source_sha256: hash of all that determines the clips, 64 hex digits.
    Raises UsageError on a foreign folder, MissingError (exit 4) on a full or read-only disk or a second writer.
    """

    def __init__(
        self, folder: Path, num_clips: int, spec: ClipSpec, *, words: Sequence[str], source_sha256: str
    ) -> None:
        if num_clips < 1:
            raise UsageError(f"a store of {num_clips} clips; expected at least 1. Check the split and the word list.")
        self.folder, self.num_clips, self.spec, self.words = Path(folder), num_clips, spec, tuple(words)
        side = spec.stored_px
        self._clip_shape = (spec.frames, side, side)
        self._identity: dict[str, Any] = {
            "version": _VERSION,
            "num_clips": num_clips,
            "spec": spec.to_json(),
            "words": list(self.words),
            "source_sha256": source_sha256,
        }
        clips_header = _npy_header((num_clips, *self._clip_shape), "|u1")
        labels_header = _npy_header((num_clips, _COLUMNS), "<i4")
        clip_bytes = spec.frames * side * side
        self._clips_offset, self._labels_offset, self._clip_bytes = len(clips_header), len(labels_header), clip_bytes
        if self.folder.is_dir() and any(self.folder.iterdir()) and not (self.folder / _INDEX).exists():
            strangers = {entry.name for entry in self.folder.iterdir()} - {_CLIPS, _LABELS, f".{_INDEX}.partial"}
            if strangers:
                raise UsageError(
                    f"{self.folder} holds {sorted(strangers)[0]!r}, not a clip store. Choose an empty folder."
                )
        self._clips_fd = self._labels_fd = -1
        with writing(self.folder, needs_bytes=num_clips * (clip_bytes + 4 * _COLUMNS)):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._clips_fd = os.open(self.folder / _CLIPS, os.O_RDWR | os.O_CREAT, 0o666)
                claim(self._clips_fd, self.folder)
                self._labels_fd = os.open(self.folder / _LABELS, os.O_RDWR | os.O_CREAT, 0o666)
                self.num_done, self.is_finished = self._done_before()
                if self.num_done == 0:
                    self._begin(clips_header, labels_header)
            except BaseException:
                self.close()
                raise

    def write(
        self,
        start: int,
        frames_BTHW: np.ndarray,
        *,
        labels_B: np.ndarray,
        speakers_B: np.ndarray,
        boundaries_B2: np.ndarray | None = None,
    ) -> None:
        """Add clips `start ..`, uint8 (B, T, S, S), synced to disk when this returns.

        boundaries_B2: first and last frame (inclusive) of the word in the clip; the whole clip if None.
        Raises UsageError if `start` is not `num_done`, ShapeError on another shape or dtype, ClipError on a bad label.
        """
        if start != self.num_done or self.is_finished:
            raise UsageError(
                f"clip {start} written to {self.folder}; expected clip {self.num_done}. Write in order, once."
            )
        num_new = len(frames_BTHW)
        expected = (min(num_new, self.num_clips - start), *self._clip_shape)
        if frames_BTHW.dtype != np.uint8 or frames_BTHW.shape != expected or num_new == 0:
            frames, side, _ = self._clip_shape
            raise ShapeError(
                f"clips are {frames_BTHW.dtype} {frames_BTHW.shape}; expected uint8 (B, {frames}, {side}, {side}) "
                f"with B from 1 to {self.num_clips - start}."
            )
        rows = np.empty((num_new, _COLUMNS), "<i4")
        rows[:, 0], rows[:, 1] = labels_B, speakers_B
        rows[:, 2:] = (0, self.spec.frames - 1) if boundaries_B2 is None else boundaries_B2
        _check_rows(rows, len(self.words), self.spec.frames, f"{self.folder}: clip", start)
        with writing(self.folder, needs_bytes=num_new * self._clip_bytes):
            _write_at(self._clips_fd, self._clips_offset + start * self._clip_bytes, frames_BTHW)
            _write_at(self._labels_fd, self._labels_offset + start * 4 * _COLUMNS, rows)
            os.fsync(self._clips_fd)
            os.fsync(self._labels_fd)
            self.num_done += num_new
            self._record()

    def finish(self) -> Store:
        """Hash the clips, mark the store finished and open it. Raises UsageError while clips are missing."""
        if self.num_done < self.num_clips:
            raise UsageError(
                f"{self.folder} has {self.num_done} of {self.num_clips} clips; write the rest, then finish."
            )
        if not self.is_finished:
            self._record(_sha256(self.folder / _CLIPS), _sha256(self.folder / _LABELS))
            self.is_finished = True
        self.close()
        return Store.open(self.folder)

    def close(self) -> None:
        """Release the folder for another writer; an unfinished store can be continued."""
        for descriptor in (self._clips_fd, self._labels_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._clips_fd = self._labels_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, clips_header: bytes, labels_header: bytes) -> None:
        try:
            _allocate(self._clips_fd, clips_header, self.num_clips * self._clip_bytes)
            _allocate(self._labels_fd, labels_header, self.num_clips * 4 * _COLUMNS)
            self._record()
        except BaseException:
            for name in (_CLIPS, _LABELS, _INDEX):
                (self.folder / name).unlink(missing_ok=True)
            raise

    def _record(self, clips_sha256: str | None = None, labels_sha256: str | None = None) -> None:
        done = {"num_done": self.num_done, "clips_sha256": clips_sha256, "labels_sha256": labels_sha256}
        write_atomic(self.folder / _INDEX, json.dumps({**self._identity, **done}, indent=1) + "\n")

    def _done_before(self) -> tuple[int, bool]:
        """Clips already on disk, and whether the store is finished."""
        try:
            index = _read_index(self.folder)
        except ClipError:
            return 0, False
        finished = index["clips_sha256"] is not None
        if any(index[name] != expected for name, expected in self._identity.items()):
            if finished:
                raise UsageError(
                    f"{self.folder} holds a finished store of other clips. Delete it or choose another folder."
                )
            return 0, False
        clips_size = self._clips_offset + self.num_clips * self._clip_bytes
        labels_size = self._labels_offset + self.num_clips * 4 * _COLUMNS
        if (os.fstat(self._clips_fd).st_size, os.fstat(self._labels_fd).st_size) != (clips_size, labels_size):
            return 0, False
        return index["num_done"], finished


@dataclass(frozen=True, eq=False)
class Store:
    """A finished store, read only. frames: memory map uint8 (N, T, S, S); nothing is read until it is indexed.

    labels: int32 (N,), index into `words`; speakers: int32 (N,); boundaries: int32 (N, 2), first and last word frame.
    """

    folder: Path
    spec: ClipSpec
    words: tuple[str, ...]
    source_sha256: str
    clips_sha256: str
    labels_sha256: str
    frames: np.ndarray
    labels: np.ndarray
    speakers: np.ndarray
    boundaries: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Raises ClipError if the store is missing, not finished, or its files do not fit its index."""
        folder = Path(folder)
        index = _read_index(folder)
        num_clips, num_done = index["num_clips"], index["num_done"]
        if index["clips_sha256"] is None or num_done != num_clips:
            raise ClipError(f"{folder} is not finished: {num_done} of {num_clips} clips. Prepare it again to go on.")
        spec = ClipSpec.from_json(index["spec"])
        frames = _open_npy(folder / _CLIPS, (num_clips, spec.frames, spec.stored_px, spec.stored_px), "|u1")
        rows = np.array(_open_npy(folder / _LABELS, (num_clips, _COLUMNS), "<i4"))
        rows.flags.writeable = False
        _check_rows(rows, len(index["words"]), spec.frames, f"{folder}: clip", 0)
        hashes = (index["source_sha256"], index["clips_sha256"], index["labels_sha256"])
        return cls(folder, spec, tuple(index["words"]), *hashes, frames, rows[:, 0], rows[:, 1], rows[:, 2:])

    def __len__(self) -> int:
        return len(self.labels)

    def verify(self) -> None:
        """Read every byte and compare its sha256 with the index. Raises ClipError on a difference."""
        for name, expected in ((_CLIPS, self.clips_sha256), (_LABELS, self.labels_sha256)):
            got = _sha256(self.folder / name)
            if got != expected:
                raise ClipError(f"{self.folder / name} has sha256 {got[:12]}; expected {expected[:12]}. {_REMEDY}")


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / _INDEX
    try:
        index = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ClipError(f"{folder} holds no clip store ({_INDEX} is missing). Prepare it first.") from None
    except (ValueError, OSError) as error:
        raise ClipError(f"{path} cannot be read ({error}). {_REMEDY}") from error
    if not isinstance(index, dict) or sorted(index) != sorted(_FIELDS) or index["version"] != _VERSION:
        raise ClipError(f"{path} is no clip store index of version {_VERSION}. {_REMEDY}")
    return index


def _open_npy(path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    header = _npy_header(shape, dtype)
    num_bytes = len(header) + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    got = path.stat().st_size if path.is_file() else 0
    if got != num_bytes:
        raise ClipError(f"{path} has {got} bytes; expected {num_bytes}. {_REMEDY}")
    with path.open("rb") as file:
        if file.read(len(header)) != header:
            raise ClipError(f"{path} does not hold {dtype} {shape} as the index says. {_REMEDY}")
    return np.memmap(path, dtype=dtype, mode="r", offset=len(header), shape=shape)


def _check_rows(rows_N4: np.ndarray, num_words: int, num_frames: int, clip: str, start: int) -> None:
    label, _, first, last = rows_N4.T
    bad = np.flatnonzero((label < 0) | (label >= num_words) | (first < 0) | (first > last) | (last >= num_frames))
    if len(bad):
        row = rows_N4[bad[0]]
        raise ClipError(
            f"{clip} {start + bad[0]} has label {row[0]} and word frames {row[2]}..{row[3]}; "
            f"expected a label below {num_words} and frames within 0..{num_frames - 1}."
        )


def _npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """The bytes before the data in a version 1.0 .npy file of C order."""
    buffer = BytesIO()
    npy_format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _allocate(descriptor: int, header: bytes, num_bytes: int) -> None:
    """Reserve the whole file now, so that a full disk is found at the start."""
    os.ftruncate(descriptor, 0)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(descriptor, 0, len(header) + num_bytes)
    else:
        os.ftruncate(descriptor, len(header) + num_bytes)
    os.pwrite(descriptor, header, 0)


def _write_at(descriptor: int, offset: int, array: np.ndarray) -> None:
    rest = np.ascontiguousarray(array).data.cast("B")
    while rest:
        num_written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[num_written:], offset + num_written


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
