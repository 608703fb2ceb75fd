"""Which order of channels lets few Kronecker products hold the most of trained weights.

A weight (out, in) is n x n blocks; its nearest sum of r Kronecker products holds the r leading singular values of the
blocks as rows. Channels that may change places anyway are put in the order in which these hold more.

With the factors A held, what a channel adds depends on its place within a block and on the block row it stands in: for
channels that share no place within a block, the best order is an assignment problem, solved exactly (Hungarian method).
Then A is fitted to the new order. Fitted factors hold an order in place, so that noise on what is assigned, which
cools, comes first: without it the small net gains nothing at n=8, with it 6 %, and at n=4 19 % for 15 %.
Axes: G block rows along the channels that move, O block columns across, S chosen channels, R terms, M the rest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from edgelip.models.channel_axes import Axis, Member, permute
from edgelip.models.channel_streams import free_axes
from edgelip.models.kronecker import rearranged
from edgelip.registry import require


@dataclass(frozen=True)
class Search:
    """How long to look: passes over all axes, and seconds of the clock at most.

    heats: one search each, the best is taken: noise at first, in standard deviations of what is assigned; it is gone
    after three quarters of the rounds. Much of it helps real weights at n=8, little finds hidden Kronecker sums again.
    """

    rounds: int = 40
    seconds: float = 300.0
    heats: tuple[float, ...] = (1.0, 0.2)
    seed: int = 0


COOLED = 0.75  # of the rounds
LEAST_GAIN = 1e-4  # a pass without noise that adds less to the mean share of energy is the last


@dataclass(frozen=True)
class Found:
    """Share of each weight's energy that its nearest Kronecker sum holds, as it was and in the order found.

    in_time: the search went through its rounds; else the clock ended it, and another machine finds another order.
    """

    before: Mapping[str, float]
    after: Mapping[str, float]
    in_time: bool


@torch.no_grad()
def permute_for_factors(model: nn.Module, layers: Mapping[str, tuple[int, int]], search: Search) -> Found:
    """Reorder channels of `model` in place, its results unchanged, so that `layers` lose less as Kronecker sums.

    layers: n and terms of each weight that will be one. The order stays as it is where none found has a better mean.
    """
    axes = [axis for axis in free_axes(model) if any(member.layer in layers for member in _moving(axis))]
    start = {name: _Blocks(model.get_submodule(name), *sizes) for name, sizes in layers.items()}
    before = {name: weight.kept for name, weight in start.items()}
    best, best_orders, in_time = before, [np.arange(axis.size) for axis in axes], True
    for heat in search.heats if axes else ():
        weights, orders = deepcopy(start), [np.arange(axis.size) for axis in axes]
        in_time &= _search(axes, orders, weights, heat, search)
        after = {name: weight.kept for name, weight in weights.items()}
        if sum(after.values()) > sum(best.values()):
            best, best_orders = after, orders
    for axis, order in zip(axes, best_orders, strict=True):
        permute(model, axis, order.tolist())
    return Found(before, best, in_time)


def _search(
    axes: Sequence[Axis],
    orders: Sequence[np.ndarray],
    weights: Mapping[str, _Blocks],
    first_heat: float,
    search: Search,
) -> bool:
    """Change `orders` and `weights` for the better, in place; whether it ended before the time was over."""
    generator = np.random.default_rng(search.seed)
    until = time.monotonic() + search.seconds / len(search.heats)
    for number in range(search.rounds):
        heat = first_heat * max(0.0, 1 - number / (COOLED * search.rounds))
        before = _mean_kept(weights)
        for position in generator.permutation(len(axes)):
            moving = [(weights[m.layer], m) for m in _moving(axes[position]) if m.layer in weights]
            for _ in range(max(weight.n for weight, _ in moving)):
                chosen, sources = _exchange(axes[position].size, moving, generator, heat)
                orders[position][chosen] = orders[position][sources]
                if time.monotonic() > until:
                    break
        for weight in weights.values():
            weight.refit()
        if time.monotonic() > until:
            return False
        if not heat and _mean_kept(weights) - before < LEAST_GAIN:
            break
    return True


def _moving(axis: Axis) -> list[Member]:
    return [member for member in axis.members if member.side != "each"]


def _mean_kept(weights: Mapping[str, _Blocks]) -> float:
    return float(np.mean([weight.kept for weight in weights.values()]))


class _Blocks:
    """One weight on its way, and the factors that now fit it best."""

    def __init__(self, layer: nn.Module, n: int, terms: int) -> None:
        weight = layer.weight.detach().double()  # type: ignore[operator]
        self.n, self.terms = n, terms
        self.weight = weight.reshape(*weight.shape[:2], -1).clone()
        self.energy = max(float(weight.square().sum()), 1e-30)
        self.refit()

    def refit(self) -> None:
        blocks = rearranged(self.weight, self.n)
        strengths, directions = torch.linalg.eigh(blocks @ blocks.t())
        self.kept = float(strengths[-self.terms :].sum()) / self.energy
        self.factors_GOR = directions[:, -self.terms :].reshape(self.n, self.n, -1)

    def side(self, member: Member) -> tuple[Tensor, Tensor]:
        """Channels along one side (C, O, M), a view, and the factors seen from there (G, O, R)."""
        turned = self.weight if member.side == "out" else self.weight.transpose(0, 1)
        channels, across, taps = turned.shape
        view = turned.reshape(channels, self.n, across // self.n * taps)
        return view, self.factors_GOR if member.side == "out" else self.factors_GOR.transpose(0, 1)

    def places(self, member: Member) -> int:
        """Places in a block along that side."""
        return self.weight.shape[0 if member.side == "out" else 1] // self.n

    def move(self, member: Member, places: np.ndarray, sources: np.ndarray) -> None:
        to, of = torch.as_tensor(places + member.first), torch.as_tensor(sources + member.first)
        if member.side == "out":
            self.weight[to] = self.weight[of]
        else:
            self.weight[:, to] = self.weight[:, of]


def _exchange(
    size: int, moving: Sequence[tuple[_Blocks, Member]], generator: np.random.Generator, heat: float
) -> tuple[np.ndarray, np.ndarray]:
    """Put some channels of an axis, apart within every block, in the best order among themselves.

    Returns their places and which of them comes to each. The weights are changed alike.
    """
    solve = require("scipy.optimize", extra="compress").linear_sum_assignment
    chosen = _apart(size, [(weight.places(member), member.first) for weight, member in moving], generator)
    gains = np.zeros((len(chosen), len(chosen)))
    for weight, member in moving:
        gains += _gains(weight, member, chosen)
    noise = heat * gains.std() * generator.standard_normal(gains.shape)
    rows, columns = solve(gains + noise, maximize=True)
    sources = np.empty_like(chosen)
    sources[columns] = chosen[rows]
    for weight, member in moving:
        weight.move(member, chosen, sources)
    return chosen, sources


def _apart(size: int, places: Sequence[tuple[int, int]], generator: np.random.Generator) -> np.ndarray:
    """Channels in random order, as many as share no place in a block with one before."""
    taken: list[set[int]] = [set() for _ in places]
    chosen = []
    for channel in generator.permutation(size):
        spots = [(first + channel) % count for count, first in places]
        if all(spot not in used for spot, used in zip(spots, taken, strict=True)):
            chosen.append(channel)
            for spot, used in zip(spots, taken, strict=True):
                used.add(spot)
    return np.array(chosen)


def _gains(weight: _Blocks, member: Member, chosen: np.ndarray) -> np.ndarray:
    """Share of energy that each of the chosen channels (rows) adds in the place of each (columns)."""
    view_COM, factors_GOR = weight.side(member)
    channels = torch.as_tensor(chosen + member.first)
    count = weight.places(member)
    spots, groups = channels % count, channels // count
    moved_SOM = view_COM[channels]
    blocks_GSOM = view_COM.reshape(weight.n, count, *view_COM.shape[1:])[:, spots]
    together_SRM = torch.einsum("gsom,gor->srm", blocks_GSOM, factors_GOR)
    own_SRM = torch.einsum("som,sor->srm", moved_SOM, factors_GOR[groups])
    wanted_SOM = torch.einsum("srm,sor->som", together_SRM - own_SRM, factors_GOR[groups])
    linear = moved_SOM.flatten(1) @ wanted_SOM.flatten(1).t()
    square_SOO = moved_SOM @ moved_SOM.transpose(1, 2)
    square_SG = torch.einsum("sop,gor,gpr->sg", square_SOO, factors_GOR, factors_GOR)
    gains: np.ndarray = ((2 * linear + square_SG[:, groups]) / weight.energy).numpy()
    return gains
