"""Files that nobody vouches for: never through a link, never a pipe, sizes and hashes checked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO, Tuple

from edgelip.runtime.errors import BundleError, MissingError
from edgelip.runtime.manifest import FileEntry

_CHUNK_BYTES = 1 << 20


def open_plain(path: Path) -> Tuple[BinaryIO, int]:
    """The file and its size in bytes; never through a link, never a pipe, device or folder."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise BundleError(f"{path.name} is a link, folder or device; expected a plain file in the bundle.")
        file = open(path, "rb", opener=_open_no_follow)  # noqa: PTH123, SIM115
    except FileNotFoundError as error:
        raise BundleError(f"{path.name} is missing. Export the bundle again or copy it anew.") from error
    except OSError as error:
        raise BundleError(f"{path.name} cannot be read ({error.strerror}).") from error
    return file, os.fstat(file.fileno()).st_size


def _open_no_follow(name: str, flags: int) -> int:
    # The file may have become a link or a pipe since it was looked at.
    return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def read_plain(path: Path, *, limit_bytes: int) -> bytes:
    """Content of a plain file. Raises BundleError if it is no such file or too large."""
    file, size = open_plain(path)
    with file:
        if size > limit_bytes:
            raise BundleError(f"{path.name} has {size} bytes; the limit is {limit_bytes}.")
        return file.read(limit_bytes)


def verify_file(path: Path, entry: FileEntry) -> None:
    """Raises BundleError unless the file is plain and has exactly the recorded content."""
    file, size = open_plain(path)
    again = "Export the bundle again or copy it anew."
    with file:
        if size != entry.num_bytes:
            raise BundleError(f"{entry.name} has changed: {size} bytes, manifest says {entry.num_bytes}. {again}")
        digest = hashlib.sha256()
        try:
            for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
                digest.update(chunk)
        except OSError as error:
            raise BundleError(f"{entry.name} cannot be read ({error.strerror}).") from error
    if digest.hexdigest() != entry.sha256:
        got, wanted = digest.hexdigest()[:8], entry.sha256[:8]
        raise BundleError(f"{entry.name} has changed: sha256 {got}.., manifest says {wanted}... {again}")


def write_plain(path: Path, content: bytes) -> None:
    """Put `content` at `path` whole or not at all: written beside it, synced, renamed.

    Raises MissingError where the disk or a permission forbids it.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise MissingError(f"{path} cannot be written ({error.strerror}). Choose another place.") from error
