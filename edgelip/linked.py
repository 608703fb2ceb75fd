"""Files kept once by their content: runs that share weights hold links to one copy.

A blob is a read-only file named by the sha256 of its bytes. Where it is used it is a hard link, so that what uses it
looks like any file, `du` counts it once, and the number of links says whether anybody still does. Files are replaced by
renaming (edgelip.files), never written into, so a new file in one run leaves the others as they are.
On a file system without hard links every use is a copy. Standard library only.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgelip.files import write_atomic, writing
from edgelip.runtime.errors import MissingError

_CHUNK_BYTES = 1 << 22
_READ_ONLY = 0o444
_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES)


@dataclass(frozen=True)
class Usage:
    """Bytes that the users of the blobs see, and bytes that the disk holds for them."""

    num_blobs: int
    seen_bytes: int
    stored_bytes: int


class Blobs:
    """Blobs in `folder`; what uses them must lie on the same file system to share them."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def write(self, target: Path, content: bytes) -> str:
        """Put `content` at `target` and return its sha256; bytes known already take no further space.

        Raises MissingError where the disk or the permissions do not allow it.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        blob = self.path(sha256)
        if not self._holds(sha256):
            write_atomic(blob, content)  # a damaged blob is replaced; files linked to the damaged one stay as they are
            with writing(blob):
                blob.chmod(_READ_ONLY)
        link(blob, target)
        return sha256

    def adopt(self, file: Path) -> str:
        """Make `file` a link to the blob of its content, which is made of it if there is none. Returns the sha256."""
        sha256 = sha256_of(file)
        blob = self.path(sha256)
        if self._holds(sha256):
            if not _same_file(blob, file):
                link(blob, file)
            return sha256
        with writing(blob):
            blob.parent.mkdir(parents=True, exist_ok=True)
            file.chmod(_READ_ONLY)
        link(file, blob)
        return sha256

    def link(self, sha256: str, target: Path) -> None:
        """Put the blob at `target`. Raises MissingError if there is none or its content is not what its name says."""
        if not self._holds(sha256):
            state = "has changed" if self.path(sha256).exists() else "is missing"
            raise MissingError(f"{self.path(sha256)} {state}; expected the content of that sha256. Make it again.")
        link(self.path(sha256), target)

    def sweep(self) -> int:
        """Remove the blobs that nobody uses any more. Returns the bytes that this frees."""
        freed = 0
        for blob in self._blobs():
            found = blob.stat()
            if found.st_nlink == 1:
                freed += found.st_size
                blob.unlink()
        return freed

    def damaged(self) -> tuple[Path, ...]:
        """Blobs whose content is not what their name says: half-written or tampered with. Reads every byte."""
        return tuple(blob for blob in self._blobs() if sha256_of(blob) != blob.name)

    def usage(self) -> Usage:
        found = [blob.stat() for blob in self._blobs()]
        return Usage(
            len(found), sum(each.st_size * (each.st_nlink - 1) for each in found), sum(each.st_size for each in found)
        )

    def _holds(self, sha256: str) -> bool:
        blob = self.path(sha256)
        return blob.is_file() and not blob.is_symlink() and sha256_of(blob) == sha256

    def _blobs(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("??/*") if path.is_file() and not path.name.startswith("."))


def link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, whole or not at all, replacing an older one; a copy without hard links.

    Raises MissingError where the disk, the permissions or the path do not allow it.
    """
    beside = target.with_name(f".{target.name}.{os.getpid()}.link")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            try:
                os.link(source, beside, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                shutil.copyfile(source, beside)
                beside.chmod(_READ_ONLY)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)  # renaming a link onto itself leaves it


def sha256_of(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _same_file(one: Path, other: Path) -> bool:
    stats: tuple[Any, Any] = (one.stat(), other.stat())
    return os.path.samestat(*stats)
