"""Latency of one ONNX file over that of another, run in turn in one process: for small differences.

Two sessions share caches and heap: this is a ratio only; latencies come from fresh processes (edgelip.bench.isolate).
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from edgelip.bench.statistics import Estimate
from edgelip.runtime.engines.engine import Engine, open_engine
from edgelip.runtime.errors import MeasurementError

_WARM_UP, _FEWEST_PAIRS, _BLOCK = 5, 40, 8
_NUM_RESAMPLES = 2000


def interleaved_ratio(
    model: Path, base: Path, clip_11THW: np.ndarray, *, threads: int = 1, seconds: float = 1.0, engine: str = "ort"
) -> Estimate:
    """Median latency of `model` over that of `base` on one clip, with its interval by bootstrap over blocks of pairs.

    Each pair runs both, the order alternating; at least 40 pairs whatever `seconds` says. Cost: 2 sessions, `seconds`.
    """
    with open_engine(engine, model, threads=threads) as first, open_engine(engine, base, threads=threads) as second:
        for _ in range(_WARM_UP):
            first.infer(clip_11THW)
            second.infer(clip_11THW)
        pairs: list[tuple[int, int]] = []
        end = time.perf_counter() + seconds
        while len(pairs) < _FEWEST_PAIRS or time.perf_counter() < end:
            if len(pairs) % 2:
                other = _nanoseconds(second, clip_11THW)
                pairs.append((_nanoseconds(first, clip_11THW), other))
            else:
                pairs.append((_nanoseconds(first, clip_11THW), _nanoseconds(second, clip_11THW)))
    return ratio_of_medians(np.asarray(pairs))


def ratio_of_medians(pairs_P2: np.ndarray, *, seed: int = 0) -> Estimate:
    """Ratio of the two columns' medians. Raises MeasurementError with fewer than two blocks of 8 pairs."""
    num_blocks = len(pairs_P2) // _BLOCK
    if num_blocks < 2:
        raise MeasurementError(f"{len(pairs_P2)} pairs of runs; expected at least {2 * _BLOCK}. Measure longer.")
    blocks_KP2 = pairs_P2[: num_blocks * _BLOCK].reshape(num_blocks, _BLOCK, 2).astype(float)
    drawn_RK = np.random.default_rng(seed).integers(0, num_blocks, (_NUM_RESAMPLES, num_blocks))
    medians_R2 = np.median(blocks_KP2[drawn_RK].reshape(_NUM_RESAMPLES, -1, 2), axis=1)
    low, high = np.percentile(medians_R2[:, 0] / medians_R2[:, 1], [2.5, 97.5])
    first, second = np.median(pairs_P2, axis=0)
    value = float(first / second)
    return Estimate(value, min(float(low), value), max(float(high), value))


def _nanoseconds(engine: Engine, clip_11THW: np.ndarray) -> int:
    start = time.perf_counter_ns()
    engine.infer(clip_11THW)
    return time.perf_counter_ns() - start
