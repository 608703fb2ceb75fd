"""Arrays from .npy and .npz files that nobody vouches for: no pickle, sizes checked before anything is inflated."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np

_READ_ERRORS = (OSError, ValueError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error)
_MAX_MEMBERS = 64
_DIRECTORY_LIMIT_BYTES = 64 << 10
_HEADER_LIMIT_BYTES = 4096
# What numpy writes. Its own reader evaluates the header as Python text, with limits that differ between versions.
_HEADER = re.compile(
    r"\{'descr': '([<>|=]?[A-Za-z][0-9]{0,4})', 'fortran_order': (True|False), "
    r"'shape': \(((?:[0-9]{1,18}, ?)*(?:[0-9]{1,18})?)\),? ?\}\s*"
)


class ArrayStream:
    """One array in a file, read front to back; `shape` and `dtype` are known before any of it is read."""

    def __init__(self, stream: BinaryIO) -> None:
        """Raises ValueError if the stream does not begin with a .npy header, or holds Python objects."""
        self._stream = stream
        try:
            shape, fortran_order, dtype = read_header(stream)
        except _READ_ERRORS as error:
            raise ValueError(f"not a readable array ({_one_line(error)})") from error
        if dtype.hasobject:
            raise ValueError("holds Python objects; expected plain numbers")
        if fortran_order and len(shape) > 1:
            raise ValueError("is stored column by column; save it through numpy.ascontiguousarray")
        self.shape: Tuple[int, ...] = shape
        self.dtype: np.dtype = dtype

    @property
    def num_bytes(self) -> int:
        total = int(self.dtype.itemsize)
        for length in self.shape:
            total *= length
        return total

    def read(self, *, limit_bytes: int) -> np.ndarray:
        """The whole array. Raises ValueError if it is larger than `limit_bytes` or cut short."""
        if self.num_bytes > limit_bytes:
            raise ValueError(f"unpacks to {self.num_bytes} bytes; the limit is {limit_bytes}")
        content = self._take(self.num_bytes)
        self._expect_end()
        return np.frombuffer(content, dtype=self.dtype).reshape(self.shape)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Up to `size` entries of the first axis at a time; needs memory for one batch only."""
        row_bytes = self.num_bytes // self.shape[0] if self.shape[0] else 0
        for start in range(0, self.shape[0], size):
            count = min(size, self.shape[0] - start)
            yield np.frombuffer(self._take(count * row_bytes), dtype=self.dtype).reshape((count, *self.shape[1:]))
        self._expect_end()

    def _take(self, num_bytes: int) -> bytes:
        parts: List[bytes] = []
        missing = num_bytes
        try:
            while missing > 0:
                part = self._stream.read(min(missing, 1 << 22))
                if not part:
                    raise ValueError(f"is cut short: {missing} of {num_bytes} bytes are missing")
                parts.append(part)
                missing -= len(part)
        except _READ_ERRORS as error:
            raise ValueError(_one_line(error)) from error
        return b"".join(parts)

    def _expect_end(self) -> None:
        try:
            surplus = self._stream.read(1)  # at its end a zip member checks its CRC
        except _READ_ERRORS as error:
            raise ValueError(_one_line(error)) from error
        if surplus:
            raise ValueError("goes on after the end of its array")


