"""Which layers of an int8 network go back to float, by the harm that their rounding does.

Axes: B clips, V words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from edgelip.compress.sensitivity import Harm, harm, logits_of, swapped
from edgelip.errors import StageError, UnreachableError, UsageError
from edgelip.models.efficientnet import Excitation2d
from edgelip.models.multiscale import Excitation
from edgelip.models.name_patterns import matching
from edgelip.models.signs import ChannelAttention

# What "harmless" means for the stem and for squeeze-excitation, each rounded alone: no more than rounding all of a
# ShuffleNet-0.5x does, which loses no accuracy by it (quickstart data, 500 clips; the small network: 0.0006 nats).
KEEP_DIVERGENCE = 0.005
# Clips that a part is scored on, and that the layers share between them; budgets are checked on all.
PART_CLIPS, LEAST_CLIPS, SHARED_CLIPS = 128, 16, 4096
STEM, EXCITATION = "frontend", "squeeze-excitation"

Units = Mapping[str, Mapping[str, nn.Module]]


@dataclass(frozen=True)
class Budget:
    """The most harm that rounding may do: nats of mean divergence, and decibels of the logits' SQNR; none: any."""

    max_divergence: float | None = None
    min_sqnr_db: float | None = None

    @property
    def is_set(self) -> bool:
        return self.max_divergence is not None or self.min_sqnr_db is not None

    def holds(self, found: Harm) -> bool:
        return (self.max_divergence is None or found.divergence <= self.max_divergence) and (
            self.min_sqnr_db is None or found.sqnr_db >= self.min_sqnr_db
        )

    def excess(self, found: Harm) -> str:
        """What a harm is measured by, with its limit: "divergence 0.02 nats (limit 0.01)"."""
        words = []
        if self.max_divergence is not None:
            words.append(f"divergence {found.divergence:.2g} nats (limit {self.max_divergence:g})")
        if self.min_sqnr_db is not None:
            words.append(f"SQNR {found.sqnr_db:.1f} dB (limit {self.min_sqnr_db:g})")
        return ", ".join(words)


def layers_named(patterns: Sequence[str], known: Collection[str]) -> tuple[str, ...]:
    """The layers that the patterns stand for, none for none. Raises StageError for a pattern that fits nothing."""
    if not patterns:
        return ()
    try:
        return tuple(matching(patterns, known, what="layer that int8 would round"))
    except UsageError as error:
        raise StageError(str(error)) from error


def guarded_layers(model: nn.Module, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The layers of the 3-D stem and of squeeze-excitation among `names`, by the part that they belong to."""
    excitations = tuple(
        f"{name}."
        for name, module in model.named_modules()
        if isinstance(module, (Excitation, Excitation2d, ChannelAttention))
    )
    parts: dict[str, list[str]] = {}
    for name in names:
        if name.startswith(f"{STEM}."):
            parts.setdefault(STEM, []).append(name)
        elif excitations and name.startswith(excitations):
            parts.setdefault(EXCITATION, []).append(name)
    return {part: tuple(layers) for part, layers in parts.items()}


class Scorer:
    """Scores a float network with some layers rounded, and a rounded one with some in float, against the first.

    units: what stands in the network for each layer when that is rounded, by place: it, and what rounds its result.
    """

    def __init__(self, dense: nn.Module, quantised: nn.Module, units: Units, clips_B1THW: Tensor) -> None:
        self.dense, self.quantised, self.units, self.clips = dense, quantised, units, clips_B1THW
        self.reference_BV = logits_of(dense, clips_B1THW)

    @property
    def layer_clips(self) -> int:
        """How many clips each layer alone is scored on."""
        return max(LEAST_CLIPS, min(PART_CLIPS, SHARED_CLIPS // len(self.units)))

    def rounded_alone(self, layers: Iterable[str], *, num_clips: int = PART_CLIPS) -> Harm:
        """What rounding these layers does to the float network."""
        with ExitStack() as stack:
            for layer in layers:
                for place, module in self.units[layer].items():
                    stack.enter_context(swapped(self.dense, place, module))
            return self._harm(self.dense, num_clips)

    def in_float(self, layers: Iterable[str]) -> Harm:
        """What the rounded network does with these layers in float."""
        with ExitStack() as stack:
            for layer in layers:
                for place in self.units[layer]:
                    stack.enter_context(swapped(self.quantised, place, self.dense.get_submodule(place)))
            return self._harm(self.quantised, len(self.clips))

    def figures_of(self, quantised: nn.Module) -> dict[str, float | None]:
        """What another form of the network does, on all clips."""
        return _figures(self._harm(quantised, len(self.clips)))

    def _harm(self, model: nn.Module, num_clips: int) -> Harm:
        return harm(logits_of(model, self.clips[:num_clips]), self.reference_BV[:num_clips])


def choose_float_layers(
    scorer: Scorer,
    *,
    budget: Budget,
    guarded: Mapping[str, Sequence[str]],
    say: Callable[[str], None],
    keep_divergence: float,
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The layers to leave in float, and the figures that decided.

    First the guarded parts whose rounding alone does more than `keep_divergence`; then, while the harm of all the rest
    is beyond the budget, the layers in order of the harm that each does alone. Raises
    UnreachableError if that takes all.
    Cost: a pass over PART_CLIPS clips for each part; where the budget is exceeded, over fewer for each layer, then some
    five over all clips.
    """
    parts = {part: scorer.rounded_alone(layers) for part, layers in guarded.items()}
    chosen = [layer for part, found in parts.items() if found.divergence > keep_divergence for layer in guarded[part]]
    figures: dict[str, Any] = {
        "guarded": {part: {**_figures(found), "limit": keep_divergence} for part, found in parts.items()}
    }
    if not budget.is_set:
        return tuple(chosen), figures
    before = scorer.in_float(chosen)
    figures["budget"] = {**asdict(budget), "before": _figures(before)}
    if budget.holds(before):
        return tuple(chosen), figures
    num_clips = scorer.layer_clips
    say(f"int8: {budget.excess(before)}; scoring {len(scorer.units)} layers on {num_clips} clips each")
    alone = {layer: scorer.rounded_alone([layer], num_clips=num_clips) for layer in scorer.units if layer not in chosen}
    worst_first = sorted(alone, key=lambda layer: alone[layer].sqnr_db)
    figures["layers"] = {layer: _figures(alone[layer]) for layer in worst_first}
    fewest = _fewest(worst_first, lambda count: budget.holds(scorer.in_float([*chosen, *worst_first[:count]])))
    if fewest == len(worst_first):
        nearest_reachable = scorer.in_float([*chosen, *worst_first[:-1]])
        raise UnreachableError(
            f"The budget leaves no layer in int8: with {worst_first[-1]!r} alone, {budget.excess(nearest_reachable)}. "
            "Raise the limit, or leave the stage out."
        )
    say(f"int8: {fewest} of {len(scorer.units)} layers stay in float: {', '.join(worst_first[:fewest])}")
    return (*chosen, *worst_first[:fewest]), figures


def _fewest(layers: Sequence[str], enough: Callable[[int], bool]) -> int:
    """The smallest number of leading layers that is enough, all of them at most; found by halving."""
    low, high = 1, len(layers)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def _figures(found: Harm) -> dict[str, float | None]:
    """As JSON holds it: no infinity."""
    figures = {name: float(f"{value:.4g}") for name, value in asdict(found).items() if math.isfinite(value)}
    return {"divergence": None, "sqnr_db": None, "flipped": None, **figures}
