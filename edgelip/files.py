"""Writing files and folders so that a crash, a full disk or a second process leaves no half-written result.

A result is written beside its place as `.<name>.partial`, synced, then renamed. The name is fixed and the partial is
locked while it is written, so the next writer takes over what a killed process left behind.
Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgelip.runtime.errors import MissingError, UsageError

_PARTIAL, _REPLACED = ".partial", ".replaced"
_LOCK_WAIT_S = 10.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REASONS = {
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EISDIR: "a folder stands in its place",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EEXIST: "a file stands where a folder is needed",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EFBIG: "the file would be larger than this process may write",
    errno.EIO: "the disk failed (input/output error)",
}
# Libraries that lose the errno: numpy's tofile, safetensors, torch.save.
_DISK_FULL_TEXT = re.compile(
    r"[Nn]o space left on device|\d+ requested and \d+ written|inline_container\.cc:\d+\] \. unexpected pos"
)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Put `data` (text as UTF-8) at `path` whole or not at all; makes the parent folders, replaces an older file.

    Raises MissingError (exit 4) where the disk, the permissions or the path do not allow it.
    """
    path = Path(path)
    content = data.encode() if isinstance(data, str) else data
    with writing(path, needs_bytes=len(content)):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _beside(path, _PARTIAL)
        descriptor = _open_locked(partial, path)
        try:
            os.ftruncate(descriptor, 0)
            _write_all(descriptor, content)
            os.fsync(descriptor)
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
        finally:
            os.close(descriptor)
        _sync_folder(path.parent)


@contextmanager
def replace_folder(path: Path, *, only_if_holds: str | None = None, needs_bytes: int | None = None) -> Iterator[Path]:
    """Yield an empty folder beside `path`; when the block ends well it takes the place of `path`, else it is removed.

    only_if_holds: an older, non-empty folder is replaced only if it holds this file: guards against `--out ~`.
    needs_bytes: size of the result if known; refused before the work starts where the disk has less.
    Raises UsageError for a folder that must not be replaced, MissingError (exit 4) where writing is impossible.
    """
    path = Path(path)
    if path.name in ("", ".."):
        raise UsageError(
            f"cannot replace the folder {str(path)!r}; expected a path that ends in a name, such as runs/x."
        )
    if only_if_holds and path.is_dir() and any(path.iterdir()) and not (path / only_if_holds).exists():
        raise UsageError(
            f"{path} exists and holds no {only_if_holds}, so it is not replaced. Empty it or choose another --out."
        )
    partial = _beside(path, _PARTIAL)
    with writing(path, needs_bytes=needs_bytes):
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "is a file", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        if needs_bytes is not None and shutil.disk_usage(path.parent).free < needs_bytes:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        descriptor = _open_locked(partial, path, folder=True)
    try:
        with writing(path, inside=partial, needs_bytes=needs_bytes):
            with _settled(path):
                _restore(path)
            _empty(partial)
            yield partial
            _sync_tree(partial)
            replaced = _beside(path, _REPLACED)
            if path.exists():
                path.rename(replaced)
            partial.rename(path)
            _sync_folder(path.parent)
            shutil.rmtree(replaced, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # still locked, so still ours
        _restore(path)
        raise
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> tuple[Path, ...]:
    """Remove what killed writers left directly in `folder`, and return it; what a live process is writing stays."""
    removed = []
    for partial in sorted(Path(folder).glob(f".*{_PARTIAL}")):
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            claim(descriptor, partial, wait_s=0)
            _remove(partial)
            removed.append(partial)
        except MissingError:
            continue
        finally:
            os.close(descriptor)
    for replaced in sorted(Path(folder).glob(f".*{_REPLACED}")):
        final = replaced.with_name(replaced.name[1 : -len(_REPLACED)])
        with suppress(MissingError), _settled(final, wait_s=0):
            if not _beside(final, _PARTIAL).exists():
                _restore(final)
                removed.append(replaced)
    return tuple(removed)


@contextmanager
def writing(path: Path, *, inside: Path | None = None, needs_bytes: int | None = None) -> Iterator[None]:
    """Turn what goes wrong while writing `path` into a one-line MissingError; other errors pass unchanged.

    inside: the folder really written to; an OSError that names a file elsewhere (an input) passes unchanged.
    """
    try:
        yield
    except Exception as error:
        reason = _reason(error, path, inside)
        if reason == "full":
            written = _folder_bytes(inside) if inside is not None else 0  # goes when the caller removes `inside`
            free = _size(shutil.disk_usage(_nearest_folder(path)).free + written)
            sizes = f"more than the {free} free" if needs_bytes is None else f"{_size(needs_bytes)}, {free} free"
            raise MissingError(
                f"cannot write {path}: no space left on device (needs {sizes}). Free space or choose another --out."
            ) from error
        if reason is not None:
            raise MissingError(f"cannot write {path}: {reason}. Choose another --out.") from error
        raise


def claim(descriptor: int, path: Path, *, wait_s: float | None = None) -> None:
    """Lock an open file or folder for this process until it is closed; `path` names it in the error.

    Raises MissingError if another process keeps it for `wait_s` seconds (10 if None).
    """
    end = time.monotonic() + (_LOCK_WAIT_S if wait_s is None else wait_s)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise MissingError(
                    f"cannot write {path}: another process is writing it. Wait for it to end or choose another --out."
                ) from None
            time.sleep(0.02)
        except OSError:  # a network file system without locks
            return


def _open_locked(partial: Path, path: Path, *, folder: bool = False) -> int:
    while True:
        if not partial.parent.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "is no folder", str(partial.parent))
        if partial.exists() and partial.is_dir() is not folder:
            _remove(partial)
        if folder:
            partial.mkdir(exist_ok=True)
        flags = os.O_RDONLY | os.O_DIRECTORY if folder else os.O_RDWR | os.O_CREAT
        # The writer before us may rename its partial away while we open it or wait for its lock: then look again.
        with suppress(FileNotFoundError):
            descriptor = os.open(partial, flags, 0o666)
            try:
                claim(descriptor, path)
                if os.path.samestat(os.fstat(descriptor), partial.stat()):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


