"""What makes a stored clip of a sign: from parquet, HDF5 or an array, the same numbers whichever holds them.

Axes: T frames, P points, A coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, final

import numpy as np

from edgelip.data.clip_maker import MadeClip
from edgelip.data.readers.samples import Sample
from edgelip.data.signs.hdf5_landmarks import read_hdf5
from edgelip.data.signs.parquet_landmarks import MAX_FRAMES, read_parquet
from edgelip.data.unusable import UnusableClip
from edgelip.errors import ClipError
from edgelip.runtime.arrays import open_array
from edgelip.runtime.clip import ClipSpec, landmarks_from_raw
from edgelip.runtime.landmarks import NUM_POINTS

ARRAY_NAMES = ("landmarks", "xyz", "frames", "data")
LANDMARK_FILES = (".parquet", ".hdf5", ".h5")  # that hold nothing else
ENDINGS = (*LANDMARK_FILES, ".npz", ".npy")
_MAX_ARRAY_BYTES = 1 << 30
_MAX_PACKED_FRAMES = 160_000  # several signs one after another in an array


@final
@dataclass(frozen=True)
class LandmarkMaker:
    """Clips of signs as `spec` asks: a subset of points, frames without any left out, resampled in time."""

    spec: ClipSpec

    def __post_init__(self) -> None:
        if self.spec.kind != "landmarks":
            raise ClipError(f"signs are landmarks; the clip contract has kind {self.spec.kind!r}. Set it to landmarks.")

    def identity(self) -> Mapping[str, Any]:
        return {"maker": "landmarks"}

    def sources(self, sample: Sample) -> tuple[Path, ...]:
        return (sample.path,)

    def make(self, sample: Sample) -> MadeClip:
        raw_T543A = raw_landmarks(sample)
        try:
            clip_TPA = landmarks_from_raw(raw_T543A, self.spec)
        except ClipError as error:
            raise UnusableClip(f"{sample.name}: {error}", reason="landmarks") from error
        return MadeClip(clip_TPA, 0, self.spec.frames - 1, math.nan)


def raw_landmarks(sample: Sample) -> np.ndarray:
    """Float (T, 543, 3) of one sample, all frames that it has. Raises UnusableClip naming the file."""
    ending = sample.path.suffix.lower()
    if ending == ".parquet":
        whole = read_parquet(sample.path)
    elif ending in (".hdf5", ".h5"):
        whole = read_hdf5(sample.path, sample.name.rpartition("/")[2])
    elif ending in (".npz", ".npy"):
        status = sample.path.stat() if sample.path.is_file() else None
        whole = _read_array(sample.path, (0, 0) if status is None else (status.st_size, status.st_mtime_ns))
    else:
        raise UnusableClip(f"{sample.path} ends in {ending!r}; expected {', '.join(ENDINGS)}.", reason="unreadable")
    if sample.first is None or sample.last is None:
        first, last = 0, len(whole) - 1
    else:
        first, last = sample.first, sample.last
    if not 0 <= first <= last < len(whole):
        raise UnusableClip(
            f"{sample.name} has frames {first} to {last}; the file has 0 to {len(whole) - 1}.", reason="span"
        )
    if last - first >= MAX_FRAMES:
        raise UnusableClip(
            f"{sample.name} has {last - first + 1} frames; the limit is {MAX_FRAMES}.", reason="too large"
        )
    return whole[first : last + 1]


@lru_cache(maxsize=1)
def _read_array(path: Path, _: tuple[int, int]) -> np.ndarray:
    """(T, 543, 3) of a .npy or .npz: one sign, or several one after another. Kept for the next sign of the file."""
    expected = f"float (T, {NUM_POINTS}, 3) as one of {', '.join(ARRAY_NAMES)}"
    if not path.is_file():
        raise UnusableClip(f"{path} does not exist; expected {expected}.", reason="missing")
    try:
        with open_array(path, ARRAY_NAMES) as stream:
            fits = len(stream.shape) == 3 and stream.shape[1:] == (NUM_POINTS, 3)
            if stream.dtype.kind != "f" or not fits or not 1 <= stream.shape[0] <= _MAX_PACKED_FRAMES:
                raise UnusableClip(
                    f"{path} holds {stream.dtype} {stream.shape}; expected {expected}.", reason="landmarks"
                )
            return stream.read(limit_bytes=_MAX_ARRAY_BYTES)
    except UnusableClip:
        raise
    except ValueError as error:
        raise UnusableClip(f"{path} cannot be read: {error}. Expected {expected}.", reason="damaged") from error
