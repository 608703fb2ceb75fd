"""Time bundles against a base: pairs of fresh processes, in each pair blocks of short windows in turn (ABBA or BAAB).

A block's slow moment falls on both sides, a drift within it cancels, and what a launch draws once (where its memory
lies) is drawn anew in every pair; so the pair of launches is the unit of the interval.

Axes: W windows, N samples.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgelip.bench.effects import Effect, block_ratios, mean_effect
from edgelip.bench.isolate import Subject
from edgelip.bench.words import holm
from edgelip.bench.worker import Worker, worker_command
from edgelip.runtime.errors import UsageError
from edgelip.runtime.validity import badge_words

PERCENTS = (50, 90)
ORDERS = ("ABBA", "BAAB")
WARM_UP_CAP_S = 10.0
FEWEST_PAIRS, FEWEST_BLOCKS = 5, 10
_MIN_CPU_SHARE = 0.95  # of one thread's wall time; below it others were on the core


@dataclass(frozen=True)
class Side:
    """One bundle to time. command: its worker's, for a processor (None: any); by default the runtime's own."""

    name: str
    subject: Subject
    command: Callable[[Subject, int | None], list[str]] = field(
        default=lambda subject, cpu: worker_command(subject.arguments(), cpu=cpu)
    )


@dataclass(frozen=True)
class Effort:
    """How much to measure for each variant: pairs x blocks x 4 windows of window_ms.

    pin: both workers of a pair on one processor, so that none of them has the faster one; only with one thread.
    """

    pairs: int = 7  # one launch in ten may be an odd one: Student's t then needs more than the 5 of the rule
    blocks: int = 10
    window_ms: float = 20.0
    seed: int = 0
    pin: bool = True

    def __post_init__(self) -> None:
        """Raises UsageError for fewer than the method needs, or more than a sitting."""
        if not (FEWEST_PAIRS <= self.pairs <= 1000 and FEWEST_BLOCKS <= self.blocks <= 1000):
            raise UsageError(
                f"{self.pairs} pairs of {self.blocks} blocks; expected {FEWEST_PAIRS} to 1000 pairs of "
                f"{FEWEST_BLOCKS} to 1000 blocks: fewer cannot tell a launch's luck from an effect."
            )
        if not 1 <= self.window_ms <= 10_000:
            raise UsageError(f"window-ms is {self.window_ms:g}; expected 1 to 10000.")


@dataclass(frozen=True)
class Block:
    """One ABBA or BAAB: the samples in ns of each of its four windows, in time's order."""

    order: str
    windows: tuple[np.ndarray, ...]

    def side(self, letter: str) -> np.ndarray:
        """All samples of A or of B."""
        return np.concatenate([each for each, ran in zip(self.windows, self.order, strict=True) if ran == letter])


@dataclass(frozen=True)
class PairRun:
    """One launch of both. started: which of them was first. cpu: the processor of both, None: any.

    facts: by `A` and `B`, what the worker loaded, its warm_up, its evidence (badge, reasons, watch), its fallback, and
    least_cpu_share, the least that one of its windows had of its processor.
    """

    blocks: tuple[Block, ...]
    facts: Mapping[str, Mapping[str, Any]]
    started: str
    cpu: int | None

    def log_ratios(self, percent: float) -> list[float]:
        """B over A, of each block or of as many as hold samples enough; see effects.block_ratios."""
        sides = [[block.side(letter) for block in self.blocks] for letter in "AB"]
        return block_ratios(sides[0], sides[1], percent)

    def log_ratio(self, percent: float) -> float | None:
        """The median of those: a neighbour's burst spoils a few blocks. None with too few samples."""
        found = self.log_ratios(percent)
        return float(np.median(found)) if found else None


@dataclass(frozen=True)
class Comparison:
    """A variant against the base. effects: by percentile; a percentile without samples enough is absent."""

    base: str
    other: str
    pairs: tuple[PairRun, ...]
    effects: Mapping[int, Effect]

    @property
    def invalid(self) -> tuple[str, ...]:
        """Why nothing may be concluded from it; nothing in a valid one."""
        found = [
            badge_words(name, badge, reason)
            for badge, name, reasons in self._badges()
            if badge not in ("VALID", "NOISY")
            for reason in reasons
        ]
        return tuple(dict.fromkeys(found))

    @property
    def notes(self) -> tuple[str, ...]:
        """What widened its interval, but does not forbid a conclusion: both sides bore it alike."""
        found = []
        unsteady = sum(not pair.facts[letter]["warm_up"]["stable"] for pair in self.pairs for letter in "AB")
        if unsteady:
            found.append(f"{unsteady} of {2 * len(self.pairs)} processes were not steady after warm-up")
        shares = [pair.facts[letter]["least_cpu_share"] for pair in self.pairs for letter in "AB"]
        taken = sum(share < _MIN_CPU_SHARE for share in shares)
        if taken:
            found.append(
                f"in {taken} of {len(shares)} launches others took the processor; in the worst window "
                f"{100 * (1 - min(shares)):.0f} % of the time"
            )
        found += [reason for badge, _, reasons in self._badges() if badge == "NOISY" for reason in reasons]
        return tuple(dict.fromkeys(found))

    def _badges(self) -> list[tuple[str, str, Sequence[str]]]:
        """Badge, bundle and reasons of every process."""
        found: list[tuple[str, str, Sequence[str]]] = []
        for pair in self.pairs:
            for letter, name in (("A", self.base), ("B", self.other)):
                evidence, fallback = pair.facts[letter]["evidence"], pair.facts[letter]["fallback"]
                found += [("FALLBACK", name, [fallback])] if fallback else []
                found.append((evidence["badge"], name, evidence["reasons"]))
        return found

    def samples_ns(self, letter: str) -> np.ndarray:
        """All latencies of A or of B."""
        return np.concatenate([block.side(letter) for pair in self.pairs for block in pair.blocks])

    def to_json(self) -> dict[str, Any]:
        """Everything but the samples; `samples_of` gives those."""
        return {
            "base": self.base,
            "other": self.other,
            "effects": {f"p{percent}": effect.to_json() for percent, effect in self.effects.items()},
            "invalid": list(self.invalid),
            "notes": list(self.notes),
            "pairs": [
                {
                    "started": pair.started,
                    "cpu": pair.cpu,
                    "orders": [block.order for block in pair.blocks],
                    "log_ratio": {f"p{percent}": pair.log_ratio(percent) for percent in PERCENTS},
                    "facts": dict(pair.facts),
                }
                for pair in self.pairs
            ],
        }


