"""Wheels unpacked by hand, so that a board needs no pip: names vetted, sizes bounded, every hash of RECORD checked."""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import io
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgelip.errors import UsageError
from edgelip.runtime.packed.wheel_tags import tags_from_text

_FILE_NAME = re.compile(r"(?P<name>[A-Za-z0-9_.]+)-(?P<version>[A-Za-z0-9_.!+]+)(-\d[^-]*)?-[^-]+-[^-]+-[^-]+\.whl")
_MAX_MEMBERS, _LIMIT_BYTES = 50_000, 8 << 30
_LISTS_LIMIT_BYTES = 16 << 20  # RECORD and WHEEL
_INFO = ".dist-info"
_UNSIGNED = ("RECORD", "RECORD.jws", "RECORD.p7s")  # RECORD cannot hold its own hash
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError)
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Wheel:
    """What was unpacked. tags: what it was built for, such as cp311-cp311-manylinux_2_28_aarch64."""

    name: str
    version: str
    tags: tuple[str, ...]


def unpack_wheel(path: Path, folder: Path) -> Wheel:
    """Put the modules of a wheel into `folder`, as pip would into site-packages; scripts and headers stay out.

    Raises UsageError if the file is no wheel, damaged or hostile, or if another wheel put the same file there.
    """
    named = _FILE_NAME.fullmatch(path.name)
    if named is None:
        raise UsageError(f"{path} is no wheel; expected a file NAME-VERSION-PYTHON-ABI-PLATFORM.whl.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive)
            info = _info_folder(members)
            tags = tuple(tags_from_text(_text(archive, members, f"{info}/WHEEL")))
            if not tags:
                raise ValueError(f"{info}/WHEEL names no Tag")
            hashes = _hashes(_text(archive, members, f"{info}/RECORD"))
            for name, member in members.items():
                if name not in {f"{info}/{unsigned}" for unsigned in _UNSIGNED} and name not in hashes:
                    raise ValueError(f"{name!a} is not listed in RECORD")
                place = _place(name, info[: -len(_INFO)] + ".data")
                if place is not None:
                    _extract(archive, member, folder / place, sha256=hashes.get(name))
            absent = sorted(hashes.keys() - members.keys())
            if absent:
                raise ValueError(f"RECORD lists {absent[0]!a}, which is not there")
    except FileNotFoundError:
        raise UsageError(
            f"{path} does not exist; expected a wheel. Fetch it: pip download --only-binary=:all:"
        ) from None
    except FileExistsError as error:
        clash = Path(error.filename).relative_to(folder)
        raise UsageError(f"{path.name} brings {clash}, which another wheel brought. Give each package once.") from error
    except (*_DAMAGED, ValueError) as error:
        raise UsageError(f"{path.name} is damaged or no wheel: {str(error)[:200]}. Fetch it again.") from error
    return Wheel(named["name"], named["version"], tags)


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    total = sum(entry.file_size for entry in entries)
    if len(entries) > _MAX_MEMBERS or total > _LIMIT_BYTES:
        raise ValueError(f"it claims {total} bytes in {len(entries)} files; limits {_LIMIT_BYTES} and {_MAX_MEMBERS}")
    members: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = entry.filename
        if not _is_inside(name) or stat.S_ISLNK(entry.external_attr >> 16):
            raise ValueError(f"{ascii(name)[:80]} is a link, or a name that leads outside")
        if name in members:
            raise ValueError(f"{ascii(name)[:80]} is there twice")
        members[name] = entry
    return members


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    return name.isprintable() and not set(name) & set("\\:") and all(part not in ("", ".", "..") for part in parts)


def _info_folder(members: dict[str, zipfile.ZipInfo]) -> str:
    found = {name.partition("/")[0] for name in members if name.partition("/")[0].endswith(_INFO)}
    if len(found) != 1:
        raise ValueError(f"it has {len(found)} folders NAME-VERSION{_INFO}; expected one")
    return found.pop()


def _text(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str) -> str:
    if name not in members or members[name].file_size > _LISTS_LIMIT_BYTES:
        raise ValueError(f"it has no {name} of at most {_LISTS_LIMIT_BYTES} bytes")
    return b"".join(_chunks(archive, members[name])).decode()


def _hashes(record: str) -> dict[str, str]:
    """File -> sha256 in hexadecimal, of every row that has one."""
    hashes = {}
    for row in csv.reader(io.StringIO(record)):
        if len(row) < 2 or not row[1]:
            continue
        kind, _, digest = row[1].partition("=")
        if kind != "sha256":
            raise ValueError(f"RECORD has the hash {ascii(row[1])[:40]}; expected sha256=")
        try:
            hashes[row[0]] = base64.urlsafe_b64decode(digest + "=" * (-len(digest) % 4)).hex()
        except binascii.Error as error:
            raise ValueError(f"RECORD has the hash {ascii(row[1])[:60]}") from error
    return hashes


def _place(name: str, data: str) -> str | None:
    """Where a member belongs below site-packages; None for scripts, headers and data, which nothing here uses."""
    folder, _, rest = name.partition("/")
    if folder != data:
        return name
    kind, _, inner = rest.partition("/")
    return inner if kind in ("purelib", "platlib") else None


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, *, sha256: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for chunk in _chunks(archive, member):
            digest.update(chunk)
            file.write(chunk)
    if sha256 is not None and digest.hexdigest() != sha256:
        raise ValueError(f"{member.filename} has sha256 {digest.hexdigest()[:8]}.., RECORD says {sha256[:8]}..")


def _chunks(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Content of a member; zipfile reads no more than it claims to hold, and checks its CRC."""
    with archive.open(member) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
