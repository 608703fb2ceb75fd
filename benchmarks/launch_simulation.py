"""Which interval over few launches keeps its 5 % of false alarms when launches differ wildly, and what it finds.

python benchmarks/launch_simulation.py
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from interleaved import markdown_table

from edgelip.bench.effects import mean_effect
from edgelip.bench.statistics import Estimate, bootstrap_mean

Draw = Callable[[np.random.Generator, int], np.ndarray]

# What a launch may add to a log ratio; heavy tails are what a shared machine gives. All are symmetric, as A/A is.
LAUNCH_EFFECTS: dict[str, Draw] = {
    "normal, sd 2 %": lambda rng, n: rng.normal(0, 0.02, n),
    "Student t, 2 df": lambda rng, n: 0.01 * rng.standard_t(2, n),
    "one in ten 10 x as wide": lambda rng, n: rng.normal(0, 0.005, n) * np.where(rng.random(n) < 0.1, 10, 1),
    "two speeds, 5 % apart": lambda rng, n: 0.05 * (rng.integers(0, 2, n) - rng.integers(0, 2, n)) + _small(rng, n),
    "one launch in 20 30 % slow": lambda rng, n: (
        0.3 * ((rng.random(n) < 0.05) - 1.0 * (rng.random(n) < 0.05)) + _small(rng, n)
    ),
}


def _small(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.normal(0, 0.003, count)


def simulated_levels(
    *, num_pairs: int, num_draws: int = 2000, effect: float = 0.0, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Share in percent of intervals that exclude a ratio of 1, by launch effect and method.

    effect: a true slowdown as a log ratio; 0 gives false alarms.
    """
    methods: dict[str, Callable[[np.ndarray], tuple[float, float]]] = {
        "Student's t": _student,
        "bootstrap, expanded": lambda values: _ends(bootstrap_mean(values)),
        "bootstrap, plain": lambda values: _ends(bootstrap_mean(values, expanded=False)),
    }
    rng = np.random.default_rng(seed)
    result: dict[str, dict[str, float]] = {}
    for name, draw in LAUNCH_EFFECTS.items():
        drawn = [effect + draw(rng, num_pairs) for _ in range(num_draws)]
        result[name] = {}
        for method, interval in methods.items():
            outside = 0
            for values in drawn:
                low, high = interval(values)
                outside += not low <= 0 <= high
            result[name][method] = 100 * outside / num_draws
    return result


def _student(values: np.ndarray) -> tuple[float, float]:
    found = mean_effect(values)
    return math.log(found.low), math.log(found.high)


def _ends(estimate: Estimate) -> tuple[float, float]:
    return estimate.low, estimate.high


def simulation_table() -> str:
    """False alarms and finds of 5 % by method, at 5, 7 and 10 pairs."""
    parts = []
    for num_pairs in (5, 7, 10):
        alarms = simulated_levels(num_pairs=num_pairs)
        finds = simulated_levels(num_pairs=num_pairs, effect=math.log(1.05))
        methods = list(next(iter(alarms.values())))
        rows = [
            [name, *(f"{levels[method]:.1f} / {finds[name][method]:.0f}" for method in methods)]
            for name, levels in alarms.items()
        ]
        parts.append(f"{num_pairs} pairs: false alarms in % / 5 % slowdowns found in %\n")
        parts.append(markdown_table(["launch effect", *methods], rows))
    return "\n".join(parts)


if __name__ == "__main__":
    print(simulation_table())