def compare_sides(
    base: Side, others: Sequence[Side], effort: Effort, *, say: Callable[[str], None] = lambda line: None
) -> list[Comparison]:
    """Each of `others` against `base`, p corrected over all of them. Interleaved by launch.

    Cost: for each, pairs x (blocks x 4 windows + start and warm-up of two processes).
    Raises what a worker raised, with its message.
    """
    draw = random.Random(effort.seed)
    runs: list[list[PairRun]] = [[] for _ in others]
    cpus = _cpus() if effort.pin else []
    first = draw.choice("AB")  # then by turns: who starts second finds the files in memory
    for number in range(effort.pairs):
        for index in draw.sample(range(len(others)), len(others)):
            say(f"pair {number + 1}/{effort.pairs}: {base.name}, {others[index].name}")
            cpu = cpus[(number + index) % len(cpus)] if cpus else None
            one_thread = base.subject.threads == others[index].subject.threads == 1
            started = first if number % 2 == 0 else "AB".replace(first, "")
            pair = _run_pair(
                {"A": base, "B": others[index]},
                effort,
                draw,
                cpu=cpu if one_thread else None,
                started=started,
                look_for_fallback=number == 0,  # the same in every launch, and it takes a session
            )
            runs[index].append(pair)
    compared = [
        Comparison(base.name, other.name, tuple(pairs), effects_of(pairs))
        for other, pairs in zip(others, runs, strict=True)
    ]
    return _corrected(compared)


def effects_of(pairs: Sequence[PairRun]) -> dict[int, Effect]:
    """The effect on each percentile of which every pair has samples enough."""
    found = {}
    for percent in PERCENTS:
        ratios = [pair.log_ratio(percent) for pair in pairs]
        known = [ratio for ratio in ratios if ratio is not None]
        if len(known) == len(ratios):
            found[percent] = mean_effect(known)
    return found


def samples_of(comparisons: Sequence[Comparison]) -> dict[str, np.ndarray]:
    """Arrays for an npz: `samples_ns` of all windows one after the other, and `windows` int32 (W, 6), a row a window:
    comparison, pair, block, place in the block, side (0 is A), number of samples."""
    rows, samples = [], []
    for index, comparison in enumerate(comparisons):
        for number, pair in enumerate(comparison.pairs):
            for place, block in enumerate(pair.blocks):
                for step, (letter, window_N) in enumerate(zip(block.order, block.windows, strict=True)):
                    rows.append((index, number, place, step, "AB".index(letter), len(window_N)))
                    samples.append(window_N)
    return {"samples_ns": np.concatenate(samples), "windows": np.asarray(rows, np.int32)}


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    effects: list[dict[int, Effect]] = [dict(each.effects) for each in comparisons]
    for percent in PERCENTS:
        having = [each for each in effects if percent in each]
        adjusted = holm([each[percent].p for each in having])
        for each, p_family in zip(having, adjusted, strict=True):
            each[percent] = replace(each[percent], p_family=p_family)
    return [replace(each, effects=found) for each, found in zip(comparisons, effects, strict=True)]


def _run_pair(
    sides: Mapping[str, Side],
    effort: Effort,
    draw: random.Random,
    *,
    cpu: int | None,
    started: str,
    look_for_fallback: bool,
) -> PairRun:
    orders = [ORDERS[index % 2] for index in range(effort.blocks)]
    draw.shuffle(orders)
    order = [started, "AB".replace(started, "")]
    with ExitStack() as stack:
        workers = {}
        for letter in order:
            side = sides[letter]
            command = side.command(side.subject, cpu)
            workers[letter] = stack.enter_context(Worker(command, name=side.name, threads=side.subject.threads))
        facts = {letter: dict(workers[letter].loaded()) for letter in order}
        for letter in order:  # one after the other, after both have loaded
            facts[letter]["warm_up"] = workers[letter].warm_up(WARM_UP_CAP_S)
        shares: dict[str, list[float]] = {"A": [], "B": []}
        blocks = []
        for each in orders:
            windows = []
            for letter in each:
                window_N, cpu_share = workers[letter].window(effort.window_ms)
                windows.append(window_N)
                shares[letter].append(cpu_share)
            blocks.append(Block(each, tuple(windows)))
        for letter in "AB":
            facts[letter]["evidence"] = workers[letter].evidence()
            facts[letter]["least_cpu_share"] = min(shares[letter])
            facts[letter]["fallback"] = workers[letter].fallback() if look_for_fallback else None
    return PairRun(tuple(blocks), {letter: facts[letter] for letter in "AB"}, started, cpu)


def _cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
