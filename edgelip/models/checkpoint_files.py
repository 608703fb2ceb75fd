"""Which files are a checkpoint: one safetensors file, or the description of one in parts. Needs no torch."""

from __future__ import annotations

from pathlib import Path

SINGLE_FILE, PARTS_FILE = "model.safetensors", "checkpoint.json"


def checkpoint_file(path: Path) -> Path:
    """The file to read of a checkpoint: `path` itself, or the one in the folder of a run."""
    if not path.is_dir():
        return path
    inside = next((path / name for name in (SINGLE_FILE, PARTS_FILE) if (path / name).is_file()), None)
    return path if inside is None else inside


def is_checkpoint(path: Path) -> bool:
    """Is it a description of parts, or begins as a checkpoint does: length of a header, then the header, a JSON object?

    path: a file, or the folder of a run.
    """
    path = checkpoint_file(path)
    if not path.is_file():
        return False
    if path.name == PARTS_FILE:
        return True
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size
