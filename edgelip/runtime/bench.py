"""Measure one model of one bundle in this process, which should be fresh and do nothing else.

SingleStream: batch 1, the next clip when the previous is done, over the bundle's own clips.
"""

from __future__ import annotations

import gc
import time
from array import array
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from edgelip.runtime.bundle import Bundle
from edgelip.runtime.clip import network_input
from edgelip.runtime.engines.engine import Options, engine_class
from edgelip.runtime.errors import UsageError
from edgelip.runtime.measurement import MINIMUM_COUNT, BenchRun, percentile
from edgelip.runtime.recogniser import Recogniser
from edgelip.runtime.sensors import process as sensors
from edgelip.runtime.sensors.board import board_facts
from edgelip.runtime.sensors.energy import best_power_source, energy_of_loop

_WINDOW_RUNS, _WINDOW_NS = 5, 50_000_000
_STEADY_SPREAD = 1.05  # warm-up ends when the medians of the last 3 windows lie this close
_IDLE_S = 30.0
_MIN_CPU_SHARE = 0.95  # of one thread's wall time; below it others were on the core


@dataclass(frozen=True)
class Effort:
    """How long to measure: until both `seconds` and `min_count` are reached; warm-up gives up after `warm_up_cap_s`.

    energy_s: how long to run once more with a power sensor beside it, and to idle before and after, at most 30 s each;
    0 leaves it out.
    """

    seconds: float = 3.0
    min_count: int = MINIMUM_COUNT[90]
    warm_up_cap_s: float = 10.0
    energy_s: float = 0.0

    def __post_init__(self) -> None:
        known_s = (self.seconds, self.energy_s)
        if not (all(0 <= s <= 86_400 for s in known_s) and self.min_count >= 1 and 0 <= self.warm_up_cap_s <= 3600):
            raise UsageError(
                f"seconds {self.seconds}, energy_s {self.energy_s}, min_count {self.min_count}, "
                f"warm_up_cap_s {self.warm_up_cap_s}; expected 0 to 86400 twice, 1 or more, 0 to 3600."
            )


