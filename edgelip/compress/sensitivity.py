"""How much a network minds one change at a time: what budgets and mixed precision are chosen by.

Axes: B clips, V words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Harm:
    """What one change does to the answers on some clips.

    divergence: mean Kullback-Leibler divergence of the words' probabilities from those before, in nats.
    sqnr_db: power of the logits over that of their change; flipped: share of clips whose first word changes.
    """

    divergence: float
    sqnr_db: float
    flipped: float


@torch.no_grad()
def logits_of(model: nn.Module, clips_B1THW: Tensor, *, batch_size: int = 32) -> Tensor:
    """(B, V), computed in batches."""
    starts = range(0, len(clips_B1THW), batch_size)
    return torch.cat([model(clips_B1THW[start : start + batch_size]) for start in starts])


def harm(logits_BV: Tensor, reference_BV: Tensor) -> Harm:
    """What happened between two sets of logits of the same clips."""
    error = (logits_BV - reference_BV).double()
    noise, power = float(error.square().mean()), float(reference_BV.double().square().mean())
    divergence = functional.kl_div(
        logits_BV.log_softmax(dim=1), reference_BV.log_softmax(dim=1), reduction="batchmean", log_target=True
    )
    return Harm(
        divergence=max(0.0, float(divergence)),
        sqnr_db=10 * math.log10(power / noise) if noise > 0 and power > 0 else math.inf,
        flipped=float((logits_BV.argmax(dim=1) != reference_BV.argmax(dim=1)).float().mean()),
    )


def layer_harms(
    model: nn.Module, changes: Iterable[tuple[str, nn.Module]], clips_B1THW: Tensor
) -> Iterator[tuple[str, Harm]]:
    """What putting another layer in one place does, each alone: (name of the place, harm), as they are computed.

    changes: names of submodules and what stands in for each. Cost: one pass over the clips for each.
    """
    reference_BV = logits_of(model, clips_B1THW)
    for name, layer in changes:
        with swapped(model, name, layer):
            changed_BV = logits_of(model, clips_B1THW)
        yield name, harm(changed_BV, reference_BV)


@contextmanager
def swapped(model: nn.Module, name: str, layer: nn.Module) -> Iterator[nn.Module]:
    """The model with another layer in one place, as long as the context lasts."""
    before = model.get_submodule(name)
    model.set_submodule(name, layer)
    try:
        yield model
    finally:
        model.set_submodule(name, before)
