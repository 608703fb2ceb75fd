"""The published checkpoint files, read without running anything in them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgelip.errors import CheckpointError
from edgelip.models.published.vetting import MAX_BYTES, vet

_MAX_NAME = 200
_PREFIXES = ("module.", "model.")


@dataclass(frozen=True)
class Container:
    """What a published file holds, whatever its layout."""

    name: str  # of the file, without folders
    sha256: str
    tensors: Mapping[str, Tensor]  # in file order, without a common prefix
    averaged: Mapping[str, Tensor] | None  # exponential moving average of the parameters
    optimiser: Any  # {"state": {...}, "param_groups": [...]} or None
    settings: Mapping[str, Any]  # hyper_parameters, where they are plain values
    epochs: int | None  # completed
    best_accuracy_pct: float | None


def read_container(path: Path) -> Container:
    """Read a .pth, .pth.tar or Lightning .ckpt; raises CheckpointError on anything else, or damaged, or with code."""
    stand_ins = [(_stand_in(name), name) for name in sorted(vet(path))]
    try:
        with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
            content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a hostile or cut file can make the unpickler fail in any way
        detail = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path} is damaged or cut short, or not from torch.save: {detail:.160}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a dict with the weights by name.")
    return _container(path, content)


class _Inert:
    """Takes the place of a configuration object: keeps nothing, does nothing."""

    def __new__(cls, *_: object, **__: object) -> _Inert:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Drop what the file says."""


class _InertTable:
    """Takes the place of a dict subclass: the unpickler fills a plain dict."""

    def __new__(cls, *_: object) -> dict[str, Any]:  # type: ignore[misc]
        return {}


def _stand_in(name: str) -> type:
    base = _InertTable if name.endswith((".AttributeDict", ".defaultdict")) else _Inert
    return type(name.rpartition(".")[2], (base,), {})


def _container(path: Path, content: Mapping[Any, Any]) -> Container:
    if "model_state_dict" in content:
        tensors, optimiser, averaged = content["model_state_dict"], content.get("optimizer_state_dict"), None
    elif "state_dict" in content:
        states = content.get("optimizer_states")
        tensors, optimiser = content["state_dict"], states[0] if isinstance(states, list) and states else states
        averaged = _averaged(content.get("callbacks"))
    elif content and all(isinstance(value, Tensor) for value in content.values()):
        tensors, optimiser, averaged = content, None, None
    else:
        raise CheckpointError(
            f"{path} has the keys {', '.join(str(key) for key in list(content)[:6]) or '(none)'}; "
            "expected model_state_dict, state_dict, or tensors by name."
        )
    settings = content.get("hyper_parameters")
    epochs = content.get("epoch_idx")
    if epochs is None and isinstance(content.get("epoch"), int):
        epochs = content["epoch"] + 1
    best = content.get("best_prec")
    return Container(
        name=path.name,
        sha256=_sha256(path),
        tensors=_checked(tensors, path),
        averaged=None if averaged is None else _checked(averaged, path),
        optimiser=optimiser,
        settings={key: value for key, value in settings.items() if isinstance(value, (str, int, float))}
        if isinstance(settings, dict)
        else {},
        epochs=epochs if isinstance(epochs, int) and epochs >= 0 else None,
        best_accuracy_pct=round(100 * best, 2) if isinstance(best, float) and 0 <= best <= 1 else None,
    )


def _averaged(callbacks: Any) -> Any:
    for name, state in callbacks.items() if isinstance(callbacks, dict) else ():
        if str(name).startswith("EMACallback") and isinstance(state, dict):
            return state.get("state_dict_ema")
    return None


def _checked(tensors: Any, path: Path) -> dict[str, Tensor]:
    """Plain dense tensors by name, a prefix that all share removed; nothing is copied yet."""
    if not isinstance(tensors, dict) or not tensors:
        raise CheckpointError(f"{path} has no weights where its layout keeps them; expected tensors by name.")
    num_bytes = 0
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {name!r:.80} is a {type(tensor).__name__}; expected a tensor by its name.")
        if len(name) > _MAX_NAME or not name.isprintable():
            raise CheckpointError(f"{path} has a tensor called {name[:80]!r}; expected a plain name.")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            kind = "meta" if tensor.is_meta else "quantised" if tensor.is_quantized else "sparse"
            raise CheckpointError(f"{path}: {name} is a {kind} tensor; expected plain dense ones. Save it again dense.")
        num_bytes += math.prod(tensor.shape) * tensor.element_size()
    if num_bytes > MAX_BYTES:  # a view with stride 0 claims any size in a small file
        raise CheckpointError(f"{path} claims {num_bytes} bytes of weights; expected at most {MAX_BYTES}.")
    result: dict[str, Tensor] = dict(tensors)
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in result)), None):
        result = {name.removeprefix(prefix): tensor for name, tensor in result.items()}
    return result


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
