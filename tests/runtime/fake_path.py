"""A clip path on a clock of its own: stages take the time that a test says, waiting none of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any

import numpy as np

from edgelip.runtime.clip_path import ClipPath, Clock

CROP_NS, NORMALISE_NS, LABEL_NS = 1_000, 2_000, 3_000
AROUND_NS = CROP_NS + NORMALISE_NS + LABEL_NS


class FakeTime:
    """Nanoseconds that pass only when something takes them. Processor time passes with work, not with sleep."""

    def __init__(self) -> None:
        self.ns = 1_000_000
        self.cpu_ns = 0
        self.slept_s: list[float] = []

    def work(self, ns: int) -> None:
        self.ns += ns
        self.cpu_ns += ns

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.ns += round(seconds * 1e9)

    def tick(self) -> int:
        """A clock that takes a microsecond to read, so that a spin ends."""
        self.work(1_000)
        return self.ns

    def clock(self) -> Clock:
        """Reading takes no time; waiting ends to the nanosecond and is all sleep."""

        class Punctual(Clock):
            def wait_until(clock, at_ns: int) -> int:
                self.ns = max(self.ns, at_ns)
                return 0

        return Punctual(lambda: self.ns, lambda: self.cpu_ns, self.sleep)


def fake_path(
    time: FakeTime, inference_ns: Iterator[int] | int, seen: Callable[[str, Any], None] | None = None
) -> ClipPath:
    """inference_ns: of each inference in turn. seen: told every array that a stage gets."""
    durations = repeat(inference_ns) if isinstance(inference_ns, int) else inference_ns

    def stage(name: str, ns: int | None) -> Callable[[np.ndarray], np.ndarray]:
        def run(array: np.ndarray) -> np.ndarray:
            if seen is not None:
                seen(name, array)
            time.work(next(durations) if ns is None else ns)
            return array.reshape(len(array), -1) if name == "infer" else array

        return run

    crop, normalise, label = stage("crop", CROP_NS), stage("normalise", NORMALISE_NS), stage("label", LABEL_NS)
    return ClipPath(crop, normalise, stage("infer", None), label, time.clock())
