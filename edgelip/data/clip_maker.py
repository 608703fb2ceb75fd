"""What turns a sample into a stored clip. Building a store is one loop over samples, whatever the clips are made of.

Axes: T frames, H rows, W columns; S stored pixels a side, P points, A axes of a point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np

from edgelip.data.clip_files import read_frames
from edgelip.data.crops import boundary_in_clip, clip_from_video
from edgelip.data.readers.samples import Sample
from edgelip.data.unusable import UnusableClip
from edgelip.data.video import Video
from edgelip.runtime.clip import ClipSpec

# Files of the package that decide what a CropMaker's clips are, in a store: for keys of caches.
CROP_SOURCES = (
    "data/clip_files.py",
    "data/clip_maker.py",
    "data/crops.py",
    "data/video.py",
    "data/stores/building.py",
    "data/stores/shard_task.py",
    "runtime/arrays.py",
    "runtime/clip.py",
)


@dataclass(frozen=True, eq=False)
class MadeClip:
    """A clip as stored.

    frames: uint8 (T, S, S) or float32 (T, P, A), as the contract asks.
    first, last: frames of the word in it, inclusive.
    duration_s: length of the word, nan where nobody knows it.
    notes: what is worth counting, in the same words each time ("2 faces: the largest was followed").
    """

    frames: np.ndarray
    first: int
    last: int
    duration_s: float
    notes: tuple[str, ...] = ()


class ClipMaker(Protocol):
    """Picklable: workers in other processes and on other machines get a copy.

    The same sample and the same files give the same bits. Samples of one file come one after another, so a maker may
    keep what it read last.
    """

    @property
    def spec(self) -> ClipSpec:
        """What the clips are."""

    def identity(self) -> Mapping[str, Any]:
        """All settings that determine a clip, as JSON: name, numbers, sha256 of models and mean faces. No paths."""

    def sources(self, sample: Sample) -> tuple[Path, ...]:
        """The files that the clip is made of: the sample's, its landmarks'. The store records their sha256."""

    def make(self, sample: Sample) -> MadeClip:
        """Raises UnusableClip; any other error ends the whole preparation."""


@final
@dataclass(frozen=True)
class CropMaker:
    """Clips from files of mouth crops as they are: videos, .npz or .npy of the size and rate of `spec`."""

    spec: ClipSpec

    def identity(self) -> Mapping[str, Any]:
        return {"maker": "crops"}

    def sources(self, sample: Sample) -> tuple[Path, ...]:
        return (sample.path,)

    def make(self, sample: Sample) -> MadeClip:
        status = sample.path.stat() if sample.path.is_file() else None
        seen = (0, 0) if status is None else (status.st_size, status.st_mtime_ns)
        return made_from_video(_read(sample.path, self.spec, seen), sample, self.spec)


def made_from_video(video: Video, sample: Sample, spec: ClipSpec, *, notes: tuple[str, ...] = ()) -> MadeClip:
    """Cut the sample's word out of its whole file, already cropped to the mouth. Raises UnusableClip.

    A window is cut around the word's frames where they are given, else around the middle of the file.
    """
    num_frames = len(video.frames_THW)
    first, last = word_frames(sample, num_frames, video.fps)
    is_given = sample.first is not None or spec.timing == "span"
    around = (first, last) if is_given else (0, num_frames - 1)
    frames = clip_from_video(video, *around, spec, source=str(sample.path))
    duration_s = (last - first + 1) / video.fps if sample.duration_s is None else sample.duration_s
    return MadeClip(frames, *boundary_in_clip(first, last, spec, around=around), duration_s, notes)


def word_frames(sample: Sample, num_frames: int, fps: float) -> tuple[int, int]:
    """First and last frame (inclusive) of the sample's word in its file of `num_frames`.

    A word known by its duration alone is centred: frames mid - half - 1 .. mid + half of those there are, mid the
    middle one, half the whole frames in half its duration. Source: LRW's annotation as read by mpc001 dataset.py.
    Raises UnusableClip for frames outside of the file.
    """
    if sample.first is not None and sample.last is not None:
        if not 0 <= sample.first <= sample.last < num_frames:
            raise UnusableClip(
                f"{sample.path} has frames 0..{num_frames - 1}; the word is given as {sample.first}..{sample.last}. "
                "Correct its span.",
                reason="span",
            )
        return sample.first, sample.last
    if sample.duration_s is None:
        return 0, num_frames - 1
    middle, half = (num_frames - 1) // 2, int(sample.duration_s / 2 * fps)
    return max(0, middle - half - 1), min(middle + half + 1, num_frames) - 1


@lru_cache(maxsize=1)  # several words of one video: decoded once
def _read(path: Path, spec: ClipSpec, seen: tuple[int, int]) -> Video:
    return read_frames(path, spec)
