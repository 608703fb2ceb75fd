"""Checkpoints: one safetensors file with the weights and, as JSON in its header, what builds the model around them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from edgelip.errors import CheckpointError, ClipError
from edgelip.files import write_atomic
from edgelip.recipe import Strict, explain
from edgelip.runtime.clip import ClipSpec

SCHEMA_VERSION = 1
MAX_BYTES = 4 << 30
MAX_HEADER_BYTES = 16 << 20  # 25,000 tensors and 100,000 words take about 5 MB


@dataclass(frozen=True)
class Architecture:
    """What builds a model: a backbone of the zoo, then the records of the compression stages, in order."""

    backbone: str
    options: Mapping[str, Any]
    words: tuple[str, ...]
    clip: Mapping[str, Any]  # edgelip.runtime.clip.ClipSpec.to_json()
    stages: tuple[Mapping[str, Any], ...] = ()  # {"stage": name, "config": {...}, "record": {...}}

    def to_json(self) -> dict[str, Any]:
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


@dataclass(frozen=True)
class Checkpoint:
    """An architecture and the tensors that fill it."""

    architecture: Architecture
    tensors: Mapping[str, Tensor]

    @property
    def sha256(self) -> str:
        return weights_sha256(self.tensors)


def checkpoint_from_model(model: nn.Module, architecture: Architecture) -> Checkpoint:
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    return Checkpoint(architecture, tensors)


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, shapes, types and values, independent of the order they were stored in."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
    return digest.hexdigest()


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write one file, all or nothing."""
    header = {"edgelip": json.dumps(checkpoint.architecture.to_json(), sort_keys=True)}
    write_atomic(path, save(dict(checkpoint.tensors), metadata=header))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without executing anything in it. Raises CheckpointError if it is damaged or newer."""
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}. `edgelip train RECIPE -o {path}` writes one.")
    try:
        _check_sizes(path)
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["edgelip"])
            architecture = _architecture_from_json(header)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except _NewerError as error:
        raise CheckpointError(
            f"{path} has checkpoint schema {error}; this edgelip reads up to {SCHEMA_VERSION}. Upgrade edgelip."
        ) from error
    except KeyError as error:
        raise CheckpointError(f"{path} is a safetensors file, but no edgelip checkpoint: it has no {error}.") from error
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        detail = " ".join(str(error).split())
        raise CheckpointError(f"{path} is not an edgelip checkpoint, or is damaged: {detail:.200}") from error
    return Checkpoint(architecture, tensors)


class _NewerError(Exception):
    """A schema version above ours."""


class _StageEntry(Strict):
    stage: str
    config: dict[str, Any]
    record: dict[str, Any]


class _Header(Strict):
    schema_version: int
    backbone: str
    options: dict[str, Any]
    words: tuple[str, ...] = Field(min_length=1, max_length=100_000)
    clip: dict[str, Any]
    stages: tuple[_StageEntry, ...] = Field(max_length=100)


def _check_sizes(path: Path) -> None:
    """Refuse by size before anything is allocated: the file, and the header that its first 8 bytes announce."""
    num_bytes = path.stat().st_size
    if num_bytes > MAX_BYTES:
        raise ValueError(f"it has {num_bytes} bytes; a checkpoint has at most {MAX_BYTES}")
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    if header_bytes > min(MAX_HEADER_BYTES, num_bytes):
        raise ValueError(
            f"it announces a header of {header_bytes} bytes; a file of {num_bytes} bytes has at most "
            f"{min(MAX_HEADER_BYTES, num_bytes)}"
        )


def _architecture_from_json(fields: Any) -> Architecture:
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise _NewerError(version)
    try:
        header = _Header.model_validate(fields)
        ClipSpec.from_json(header.clip)
    except ValidationError as error:
        raise ValueError(explain(error, _Header)) from error
    except (ClipError, TypeError) as error:
        raise ValueError(f"clip: {error}") from error
    stages = tuple(entry.model_dump() for entry in header.stages)
    return Architecture(header.backbone, header.options, header.words, header.clip, stages)
