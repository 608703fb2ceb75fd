"""Measure one model of one bundle in this process, which should be fresh and do nothing else.

Cold start, warm-up, one scenario over the bundle's own clips, memory, and energy at last: no sensor is polled while
latency is taken.
"""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np

from edgelip.runtime.bundle import Bundle
from edgelip.runtime.cold_start import ColdStart
from edgelip.runtime.effort import Effort
from edgelip.runtime.engines.engine import Options, engine_class, engine_kind
from edgelip.runtime.measurement import COLD_START, SINGLE_STREAM, BenchRun
from edgelip.runtime.measuring import Say, measure
from edgelip.runtime.memory_columns import MemoryColumns
from edgelip.runtime.page_cache import drop_page_cache
from edgelip.runtime.recogniser import Recogniser
from edgelip.runtime.sensors import process as sensors
from edgelip.runtime.sensors.board import board_facts
from edgelip.runtime.sensors.energy import best_power_source
from edgelip.runtime.watch import Watch


def bench(
    bundle_path: str,
    *,
    engine: str = "ort",
    precision: Optional[str] = None,
    threads: int = 1,
    options: Optional[Options] = None,
    required_key: Optional[str] = None,
    effort: Optional[Effort] = None,
    scenario: str = SINGLE_STREAM,
    drop_cache: bool = False,
    started_ns: Optional[int] = None,
    command: str = "",
    say: Say = lambda line: None,
) -> BenchRun:
    """One run of a bundle's model in one scenario; takes effort.seconds and the warm-up.

    drop_cache: let the kernel forget the bundle's and the engine's files first.
    started_ns: CLOCK_MONOTONIC when this process was spawned; without it the kernel's start time is used (10 ms steps).
    Raises what opening a bundle and an engine raise, UsageError for an effort that does not fit the scenario.
    """
    effort = effort or Effort()
    effort.check(scenario)
    begin_ns = time.perf_counter_ns()
    source = best_power_source() if effort.energy_s else None
    page_cache = drop_page_cache(Path(bundle_path), engine_kind(engine).package) if drop_cache else "not dropped"
    aside_ms = (time.perf_counter_ns() - begin_ns) / 1e6
    kind = engine_class(engine)  # imports the engine's package
    start = ColdStart(started_ns=started_ns, aside_ms=aside_ms)
    watch = Watch(threads=threads, gpu=kind.on_gpu)
    if scenario == COLD_START:
        watch.begin()

    say("verifying the bundle")
    start.go_on()
    bundle = Bundle.open(bundle_path, required_key=required_key)
    start.done("bundle")
    frames_NTHW = bundle.expected().frames_NTHW
    gc.collect()
    memory = MemoryColumns(on_gpu=kind.on_gpu)
    memory.before()

    say("loading the engine")
    context_ms = memory.start_context()
    start.go_on()
    with Recogniser(bundle, engine=engine, threads=threads, precision=precision, options=options) as recogniser:
        start.done("engine", more_ms=context_ms)
        memory.loaded()
        start.go_on()
        recogniser.predict(frames_NTHW[:1])
        start.done("first_inference")
        measured = measure(
            recogniser,
            frames_NTHW,
            scenario=scenario,
            effort=effort,
            watch=watch,
            memory=memory,
            source=source,
            say=say,
        )
        settings, used_precision = recogniser.settings, recogniser.model.precision

    environment: Dict[str, Any] = dict(sensors.environment())
    board = {name: fact for name, fact in board_facts().items() if fact not in (None, [])}
    if board:
        environment["board"] = board
    environment.update(
        {
            "numpy": np.__version__,
            "engine_settings": settings,
            "page_cache": page_cache,
            "peak_memory_from": memory.peak_from,
            "temperature_c": sensors.temperature_c(),
            "garbage_collector": "frozen",
            "clips": f"{len(frames_NTHW)} of the bundle, round and round",
            **measured.environment,
        }
    )
    return BenchRun(
        bundle=bundle.name,
        bundle_sha256=bundle.sha256,
        engine=engine,
        precision=used_precision,
        threads=threads,
        scenario=scenario,
        batch=measured.batch,
        badge=measured.badge,
        reasons=measured.reasons,
        command=command,
        environment=environment,
        warm_up=measured.warm_up,
        cold_start_ms=start.to_json(new_shape_ms=measured.new_shape_ms),
        memory_mib=measured.memory_mib,
        samples_ns=measured.samples_ns,
        summary=measured.summary,
        energy=measured.energy,
    )
