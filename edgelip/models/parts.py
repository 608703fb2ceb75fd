"""A checkpoint in parts: a description and one safetensors file a part, so that runs with a common trunk store it once.

`checkpoint.json` says what builds the model and names the sha256 of every part; `frontend.safetensors`,
`trunk.safetensors`, ... beside it are links to blobs (edgelip.linked). `load_checkpoint` reads it like a single file.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from edgelip.errors import CheckpointError
from edgelip.files import write_atomic
from edgelip.linked import Blobs
from edgelip.models.checkpoint import (
    MAX_BYTES,
    MAX_HEADER_BYTES,
    Checkpoint,
    NewerError,
    checkpoint_from_header,
    newer,
)
from edgelip.models.checkpoint_files import PARTS_FILE
from edgelip.recipe_sections import Strict, explain

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_OTHER = "other"
_AGAIN = "Train again, or take another checkpoint."


class _Part(Strict):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    num_bytes: int = Field(ge=8, le=MAX_BYTES)


class _Description(Strict):
    schema_version: int
    checkpoint: dict[str, Any]
    parts: dict[str, _Part] = Field(min_length=1, max_length=64)


def save_parts(checkpoint: Checkpoint, folder: Path, blobs: Blobs) -> Path:
    """Write the checkpoint into `folder` in parts, those that `blobs` knows as links. Returns its description's path.

    The parts are the network's first-level modules. An optimiser's state belongs into a single file: not kept here.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.tensors.items():
        part = name.partition(".")[0]
        parts.setdefault(part if _NAME.fullmatch(part) else _OTHER, {})[name] = tensor.detach().cpu().contiguous()
    entries = {}
    for part, tensors in sorted(parts.items()):
        content = save({name: tensors[name] for name in sorted(tensors)})
        sha256 = blobs.write(folder / f"{part}.safetensors", content)
        entries[part] = {"sha256": sha256, "num_bytes": len(content)}
    described = {"schema_version": 1, "checkpoint": checkpoint.architecture.to_json(), "parts": entries}
    path = folder / PARTS_FILE
    write_atomic(path, json.dumps(described, indent=1, sort_keys=True) + "\n")
    return path


def load_parts(path: Path) -> Checkpoint:
    """The checkpoint that the description at `path` puts together; every part's hash is checked.

    Raises CheckpointError if the description or a part is missing, damaged or not what the description says.
    """
    try:
        if path.stat().st_size > MAX_HEADER_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes; a description has at most {MAX_HEADER_BYTES}")
        described = _Description.model_validate(json.loads(path.read_bytes()))
        tensors: dict[str, Tensor] = {}
        for name, part in described.parts.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"the part {name!r} is no name of a module")
            tensors |= _read_part(path.with_name(f"{name}.safetensors"), part)
        return checkpoint_from_header(described.checkpoint, tensors)
    except NewerError as error:
        raise newer(path, error) from error
    except ValidationError as error:
        raise CheckpointError(f"{path} describes no checkpoint: {explain(error, _Description)} {_AGAIN}") from error
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        detail = " ".join(str(error).split())
        raise CheckpointError(f"{path} is no checkpoint in parts, or is damaged: {detail:.200}. {_AGAIN}") from error


def _read_part(path: Path, part: _Part) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; the checkpoint beside it is made of it. {_AGAIN}")
    size = path.stat().st_size
    content = path.read_bytes() if size == part.num_bytes else b""
    got = hashlib.sha256(content).hexdigest()
    if size != part.num_bytes or got != part.sha256:
        found = f"{size} bytes, expected {part.num_bytes}" if size != part.num_bytes else f"sha256 {got[:12]}"
        raise CheckpointError(f"{path} has changed: {found}; described with sha256 {part.sha256[:12]}. {_AGAIN}")
    tensors: dict[str, Tensor] = load(content)
    return tensors
