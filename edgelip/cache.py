"""Results of steps, kept by what they depend on: configuration, the sources that make them, their inputs.

A step works in `<key>.part`, which stays when it is killed so that it can go on, and is renamed to `<key>` when done.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgelip.files import writing

PACKAGE = Path(__file__).parent
_PART = ".part"


class Cache:
    """A folder of finished steps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def finished(self, key: str) -> Path | None:
        """Folder of a finished step, if there is one."""
        folder = self.folder / key
        return folder if folder.is_dir() else None

    @contextmanager
    def making(self, key: str) -> Iterator[Path]:
        """Yield the working folder of a step; when the block ends well it becomes the finished one."""
        work = self.folder / f"{key}{_PART}"
        with writing(work):
            work.mkdir(parents=True, exist_ok=True)
        yield work
        with writing(work):
            work.replace(self.folder / key)

    def drop_unfinished(self) -> None:
        """Remove what killed runs of other recipes left behind."""
        for work in self.folder.glob(f"*{_PART}"):
            shutil.rmtree(work, ignore_errors=True)


def step_key(
    kind: str,
    config: Mapping[str, Any],
    *,
    sources: Iterable[str],
    inputs: Iterable[str] = (),
    packages: Iterable[str] = (),
) -> str:
    """Name of a step: its kind and 16 hex digits over all that it depends on.

    sources: files or folders of the package, such as "models" or "train/fit.py"; packages: installed ones that matter.
    """
    parts = {
        "config": config,
        "sources": source_sha256(tuple(sorted(sources))),
        "inputs": list(inputs),
        "packages": {name: installed_version(name) for name in sorted(packages)},
    }
    return f"{kind}-{hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]}"


@cache
def source_sha256(sources: tuple[str, ...]) -> str:
    """Hash of the package's own source files named by `sources`."""
    digest = hashlib.sha256()
    for source in sources:
        path = PACKAGE / source
        assert path.exists(), f"{source} is no source of the package"  # a wrong name would never invalidate anything
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(PACKAGE)}\n".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def installed_version(package: str) -> str | None:
    """Version of an installed package, found without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
