"""Mouth crops of the older LRW tool, which older published checkpoints were trained on.

Five points, a window that looks ahead, exact bilinear sampling, truncation to whole grey levels. Its crops differ from
those of the reference alignment by position and by grey level. Axes as in `alignment`.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from edgelip.data.mouth.alignment import LIPS, MIN_FRAMES, interpolated, mapped, roi_corners, roi_matrices
from edgelip.data.mouth.track import ROI_PX
from edgelip.data.unusable import UnusableClip

POINTS = (33, 36, 39, 42, 45)
_WINDOW = 12
_EDGE = 1e-9  # a whole grey level must not fall to the one below by rounding in the sum


def legacy_rois(frames_THWC: np.ndarray, landmarks_T: Sequence[np.ndarray | None], face_P2: np.ndarray) -> np.ndarray:
    """Gray crops uint8 (T, 96, 96) of the older tool; it turned colour crops (frames BGR) to gray after the warp.

    Gray frames give crops that are up to 1 grey level off on the reference clip. Raises UnusableClip as `aligned_rois`.
    """
    matrices_T23 = legacy_roi_matrices(landmarks_T, face_P2)
    rois = [sampled(f, m) for f, m in zip(frames_THWC, matrices_T23, strict=True)]
    return np.stack([cv2.cvtColor(roi, cv2.COLOR_BGR2GRAY) if roi.ndim == 3 else roi for roi in rois])


def legacy_roi_matrices(landmarks_T: Sequence[np.ndarray | None], face_P2: np.ndarray) -> np.ndarray:
    """From pixels of each frame to its ROI: the similarity of the mean landmarks of frames t..t+11, then the crop.

    The last 11 frames take over the last similarity; the crop follows the landmarks of the frame itself.
    """
    if len(landmarks_T) < MIN_FRAMES:
        raise UnusableClip(
            f"{len(landmarks_T)} frames; expected at least {MIN_FRAMES}, the window of the older alignment tool. "
            "Use another mouth finder for clips this short.",
            reason="too short",
        )
    points_TP2 = interpolated(landmarks_T)
    face = np.asarray(face_P2, np.float64)[list(POINTS)]
    last = len(points_TP2) - _WINDOW
    windows = [points_TP2[t : t + _WINDOW].mean(axis=0)[list(POINTS)] for t in range(last + 1)]
    matrices = [least_squares_similarity(points_K2, face) for points_K2 in windows]
    matrices_T23 = np.stack([matrices[min(t, last)] for t in range(len(points_TP2))])
    return roi_matrices(matrices_T23, roi_corners(mapped(points_TP2, matrices_T23)[:, LIPS]))


def least_squares_similarity(points_K2: np.ndarray, target_K2: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift of least squared error. Source: Umeyama, PAMI 13(4), 1991, in two dimensions.

    With centred p and q: a = sum(p . q) / sum(p . p), b = sum(p x q) / sum(p . p), linear part [[a, -b], [b, a]].
    """
    centre_2, target_centre_2 = points_K2.mean(axis=0), target_K2.mean(axis=0)
    p, q = points_K2 - centre_2, target_K2 - target_centre_2
    spread = float((p * p).sum())
    if not spread > 0:
        raise UnusableClip(
            "landmarks fit no face: eyes and nose in one place. Track the face again.", reason="landmarks"
        )
    a = float((p * q).sum()) / spread
    b = float((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum()) / spread
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, target_centre_2 - linear @ centre_2])


def sampled(frame_HWC: np.ndarray, matrix_23: np.ndarray) -> np.ndarray:
    """The ROI of one frame by bilinear sampling in float64, black outside, truncated to uint8.

    cv2.warpAffine rounds positions to 1/32 px, which shows where grey levels are truncated.
    """
    inverse = cv2.invertAffineTransform(matrix_23)
    column, row = np.meshgrid(np.arange(ROI_PX), np.arange(ROI_PX))
    height, width = frame_HWC.shape[:2]
    x = np.clip(inverse[0, 0] * column + inverse[0, 1] * row + inverse[0, 2], -1, width)
    y = np.clip(inverse[1, 0] * column + inverse[1, 1] * row + inverse[1, 2], -1, height)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right_share, lower_share = x - left, y - top
    if frame_HWC.ndim == 3:
        right_share, lower_share = right_share[..., None], lower_share[..., None]
    padding = ((1, 2), (1, 2), (0, 0))[: frame_HWC.ndim]
    framed = np.pad(frame_HWC, padding).astype(np.float64)
    left, top = left + 1, top + 1
    upper = framed[top, left] * (1 - right_share) + framed[top, left + 1] * right_share
    lower = framed[top + 1, left] * (1 - right_share) + framed[top + 1, left + 1] * right_share
    truncated: np.ndarray = (upper * (1 - lower_share) + lower * lower_share + _EDGE).astype(np.uint8)
    return truncated
