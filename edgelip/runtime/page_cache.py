"""Let the kernel forget files, so that the next start reads them from the disk: a cold start as after switching on."""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import os
from pathlib import Path
from typing import Iterable, List, Optional, Tuple

import numpy as np

from edgelip.runtime.errors import MissingError

_MOST_FILES = 20_000


def drop_page_cache(bundle: Path, package: str) -> str:
    """Ask the kernel to drop the files of a bundle and of an engine's package; what was done, for the record.

    Needs no root. A file that another process has mapped stays, and so do the interpreter and numpy, which this process
    runs. Call it before the package is imported. Raises MissingError on a system that cannot.
    """
    if not hasattr(os, "posix_fadvise"):
        raise MissingError("this system cannot drop files from the page cache. Leave --drop-page-cache out.")
    files = [*_files_in(bundle), *_files_of(package)]
    num_bytes, left_bytes, tells = 0, 0, True
    for path in files:
        size, resident = _drop(path)
        num_bytes += size
        left_bytes += resident or 0
        tells = tells and resident is not None
    left = f"{left_bytes / 2**20:.1f} MiB stayed" if tells else "what stayed is not known"
    return (
        f"dropped before the start: {len(files)} files, {num_bytes / 2**20:.1f} MiB, of the bundle and {package}; "
        f"{left}; the interpreter and numpy kept"
    )


def _files_of(package: str) -> List[Path]:
    spec = importlib.util.find_spec(package)
    folders: Iterable[str] = (spec.submodule_search_locations or ()) if spec is not None else ()
    return [path for folder in folders for path in _files_in(Path(folder))]


def _files_in(folder: Path) -> List[Path]:
    found: List[Path] = []
    for at, _, names in os.walk(folder):
        found.extend(Path(at) / name for name in names)
        if len(found) > _MOST_FILES:
            break
    return [path for path in found[:_MOST_FILES] if path.is_file() and not path.is_symlink()]


def _drop(path: Path) -> Tuple[int, Optional[int]]:
    """Bytes of the file, and how many of them are in memory afterwards, None where the system does not tell."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return 0, 0
    try:
        os.fsync(descriptor)  # only what is on the disk can be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        size = os.fstat(descriptor).st_size
        return size, _resident_bytes(descriptor, size)
    except OSError:
        return 0, None
    finally:
        os.close(descriptor)


def _resident_bytes(descriptor: int, size: int) -> Optional[int]:
    if size == 0:
        return 0
    page = mmap.PAGESIZE
    try:
        mincore = ctypes.CDLL(None, use_errno=True).mincore
    except (OSError, AttributeError):
        return None
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as mapped:
        whole = np.frombuffer(mapped, np.uint8)
        pages = (ctypes.c_ubyte * (-(-size // page)))()
        code = mincore(ctypes.c_void_p(whole.ctypes.data), ctypes.c_size_t(size), pages)
        del whole  # a mapping with a view on it cannot be closed
    return None if code else min(size, page * sum(each & 1 for each in pages))
