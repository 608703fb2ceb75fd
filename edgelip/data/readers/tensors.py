"""Clips that are in memory already, as a prepared store.

Axes: N clips, T frames, H rows, W columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.data.crops import boundary_in_clip, clip_from_video
from edgelip.data.stores.store import Store, StoreWriter
from edgelip.data.video import Video
from edgelip.errors import ClipError, UsageError
from edgelip.runtime.clip import ClipSpec

_CHUNK = 64


def clips_from_tensors(frames: Any, what: str) -> list[np.ndarray]:
    """One array (N, T, H, W), numpy or torch, or a list of (T, H, W) of any lengths, as a list of uint8 (T, H, W).

    Raises ClipError naming the clip that is none.
    """
    clips = [np.asarray(clip.detach().cpu() if hasattr(clip, "detach") else clip) for clip in frames]
    if not clips:
        raise UsageError(f"{what} has no clip; expected uint8 (N, T, H, W), or a list of uint8 (T, H, W).")
    for number, clip_THW in enumerate(clips):
        if clip_THW.dtype != np.uint8 or clip_THW.ndim != 3 or 0 in clip_THW.shape:
            raise ClipError(
                f"{what} clip {number} is {clip_THW.dtype} {clip_THW.shape}; expected uint8 (T, H, W), nothing empty. "
                "Give grey frames of 0 to 255, not normalised ones."
            )
    return clips


def labels_from_words(labels: Any, words: Sequence[str], num_clips: int, what: str) -> np.ndarray:
    """int32 (N,) from words or numbers. Raises UsageError for another number of them, or a label that is no word's."""
    given = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)
    if given.shape != (num_clips,):
        raise UsageError(f"{what} has labels of shape {given.shape} for {num_clips} clips; expected one a clip.")
    if given.dtype.kind in "UO":
        numbers = {word: number for number, word in enumerate(words)}
        for label in given.tolist():
            if label not in numbers:
                raise UsageError(f"{what} has the label {label!r}, which is no word of words={list(words)!r:.200}.")
        return np.array([numbers[label] for label in given.tolist()], np.int32)
    if given.dtype.kind not in "iu":
        raise UsageError(f"{what} has labels of {given.dtype}; expected words, or whole numbers from 0.")
    bad = np.flatnonzero((given < 0) | (given >= len(words)))
    if len(bad):
        raise UsageError(
            f"{what} clip {bad[0]} has label {given[bad[0]]}; expected a word's place, 0 to {len(words) - 1}."
        )
    return given.astype(np.int32)


def store_tensors(
    folder: Path, clips: Sequence[np.ndarray], labels_N: np.ndarray, words: Sequence[str], spec: ClipSpec, *, what: str
) -> Store:
    """Cut each clip as a file of it would be (`clip_files.read_clip`) and keep them in `folder`.

    Raises ClipError for a clip of another size than the contract's.
    """
    source = hashlib.sha256(repr((spec.to_json(), list(words))).encode())
    source.update(labels_N.tobytes())
    for clip_THW in clips:
        source.update(repr(clip_THW.shape).encode())
        source.update(np.ascontiguousarray(clip_THW).data)
    with StoreWriter(folder, len(clips), spec, words=words, source_sha256=source.hexdigest()) as writer:
        for start in range(writer.num_done, len(clips), _CHUNK):
            some = clips[start : start + _CHUNK]
            cut = [
                clip_from_video(Video(clip, spec.fps), 0, len(clip) - 1, spec, source=f"{what} clip {start + number}")
                for number, clip in enumerate(some)
            ]
            writer.write(
                start,
                np.stack(cut),
                labels_B=labels_N[start : start + _CHUNK],
                speakers_B=np.zeros(len(some), np.int32),
                boundaries_B2=np.array([boundary_in_clip(0, len(clip) - 1, spec) for clip in some]),
            )
        return writer.finish()
