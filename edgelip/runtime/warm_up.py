"""Run a loop until its latency is steady."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List

from edgelip.runtime.measurement import percentile

_WINDOW_RUNS, _WINDOW_NS = 5, 50_000_000
_LEAST_RUNS, _LEAST_NS = 10, 200_000_000
STEADY_SPREAD = 1.05  # warm-up ends when the medians of the last 3 windows lie this close


def warm_up(step: Callable[[], int], *, cap_s: float, now: Callable[[], int] = time.perf_counter_ns) -> Dict[str, Any]:
    """Run for 200 ms and 10 steps at least, then until 3 windows in a row agree or `cap_s` is over.

    step: one run; its nanoseconds.
    """
    begin_ns = now()
    medians: List[float] = []
    num_runs, stable = 0, False
    while not stable and (num_runs == 0 or now() - begin_ns < cap_s * 1e9):
        window: List[int] = []
        window_ns = now()
        while len(window) < _WINDOW_RUNS or now() - window_ns < _WINDOW_NS:
            window.append(step())
        num_runs += len(window)
        medians.append(percentile(window, 50))
        recent = medians[-3:]
        enough = num_runs >= _LEAST_RUNS and now() - begin_ns >= _LEAST_NS
        stable = enough and len(recent) == 3 and max(recent) <= STEADY_SPREAD * min(recent)
    return {"num_runs": num_runs, "duration_ms": (now() - begin_ns) / 1e6, "stable": stable}
