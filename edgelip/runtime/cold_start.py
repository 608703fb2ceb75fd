"""How long a process takes to its first word, part by part."""

from __future__ import annotations

import time
from typing import Dict, Optional

from edgelip.runtime.clip import network_input
from edgelip.runtime.errors import UsageError
from edgelip.runtime.recogniser import Recogniser
from edgelip.runtime.sensors import process as sensors


class ColdStart:
    """`done(part)` says that a part has ended; what lies between a part and `go_on()` belongs to none."""

    def __init__(self, *, started_ns: Optional[int] = None, aside_ms: float = 0.0) -> None:
        """started_ns: CLOCK_MONOTONIC when this process was spawned; without it the kernel's start time, 10 ms steps.

        aside_ms: time since then that belongs to no part. Raises UsageError for a clock of another machine.
        """
        self._ms: Dict[str, float] = {"imports": max(0.0, _age_ms(started_ns) - aside_ms)}
        self.go_on()

    def go_on(self) -> None:
        self._begin_ns = time.perf_counter_ns()

    def done(self, part: str, *, more_ms: float = 0.0) -> None:
        """more_ms: what was taken for it before."""
        self._ms[part] = more_ms + (time.perf_counter_ns() - self._begin_ns) / 1e6
        self.go_on()

    def to_json(self, *, new_shape_ms: Optional[float]) -> Dict[str, Optional[float]]:
        return {**self._ms, "total": sum(self._ms.values()), "new_shape": new_shape_ms}


def new_shape_ms(recogniser: Recogniser, *, seen: int) -> Optional[float]:
    """Milliseconds of the first inference of another batch size than 1 and `seen`; None where the model has but one."""
    most, size = recogniser.engine.most_clips, next(size for size in (2, 3) if size != seen)
    if most is not None and most < size:
        return None
    frames_NTHW = recogniser.bundle.expected().frames_NTHW
    chosen = [index % len(frames_NTHW) for index in range(size)]
    clips_B1THW = network_input(frames_NTHW[chosen], recogniser.bundle.manifest.clip)
    begin_ns = time.perf_counter_ns()
    recogniser.engine.infer(clips_B1THW)
    return (time.perf_counter_ns() - begin_ns) / 1e6


def _age_ms(started_ns: Optional[int]) -> float:
    """Milliseconds since this process was spawned; 0.0 where neither the parent nor the kernel says."""
    if started_ns is None:
        return sensors.process_age_ms() or 0.0
    age_ms = (time.clock_gettime_ns(time.CLOCK_MONOTONIC) - started_ns) / 1e6
    if not 0 <= age_ms < 3_600_000:
        raise UsageError(f"started-ns is {started_ns}, {age_ms:.0f} ms ago; expected this machine's monotonic clock.")
    return age_ms