@contextmanager
def _settled(path: Path, *, wait_s: float | None = None) -> Iterator[None]:
    """Hold the lock of the folder at `path`: the writer that put it there keeps it until the older one is removed."""
    if not path.is_dir():
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        claim(descriptor, path, wait_s=wait_s)
        yield
    finally:
        os.close(descriptor)


def _reason(error: Exception, path: Path, inside: Path | None) -> str | None:
    if isinstance(error, (MissingError, UsageError)):
        return None
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL or (number is None and _DISK_FULL_TEXT.search(str(error))):
        return "full"
    named = getattr(error, "filename", None)
    if inside is not None and isinstance(named, (str, Path)) and inside not in (Path(named), *Path(named).parents):
        return None
    return _REASONS.get(number) if number is not None else None


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}{suffix}")


def _restore(path: Path) -> None:
    """Settle a replacement that was killed between its two renames: the old folder goes back, or is removed."""
    replaced = _beside(path, _REPLACED)
    if replaced.is_dir() and not path.exists():
        replaced.rename(path)
    elif replaced.exists():
        _remove(replaced)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        _remove(entry)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot sync a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    for entry in sorted(folder.rglob("*")):
        if entry.is_file() and not entry.is_symlink():
            descriptor = os.open(entry, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    _sync_folder(folder)


def _folder_bytes(folder: Path) -> int:
    return sum(entry.lstat().st_size for entry in folder.rglob("*") if entry.is_file()) if folder.is_dir() else 0


def _nearest_folder(path: Path) -> Path:
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def _size(num_bytes: int) -> str:
    if num_bytes >= 1e6:
        return f"{num_bytes / 1e6:.{0 if num_bytes >= 10e6 else 1}f} MB"
    return f"{num_bytes / 1e3:.0f} kB"
