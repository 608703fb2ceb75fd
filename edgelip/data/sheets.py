"""Frames for a contact sheet: of samples as they lie on disk, or of a store.

Axes: B clips, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from edgelip.data.clip_files import read_frames
from edgelip.data.inspection import spread
from edgelip.data.readers.samples import Sample
from edgelip.data.signs.maker import LANDMARK_FILES, raw_landmarks
from edgelip.data.signs.pictures import drawn_points
from edgelip.data.stores.store import Store
from edgelip.errors import ClipError
from edgelip.runtime.clip import ClipSpec
from edgelip.runtime.landmarks import point_set

CELL_PX = 96
NUM_FRAMES = 10


def frames_of_samples(samples: Sequence[Sample], num_clips: int) -> tuple[np.ndarray, list[str]]:
    """uint8 (B, 10, 96, 96) of clips spread over the samples, scaled to fit, and their words.

    A file that cannot be read is passed over. Raises ClipError if all of them are.
    """
    pictures: list[np.ndarray] = []
    labels: list[str] = []
    first_error = ""
    for number in spread(len(samples), num_clips):
        sample = samples[number]
        try:
            if sample.path.suffix.lower() in LANDMARK_FILES:
                pictures.append(_drawn_sign(sample))
                labels.append(sample.word)
                continue
            frames_THW = read_frames(sample.path, ClipSpec()).frames_THW
        except ClipError as error:
            first_error = first_error or str(error)
            continue
        last = len(frames_THW) - 1
        span = (0, last) if sample.first is None or sample.last is None else (sample.first, min(sample.last, last))
        picks = np.linspace(min(span), max(span), NUM_FRAMES).round().astype(int)
        pictures.append(np.stack([_fitted(frames_THW[pick]) for pick in picks]))
        labels.append(sample.word)
    if not pictures:
        raise ClipError(
            f"none of the clips chosen for the sheet can be read, the first: {first_error or 'there is none'}"
        )
    return np.stack(pictures), labels


def _drawn_sign(sample: Sample) -> np.ndarray:
    """Raises UnusableClip if its landmarks cannot be read."""
    raw_T543A, points = raw_landmarks(sample), point_set("holistic130")
    picks = np.linspace(0, len(raw_T543A) - 1, NUM_FRAMES).round().astype(int)
    frames_THW: np.ndarray = drawn_points(raw_T543A[None, picks][:, :, list(points.indices)], points, side_px=CELL_PX)[
        0
    ]
    return frames_THW


def frames_of_store(store: Store, num_clips: int) -> tuple[np.ndarray, list[str]]:
    """The same of a store's clips, frames in their own size, landmarks drawn."""
    numbers = spread(len(store), num_clips)
    picks = np.unique(np.linspace(0, store.spec.frames - 1, NUM_FRAMES).round().astype(int))
    frames = np.stack([np.asarray(store.frames[number])[picks] for number in numbers])
    if store.spec.kind == "landmarks":
        frames = drawn_points(frames, store.spec.point_set)
    return frames, [store.words[store.labels[number]] for number in numbers]


def _fitted(frame_HW: np.ndarray) -> np.ndarray:
    """Scaled to fit the cell, the rest black."""
    height, width = frame_HW.shape
    scale = CELL_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(frame_HW, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    cell = np.zeros((CELL_PX, CELL_PX), np.uint8)
    top, left = (CELL_PX - size[1]) // 2, (CELL_PX - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = small
    return cell
