"""The bundle inside a zip application, unpacked once for each user, and proven before it is used.

It lies in `<cache>/edgelip/<sha256 of its manifest>`; what `build` makes lies there too, and stays. Nothing in the
archive is trusted, nor a folder that somebody else may have put there. For systems with user ids: Linux, macOS.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional

from edgelip.runtime.errors import BundleError, MissingError

BUNDLE = "bundle"  # the folder in a pack
MANIFEST, ENGINES = "manifest.json", "engines"
_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
MEMBER = re.compile(f"{BUNDLE}/({_NAME}|{ENGINES}/{_NAME}/{_NAME}/{_NAME})")  # all that may lie below bundle/
_MANIFEST_LIMIT_BYTES = 4 << 20
_MAX_MEMBERS = 4096
_COMPARED_BYTES = 64 << 10  # larger files are told apart by their size here, by their hash when the bundle is opened
_CHUNK_BYTES = 1 << 20
_ENCRYPTED = 1  # bit of a member's flags
_DAMAGED = (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError)
_ELSEWHERE = "Choose another folder: --unpack-to FOLDER."

Members = Mapping[str, zipfile.ZipInfo]  # path in the bundle -> where it lies in the archive


def unpack(archive: Path, root: Optional[Path] = None) -> Path:
    """The folder that holds the bundle of `archive`, below `root` or the user's cache; made if it is not there yet.

    Raises BundleError if the archive is damaged or hostile, MissingError where no folder can be made or one is there
    that other users may write to.
    """
    parent = root if root is not None else _cache_folder()
    try:
        with zipfile.ZipFile(archive) as pack:
            members = _members(pack, limit_bytes=archive.stat().st_size)
            folder = parent / hashlib.sha256(pack.read(members[MANIFEST])).hexdigest()
            if parent.is_dir():
                _refuse_shared(parent)
            if not os.path.lexists(folder) or _outdated(pack, members, _vetted(folder)):
                parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with _locked(parent) as alone:
                    _write(pack, members, folder, alone=alone)
            return _vetted(folder)
    except _DAMAGED as error:
        raise BundleError(f"{archive.name} is damaged ({error}). Copy the pack anew.") from error
    except BundleError as error:
        raise BundleError(f"{archive.name}: {error}") from error
    except OSError as error:
        what = f"the bundle of {archive.name} cannot be unpacked to {parent} ({error.strerror})"
        raise MissingError(f"{what}. {_ELSEWHERE}") from error


def _cache_folder() -> Path:
    place = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (place if place.is_absolute() else Path.home() / ".cache") / "edgelip"
    except RuntimeError as error:
        raise MissingError(f"this user has no home folder to unpack the bundle to. {_ELSEWHERE}") from error


def _members(pack: zipfile.ZipFile, *, limit_bytes: int) -> Dict[str, zipfile.ZipInfo]:
    """What lies below bundle/. Stored plainly and no more than the archive is long: so nothing can inflate."""
    members: Dict[str, zipfile.ZipInfo] = {}
    for entry in pack.infolist()[: _MAX_MEMBERS + 1]:
        shown, name = ascii(entry.filename)[:80], entry.filename[len(BUNDLE) + 1 :]
        if entry.filename.partition("/")[0] != BUNDLE:
            continue
        if not MEMBER.fullmatch(entry.filename) or name in members:
            raise BundleError(f"holds {shown}, which is no file of a bundle or there twice. Copy the pack anew.")
        plain = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & _ENCRYPTED
        if not plain or entry.file_size != entry.compress_size:
            raise BundleError(f"{shown} is not stored plainly. Copy the pack anew.")
        members[name] = entry
    total = sum(entry.file_size for entry in members.values())
    if len(pack.infolist()) > _MAX_MEMBERS or total > limit_bytes:
        raise BundleError(f"claims {total} bytes in {len(pack.infolist())} files. Copy the pack anew.")
    if MANIFEST not in members or members[MANIFEST].file_size > _MANIFEST_LIMIT_BYTES:
        raise BundleError(f"has no {BUNDLE}/{MANIFEST} of at most {_MANIFEST_LIMIT_BYTES} bytes. Copy the pack anew.")
    return members


def _outdated(pack: zipfile.ZipFile, members: Members, folder: Path) -> List[str]:
    """Files, and builds as a whole, that the archive has and `folder` lacks; a build made here stays."""
    found = {}
    for name, entry in members.items():
        if name.startswith(ENGINES + "/"):
            build = name.rpartition("/")[0]
            found[build] = not (folder / build).is_dir()
        else:
            found[name] = _differs(pack, entry, folder / name)
    return [name for name, outdated in found.items() if outdated]


def _differs(pack: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> bool:
    try:
        if path.stat().st_size != entry.file_size:
            return True
        return entry.file_size <= _COMPARED_BYTES and path.read_bytes() != pack.read(entry)
    except FileNotFoundError:
        return True


def _write(pack: zipfile.ZipFile, members: Members, folder: Path, *, alone: bool) -> None:
    """Bring `folder` up to date: written beside it, synced, and renamed into place."""
    from edgelip.runtime.bundle import Bundle  # needs numpy, which the verb needs too

    if alone:  # then nobody is writing what lies here half-written
        for leftover in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        if not os.path.lexists(folder):
            fresh = scratch / BUNDLE
            fresh.mkdir(mode=0o700)
            for name, entry in members.items():
                _extract(pack, entry, fresh / name)
            Bundle.open(fresh)
            _rename(fresh, folder)
        for number, name in enumerate(_outdated(pack, members, _vetted(folder))):
            for member, entry in members.items():
                if member == name or member.startswith(name + "/"):
                    _extract(pack, entry, scratch / str(number) / member)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _rename(scratch / str(number) / name, folder / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _extract(pack: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pack.open(entry) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target, _CHUNK_BYTES)
        target.flush()
        os.fsync(target.fileno())


def _rename(source: Path, target: Path) -> None:
    """Put a file or folder in its place; a folder that another process was quicker to put there stays."""
    for folder in [source, *(entry for entry in source.rglob("*") if entry.is_dir())] if source.is_dir() else []:
        _sync_folder(folder)
    try:
        source.replace(target)
    except OSError:
        if not (source.is_dir() and target.is_dir()):
            raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Wait until no other process unpacks into `folder`; False where the file system has no locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            alone = True
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)


def _vetted(folder: Path) -> Path:
    """The same folder. Raises MissingError if somebody else could have put it there, or can change it."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise MissingError(f"{folder} is not a folder, so the bundle cannot be unpacked there. Remove it.")
    if found.st_uid not in (0, os.geteuid()):
        raise MissingError(f"{folder} belongs to user {found.st_uid}, so what lies there is not used. {_ELSEWHERE}")
    if found.st_mode & 0o022:
        raise MissingError(f"{folder} may be written by other users, so it is not used. Mend it: chmod go-w {folder}")
    return folder


def _refuse_shared(parent: Path) -> None:
    """Where others may rename what lies in `parent`, nothing is unpacked; /tmp forbids that, so it will do."""
    found = parent.stat()
    if found.st_uid not in (0, os.geteuid()):
        raise MissingError(f"{parent} belongs to user {found.st_uid}, so nothing is unpacked there. {_ELSEWHERE}")
    if found.st_mode & 0o002 and not found.st_mode & stat.S_ISVTX:
        raise MissingError(f"{parent} may be written by everybody, so nothing is unpacked there. {_ELSEWHERE}")
