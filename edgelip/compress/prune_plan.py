"""Which channels leave: all layers alike or by rank, until a share of them or of the multiply-adds is gone.

Every space of channels shrinks in steps that leave its layers multiples of `round_to`. Put in one order, any number of
first steps is a plan; more of them leave fewer multiply-adds, so that a target is found by bisection.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from edgelip.compress.channel_cuts import CUTTABLE, NORMS, is_depthwise, layer_widths
from edgelip.compress.channel_graph import Channels, Side, Space, network_inputs
from edgelip.models.census import count_macs

TOLERANCE = 0.02  # of the multiply-adds before
LEAST_SHARE = 0.125  # of a space's channels, where others are spared


@dataclass(frozen=True)
class Whole:
    """A network before any of its channels left: its multiply-adds, and how many sets each kind of space had."""

    macs: float
    sets: Mapping[tuple[tuple[Side, int], ...], int]


@dataclass(frozen=True)
class Step:
    """One space goes from one number of sets to the next smaller one. order: smaller goes first."""

    space: int
    before: int
    after: int
    order: float


class MacsModel:
    """Multiply-adds of a network as a function of how many sets each space keeps."""

    @torch.no_grad()
    def __init__(self, model: nn.Module, clip_B1THW: Tensor, spaces: Sequence[Space]) -> None:
        self.widths: dict[Side, int] = {}
        self.costs: dict[str, float] = {}  # for one output and one input channel
        self.depthwise: set[str] = set()
        self.spaces = spaces

        def hook(name: str, layer: Any, output: Tensor) -> None:
            out_size, in_size = layer_widths(layer) or (1, 1)
            self.widths[name, True], self.widths[name, False] = out_size, in_size
            taps = math.prod(getattr(layer, "kernel_size", ()))
            self.costs[name] = self.costs.get(name, 0.0) + output.numel() / out_size * taps
            if is_depthwise(layer):
                self.depthwise.add(name)

        layers = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, CUTTABLE) and not isinstance(module, (*NORMS, nn.PReLU))
        }
        handles = [
            layer.register_forward_hook(lambda module, _, output, name=name: hook(name, module, output))
            for name, layer in layers.items()
        ]
        try:
            model(*network_inputs(model, clip_B1THW[:1]))
        finally:
            for handle in handles:
                handle.remove()
        whole = [len(space.sets) for space in spaces]
        self.fixed = count_macs(model, clip_B1THW) - self._of_layers(self.costs, whole)

    def __call__(self, kept: Sequence[int]) -> float:
        """kept: number of sets of each space."""
        return self.fixed + self._of_layers(self.costs, kept)

    def saved(self, number: int, before: int, after: int) -> float:
        """By one space going from `before` sets to `after`, while the others keep all."""
        kept = [len(space.sets) for space in self.spaces]
        layers = {name for name, _ in self.spaces[number].counts if name in self.costs}
        kept[number] = before
        more = self._of_layers(layers, kept)
        kept[number] = after
        return more - self._of_layers(layers, kept)

    def _of_layers(self, layers: Any, kept: Sequence[int]) -> float:
        gone: dict[Side, int] = defaultdict(int)
        for space, number in zip(self.spaces, kept, strict=True):
            for side, count in space.counts.items():
                gone[side] += count * (len(space.sets) - number)
        total = 0.0
        for name in layers:
            out_size = self.widths[name, True] - gone[name, True]
            in_size = 1 if name in self.depthwise else self.widths[name, False] - gone[name, False]
            total += self.costs[name] * out_size * in_size
        return total


def step_size(space: Space, round_to: int) -> int:
    """The number of sets of which multiples leave each of their layers a multiple of round_to."""
    counts = [count for (_, gives), count in space.counts.items() if gives]
    return math.lcm(*(round_to // math.gcd(round_to, count) for count in counts))


def kept_numbers(space: Space, round_to: int) -> list[int]:
    """How many sets a space may keep, the most first: all, or multiples of its step."""
    step, whole = step_size(space, round_to), len(space.sets)
    return [whole, *range((whole - 1) // step * step, 0, -step)]


def even_steps(spaces: Sequence[Space], round_to: int, whole: Whole) -> list[Step]:
    """Steps in the order in which a growing pruning ratio, the same for all, rounds to them; `order` is that ratio."""
    steps = []
    for number, space in enumerate(spaces):
        for before, after in pairwise(kept_numbers(space, round_to)):
            steps.append(Step(number, before, after, 1 - (before + after) / 2 / whole.sets[space.kind]))
    return sorted(steps, key=lambda step: (step.order, step.space))


def ranked_steps(spaces: Sequence[Space], round_to: int, whole: Whole, macs: MacsModel) -> list[Step]:
    """Steps in the order of the importance that each costs for a multiply-add that it saves.

    A space keeps an eighth of its channels: what is left of it would be all that its layers pass on.
    """
    present = [len(space.sets) for space in spaces]
    steps = []
    for number, space in enumerate(spaces):
        least = LEAST_SHARE * whole.sets[space.kind]
        worst = -math.inf
        for before, after in pairwise(size for size in kept_numbers(space, round_to) if size >= least):
            lost = sum(space.importances[present[number] - before : present[number] - after])
            worst = max(worst, lost / max(macs.saved(number, before, after), 1.0))
            steps.append(Step(number, before, after, worst))
    return sorted(steps, key=lambda step: (step.order, step.space, -step.after))


def steps_for_ratio(steps: Sequence[Step], spaces: Sequence[Space], whole: Whole, *, ratio: float) -> Sequence[Step]:
    """The first steps, after which this share of the channels is gone, as nearly as they can."""
    total = sum(whole.sets.values())
    gone = total - sum(len(space.sets) for space in spaces)
    shares = [gone / total]
    for step in steps:
        gone += step.before - step.after
        shares.append(gone / total)
    return steps[: min(range(len(shares)), key=lambda count: abs(shares[count] - ratio))]


def steps_for_macs(
    steps: Sequence[Step], spaces: Sequence[Space], whole: Whole, macs: MacsModel, *, target: float
) -> tuple[Sequence[Step], float]:
    """The first steps, which leave this share of the multiply-adds, as nearly as they can; and what they leave.

    Where one step crosses the target by more than TOLERANCE, that space stays and steps of the others follow instead.
    """

    def left(chosen: Sequence[Step]) -> float:
        return macs(kept_after(chosen, spaces)) / whole.macs

    upper = bisect_left(range(len(steps) + 1), -target, key=lambda count: -left(steps[:count]))
    plans = [list(steps[:count]) for count in (upper - 1, upper) if 0 <= count <= len(steps)]
    best = min(plans, key=lambda plan: abs(left(plan) - target))
    if left(best) < target - TOLERANCE or (left(best) > target + TOLERANCE and upper <= len(steps)):
        best = plans[0]
        barred: set[int] = set()
        for step in steps[upper - 1 :]:
            sets = whole.sets[spaces[step.space].kind]
            if step.space in barred or step.after < LEAST_SHARE * sets or left([*best, step]) < target - TOLERANCE:
                barred.add(step.space)
            elif left(best) > target:
                best.append(step)
        best = min([best, *plans], key=lambda plan: abs(left(plan) - target))
    return best, left(best)


def kept_after(steps: Sequence[Step], spaces: Sequence[Space]) -> list[int]:
    """How many sets each space keeps."""
    kept = [len(space.sets) for space in spaces]
    for step in steps:
        kept[step.space] = step.after
    return kept


def removed_channels(steps: Sequence[Step], spaces: Sequence[Space]) -> list[Channels]:
    """The least important sets of each space that shrinks."""
    kept = kept_after(steps, spaces)
    return [
        channels
        for space, number in zip(spaces, kept, strict=True)
        for channels in space.sets[: len(space.sets) - number]
    ]


def gradients_of(
    model: nn.Module, clips_B1THW: Tensor, labels_B: Tensor, *, batch_size: int = 16
) -> Mapping[str, Tensor]:
    """Of the mean cross-entropy of these clips, by the name of each parameter; zeros where none arrives."""
    for parameter in model.parameters():
        parameter.grad = None
    with torch.enable_grad():
        for start in range(0, len(clips_B1THW), batch_size):
            clips, labels = clips_B1THW[start : start + batch_size], labels_B[start : start + batch_size]
            logits = model(*network_inputs(model, clips))
            loss = nn.functional.cross_entropy(logits, labels, reduction="sum") / len(clips_B1THW)
            loss.backward()  # type: ignore[no-untyped-call]
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }
