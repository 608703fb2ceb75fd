"""The traffic that a model is measured under.

SingleStream   the next clip when the previous is done, batch 1
MultiStream    queries of several clips, the next when the previous is done; a query takes as long as its slowest clip
Offline        all clips at once, in batches
Streaming      open loop: a window of frames for every hop, arriving on a schedule whatever happened before

A run ends when its least duration and its least count are both reached. Every latency of an open loop runs from the
scheduled arrival, so that waiting behind a late window counts. Frames are those of real clips.

Axes: N clips, T frames, H rows, W columns.
"""

from __future__ import annotations

import abc
from array import array
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import numpy as np

from edgelip.runtime.clip_path import SPIN_NS, ClipPath
from edgelip.runtime.effort import CLIPS_PER_QUERY, HOP_FRAMES, OFFLINE_BATCH, Effort
from edgelip.runtime.measurement import MINIMUM_COUNT, MULTI_STREAM, OFFLINE, SINGLE_STREAM, STREAMING

STAGES = ("crop", "normalise", "latency", "label")


@dataclass(frozen=True)
class Outcome:
    """What a run left. headline: whose samples say whether it can be believed, in time order.

    samples_ns: all of them by name; a function, so that memory is read before more of it is taken.
    cpu_share: processor time of this process per wall time in which it had work, None without any.
    """

    samples_ns: Callable[[], Mapping[str, Sequence[int]]]
    headline: str
    summary: Mapping[str, Any]
    cpu_share: Optional[float]


class Scenario(abc.ABC):
    """One scenario on one path: `step` to warm up, then `run`.

    batch: clips of a query. needed: fewest samples of the headline.
    """

    batch: int = 1
    needed: int = MINIMUM_COUNT[90]

    @abc.abstractmethod
    def step(self) -> int:
        """Serve the next query at once; nanoseconds of tensor -> logits."""

    @abc.abstractmethod
    def run(self, effort: Effort) -> Outcome:
        """Serve until both ends of `effort` are reached."""

    def paced(self) -> Callable[[], object]:
        """What to call again and again for the same traffic without its samples; each call serves `batch` clips."""
        return self.step


class SingleStream(Scenario):
    """Clips one at a time, round and round."""

    def __init__(self, path: ClipPath, frames_NTHW: np.ndarray) -> None:
        self._path = path
        self._clips = [frames_NTHW[index : index + 1] for index in range(len(frames_NTHW))]
        self._next = 0

    def step(self) -> int:
        _, _, ready, scored, _ = self._path.timed(self._clip())
        return scored - ready

    def run(self, effort: Effort) -> Outcome:
        stages, timed, now = Stages(), self._path.timed, self._path.clock.now
        begin_ns, begin_cpu_ns = now(), self._path.clock.cpu()
        until_ns = begin_ns + int(effort.seconds * 1e9)
        while now() < until_ns or len(stages) < effort.min_count:
            stages.add(*timed(self._clip()))
        wall_ns = max(1, now() - begin_ns)
        share = (self._path.clock.cpu() - begin_cpu_ns) / wall_ns
        num_clips, busy_ns = len(stages), sum(stages.taken["latency"])
        summary = {
            "duration_s": wall_ns / 1e9,
            "num_clips": num_clips,
            "clips_per_s": 1e9 * num_clips / max(1, busy_ns),
            "end_to_end_clips_per_s": 1e9 * num_clips / wall_ns,
        }
        return Outcome(stages.samples, "latency", summary, share)

    def _clip(self) -> np.ndarray:
        clip_1THW = self._clips[self._next]
        self._next = (self._next + 1) % len(self._clips)
        return clip_1THW


class Queries(Scenario):
    """Queries of `batch` clips: one inference of all of them, or inferences of `per_inference` one after another."""

    def __init__(
        self, path: ClipPath, frames_NTHW: np.ndarray, *, name: str, batch: int, per_inference: int, needed: int
    ) -> None:
        num_clips = len(frames_NTHW)
        self._path, self._name, self._per_inference = path, name, per_inference
        self.batch, self.needed = batch, needed
        # The last query begins again at the first clip; every clip is in one.
        self._queries = [frames_NTHW[(start + np.arange(batch)) % num_clips] for start in range(0, num_clips, batch)]
        self._next = 0

    def step(self) -> int:
        return self._serve()[0]

    def run(self, effort: Effort) -> Outcome:
        query_ns, end_to_end_ns, now = array("q"), array("q"), self._path.clock.now
        least = effort.min_count if self._name == MULTI_STREAM else -(-effort.min_count // self.batch)
        begin_ns, begin_cpu_ns = now(), self._path.clock.cpu()
        until_ns = begin_ns + int(effort.seconds * 1e9)
        while now() < until_ns or len(query_ns) < least:
            inference_ns, whole_ns = self._serve()
            query_ns.append(inference_ns)
            end_to_end_ns.append(whole_ns)
        wall_ns = max(1, now() - begin_ns)
        share = (self._path.clock.cpu() - begin_cpu_ns) / wall_ns
        num_clips = len(query_ns) * self.batch
        summary = {
            "duration_s": wall_ns / 1e9,
            "num_clips": num_clips,
            "num_queries": len(query_ns),
            "clips_per_query": self.batch,
            "clips_per_inference": self._per_inference,
            "clips_per_s": 1e9 * num_clips / max(1, sum(query_ns)),
            "end_to_end_clips_per_s": 1e9 * num_clips / wall_ns,
        }
        samples = {"query": query_ns, "query_end_to_end": end_to_end_ns}
        return Outcome(lambda: samples, "query", summary, share)

    def _serve(self) -> List[int]:
        """Nanoseconds of tensors -> logits of the whole query, and of frames -> words."""
        frames_NTHW = self._queries[self._next]
        self._next = (self._next + 1) % len(self._queries)
        path, now, size = self._path, self._path.clock.now, self._per_inference
        begun = now()
        pieces = [path.normalise(path.crop(frames_NTHW[start : start + size])) for start in range(0, self.batch, size)]
        ready = now()
        logits = [path.infer(piece) for piece in pieces]
        scored = now()
        for logits_BV in logits:
            for logits_V in logits_BV:
                path.label(logits_V)
        return [scored - ready, now() - begun]


class Streaming(Scenario):
    """One window of frames for every hop at `fps`, each to be named before the next arrives."""

    def __init__(self, path: ClipPath, frames_NTHW: np.ndarray, *, fps: float, hop_frames: int) -> None:
        num_frames = frames_NTHW.shape[1]
        # One endless video of all clips; the frames of its first window stand at its end again.
        stream = frames_NTHW.reshape((-1, *frames_NTHW.shape[2:]))
        self._length = len(stream)
        self._stream = np.concatenate([stream, stream[:num_frames]])
        self._num_frames, self._path = num_frames, path
        self._fps, self._hop_frames = fps, hop_frames
        self._next = 0

    def step(self) -> int:
        self._next += 1
        _, _, ready, scored, _ = self._path.timed(self._window(self._next))
        return scored - ready

    def run(self, effort: Effort) -> Outcome:
        """Windows are served in their order and none is dropped: a late one makes all behind it late.

        Where the run ends with windows waiting, those past their deadline count as missed, unserved.
        """
        stages, clock, timed = Stages(), self._path.clock, self._path.timed
        from_arrival_ns, late_ns = array("q"), array("q")
        spun_ns, seconds_ns = 0, int(effort.seconds * 1e9)
        start_ns, begin_cpu_ns = clock.now() + self._after(1), clock.cpu()
        while True:
            arrival_ns = start_ns + self._after(len(stages))
            spun_ns += clock.wait_until(arrival_ns)
            times = timed(self._window(len(stages)))
            stages.add(*times)
            late_ns.append(times[0] - arrival_ns)
            from_arrival_ns.append(times[-1] - arrival_ns)
            if len(stages) >= effort.min_count and times[-1] - start_ns >= seconds_ns:
                break
        cpu_ns = clock.cpu() - begin_cpu_ns
        busy_ns = sum(map(sum, stages.taken.values()))
        summary = self._summary(from_arrival_ns, busy_ns=busy_ns, duration_ns=times[-1] - start_ns)

        def samples() -> Dict[str, Sequence[int]]:
            return {**stages.samples(), "last_frame_to_word": from_arrival_ns, "late": late_ns}

        return Outcome(samples, "last_frame_to_word", summary, cpu_ns / max(1, busy_ns + spun_ns))

    def paced(self) -> Callable[[], object]:
        start_ns, served = -1, 0

        def serve() -> None:
            nonlocal start_ns, served
            start_ns = self._path.clock.now() if start_ns < 0 else start_ns
            self._path.clock.wait_until(start_ns + self._after(served))
            self._path.timed(self._window(served))
            served += 1

        return serve

    def _summary(self, from_arrival_ns: Sequence[int], *, busy_ns: int, duration_ns: int) -> Dict[str, Any]:
        deadline_ns, served = self._after(1), len(from_arrival_ns)
        overdue = served
        while self._after(overdue + 1) <= duration_ns:
            overdue += 1
        unserved = overdue - served
        missed = sum(each > deadline_ns for each in from_arrival_ns) + unserved
        return {
            "duration_s": duration_ns / 1e9,
            "num_clips": served,
            "fps": self._fps,
            "hop_frames": self._hop_frames,
            "deadline_ms": deadline_ns / 1e6,
            "num_windows": served + unserved,
            "num_unserved": unserved,
            "missed": missed,
            "miss_pct": 100 * missed / (served + unserved),
            "real_time_factor": busy_ns / self._after(served),
            "waiting": f"sleep until {SPIN_NS / 1e6:g} ms before a window arrives, then spin",
        }

    def _after(self, num_hops: int) -> int:
        """Nanoseconds that so many hops take; from the start, so that rounding does not add up."""
        return int(1e9 * num_hops * self._hop_frames / self._fps)

    def _window(self, number: int) -> np.ndarray:
        first = number * self._hop_frames % self._length
        window: np.ndarray = self._stream[None, first : first + self._num_frames]
        return window


class Stages:
    """Samples of clips that pass alone, as machine integers: a list would show in the memory of a small model."""

    def __init__(self) -> None:
        self.taken = {name: array("q") for name in STAGES}
        self._arrays = tuple(self.taken.values())

    def __len__(self) -> int:
        return len(self._arrays[0])

    def add(self, begun: int, cropped: int, ready: int, scored: int, named: int) -> None:
        crop, normalise, latency, label = self._arrays
        crop.append(cropped - begun)
        normalise.append(ready - cropped)
        latency.append(scored - ready)
        label.append(named - scored)

    def samples(self) -> Dict[str, Sequence[int]]:
        """With end_to_end, their sum, and model: latency until a copy is known apart from it."""
        total = np.sum([np.frombuffer(each, np.int64) for each in self._arrays], axis=0)
        return {**self.taken, "model": self.taken["latency"], "end_to_end": array("q", total.tobytes())}


def make_scenario(
    name: str, path: ClipPath, frames_NTHW: np.ndarray, *, effort: Effort, fps: float, most: Optional[int]
) -> Scenario:
    """The scenario `name`. fps: of the clips. most: clips that one inference takes, None for any number."""
    if name == SINGLE_STREAM:
        return SingleStream(path, frames_NTHW)
    if name == STREAMING:
        hop_frames = effort.hop_frames or HOP_FRAMES
        return Streaming(path, frames_NTHW, fps=effort.fps or fps, hop_frames=hop_frames)
    if name == MULTI_STREAM:
        batch, needed = effort.clips_per_query or CLIPS_PER_QUERY, MINIMUM_COUNT[99]
    else:
        assert name == OFFLINE
        batch, needed = effort.batch or OFFLINE_BATCH, 1
    per_inference = batch if most is None else min(batch, most)
    return Queries(path, frames_NTHW, name=name, batch=batch, per_inference=per_inference, needed=needed)
