"""Plain .npy files of known shape: written by their header, mapped only if they are what is expected."""

from __future__ import annotations

import stat
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from edgelip.runtime.errors import ClipError

REMEDY = "Delete the store and prepare it again."


def map_npy(path: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """The array of a .npy file, mapped read-only. Raises ClipError if it holds another one."""
    header, expected = npy_header(shape, dtype), npy_bytes(shape, dtype)
    if (got := regular_size(path)) != expected:
        raise ClipError(f"{path} {size_in_words(got)}; expected {expected} bytes. {REMEDY}")
    with path.open("rb") as file:
        if file.read(len(header)) != header:
            raise ClipError(f"{path} does not hold {np.dtype(dtype)} {shape} as the index says. {REMEDY}")
    mapped: np.ndarray = np.memmap(path, dtype=dtype, mode="r", offset=len(header), shape=shape)
    return mapped.view(np.ndarray)  # indexing the subclass costs microseconds


@lru_cache(maxsize=64)  # thousands of shards of one shape are opened at once
def npy_header(shape: tuple[int, ...], dtype: Any) -> bytes:
    """The bytes before the data in a version 1.0 .npy file of C order."""
    buffer = BytesIO()
    descr = npy_format.dtype_to_descr(np.dtype(dtype))
    npy_format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def npy_bytes(shape: tuple[int, ...], dtype: Any) -> int:
    """Size of such a file."""
    num_values = 1
    for length in shape:
        num_values *= length
    return len(npy_header(shape, dtype)) + num_values * int(np.dtype(dtype).itemsize)


def regular_size(path: Path) -> int:
    """Bytes of a regular file that is no link; -1 where there is none."""
    try:
        status = path.lstat()
    except OSError:
        return -1
    return int(status.st_size) if stat.S_ISREG(status.st_mode) else -1


def size_in_words(num_bytes: int) -> str:
    """What `regular_size` found, for an error."""
    return f"has {num_bytes} bytes" if num_bytes >= 0 else "is missing or no regular file"
