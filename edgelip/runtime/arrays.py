"""Arrays from .npy and .npz files that nobody vouches for: no pickle, sizes checked before anything is inflated."""

from __future__ import annotations

import io
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np

_READ_ERRORS = (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
_MAX_MEMBERS = 64


class ArrayStream:
    """One array in a file, read front to back; `shape` and `dtype` are known before any of it is read."""

    def __init__(self, stream: BinaryIO) -> None:
        """Raises ValueError if the stream does not begin with a .npy header, or holds Python objects."""
        self._stream = stream
        try:
            version = np.lib.format.read_magic(stream)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if read_header is None:
                raise ValueError(f"array format {version} is not supported; expected 1.0 or 2.0")
            shape, fortran_order, dtype = read_header(stream)
        except _READ_ERRORS as error:
            raise ValueError(f"not a readable array ({_one_line(error)})") from error
        if dtype.hasobject:
            raise ValueError("holds Python objects; expected plain numbers")
        if fortran_order and len(shape) > 1:
            raise ValueError("is stored column by column; save it through numpy.ascontiguousarray")
        if any(length < 0 for length in shape):
            raise ValueError(f"has the impossible shape {shape}")
        self.shape: Tuple[int, ...] = tuple(int(length) for length in shape)
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


@contextmanager
def open_array(source: Union[Path, bytes], names: Sequence[str]) -> Iterator[ArrayStream]:
    """The array in a .npy file, or the first of `names` that a .npz has; `source` is a path or a file's content.

    Raises ValueError (short: the caller adds the path) if there is none or it cannot be read.
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
                archive = zipfile.ZipFile(file)
                member = archive.open(_member_name(archive, names))  # type: ignore[assignment]
            elif start != b"\x93NUM":
                raise ValueError("is neither .npy nor .npz")
        except _READ_ERRORS as error:
            raise ValueError(_one_line(error)) from error
        yield ArrayStream(member or file)
    finally:
        for opened in (member, archive, file):
            if opened is not None:
                opened.close()


def _member_name(archive: zipfile.ZipFile, names: Sequence[str]) -> str:
    members = [entry.filename for entry in archive.infolist()]
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
