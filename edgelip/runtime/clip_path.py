"""One clip's way from frames to a word, each stage timed: what all scenarios are made of.

Axes: B clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Tuple

import numpy as np

from edgelip.runtime.clip import crop_clips, normalise_clips
from edgelip.runtime.recogniser import Recogniser

SPIN_NS = 2_000_000  # a sleep may end late by the timer's slack and the scheduler's; the last 2 ms are spun


@dataclass(frozen=True)
class Clock:
    """Where time comes from; a test gives its own."""

    now: Callable[[], int] = time.perf_counter_ns
    cpu: Callable[[], int] = time.process_time_ns
    sleep: Callable[[float], object] = time.sleep

    def wait_until(self, at_ns: int) -> int:
        """Sleep until shortly before `at_ns`, then spin; the nanoseconds that were spun."""
        left_ns = at_ns - self.now()
        if left_ns > SPIN_NS:
            self.sleep((left_ns - SPIN_NS) / 1e9)
        begin_ns = now_ns = self.now()
        while now_ns < at_ns:
            now_ns = self.now()
        return now_ns - begin_ns


@dataclass(frozen=True)
class ClipPath:
    """The stages: crop and normalise make tensors (B, ...) of clips, infer scores (B, V), label a word of (V,)."""

    crop: Callable[[np.ndarray], np.ndarray]
    normalise: Callable[[np.ndarray], np.ndarray]
    infer: Callable[[np.ndarray], np.ndarray]
    label: Callable[[np.ndarray], Any]
    clock: Clock

    @classmethod
    def of(cls, recogniser: Recogniser) -> ClipPath:
        spec = recogniser.bundle.manifest.clip
        crop, normalise = partial(crop_clips, spec=spec), partial(normalise_clips, spec=spec)
        return cls(crop, normalise, recogniser.engine.infer, recogniser.prediction_from_logits, Clock())

    def timed(self, frames_1THW: np.ndarray) -> Tuple[int, int, int, int, int]:
        """When one clip began, was cropped, normalised, scored and named."""
        now = self.clock.now
        begun = now()
        cropped_1THW = self.crop(frames_1THW)
        cropped = now()
        clip_11THW = self.normalise(cropped_1THW)
        ready = now()
        logits_1V = self.infer(clip_11THW)
        scored = now()
        self.label(logits_1V[0])
        return begun, cropped, ready, scored, now()
