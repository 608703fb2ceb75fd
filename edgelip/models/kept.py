"""Weights in the steps of the cache: links to blobs, with a note of what was put there, checked when they are read."""

from __future__ import annotations

import json
from pathlib import Path

from edgelip.errors import CheckpointError
from edgelip.files import write_atomic
from edgelip.linked import Blobs, sha256_of
from edgelip.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgelip.models.checkpoint_files import PARTS_FILE, SINGLE_FILE
from edgelip.models.parts import save_parts

NOTE = "kept.json"
BLOBS = "blobs"


def keep_checkpoint(checkpoint: Checkpoint, step: Path, blobs: Blobs, *, by_parts: bool) -> None:
    """Write the weights of a step: one file, or its parts where runs are expected to share some."""
    if by_parts:
        save_parts(checkpoint, step, blobs)
        files = sorted(path for path in step.glob("*.safetensors"))
        kept = {path.name: blobs.adopt(path) for path in files} | {PARTS_FILE: sha256_of(step / PARTS_FILE)}
    else:
        save_checkpoint(checkpoint, step / SINGLE_FILE)
        kept = {SINGLE_FILE: blobs.adopt(step / SINGLE_FILE)}
    write_atomic(step / NOTE, json.dumps(kept, indent=1) + "\n")


def kept_files(step: Path) -> dict[str, str]:
    """Names and sha256 of the files that make up the checkpoint of a finished step."""
    files: dict[str, str] = json.loads((step / NOTE).read_bytes())
    return files


def read_kept(step: Path) -> Checkpoint:
    """The checkpoint of a finished step. Raises CheckpointError if a file is no longer what was put there."""
    for name, sha256 in kept_files(step).items():
        path = step / name
        if not path.is_file() or sha256_of(path) != sha256:
            raise CheckpointError(f"{path} has changed since it was made. Delete {step} and run the command again.")
    return load_checkpoint(step)
