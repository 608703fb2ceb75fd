"""A few clips as files, and the kill of a process that prepares them, for tests of preparation."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.data.clip_maker import ClipMaker, CropMaker, MadeClip
from edgelip.data.readers.samples import Sample
from edgelip.runtime.clip import ClipSpec

SPEC = ClipSpec(frames=4, roi_px=8, pool=1, crop_px=8)
WORDS = ("red", "blue")


def write_samples(root: Path, num_clips: int = 10) -> list[Sample]:
    """Arrays of noise, one a clip, words and speakers by turns."""
    root.mkdir(parents=True, exist_ok=True)
    samples = []
    for number in range(num_clips):
        frames = np.random.default_rng(number).integers(0, 256, (4, 8, 8), dtype=np.uint8)
        path = root / f"clip{number:02d}.npy"
        np.save(path, frames)
        speaker = f"s{number % 3}"
        samples.append(Sample(WORDS[number % 2], path, path.name, "train", duration_s=0.08, speaker=speaker))
    return samples


@dataclass(frozen=True)
class Mortal:
    """Makes clips as CropMaker does until it comes to `at`; then its process is killed, while `alive` is not there."""

    spec: ClipSpec
    at: str
    alive: Path

    def identity(self) -> Mapping[str, Any]:
        return CropMaker(self.spec).identity()

    def sources(self, sample: Sample) -> tuple[Path, ...]:
        return (sample.path,)

    def make(self, sample: Sample) -> MadeClip:
        if sample.name == self.at and not self.alive.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return CropMaker(self.spec).make(sample)


@dataclass(frozen=True)
class Noting:
    """Notes the speakers of what `inner` makes, and fails as told."""

    inner: ClipMaker
    broken: Mapping[str, Exception]

    @property
    def spec(self) -> ClipSpec:
        return self.inner.spec

    def identity(self) -> Mapping[str, Any]:
        return self.inner.identity()

    def sources(self, sample: Sample) -> tuple[Path, ...]:
        return self.inner.sources(sample)

    def make(self, sample: Sample) -> MadeClip:
        if sample.name in self.broken:
            raise self.broken[sample.name]
        made = self.inner.make(sample)
        return MadeClip(made.frames, made.first, made.last, made.duration_s, (f"said by {sample.speaker}",))
