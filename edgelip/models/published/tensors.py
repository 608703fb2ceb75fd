"""Published tensors under our names, in our shapes and types; every one is accounted for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgelip.errors import CheckpointError
from edgelip.models.published.names import is_buffer, renamed

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_SHOWN = 5
_COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class Fitted:
    """tensors: under our names; parameters: (our name, published name) in published order; notes: what was changed."""

    tensors: Mapping[str, Tensor]
    parameters: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def fit_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> Fitted:
    """Rename, reshape and convert; `expected`: the shapes of the model that is to hold them.

    Raises CheckpointError listing what is missing, left over or of another shape, on two spellings of one tensor that
    differ, on a type that is no float, and on values that are not finite.
    """
    placed: dict[str, tuple[str, Tensor]] = {}
    left_over: list[str] = []
    wrong: list[str] = []
    for name, tensor in tensors.items():
        target = renamed(name)
        if target is None or target.ours not in expected:
            left_over.append(name)
            continue
        shaped = squeezed(tensor, target.squeeze)
        if target.ours in placed:
            first_name, first = placed[target.ours]
            if first.shape != shaped.shape or not torch.equal(first, shaped):
                raise CheckpointError(
                    f"{first_name} and {name} are two spellings of one tensor, and differ. The file is inconsistent."
                )
            continue
        if tuple(shaped.shape) != expected[target.ours]:
            wrong.append(f"{name} is {tuple(shaped.shape)}, expected {expected[target.ours]}")
        placed[target.ours] = name, shaped
    missing = [name for name in expected if name not in placed]
    notes: list[str] = []
    counters = [name for name in expected if name.endswith(_COUNTER)]
    if counters and all(name in missing for name in counters):
        missing = [name for name in missing if name not in counters]
        notes.append("the file has no num_batches_tracked; set to 0")
    _refuse_misfits(_as_published(missing, placed), left_over, wrong)
    converted = {name: _converted(*placed[name]) for name in expected if name in placed}
    for name in counters:
        converted.setdefault(name, torch.zeros((), dtype=torch.int64))
    kinds = sorted({_kind(tensor) for name, (_, tensor) in placed.items() if not name.endswith(_COUNTER)} - {"float32"})
    notes += [f"weights stored as {kind} were converted to float32" for kind in kinds]
    parameters = tuple((ours, name) for ours, (name, _) in placed.items() if not is_buffer(ours))
    return Fitted(converted, parameters, tuple(notes))


def squeezed(tensor: Tensor, axis: int | None) -> Tensor:
    """Without `axis`, where that has size 1."""
    if axis is None or axis >= tensor.ndim or tensor.shape[axis] != 1:
        return tensor
    return tensor.squeeze(axis)


def _as_published(missing: list[str], placed: Mapping[str, tuple[str, Tensor]]) -> list[str]:
    """Our names in published words, where another tensor of the same layer shows how the file calls it."""
    layers: dict[str, str] = {}
    for ours, (published, _) in placed.items():
        (our_layer, _, our_kind), (layer, _, kind) = ours.rpartition("."), published.rpartition(".")
        if our_kind == kind:
            layers[our_layer] = layer
    pairs = ((name, *name.rpartition(".")[::2]) for name in missing)
    return [f"{layers[layer]}.{kind}" if layer in layers else name for name, layer, kind in pairs]


def _refuse_misfits(missing: list[str], left_over: list[str], wrong: list[str]) -> None:
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing ({_some(missing, left_over)})")
    if left_over:
        problems.append(f"{len(left_over)} left over ({_some(left_over, missing)})")
    if wrong:
        problems.append(f"{len(wrong)} of another shape ({'; '.join(wrong[:_SHOWN])}{_more(wrong)})")
    if problems:
        raise CheckpointError(f"the tensors do not fit the recognised model: {'; '.join(problems)}.")


def _some(names: list[str], others: Iterable[str]) -> str:
    shown = []
    pool = list(others)[:1000]
    for name in names[:_SHOWN]:
        close = difflib.get_close_matches(name, pool, n=1, cutoff=0.6)
        shown.append(name + (f", nearest {close[0]}" if close else ""))
    return "; ".join(shown) + _more(names)


def _more(names: list[str]) -> str:
    return f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""


def _converted(name: str, tensor: Tensor) -> Tensor:
    if name.endswith(_COUNTER):
        if tensor.is_floating_point() or tensor.is_complex():
            raise CheckpointError(f"{name} is {_kind(tensor)}; expected a whole number.")
        return tensor.detach().to(torch.int64).clone()
    if tensor.dtype not in _FLOATS:
        raise CheckpointError(
            f"{name} is {_kind(tensor)}; expected float32, float16, bfloat16 or float64. Import the model before it is "
            "quantised; edgelip quantises with the stage 'qat'."
        )
    value = tensor.detach().to(torch.float32).contiguous().clone()
    bad = int((~torch.isfinite(value)).sum())
    if bad:
        raise CheckpointError(
            f"{name} has {bad} values of {value.numel()} that are nan or infinite: the training that wrote it "
            "diverged, and every result of the model would be nan. Import an earlier checkpoint."
        )
    return value


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
