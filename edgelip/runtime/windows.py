"""Obey a parent that times this bundle against another: one short window of inferences for every line on stdin.

A parent holds two such processes and wakes one at a time; the other sleeps on its pipe. Lines in:

    warm-up S           run until steady, S seconds at most
    window MS           run clips back to back for MS milliseconds, 4 clips at least
    window N clips      run N clips back to back
    evidence            what happened to the machine since warm-up
    fallback            what did not run where and as the bundle says; takes a second session in some engines

Each line is answered by one line of JSON: first, unasked, what was loaded; then what warm-up saw; then `latency_ns` of
a window (tensor -> logits), which begins when a few unrecorded clips have brought the caches back; then badge and
reasons. The end of stdin ends the process, so it never outlives its parent.
"""

from __future__ import annotations

import gc
import json
import os
import re
import time
from array import array
from dataclasses import replace
from typing import Any, BinaryIO, Dict, Optional, Tuple

from edgelip.runtime.bundle import Bundle
from edgelip.runtime.clip import network_input
from edgelip.runtime.engines.engine import Options
from edgelip.runtime.errors import UsageError
from edgelip.runtime.recogniser import Recogniser
from edgelip.runtime.validity import judge
from edgelip.runtime.warm_up import warm_up
from edgelip.runtime.watch import Evidence, Watch

PROTOCOL = 1
MAX_WINDOW_MS, MAX_WINDOW_CLIPS, MAX_WARM_UP_S = 60_000, 100_000, 600
FEWEST_CLIPS = 4  # of the 20 windows that a side has in a pair: 80 in all, enough for its p90
SETTLING_CLIPS = 2  # the other process has just used the caches: these show its remains, not this model
_MAX_CLIPS_HELD = 32
_MAX_LINE_BYTES = 200
_ASKED = re.compile(
    r"(?P<plain>evidence|fallback)|(?P<verb>warm-up|window) (?P<number>[0-9]{1,9}(\.[0-9]{1,6})?)(?P<clips> clips)?"
)


class Windows:
    """Clips of a bundle through its recogniser, timed one at a time, round and round."""

    def __init__(self, recogniser: Recogniser) -> None:
        frames_NTHW = recogniser.bundle.expected().frames_NTHW[:_MAX_CLIPS_HELD]
        spec = recogniser.bundle.manifest.clip
        self._clips = [network_input(frames_NTHW[index : index + 1], spec) for index in range(len(frames_NTHW))]
        self._recogniser = recogniser
        self._next = 0

    def once(self) -> int:
        """Nanoseconds of tensor -> logits of the next clip."""
        clip_11THW = self._clips[self._next]
        self._next = (self._next + 1) % len(self._clips)
        infer, clock = self._recogniser.engine.infer, time.perf_counter_ns
        begin_ns = clock()
        infer(clip_11THW)
        return clock() - begin_ns

    def window(self, *, duration_ns: int, num_clips: int) -> array[int]:
        """Until both are reached, or 100,000 clips."""
        latency_ns = array("q")
        until_ns = time.perf_counter_ns() + duration_ns
        while len(latency_ns) < MAX_WINDOW_CLIPS and (len(latency_ns) < num_clips or time.perf_counter_ns() < until_ns):
            latency_ns.append(self.once())
        return latency_ns


def obey(
    bundle_path: str,
    asked: BinaryIO,
    told: BinaryIO,
    *,
    engine: str = "ort",
    precision: Optional[str] = None,
    threads: int = 1,
    options: Optional[Options] = None,
    required_key: Optional[str] = None,
    cpu: Optional[int] = None,
) -> None:
    """Load the bundle, then answer `asked` on `told` until it ends.

    cpu: the one processor to run on once loaded, as both of a pair should.
    Raises what opening a bundle and an engine raise, UsageError for a line that is none of the above.
    """
    bundle = Bundle.open(bundle_path, required_key=required_key)
    with Recogniser(bundle, engine=engine, threads=threads, precision=precision, options=options) as recogniser:
        serve(recogniser, asked, told, threads=threads, cpu=cpu)


