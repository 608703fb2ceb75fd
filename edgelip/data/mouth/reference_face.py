"""The 68-point face that landmarks are aligned to, in a frame of 256 px: the package's own, or the user's.

The package's own is the frontal view of MediaPipe's canonical face model (modules/face_geometry/data, Apache-2.0, The
MediaPipe Authors; see NOTICE): its vertices at the places of the 68 iBUG points, scaled so that ROIs cover the squares
of edgelip's other finders (mean IoU 0.95, centres 1.1 px apart). The mean face of the LRW tools is smaller: with it
squares are 1.10 times as wide, IoU 0.83 with those of this face, and grey levels differ by 8.4 on average (450 frames
of six GRID talkers). Crops of the two do not mix, and a published LRW checkpoint wants its authors' face.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelip.data.mouth.alignment import FACE_PX, LEFT_EYE, LIPS, NUM_POINTS, RIGHT_EYE
from edgelip.data.mouth.track import OUTER_EYES_PX, ROI_PX
from edgelip.errors import UsageError
from edgelip.runtime.arrays import open_array

_NAMES = ("mean_face", "face", "landmarks", "data", "arr_0")
_LIMIT_BYTES = 1 << 20
_MOUTH = (128.0, 160.0)
# Squares of this face are 0.973 as wide as those of the GRID crops if its eyes lie 88 px apart: mean of six talkers,
# 450 frames, landmarks of FaceLandmarker. Detectors put the corners further in than the canonical model does.
_SHRINK = 0.973
_OUTER_CORNERS = (36, 45)
_LEAST_EYES_PX = 20.0
# Centimetres right and down from the middle of the head.
_CANONICAL_CM = (
    (-7.74, -2.36),
    (-7.66, -0.67),
    (-7.54, 1.05),
    (-7.27, 2.89),
    (-6.72, 4.79),
    (-5.09, 7.18),
    (-4.07, 7.99),
    (-2.31, 8.97),
    (0.00, 9.40),
    (2.31, 8.97),
    (4.07, 7.99),
    (5.09, 7.18),
    (6.72, 4.79),
    (7.27, 2.89),
    (7.54, 1.05),
    (7.66, -0.67),
    (7.74, -2.36),
    (-5.72, -4.25),
    (-4.99, -4.80),
    (-3.99, -5.11),
    (-2.76, -5.10),
    (-1.40, -5.01),
    (1.40, -5.01),
    (2.76, -5.10),
    (3.99, -5.11),
    (4.99, -4.80),
    (5.72, -4.25),
    (0.00, -3.27),
    (0.00, -1.73),
    (0.00, -0.37),
    (0.00, 0.46),
    (-1.41, 1.71),
    (-0.60, 2.01),
    (0.00, 2.09),
    (0.60, 2.01),
    (1.41, 1.71),
    (-4.45, -2.66),
    (-3.67, -2.93),
    (-2.72, -2.96),
    (-1.86, -2.59),
    (-2.72, -2.32),
    (-3.67, -2.36),
    (1.86, -2.59),
    (2.72, -2.96),
    (3.67, -2.93),
    (4.45, -2.66),
    (3.67, -2.36),
    (2.72, -2.32),
    (-2.46, 4.34),
    (-1.91, 3.80),
    (-0.71, 3.33),
    (0.00, 3.41),
    (0.71, 3.33),
    (1.91, 3.80),
    (2.46, 4.34),
    (1.84, 4.83),
    (0.70, 5.29),
    (0.00, 5.37),
    (-0.70, 5.29),
    (-1.84, 4.83),
    (-2.15, 4.28),
    (-1.02, 3.99),
    (0.00, 3.99),
    (1.02, 3.99),
    (2.15, 4.28),
    (1.10, 4.46),
    (0.00, 4.54),
    (-1.10, 4.46),
)


def own_face() -> np.ndarray:
    """The package's own reference face, float64 (68, 2): x and y in pixels."""
    face_P2 = np.array(_CANONICAL_CM)
    right, left = face_P2[list(_OUTER_CORNERS)]
    face_P2 *= OUTER_EYES_PX * _SHRINK / np.hypot(*(left - right))
    placed: np.ndarray = face_P2 + np.array(_MOUTH) - face_P2[LIPS].mean(axis=0)
    return placed


def read_face(path: Path) -> np.ndarray:
    """A user's reference face from .npy or .npz, float64 (68, 2). Raises UsageError if it is not one."""
    path = Path(path)
    expected = f"expected an array ({NUM_POINTS}, 2) of x and y in a frame of {FACE_PX} px (.npy or .npz)"
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"mean face {path} {what}; {expected}.")
    try:
        with open_array(path, _NAMES) as stream:
            face = stream.read(limit_bytes=_LIMIT_BYTES)
    except ValueError as error:
        raise UsageError(f"mean face {path} cannot be read: {error}; {expected}.") from error
    if face.shape != (NUM_POINTS, 2) or face.dtype.kind not in "fiu":
        raise UsageError(f"mean face {path} is {face.dtype} of shape {face.shape}; {expected}.")
    face_P2 = face.astype(np.float64)
    wrong = _why_no_face(face_P2)
    if wrong:
        raise UsageError(f"mean face {path} {wrong}; {expected}.")
    return face_P2


def _why_no_face(face_P2: np.ndarray) -> str | None:
    if not np.isfinite(face_P2).all():
        return "has values that are not finite"
    if face_P2.min() < 0 or face_P2.max() > FACE_PX:
        return f"reaches from {face_P2.min():.4g} to {face_P2.max():.4g}"
    right, left, mouth = (face_P2[part].mean(axis=0) for part in (RIGHT_EYE, LEFT_EYE, LIPS))
    eyes_px = left[0] - right[0]
    if eyes_px < _LEAST_EYES_PX or abs(left[1] - right[1]) > eyes_px / 2 or mouth[1] <= max(left[1], right[1]):
        return "does not stand upright with the right eye (points 36-41) on the left and the mouth (48-67) below"
    if not (ROI_PX / 2 <= mouth[0] <= FACE_PX - ROI_PX / 2 and ROI_PX / 2 <= mouth[1] <= FACE_PX - ROI_PX / 2):
        return f"has its mouth at ({mouth[0]:.0f}, {mouth[1]:.0f}), where no window of {ROI_PX} px fits"
    return None
