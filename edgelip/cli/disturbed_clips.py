"""Chosen clips of a test file under a condition, written as an array for processes to read, a piece at a time.

Axes: N clips, B clips of a piece, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edgelip.bench.suite import TestClips
from edgelip.data.disturbances import disturbed
from edgelip.files import writing
from edgelip.runtime.arrays import open_array
from edgelip.runtime.clip import ClipSpec

_PIECE = 64  # clips held at once


def evenly_spread(num_clips: int, wanted: int) -> np.ndarray:
    """Numbers of `wanted` clips, or all: int64, rising."""
    numbers_N: np.ndarray = np.unique(np.linspace(0, num_clips - 1, min(wanted, num_clips)).round().astype(np.int64))
    return numbers_N


def write_disturbed(
    path: Path, test: TestClips, spec: ClipSpec, condition: str, numbers: Sequence[int], *, seed: int
) -> None:
    """Write the clips of these rising numbers under `condition`, uint8 (N, T, H, W) or float32 landmarks, as .npy."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    shape, dtype = (len(numbers), *spec.stored_shape), np.dtype(spec.stored_dtype)
    with writing(path, needs_bytes=int(np.prod(shape)) * dtype.itemsize), path.open("wb") as file:
        fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, fields)
        for chosen, clips_BTHW in pieces(test.path, numbers):
            file.write(disturbed(clips_BTHW, condition, spec, numbers=chosen, seed=seed).tobytes())


def pieces(path: Path, numbers: Sequence[int]) -> Iterator[tuple[list[int], np.ndarray]]:
    """Clips of these rising numbers, some at a time, with their numbers."""
    wanted = np.asarray(numbers)
    with open_array(path, ["frames"]) as stream:
        start = 0
        for batch in stream.batches(_PIECE):
            chosen = wanted[(wanted >= start) & (wanted < start + len(batch))]
            if len(chosen):
                yield chosen.tolist(), batch[chosen - start]
            start += len(batch)
            if start > wanted[-1]:
                return
