"""Clips in a .npy or .npz file, as `predict` takes them.

Axes: B clips, T frames, H rows, W columns, P points, A coordinates.
"""

from __future__ import annotations

from typing import Iterator, Tuple

import numpy as np

from edgelip.runtime.arrays import ArrayStream
from edgelip.runtime.clip import ClipSpec, landmarks_from_raw
from edgelip.runtime.errors import ClipError
from edgelip.runtime.landmarks import NUM_POINTS

ARRAY_NAMES = ("frames", "data")
"""The first of these that an .npz has is read."""


def clip_batches(
    stream: ArrayStream, spec: ClipSpec, *, size: int, limit_bytes: int
) -> Tuple[int, Iterator[np.ndarray]]:
    """How many clips the array holds, and up to `size` of them at a time, as `network_input` takes them.

    Of video: uint8 (B, T, H, W) or one (T, H, W). Of landmarks: as stored, float32 (B, T, P, A) or one (T, P, A), or
    all 543 points of one sign, float (T, 543, 2 or 3), of any number of frames.
    Raises ClipError where the array is none of these or larger than `limit_bytes`.
    """
    single = len(stream.shape) == 3
    num_clips = 1 if single else (stream.shape[0] if stream.shape else 0)
    if num_clips == 0 or stream.num_bytes > limit_bytes:
        expected = "uint8 clips (B, T, H, W) or one (T, H, W)"
        if spec.kind == "landmarks":
            expected = f"float32 (B, {', '.join(map(str, spec.stored_shape))}), or (T, {NUM_POINTS}, 3) of one sign"
        raise ClipError(f"has shape {stream.shape}; expected {expected}")
    if not single:
        return num_clips, stream.batches(size)
    clip = stream.read(limit_bytes=limit_bytes)
    if spec.kind == "landmarks" and (clip.shape[1] == NUM_POINTS or clip.shape != spec.stored_shape):
        clip = landmarks_from_raw(clip, spec)
    return 1, iter([clip[None]])
