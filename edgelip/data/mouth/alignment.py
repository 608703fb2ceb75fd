"""Reference alignment: mouth crops as LRW users make them from 68-point landmarks.

Lost frames interpolated, landmarks smoothed, a similarity by least median of squares from eight points that speech
hardly moves to a reference face, warp to 256 px, crop of 96 px around the lips. Crops of the older tool
(`legacy_alignment`) and of four keypoints (`four_keypoints`) differ: test a checkpoint with the crop it was trained on.
Axes: T frames, H rows, W columns, C colours; P = 68 points (x, y) in pixels of the frame; 2x3 matrices map (x, y, 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from edgelip.data.mouth.track import ROI_PX
from edgelip.data.unusable import UnusableClip

NUM_POINTS = 68
FACE_PX = 256  # side of the frame that reference faces are given in
LIPS = slice(48, 68)
RIGHT_EYE = slice(36, 42)
LEFT_EYE = slice(42, 48)
STABLE = (28, 33, 36, 39, 42, 45, 48, 54)
MIN_FRAMES = 12  # the published tools pass over shorter clips
_REACH = 6


def aligned_rois(frames_THWC: np.ndarray, landmarks_T: Sequence[np.ndarray | None], face_P2: np.ndarray) -> np.ndarray:
    """Crops uint8 (T, 96, 96), or (T, 96, 96, 3) of colour frames, by the reference alignment.

    landmarks_T: float (68, 2) or None where the face was lost. Gray frames in for gray crops: the tool converts first.
    Raises UnusableClip without any landmarks, with fewer than 12 frames, or if no similarity fits.
    """
    matrices_T23, smooth_TP2 = alignment_of(landmarks_T, face_P2)
    return cut_around(warp(frames_THWC, matrices_T23), roi_corners(mapped(smooth_TP2, matrices_T23)[:, LIPS]))


def alignment_of(landmarks_T: Sequence[np.ndarray | None], face_P2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Similarity of each frame to the reference face, (T, 2, 3), and the smoothed landmarks, (T, 68, 2)."""
    if len(landmarks_T) < MIN_FRAMES:
        raise UnusableClip(
            f"{len(landmarks_T)} frames; expected at least {MIN_FRAMES}, as the published alignment needs them. "
            "Use another mouth finder for clips this short.",
            reason="too short",
        )
    smooth_TP2 = smoothed(interpolated(landmarks_T))
    face = np.asarray(face_P2, np.float64)
    return similarities(smooth_TP2[:, list(STABLE)], face[list(STABLE)]), smooth_TP2


def interpolated(landmarks_T: Sequence[np.ndarray | None]) -> np.ndarray:
    """Float64 (T, P, 2): lost frames linear between their neighbours, the first and last seen held at the ends.

    Raises UnusableClip if no frame has landmarks.
    """
    seen = [t for t, points in enumerate(landmarks_T) if points is not None]
    if not seen:
        raise UnusableClip(
            f"no landmarks in any of {len(landmarks_T)} frames; expected a face in one at least. "
            "Leave the clip out or track its face again.",
            reason="landmarks",
        )
    known_SK = np.stack([np.asarray(landmarks_T[t], np.float64) for t in seen])
    flat_SK = known_SK.reshape(len(seen), -1)
    at = np.arange(len(landmarks_T))
    filled_TK = np.stack([np.interp(at, seen, column_S) for column_S in flat_SK.T], axis=1)
    return filled_TK.reshape(len(at), *known_SK.shape[1:])


def smoothed(landmarks_TP2: np.ndarray) -> np.ndarray:
    """Mean over up to 6 frames on both sides, as many as the shorter one has, kept around the frame's own centroid."""
    num_frames = len(landmarks_TP2)
    smooth_TP2 = np.empty_like(landmarks_TP2)
    for t in range(num_frames):
        reach = min(_REACH, t, num_frames - 1 - t)
        mean_P2 = landmarks_TP2[t - reach : t + reach + 1].mean(axis=0)
        smooth_TP2[t] = mean_P2 + landmarks_TP2[t].mean(axis=0) - mean_P2.mean(axis=0)
    return smooth_TP2


def similarities(points_TK2: np.ndarray, target_K2: np.ndarray) -> np.ndarray:
    """Rotation, scale and shift of each frame that take its points to the target, by least median of squares."""
    matrices_T23 = np.empty((len(points_TK2), 2, 3))
    for t, points_K2 in enumerate(points_TK2):
        matrix_23, _ = cv2.estimateAffinePartial2D(np.ascontiguousarray(points_K2), target_K2, method=cv2.LMEDS)
        if matrix_23 is None or not np.isfinite(matrix_23).all() or not np.abs(matrix_23[:, :2]).max() > 0:
            raise UnusableClip(
                f"landmarks of frame {t} fit no face: all in one place or too far apart. Track the face again.",
                reason="landmarks",
            )
        matrices_T23[t] = matrix_23
    return matrices_T23


def mapped(points_TK2: np.ndarray, matrices_T23: np.ndarray) -> np.ndarray:
    """The points of each frame under its matrix."""
    moved: np.ndarray = points_TK2 @ matrices_T23[:, :, :2].transpose(0, 2, 1) + matrices_T23[:, None, :, 2]
    return moved


def warp(frames_THWC: np.ndarray, matrices_T23: np.ndarray) -> np.ndarray:
    """Each frame in the frame of the reference face, 256 px, bilinear, black outside."""
    size = (FACE_PX, FACE_PX)
    return np.stack([cv2.warpAffine(f, m, size) for f, m in zip(frames_THWC, matrices_T23, strict=True)])


def roi_corners(lips_TK2: np.ndarray) -> np.ndarray:
    """Column and row, int (T, 2), of the upper left pixel of a 96-px window around the mean point, kept inside."""
    half = ROI_PX // 2
    centres_T2 = np.clip(lips_TK2.mean(axis=1), half, FACE_PX - half)
    corners: np.ndarray = np.rint(centres_T2).astype(np.int64) - half  # a half to the even number, as in the tools
    return corners


def cut_around(warped_THWC: np.ndarray, corners_T2: np.ndarray) -> np.ndarray:
    """The windows of 96 px at these corners."""
    cut = [f[y : y + ROI_PX, x : x + ROI_PX] for f, (x, y) in zip(warped_THWC, corners_T2, strict=True)]
    return np.stack(cut)


def roi_matrices(matrices_T23: np.ndarray, corners_T2: np.ndarray) -> np.ndarray:
    """From pixels of the frame to pixels of the ROI: alignment, then crop."""
    shifted = matrices_T23.copy()
    shifted[:, :, 2] -= corners_T2
    return shifted
