"""A wheel of a few hundred bytes, whole or spoilt."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

NAME = "mouth-1.2-py3-none-any.whl"
INFO = "mouth-1.2.dist-info"
TAGS = b"Wheel-Version: 1.0\nTag: py3-none-any\n"
FILES = {
    "mouth/__init__.py": b"open = True\n",
    "mouth.libs/libmouth.so": b"\x7fELF",
    f"{INFO}/WHEEL": TAGS,
    "mouth-1.2.data/purelib/lips.py": b"two = 2\n",
    "mouth-1.2.data/scripts/speak": b"#!python\n",
}


def write_wheel(
    folder: Path, files: Mapping[str, bytes] = FILES, *, name: str = NAME, record: str | None = None
) -> Path:
    """A wheel; `record` replaces the RECORD made of its files."""
    if record is None:
        rows = []
        for file, content in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.append(f"{file},sha256={digest},{len(content)}")
        record = "\n".join([*rows, f"{INFO}/RECORD,,"]) + "\n"
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in {**files, f"{INFO}/RECORD": record.encode()}.items():
            archive.writestr(file, content)
    return folder / name
