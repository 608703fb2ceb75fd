"""Whether landmarks can be of the face in a video at all: one entry a frame, in its picture, in the shape of a face.

The published tools cut whatever the numbers say. Axes as in `alignment`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgelip.data.mouth.alignment import LIPS, mapped
from edgelip.data.mouth.legacy_alignment import least_squares_similarity
from edgelip.data.unusable import UnusableClip

_OUTER_CORNERS = (36, 45)
_LEAST_EYES_PX = 8.0
_LEAST_INSIDE = 0.5
# Median distance from the reference face, in its frame of 256 px: 2 to 4 on GRID's talkers, 9 to 14 with their faces
# narrowed to half, 43 to 54 with x and y exchanged, mirrored, or in another order of points.
_MOST_OFF_PX = 30.0


def check_landmarks(
    landmarks_T: Sequence[np.ndarray | None], frames_THW: np.ndarray, face_P2: np.ndarray, *, path: Path, source: str
) -> None:
    """Raise UnusableClip, reason "landmarks", if those in `path` cannot be of the video `source`."""
    why = _why_not(landmarks_T, frames_THW.shape, face_P2, source)
    if why is not None:
        raise UnusableClip(f"{path} {why}", reason="landmarks")


def _why_not(
    landmarks_T: Sequence[np.ndarray | None], shape_THW: tuple[int, ...], face_P2: np.ndarray, source: str
) -> str | None:
    num_frames, height, width = shape_THW
    if len(landmarks_T) != num_frames:
        return (
            f"has landmarks of {len(landmarks_T)} frames, but {source} has {num_frames}; expected one entry a "
            "frame. Track the face in this very file."
        )
    seen = [points for points in landmarks_T if points is not None]
    if not seen:
        return f"has no landmarks in any of {num_frames} frames; expected a face in one. Track it again."
    seen_TP2 = np.stack(seen)
    eyes_px = float(np.median(np.hypot(*(seen_TP2[:, _OUTER_CORNERS[0]] - seen_TP2[:, _OUTER_CORNERS[1]]).T)))
    if eyes_px < _LEAST_EYES_PX:
        return (
            f"has the eyes {eyes_px:.2g} px apart; expected pixels of the video, at least {_LEAST_EYES_PX:g}. "
            "Multiply shares of the picture by its size."
        )
    lips_T2 = seen_TP2[:, LIPS].mean(axis=1)
    num_inside = int(((lips_T2 >= 0) & (lips_T2 < (width, height))).all(axis=1).sum())
    if num_inside < _LEAST_INSIDE * len(seen):
        return (
            f"has the mouth in the picture of {source}, {width}x{height} px, in {num_inside} of {len(seen)} frames. "
            "Track the face in this very file, at its size."
        )
    fits = np.stack([least_squares_similarity(points_P2, face_P2) for points_P2 in seen_TP2])
    off_px = float(np.median(np.hypot(*(mapped(seen_TP2, fits) - face_P2).transpose(2, 0, 1))))
    if off_px > _MOST_OFF_PX:
        return (
            f"has points that are {off_px:.0f} px from where a face has them (of 256 px); expected the 68 points in "
            "iBUG order, x before y, not mirrored."
        )
    return None
