"""Timing several subjects side by side, and how sure a median is. Needs the standard library and edgelip.runtime.

A round times every subject once, each round beginning with another one, so that a slow moment of the machine falls on
all of them. Ratios are taken within a round.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TypeVar

from edgelip.runtime.sensors import process as sensors

Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Median:
    """A median and its 95 % interval, which assumes no distribution; without bounds below 6 samples."""

    value: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        return asdict(self)

    def text(self, digits: int = 3) -> str:
        """Rounded to so many significant digits."""
        if self.low is None or self.high is None:
            return f"{significant(self.value, digits)} (too few rounds)"
        return f"{significant(self.value, digits)} ({significant(self.low, digits)}..{significant(self.high, digits)})"


def significant(value: float, digits: int = 3) -> str:
    """Plain notation with at least so many significant digits: 1231, 0.0123."""
    if not value or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def median_interval(samples: Sequence[float]) -> Median:
    """Median with the samples of rank k and n + 1 - k, k the largest with 2 P[Bin(n, 1/2) < k] <= 5 %.

    The p50 of edgelip.bench.statistics.order_statistic_interval, for machines without scipy.
    """
    ordered, count = sorted(samples), len(samples)
    rank, below = 0, 0
    while below + math.comb(count, rank) <= 0.025 * 2**count:
        below += math.comb(count, rank)
        rank += 1
    if rank == 0:
        return Median(median(ordered), None, None)
    return Median(median(ordered), ordered[rank - 1], ordered[count - rank])


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Median:
    """Median of the ratios of each round."""
    return median_interval([above / below for above, below in zip(numerators, denominators, strict=True)])


def interleave(
    subjects: Mapping[str, Callable[[], Sample]], *, rounds: int, until: float = math.inf
) -> dict[str, list[Sample]]:
    """What each subject returned in each round; stops early, between rounds, at `until` (time.monotonic)."""
    samples: dict[str, list[Sample]] = {name: [] for name in subjects}
    names = list(subjects)
    for number in range(rounds):
        if time.monotonic() >= until:
            break
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            samples[name].append(subjects[name]())
    return samples


def elapsed_ms(run: Callable[[], object]) -> tuple[float, float]:
    """Wall clock and CPU time of this process for one run."""
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    run()
    return (time.perf_counter_ns() - wall) / 1e6, (time.process_time_ns() - cpu) / 1e6


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def environment(versions: Mapping[str, str]) -> dict[str, object]:
    """The machine, its load now, and the versions of the packages that ran."""
    return {**sensors.environment(), "load_average": sensors.load_average(), **versions}
