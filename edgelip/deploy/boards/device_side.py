"""The folder edgelip/runtime as it travels to a device."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import edgelip.runtime

_RUNTIME = Path(edgelip.runtime.__file__).parent


@cache
def runtime_files() -> Mapping[str, bytes]:
    """Names and contents. With an `edgelip/__init__.py`: an edgelip that is installed there would win over a bare
    folder of that name, wherever it stands on the path."""
    files = {"edgelip/__init__.py": b'"""The device side alone."""\n'}
    for path in sorted(_RUNTIME.rglob("*.py")):
        files[f"edgelip/runtime/{path.relative_to(_RUNTIME).as_posix()}"] = path.read_bytes()
    return MappingProxyType(files)


def files_sha256(files: Mapping[str, bytes]) -> str:
    """One hash over names and contents."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\n".encode() + hashlib.sha256(content).digest())
    return digest.hexdigest()


def zip_of(files: Mapping[str, bytes]) -> bytes:
    """The files as a zip archive in memory."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Put the files under `folder`."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
