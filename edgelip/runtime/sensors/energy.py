"""Energy of a stretch of work: timestamped power samples of one source, and the area under them.

Sample beside the work, never during the headline latency run: the sampler takes a little of a core.
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from edgelip.runtime.errors import MeasurementError, MissingError, UsageError
from edgelip.runtime.sensors.power import PowerSource, find_power_sources


@dataclass(frozen=True)
class Energy:
    """Joules inside one boundary. above_idle_j: less what the idle machine takes in that time; None without idle_w."""

    gross_j: float
    above_idle_j: Optional[float]
    mean_w: float
    idle_w: Optional[float]
    duration_s: float
    num_samples: int
    period_s: float
    boundary: str

    def per_run(self, num_runs: int) -> Tuple[float, Optional[float]]:
        """Gross and above-idle joules of one of `num_runs` equal runs."""
        if num_runs < 1:
            raise UsageError(f"num_runs is {num_runs}; expected 1 or more.")
        return self.gross_j / num_runs, None if self.above_idle_j is None else self.above_idle_j / num_runs

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)


def energy_from_samples(
    times_s: Sequence[float],
    watts: Sequence[float],
    *,
    boundary: str,
    period_s: float,
    idle_w: Optional[float] = None,
    of_means: bool = False,
) -> Energy:
    """Area under power samples: trapezoids, or rectangles where each sample is the mean since the one before.

    Raises MeasurementError with fewer than two samples or times that do not rise.
    """
    if len(times_s) != len(watts) or len(times_s) < 2:
        raise MeasurementError(f"{len(times_s)} times and {len(watts)} powers were sampled; expected two or more each.")
    steps_s = [after - before for before, after in zip(times_s, times_s[1:])]
    if min(steps_s) <= 0:
        raise MeasurementError(f"two power samples lie {min(steps_s)} s apart; expected times that rise.")
    heights = watts[1:] if of_means else [(before + after) / 2 for before, after in zip(watts, watts[1:])]
    gross_j = sum(step_s * height for step_s, height in zip(steps_s, heights))
    duration_s = times_s[-1] - times_s[0]
    return Energy(
        gross_j=gross_j,
        above_idle_j=None if idle_w is None else gross_j - idle_w * duration_s,
        mean_w=gross_j / duration_s,
        idle_w=idle_w,
        duration_s=duration_s,
        num_samples=len(times_s),
        period_s=period_s,
        boundary=boundary,
    )


class PowerSampler:
    """Samples a source on a thread of its own: `with PowerSampler(source) as sampler: work()`, then `energy()`.

    The first sample is taken before the work and the last after it.
    """

    def __init__(
        self,
        source: PowerSource,
        *,
        period_s: Optional[float] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """period_s: default the shortest that the source allows. Raises UsageError if it is shorter than that."""
        self.period_s = source.min_period_s if period_s is None else period_s
        if self.period_s < source.min_period_s:
            shortest = f"{source.name} gives a new value every {source.min_period_s:g} s"
            raise UsageError(f"period_s is {self.period_s:g}, but {shortest}; choose that or longer.")
        self._source, self._clock = source, clock
        self._times_s: List[float] = []
        self._watts: List[float] = []
        self._failure: Optional[MeasurementError] = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="edgelip-power", daemon=True)

    def __enter__(self) -> PowerSampler:
        self._take()
        self._thread.start()
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is None and kind is None:
            self._take_or_keep_failure()

    def energy(self, *, idle_w: Optional[float] = None) -> Energy:
        """Joules between the first and the last sample. Raises MeasurementError if the sensor failed meanwhile."""
        if self._failure is not None:
            raise self._failure
        return energy_from_samples(
            self._times_s,
            self._watts,
            boundary=self._source.boundary,
            period_s=self.period_s,
            idle_w=idle_w,
            of_means=self._source.reads_mean,
        )

    def _sample(self) -> None:
        while self._failure is None and not self._stop.wait(self.period_s):
            self._take_or_keep_failure()

    def _take_or_keep_failure(self) -> None:
        try:
            self._take()
        except MeasurementError as error:
            self._failure = error

    def _take(self) -> None:
        watts = self._source.read()
        self._times_s.append(self._clock())
        self._watts.append(watts)


def best_power_source(sources: Optional[Sequence[PowerSource]] = None) -> PowerSource:
    """The sensor whose boundary says most; sources: default all that are here. Raises MissingError if there is none."""
    reasons: List[str] = []
    found = find_power_sources(say=reasons.append) if sources is None else sources
    if not found:
        why = " ".join(reasons) or "Expected an INA3221 (Jetson), NVML (GPU) or RAPL (x86, root)."
        raise MissingError(f"no sensor of power answers on this machine. {why} Leave --energy out.")
    return found[0]


def energy_of_loop(
    once: Callable[[], object],
    source: PowerSource,
    *,
    seconds: float,
    idle_seconds: float,
    say: Callable[[str], None],
    clips_each: int = 1,
) -> Dict[str, Any]:
    """What `once`, run again and again for `seconds`, takes; idle power is the mean of `idle_seconds` before and after.

    clips_each: how many clips one call serves.

    Returns Energy as JSON with num_clips, gross_j_per_clip and above_idle_j_per_clip.
    """
    say(f"energy at {source.boundary}: idle for {idle_seconds:g} s, running for {seconds:g} s, idle again")
    before_w = idle_power_w(source, seconds=idle_seconds)
    num_clips, until_s = 0, time.monotonic() + seconds
    with PowerSampler(source) as sampler:
        while num_clips == 0 or time.monotonic() < until_s:
            once()
            num_clips += clips_each
    energy = sampler.energy(idle_w=(before_w + idle_power_w(source, seconds=idle_seconds)) / 2)
    gross_j, above_idle_j = energy.per_run(num_clips)
    per_clip = {"num_clips": num_clips, "gross_j_per_clip": gross_j, "above_idle_j_per_clip": above_idle_j}
    return {**energy.to_json(), **per_clip}


def idle_power_w(source: PowerSource, *, seconds: float, period_s: Optional[float] = None) -> float:
    """Mean power while this process sleeps; take it before and after the work."""
    with PowerSampler(source, period_s=period_s) as sampler:
        time.sleep(seconds)
    return sampler.energy().mean_w
