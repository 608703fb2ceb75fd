"""Arrays as a network takes them, from .npy files that nobody vouches for: normalised clips, their lengths, boundaries.

Axes: B clips, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgelip.cli.scorers import BATCH, Scorer
from edgelip.errors import ClipError, UsageError
from edgelip.runtime.arrays import open_array
from edgelip.runtime.clip import SAMPLES_PER_FRAME, ClipSpec
from edgelip.runtime.clip_file import ARRAY_NAMES, clip_batches

MAX_CLIPS_BYTES = 1 << 30
MAX_FRAMES = 1000


def read_frames(path: Path) -> np.ndarray:
    """uint8 clips (B, T, H, W) of a .npy, or of "frames" or "data" in a .npz. Raises ClipError if it holds none."""
    try:
        with open_array(path, ["frames", "data"]) as stream:
            if stream.dtype == np.float32:
                raise ClipError(
                    f"holds float32 {stream.shape}; expected uint8 (B, T, H, W). Are these network inputs? "
                    "Then add --normalised."
                )
            if stream.dtype != np.uint8 or len(stream.shape) not in (3, 4) or stream.num_bytes == 0:
                raise ClipError(f"holds {stream.dtype} {stream.shape}; expected uint8 (B, T, H, W) or one (T, H, W).")
            frames = stream.read(limit_bytes=MAX_CLIPS_BYTES)
    except ValueError as error:
        raise ClipError(f"{path}: {error}") from error
    return frames if frames.ndim == 4 else frames[None]


def read_landmarks(path: Path, spec: ClipSpec) -> np.ndarray:
    """Landmarks as stored, float32 (B, T, P, A): such an array, or all 543 points of one sign, float (T, 543, 3).

    Raises ClipError if the file holds neither.
    """
    try:
        with open_array(path, ARRAY_NAMES) as stream:
            _, batches = clip_batches(stream, spec, size=BATCH, limit_bytes=MAX_CLIPS_BYTES)
            return np.concatenate(list(batches))
    except ValueError as error:
        raise ClipError(f"{path}: {error}") from error


def read_network_inputs(path: Path, scorer: Scorer) -> np.ndarray:
    """float32 (B, 1, T, H, W), of audio (B, 1, samples). Raises ClipError if the classifier does not take them."""
    return _read(path, lambda shape: _fits(shape, scorer), expected=_expected(scorer))


def read_boundaries(path: Path, *, num_clips: int, num_frames: int) -> np.ndarray:
    """float32 (B, T, 1), 1 in the frames of the word and 0 elsewhere. Raises ClipError if it holds anything else."""
    wanted = (num_clips, num_frames, 1)
    boundaries_BT1 = _read(path, lambda shape: shape == wanted, expected=f"{wanted}, one number a frame")
    if not np.isin(boundaries_BT1, (0.0, 1.0)).all():
        raise ClipError(f"{path}: holds other numbers than 0 and 1; expected 1 in the frames of the word, else 0.")
    return boundaries_BT1


def lengths_from_text(text: str, clips: np.ndarray, spec: ClipSpec) -> np.ndarray | None:
    """int64 (B,) from "29,18", none where all clips are full. UsageError unless one number a clip, within the clip."""
    parts = [part.strip() for part in text.split(",")]
    unit, lowest = ("samples", SAMPLES_PER_FRAME) if spec.kind == "audio" else ("frames", 1)
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise UsageError(f"--lengths is {text!r}; expected {unit}, one number a clip, as in --lengths 29,18.")
    if len(parts) != len(clips):
        raise UsageError(f"--lengths has {len(parts)} numbers; there are {len(clips)} clips. Give one a clip.")
    for position, length in enumerate(map(int, parts)):
        if not lowest <= length <= clips.shape[2]:
            raise UsageError(f"--lengths gives clip {position} {length} {unit}; expected {lowest} to {clips.shape[2]}.")
    lengths_B = np.array([int(part) for part in parts], np.int64)
    return None if (lengths_B == clips.shape[2]).all() else lengths_B


def word_indicator(first: int, last: int, num_frames: int) -> np.ndarray:
    """float32 (T, 1): 1 from frame `first` to `last`, inclusive."""
    frames_T1 = np.arange(num_frames)[:, None]
    return ((frames_T1 >= first) & (frames_T1 <= last)).astype(np.float32)


def _read(path: Path, fits: Callable[[tuple[int, ...]], bool], *, expected: str) -> np.ndarray:
    """A finite float32 array whose shape `fits`; nothing is read before that is known."""
    try:
        with open_array(path, ["clips", "data"]) as stream:
            if stream.dtype != np.float32 or not fits(stream.shape):
                raise ClipError(f"holds {stream.dtype} {stream.shape}; expected float32 {expected}.")
            values = stream.read(limit_bytes=MAX_CLIPS_BYTES)
    except ValueError as error:
        raise ClipError(f"{path}: {error}") from error
    if not np.isfinite(values).all():
        raise ClipError(f"{path}: holds nan or infinite numbers; expected finite ones.")
    return values


def _fits(shape: tuple[int, ...], scorer: Scorer) -> bool:
    spec = scorer.spec
    if spec.kind == "audio":
        longest = MAX_FRAMES * SAMPLES_PER_FRAME
        return len(shape) == 3 and shape[0] > 0 and shape[1] == 1 and SAMPLES_PER_FRAME <= shape[2] <= longest
    if len(shape) != 5 or shape[0] == 0 or shape[3:] != spec.input_shape[2:] or shape[1] != 1:
        return False
    return 1 <= shape[2] <= MAX_FRAMES if scorer.any_length else shape[2] == spec.frames


def _expected(scorer: Scorer) -> str:
    spec = scorer.spec
    if spec.kind == "audio":
        return f"(B, 1, samples), {SAMPLES_PER_FRAME} to {MAX_FRAMES * SAMPLES_PER_FRAME} samples at 16 kHz"
    _, frames, height, width = spec.input_shape
    if scorer.any_length:
        return f"(B, 1, T, {height}, {width}), T from 1 to {MAX_FRAMES}"
    return f"(B, 1, {frames}, {height}, {width})"