def bench(
    bundle_path: str,
    *,
    engine: str = "ort",
    precision: Optional[str] = None,
    threads: int = 1,
    options: Optional[Options] = None,
    required_key: Optional[str] = None,
    effort: Optional[Effort] = None,
    started_ns: Optional[int] = None,
    command: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> BenchRun:
    """Cold start, memory and latency of a bundle's model; takes effort.seconds and the warm-up.

    started_ns: CLOCK_MONOTONIC when this process was spawned; without it the kernel's start time is used (10 ms steps).
    Raises what opening a bundle and an engine raise.
    """
    effort = effort or Effort()
    source = best_power_source() if effort.energy_s else None
    engine_class(engine)  # imports the engine's package
    imports_ms = _age_ms(started_ns)

    say("verifying the bundle")
    begin_ns = time.perf_counter_ns()
    bundle = Bundle.open(bundle_path, required_key=required_key)
    bundle_ms = _ms_since(begin_ns)
    frames_NTHW = bundle.expected().frames_NTHW
    gc.collect()
    before, free_before_mib = sensors.process_memory_mib(), sensors.available_memory_mib()
    was_reset = sensors.reset_peak_memory()

    say("loading the engine")
    begin_ns = time.perf_counter_ns()
    with Recogniser(bundle, engine=engine, threads=threads, precision=precision, options=options) as recogniser:
        engine_ms = _ms_since(begin_ns)
        loaded = sensors.process_memory_mib()
        begin_ns = time.perf_counter_ns()
        recogniser.predict(frames_NTHW[:1])
        first_ms = _ms_since(begin_ns)

        say("warming up")
        loop = _Loop(recogniser, frames_NTHW)
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            warm_up = loop.warm_up(cap_s=effort.warm_up_cap_s)
            clock_before_mhz = sensors.clock_mhz()
            say(f"measuring for {effort.seconds:g} s")
            steady = loop.steady(effort)
        finally:
            gc.enable()
            gc.unfreeze()
        after = sensors.process_memory_mib()
        shared, free_after_mib = sensors.shared_memory_mib(), sensors.available_memory_mib()
        energy = None
        if source is not None:
            idle_s = min(_IDLE_S, effort.energy_s)
            energy = energy_of_loop(loop.once, source, seconds=effort.energy_s, idle_seconds=idle_s, say=say)
        settings = recogniser.settings
        used_precision = recogniser.model.precision

    clock_after_mhz = sensors.clock_mhz()
    badge, reasons = _badge(
        warm_up,
        steady,
        threads=threads,
        fallback=settings.get("fallback"),
        swap_mib=after["swap"],
        clocks_mhz=(clock_before_mhz, clock_after_mhz),
    )
    environment: Dict[str, Any] = dict(sensors.environment())
    board = {name: fact for name, fact in board_facts().items() if fact not in (None, [])}
    if board:
        environment["board"] = board
    environment.update(
        {
            "numpy": np.__version__,
            "engine_settings": settings,
            "load_average": sensors.load_average(),
            "clock_before_mhz": clock_before_mhz,
            "clock_after_mhz": clock_after_mhz,
            "temperature_c": sensors.temperature_c(),
            "cpu_share": steady.cpu_share,
            "page_cache": "not dropped",
            "peak_memory_from": "clear_refs" if was_reset else "process start",
        }
    )
    return BenchRun(
        bundle=bundle.name,
        bundle_sha256=bundle.sha256,
        engine=engine,
        precision=used_precision,
        threads=threads,
        badge=badge,
        reasons=reasons,
        command=command,
        environment=environment,
        warm_up=warm_up,
        cold_start_ms={
            "imports": imports_ms,
            "bundle": bundle_ms,
            "engine": engine_ms,
            "first_inference": first_ms,
            "total": imports_ms + bundle_ms + engine_ms + first_ms,
        },
        memory_mib={
            "rss_before_load": before["rss"],
            "rss_after_load": loaded["rss"],
            "rss_after_run": after["rss"],
            "peak": after["peak"],
            **shared,
            "gpu_mapped": sensors.gpu_mapped_memory_mib(),
            "available_drop": _drop(free_before_mib, free_after_mib),
        },
        latency_ns=tuple(steady.latency_ns),
        end_to_end_ns=tuple(steady.end_to_end_ns),
        energy=energy,
    )


@dataclass(frozen=True)
class _Steady:
    latency_ns: Sequence[int]
    end_to_end_ns: Sequence[int]
    cpu_share: float  # processor time of this process per wall time


class _Loop:
    """Clips through a recogniser one at a time, round and round."""

    def __init__(self, recogniser: Recogniser, frames_NTHW: np.ndarray) -> None:
        self._recogniser = recogniser
        self._spec = recogniser.bundle.manifest.clip
        self._clips = [frames_NTHW[index : index + 1] for index in range(len(frames_NTHW))]
        self._next = 0

    def once(self) -> Tuple[int, int]:
        """Nanoseconds of tensor -> logits and of frames -> word, for the next clip."""
        frames_1THW = self._clips[self._next]
        self._next = (self._next + 1) % len(self._clips)
        engine, recogniser, clock = self._recogniser.engine, self._recogniser, time.perf_counter_ns
        start = clock()
        clip_11THW = network_input(frames_1THW, self._spec)
        ready = clock()
        logits_1V = engine.infer(clip_11THW)
        done = clock()
        recogniser.prediction_from_logits(logits_1V[0])
        return done - ready, clock() - start

    def warm_up(self, *, cap_s: float) -> Dict[str, Any]:
        """Run for 200 ms and 10 clips at least, then until 3 windows in a row agree or `cap_s` is over."""
        begin_ns = time.perf_counter_ns()
        medians: List[float] = []
        num_runs, stable = 0, False
        while not stable and (num_runs == 0 or time.perf_counter_ns() - begin_ns < cap_s * 1e9):
            window: List[int] = []
            window_ns = time.perf_counter_ns()
            while len(window) < _WINDOW_RUNS or time.perf_counter_ns() - window_ns < _WINDOW_NS:
                window.append(self.once()[0])
            num_runs += len(window)
            medians.append(percentile(window, 50))
            recent = medians[-3:]
            enough = num_runs >= 10 and time.perf_counter_ns() - begin_ns >= 200_000_000
            stable = enough and len(recent) == 3 and max(recent) <= _STEADY_SPREAD * min(recent)
        return {"num_runs": num_runs, "duration_ms": _ms_since(begin_ns), "stable": stable}

    def steady(self, effort: Effort) -> _Steady:
        # Arrays of machine integers: a list of samples would show in the peak memory of a fast model.
        latency_ns, end_to_end_ns = array("q"), array("q")
        begin_ns, begin_cpu_ns = time.perf_counter_ns(), time.process_time_ns()
        until_ns = begin_ns + int(effort.seconds * 1e9)
        while time.perf_counter_ns() < until_ns or len(latency_ns) < effort.min_count:
            inference_ns, whole_ns = self.once()
            latency_ns.append(inference_ns)
            end_to_end_ns.append(whole_ns)
        wall_ns = max(1, time.perf_counter_ns() - begin_ns)
        return _Steady(latency_ns, end_to_end_ns, (time.process_time_ns() - begin_cpu_ns) / wall_ns)


def _badge(
    warm_up: Dict[str, Any],
    steady: _Steady,
    *,
    threads: int,
    fallback: Optional[str],
    swap_mib: Optional[float],
    clocks_mhz: Tuple[Optional[float], Optional[float]],
) -> Tuple[str, Tuple[str, ...]]:
    """The gravest badge and every reason, gravest first."""
    found: List[Tuple[str, str]] = []
    if fallback:
        found.append(("FALLBACK", fallback))
    if len(steady.latency_ns) < MINIMUM_COUNT[90]:
        found.append(("TOO-FEW", f"{len(steady.latency_ns)} samples; p90 needs {MINIMUM_COUNT[90]}"))
    if swap_mib is None:
        found.append(("UNCONTROLLED", "this system does not report memory"))
    elif swap_mib > 0:
        found.append(("UNCONTROLLED", f"{swap_mib:.1f} MiB of this process were swapped out"))
    if not warm_up["stable"]:
        found.append(("NOISY", f"latency was not steady after {warm_up['duration_ms'] / 1000:.1f} s of warm-up"))
    if threads == 1 and steady.cpu_share < _MIN_CPU_SHARE:
        lost = 100 * (1 - steady.cpu_share)
        found.append(("NOISY", f"for {lost:.0f} % of the time the processor was taken by others"))
    known_mhz = [clock for clock in clocks_mhz if clock]
    if known_mhz and max(known_mhz) > _STEADY_SPREAD * min(known_mhz):
        found.append(("NOISY", f"the clock moved between {min(known_mhz):.0f} and {max(known_mhz):.0f} MHz"))
    return (found[0][0] if found else "VALID"), tuple(reason for _, reason in found)


def _drop(before: Optional[float], after: Optional[float]) -> Optional[float]:
    return None if before is None or after is None else before - after


def _ms_since(begin_ns: int) -> float:
    return (time.perf_counter_ns() - begin_ns) / 1e6


def _age_ms(started_ns: Optional[int]) -> float:
    """Milliseconds since this process was spawned; 0.0 where neither the parent nor the kernel says."""
    if started_ns is None:
        return sensors.process_age_ms() or 0.0
    age_ms = (time.clock_gettime_ns(time.CLOCK_MONOTONIC) - started_ns) / 1e6
    if not 0 <= age_ms < 3_600_000:
        raise UsageError(f"started-ns is {started_ns}, {age_ms:.0f} ms ago; expected this machine's monotonic clock.")
    return age_ms