def read_header(stream: BinaryIO) -> Tuple[Tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is stored column by column, and dtype; the stream is left behind the header."""
    version = np.lib.format.read_magic(stream)
    size_format = {(1, 0): "<H", (2, 0): "<I"}.get(version)
    if size_format is None:
        raise ValueError(f"array format {version} is not supported; expected 1.0 or 2.0")
    (length,) = struct.unpack(size_format, stream.read(struct.calcsize(size_format)))
    if length > _HEADER_LIMIT_BYTES:
        raise ValueError(f"a header of {length} bytes; the limit is {_HEADER_LIMIT_BYTES}")
    text = stream.read(length).decode("latin-1")
    fields = _HEADER.fullmatch(text)
    if fields is None:
        raise ValueError(f"the header {ascii(text)[:80]} is not one of plain numbers")
    try:
        dtype = np.dtype(fields.group(1))
    except TypeError as error:
        raise ValueError(f"there is no dtype {fields.group(1)}") from error
    return tuple(int(size) for size in fields.group(3).split(",") if size.strip()), fields.group(2) == "True", dtype


@contextmanager
def open_member(source: Union[Path, bytes], names: Sequence[str]) -> Iterator[BinaryIO]:
    """The bytes of a .npy file, or of the first of `names` that a .npz has, header included.

    Raises ValueError (short: the caller adds the path) if there is none. It may be packed: bound what you read.
    """
    file: Optional[BinaryIO] = None
    archive: Optional[zipfile.ZipFile] = None
    member: Optional[BinaryIO] = None
    try:
        try:
            file = io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb")  # noqa: SIM115
            start = file.read(4)
            file.seek(0)
            if start[:2] == b"PK":
                _require_small_directory(file)
                archive = zipfile.ZipFile(file)
                member = archive.open(_member_name(archive, names))  # type: ignore[assignment]
            elif start != b"\x93NUM":
                raise ValueError("is neither .npy nor .npz")
        except _READ_ERRORS as error:
            raise ValueError(_one_line(error)) from error
        yield member or file
    finally:
        for opened in (member, archive, file):
            if opened is not None:
                opened.close()


@contextmanager
def open_array(source: Union[Path, bytes], names: Sequence[str]) -> Iterator[ArrayStream]:
    """The array in a .npy file, or the first of `names` that a .npz has; `source` is a path or a file's content.

    Raises ValueError (short: the caller adds the path) if there is none or it cannot be read.
    """
    with open_member(source, names) as stream:
        yield ArrayStream(stream)


def _require_small_directory(file: BinaryIO) -> None:
    """Raise ValueError if the archive's list of members is long: zipfile reads all of it when it opens."""
    end = file.seek(0, io.SEEK_END)
    start = max(0, end - (1 << 16) - 100)
    file.seek(start)
    tail = file.read(end - start)
    file.seek(0)
    # The record that zipfile takes: the last 22 bytes if they are one, else the last one that a comment follows.
    found = len(tail) - 22 if tail[-22:-18] == b"PK\5\6" and tail[-2:] == b"\0\0" else tail.rfind(b"PK\5\6")
    if found < 0 or len(tail) < found + 22:
        raise ValueError("is no whole zip archive")
    (size,) = struct.unpack("<I", tail[found + 12 : found + 16])
    if tail[max(0, found - 20) : found][:4] == b"PK\6\7":  # the record of archives beyond 4 GiB stands before it
        record = tail[max(0, found - 76) : found - 20]
        if record[:4] != b"PK\6\6":
            raise ValueError("has a zip64 record that is out of place")
        (size,) = struct.unpack("<Q", record[40:48])
    if size > _DIRECTORY_LIMIT_BYTES:
        raise ValueError(f"lists its members in {size} bytes; the limit is {_DIRECTORY_LIMIT_BYTES}")


def _member_name(archive: zipfile.ZipFile, names: Sequence[str]) -> str:
    entries = archive.infolist()
    members = [entry.filename for entry in entries]
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise ValueError("is packed by another method than deflate; save it through numpy.savez_compressed")
    if len(members) > _MAX_MEMBERS or len(set(members)) != len(members):
        raise ValueError(f"holds {len(members)} arrays or the same one twice; expected at most {_MAX_MEMBERS}")
    for name in names:
        if name + ".npy" in members:
            return name + ".npy"
    wanted = " or ".join(repr(name) for name in names)
    raise ValueError(f"has no array {wanted}; it holds {', '.join(sorted(members))[:200] or 'nothing'}")


def _one_line(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:300] or type(error).__name__
