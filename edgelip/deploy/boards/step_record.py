"""Which steps of a deployment are done: what each depended on and the files that it left, beside those files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgelip.files import write_atomic

NAME = "deployment.json"
SCHEMA_VERSION = 1


def content_key(**parts: Any) -> str:
    """16 hex digits over all that a step depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class StepRecord:
    """The record in one result folder; a damaged or foreign one counts as empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._steps = _read(folder / NAME)

    def is_done(self, step: str, key: str) -> bool:
        """Whether the step was done with this key and its files are still as it left them."""
        entry = self._steps.get(step)
        if not isinstance(entry, dict) or entry.get("key") != key or not isinstance(entry.get("files"), dict):
            return False
        return all(_sha256(self.folder / name) == sha256 for name, sha256 in entry["files"].items())

    def write(self, step: str, key: str, files: Mapping[str, bytes], *, present: tuple[str, ...] = ()) -> None:
        """Put the files of a finished step there and note it; `present` are files that it has put there already."""
        for name, content in files.items():
            write_atomic(self.folder / name, content)
        hashes = {name: _sha256(self.folder / name) for name in (*files, *present)}
        self._steps[step] = {"key": key, "files": hashes}
        text = json.dumps({"schema_version": SCHEMA_VERSION, "steps": self._steps}, indent=1, sort_keys=True)
        write_atomic(self.folder / NAME, text + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        steps = found["steps"] if found["schema_version"] == SCHEMA_VERSION else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return steps if isinstance(steps, dict) else {}


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
