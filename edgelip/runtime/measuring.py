"""Measure a model that is loaded: warm-up, scenario, memory, then what takes a look of its own, energy at last."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from edgelip.runtime.clip import network_input
from edgelip.runtime.clip_path import ClipPath
from edgelip.runtime.cold_start import new_shape_ms
from edgelip.runtime.effort import Effort
from edgelip.runtime.measurement import COLD_START
from edgelip.runtime.memory_columns import Columns, MemoryColumns
from edgelip.runtime.recogniser import Recogniser
from edgelip.runtime.scenarios import Outcome, Scenario, make_scenario
from edgelip.runtime.sensors.energy import energy_of_loop
from edgelip.runtime.sensors.power import PowerSource
from edgelip.runtime.validity import judge, notes
from edgelip.runtime.warm_up import warm_up
from edgelip.runtime.watch import Watch

_IDLE_S = 30.0
_SPLIT_CLIPS = 130  # enough for a p95

Say = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """The fields of a BenchRun that need the loaded model; environment: what it adds to that of the machine."""

    batch: int
    badge: str
    reasons: Tuple[str, ...]
    warm_up: Mapping[str, Any]
    new_shape_ms: Optional[float]
    memory_mib: Columns
    samples_ns: Mapping[str, Tuple[int, ...]]
    summary: Mapping[str, Any]
    energy: Optional[Mapping[str, Any]]
    environment: Mapping[str, Any]


def measure(
    recogniser: Recogniser,
    frames_NTHW: np.ndarray,
    *,
    scenario: str,
    effort: Effort,
    watch: Watch,
    memory: MemoryColumns,
    source: Optional[PowerSource],
    say: Say,
) -> Measured:
    """One run of `scenario` on the bundle's own clips.

    watch: begun by the caller for ColdStart, which ends with the first inference; else begun here after warm-up.
    """
    loop, warmed, outcome = None, {}, Outcome(dict, "", {}, None)
    if scenario == COLD_START:
        evidence = watch.end()
    else:
        loop = make_scenario(
            scenario,
            ClipPath.of(recogniser),
            frames_NTHW,
            effort=effort,
            fps=recogniser.bundle.manifest.clip.fps,
            most=recogniser.engine.most_clips,
        )
        with _frozen_garbage():
            say("warming up")
            warmed = warm_up(loop.step, cap_s=effort.warm_up_cap_s)
            watch.begin()
            say(f"measuring {scenario} for {effort.seconds:g} s")
            outcome = loop.run(effort)
            evidence = watch.end()
    memory.after()

    samples: Dict[str, Sequence[int]] = dict(outcome.samples_ns())
    headline = samples.get(outcome.headline, ())
    batch = loop.batch if loop is not None else 1
    shape_ms = new_shape_ms(recogniser, seen=batch)
    environment: Dict[str, Any] = {"cpu_share": outcome.cpu_share, "watch": evidence.to_json()}
    if "latency" in samples:
        samples.update(_copy_and_model(recogniser, frames_NTHW))
        if recogniser.bundle.manifest.clip.kind == "landmarks":
            del samples["crop"]  # points are not cropped, only looked at
    clips_each = int(outcome.summary.get("clips_per_inference", 1))
    columns = memory.columns(activation_bytes=_activation_bytes(recogniser, frames_NTHW, clips_each))
    badge, reasons = judge(
        evidence,
        warm_up=warmed,
        latency_ns=headline,
        cpu_share=outcome.cpu_share,
        fallback=recogniser.fallback(),
        needed=loop.needed if loop is not None else 0,
    )
    environment["notes"] = list(notes(evidence))
    energy = None
    if source is not None and loop is not None:
        energy = _energy(loop, source, scenario=scenario, effort=effort, say=say)
    return Measured(
        batch=batch,
        badge=badge,
        reasons=reasons,
        warm_up=warmed,
        new_shape_ms=shape_ms,
        memory_mib=columns,
        samples_ns={name: tuple(each) for name, each in samples.items()},
        summary=outcome.summary,
        energy=energy,
        environment=environment,
    )


def _copy_and_model(recogniser: Recogniser, frames_NTHW: np.ndarray) -> Dict[str, List[int]]:
    """Samples of the copy to a device of its own and of the model after it; nothing where the engine cannot tell.

    From a loop of its own: the copy is waited for, which the latency does not do.
    """
    spec, clock = recogniser.bundle.manifest.clip, ClipPath.of(recogniser).clock
    found: Dict[str, List[int]] = {"copy": [], "model": []}
    for index in range(_SPLIT_CLIPS):
        clip_11THW = network_input(frames_NTHW[index % len(frames_NTHW)][None], spec)
        begin_ns = clock.now()
        _, copy_ns = recogniser.engine.infer_split(clip_11THW)
        if copy_ns is None:
            return {}
        found["copy"].append(copy_ns)
        found["model"].append(clock.now() - begin_ns - copy_ns)
    return found


def _activation_bytes(recogniser: Recogniser, frames_NTHW: np.ndarray, num_clips: int) -> Optional[int]:
    chosen = np.arange(num_clips) % len(frames_NTHW)
    return recogniser.engine.activation_bytes(network_input(frames_NTHW[chosen], recogniser.bundle.manifest.clip))


def _energy(loop: Scenario, source: PowerSource, *, scenario: str, effort: Effort, say: Say) -> Dict[str, Any]:
    idle_s = min(_IDLE_S, effort.energy_s)
    found = energy_of_loop(
        loop.paced(), source, seconds=effort.energy_s, idle_seconds=idle_s, say=say, clips_each=loop.batch
    )
    return {**found, "traffic": scenario}


@contextmanager
def _frozen_garbage() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