def serve(
    recogniser: Recogniser, asked: BinaryIO, told: BinaryIO, *, threads: int = 1, cpu: Optional[int] = None
) -> None:
    """The same for a recogniser that is open."""
    windows = Windows(recogniser)
    recogniser.scores(windows._clips[0])  # a model that gives no finite scores is refused before it is timed
    if cpu is not None:
        _pin(cpu)
    loaded = {
        "protocol": PROTOCOL,
        "bundle": recogniser.bundle.name,
        "bundle_sha256": recogniser.bundle.sha256,
        "precision": recogniser.model.precision,
        "settings": recogniser.settings,
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "pid": os.getpid(),
    }
    _tell(told, loaded)
    watch = Watch(threads=threads, gpu=recogniser.engine.on_gpu)
    watch.begin()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for line in iter(lambda: asked.readline(_MAX_LINE_BYTES), b""):
            verb, number, by_clips = _parsed(line)
            if verb == "warm-up":
                warmed = warm_up(windows.once, cap_s=number)
                watch.begin()
                _tell(told, warmed)
            elif verb == "evidence":
                _tell(told, _judged(watch.end()))
            elif verb == "fallback":
                _tell(told, {"fallback": recogniser.fallback()})
            else:
                _tell(told, _window(windows, number, by_clips))
    finally:
        gc.enable()
        gc.unfreeze()


def _window(windows: Windows, number: float, by_clips: bool) -> Dict[str, Any]:
    for _ in range(SETTLING_CLIPS):
        windows.once()
    begin_ns, begin_cpu_ns = time.perf_counter_ns(), time.process_time_ns()
    latency_ns = (
        windows.window(duration_ns=0, num_clips=int(number))
        if by_clips
        else windows.window(duration_ns=int(number * 1e6), num_clips=FEWEST_CLIPS)
    )
    wall_ns = max(1, time.perf_counter_ns() - begin_ns)
    return {"latency_ns": latency_ns.tolist(), "cpu_share": (time.process_time_ns() - begin_cpu_ns) / wall_ns}


def _judged(evidence: Evidence) -> Dict[str, Any]:
    """Badge and reasons; the other process of the pair, which ran in turn with this one, is none of them."""
    others = evidence.gpu_processes
    alone = replace(evidence, others_cpu_s=None, gpu_processes=others[1:] if others else others)
    badge, reasons = judge(alone, warm_up={}, latency_ns=(), cpu_share=None, fallback=None, needed=0)
    return {"badge": badge, "reasons": list(reasons), "watch": evidence.to_json()}


def _parsed(line: bytes) -> Tuple[str, float, bool]:
    """Verb, number and whether it counts clips. Raises UsageError."""
    text = line.decode("ascii", "replace").strip()
    found = _ASKED.fullmatch(text)
    if found is not None and found["plain"]:
        return found["plain"], 0.0, False
    if found is not None:
        verb, by_clips = found["verb"], found["clips"] is not None
        number = float(found["number"])
        limit = MAX_WARM_UP_S if verb == "warm-up" else MAX_WINDOW_CLIPS if by_clips else MAX_WINDOW_MS
        whole = not by_clips or number.is_integer()
        if 0 < number <= limit and whole and not (by_clips and verb == "warm-up"):
            return verb, number, by_clips
    raise UsageError(
        f"windows was asked {text[:60]!r}; expected 'warm-up S' (S to {MAX_WARM_UP_S}), 'window MS' (to "
        f"{MAX_WINDOW_MS}), 'window N clips' (to {MAX_WINDOW_CLIPS}), 'evidence' or 'fallback', numbers above 0."
    )


def _pin(cpu: int) -> None:
    try:
        os.sched_setaffinity(0, {cpu})
    except (AttributeError, OSError, ValueError) as error:
        raise UsageError(
            f"cpu {cpu} cannot be had ({error}). Leave --cpu out, or choose one of this machine."
        ) from error


def _tell(told: BinaryIO, answer: Dict[str, Any]) -> None:
    told.write(json.dumps(answer).encode() + b"\n")
    told.flush()
