"""Checkpoints: one safetensors file with the weights and, as JSON in its header, what builds the model around them.

Schema 1 holds weights alone. Schema 2 adds an optimiser's state; it is written only where there is one.
"""

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
from edgelip.models.checkpoint_files import PARTS_FILE, checkpoint_file
from edgelip.recipe_sections import Strict, explain
from edgelip.runtime.clip import ClipSpec

WEIGHTS_SCHEMA, OPTIMISER_SCHEMA = 1, 2
MAX_BYTES = 4 << 30
MAX_HEADER_BYTES = 16 << 20  # 25,000 tensors and 100,000 words take about 5 MB
MAX_STEPS = 1 << 24  # AdamW counts in float32
OPTIMISER_PREFIX = "optimiser."
FIRST, SECOND = f"{OPTIMISER_PREFIX}exp_avg.", f"{OPTIMISER_PREFIX}exp_avg_sq."


@dataclass(frozen=True)
class Architecture:
    """What builds a model: a backbone of the zoo, then the records of the compression stages, in order."""

    backbone: str
    options: Mapping[str, Any]
    words: tuple[str, ...]
    clip: Mapping[str, Any]  # edgelip.runtime.clip.ClipSpec.to_json()
    stages: tuple[Mapping[str, Any], ...] = ()  # {"stage": name, "config": {...}, "record": {...}}

    def to_json(self) -> dict[str, Any]:
        return {"schema_version": WEIGHTS_SCHEMA, **asdict(self)}


