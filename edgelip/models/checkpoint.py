"""Checkpoints: one safetensors file with the weights and, as JSON in its header, what builds the model around them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from edgelip.errors import CheckpointError
from edgelip.files import write_atomic

SCHEMA_VERSION = 1
MAX_BYTES = 4 << 30


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
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write one file, all or nothing."""
    header = {"edgelip": json.dumps(checkpoint.architecture.to_json(), sort_keys=True)}
    write_atomic(path, save(dict(checkpoint.tensors), metadata=header))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without executing anything in it. Raises CheckpointError if it is damaged or newer."""
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}. `edgelip train RECIPE -o {path}` writes one.")
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes; a checkpoint has at most {MAX_BYTES}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["edgelip"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
        version = header.pop("schema_version")
        if version > SCHEMA_VERSION:
            raise CheckpointError(
                f"{path} has checkpoint schema {version}; this edgelip reads up to {SCHEMA_VERSION}. Upgrade edgelip."
            )
        header["words"], header["stages"] = tuple(header["words"]), tuple(header["stages"])
        return Checkpoint(Architecture(**header), tensors)
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not an edgelip checkpoint, or is damaged: {error!r:.200}") from error