@dataclass(frozen=True)
class OptimiserState:
    """What AdamW remembers after `step` steps: running means of each parameter's gradient and of its square.

    first_moments, second_moments: float32, under the names and in the shapes of the parameters.
    settings: lr, weight_decay, beta1, beta2, eps of the run that left them.
    Raises CheckpointError on other settings, on numbers out of range and where the moments do not pair up.
    """

    step: int
    first_moments: Mapping[str, Tensor]
    second_moments: Mapping[str, Tensor]
    settings: Mapping[str, float]

    def __post_init__(self) -> None:
        try:
            _OptimiserHeader.model_validate(self.to_json())
        except ValidationError as error:
            raise CheckpointError(f"optimiser: {explain(error, _OptimiserHeader)}") from error
        single = sorted(self.first_moments.keys() ^ self.second_moments.keys())
        if single:
            raise CheckpointError(
                f"the optimiser has one moment of {single[0]!r}; expected exp_avg and exp_avg_sq of each parameter."
            )
        for kind, moments in (("exp_avg", self.first_moments), ("exp_avg_sq", self.second_moments)):
            for name, moment in moments.items():
                _check_moment(f"{kind} of {name!r}", moment, signed=kind == "exp_avg")

    def to_json(self) -> dict[str, Any]:
        """All but the moments."""
        return {"step": self.step, "settings": dict(self.settings)}

    def tensors(self) -> dict[str, Tensor]:
        """The moments under the names that they have in a file."""
        first = {FIRST + name: moment for name, moment in self.first_moments.items()}
        return first | {SECOND + name: moment for name, moment in self.second_moments.items()}

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode())
        digest.update(weights_sha256(self.tensors()).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """An architecture, the tensors that fill it and, where training may go on from it, the optimiser's state.

    Raises CheckpointError if the optimiser has moments of no weight, or a weight bears an optimiser's name.
    """

    architecture: Architecture
    tensors: Mapping[str, Tensor]
    optimiser: OptimiserState | None = None

    def __post_init__(self) -> None:
        reserved = next((name for name in self.tensors if name.startswith(OPTIMISER_PREFIX)), None)
        if reserved is not None:
            raise CheckpointError(f"the weight {reserved!r} bears a name kept for optimiser state; rename its module.")
        moments = {} if self.optimiser is None else self.optimiser.first_moments
        for name, moment in moments.items():
            weight = self.tensors.get(name)
            if weight is None:
                raise CheckpointError(f"the optimiser has moments of {name!r}, which is no weight of the checkpoint.")
            if moment.shape != weight.shape or not weight.is_floating_point():
                raise CheckpointError(
                    f"the optimiser's moments of {name!r} are {_form(moment)}; the weight is {_form(weight)}."
                )

    @property
    def sha256(self) -> str:
        """Hash of the weights alone."""
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
    header, tensors = checkpoint.architecture.to_json(), dict(checkpoint.tensors)
    if checkpoint.optimiser is not None:
        header |= {"schema_version": OPTIMISER_SCHEMA, "optimiser": checkpoint.optimiser.to_json()}
        tensors |= {name: moment.cpu().contiguous() for name, moment in checkpoint.optimiser.tensors().items()}
    write_atomic(path, save(tensors, metadata={"edgelip": json.dumps(header, sort_keys=True)}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without executing anything in it. Raises CheckpointError if it is damaged or newer.

    path: a single file, or the description of a checkpoint in parts (edgelip.models.parts), or a folder with either.
    """
    path = checkpoint_file(path)
    if path.name == PARTS_FILE and path.is_file():
        from edgelip.models.parts import load_parts  # it is made of this module's pieces

        return load_parts(path)
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}. `edgelip train RECIPE -o {path}` writes one.")
    try:
        _check_sizes(path)
        with safe_open(path, framework="pt") as file:
            header = _header_from_json(json.loads((file.metadata() or {})["edgelip"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
        return _assembled(header, tensors)
    except NewerError as error:
        raise newer(path, error) from error
    except KeyError as error:
        raise CheckpointError(f"{path} is a safetensors file, but no edgelip checkpoint: it has no {error}.") from error
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        detail = " ".join(str(error).split())
        raise CheckpointError(f"{path} is not an edgelip checkpoint, or is damaged: {detail:.200}") from error


def checkpoint_from_header(fields: Any, tensors: dict[str, Tensor]) -> Checkpoint:
    """The checkpoint of a description as `Architecture.to_json` gives it. Raises ValueError if it is none."""
    return _assembled(_header_from_json(fields), tensors)


class NewerError(Exception):
    """A schema version above ours."""


def newer(path: Path, error: NewerError) -> CheckpointError:
    return CheckpointError(
        f"{path} has checkpoint schema {error}; this edgelip reads up to {OPTIMISER_SCHEMA}. Upgrade edgelip."
    )


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


class _Settings(Strict):
    lr: float = Field(ge=0)
    weight_decay: float = Field(ge=0)
    beta1: float = Field(ge=0, lt=1)
    beta2: float = Field(ge=0, lt=1)
    eps: float = Field(ge=0)


class _OptimiserHeader(Strict):
    step: int = Field(ge=0, le=MAX_STEPS)
    settings: _Settings


class _HeaderWithOptimiser(_Header):
    optimiser: _OptimiserHeader


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


def _header_from_json(fields: Any) -> _Header:
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if isinstance(version, int) and version > OPTIMISER_SCHEMA:
        raise NewerError(version)
    kind = _HeaderWithOptimiser if version == OPTIMISER_SCHEMA else _Header
    try:
        header = kind.model_validate(fields)
        ClipSpec.from_json(header.clip)
    except ValidationError as error:
        raise ValueError(explain(error, kind)) from error
    except (ClipError, TypeError) as error:
        raise ValueError(f"clip: {error}") from error
    return header


def _assembled(header: _Header, tensors: dict[str, Tensor]) -> Checkpoint:
    stages = tuple(entry.model_dump() for entry in header.stages)
    architecture = Architecture(header.backbone, header.options, header.words, header.clip, stages)
    if not isinstance(header, _HeaderWithOptimiser):
        return Checkpoint(architecture, tensors)
    parts: dict[str, dict[str, Tensor]] = {FIRST: {}, SECOND: {}, "": {}}
    for name, tensor in tensors.items():
        prefix = next(prefix for prefix in parts if name.startswith(prefix))
        parts[prefix][name.removeprefix(prefix)] = tensor
    fields = header.optimiser.model_dump()
    return Checkpoint(
        architecture, parts[""], OptimiserState(fields["step"], parts[FIRST], parts[SECOND], fields["settings"])
    )


def _check_moment(what: str, moment: Tensor, *, signed: bool) -> None:
    if moment.dtype != torch.float32:
        raise CheckpointError(f"the optimiser's {what} is {moment.dtype}; expected torch.float32.")
    if not bool(moment.isfinite().all()) or (not signed and bool((moment < 0).any())):
        expected = "finite numbers" if signed else "finite numbers of at least 0, being means of squares"
        raise CheckpointError(f"the optimiser's {what} has numbers out of range; expected {expected}.")


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
