"""Landmarks as pictures, to look at before training on them.

Axes: B clips, T frames, P points, A coordinates; H rows, W columns.
"""

from __future__ import annotations

import cv2
import numpy as np

from edgelip.runtime.landmarks import PointSet

SIDE_PX = 120
_GREY = {"face": 150, "pose": 110}  # hands are black
_MARGIN = 0.06  # of a side


def drawn_points(clips_BTPA: np.ndarray, points: PointSet, *, side_px: int = SIDE_PX) -> np.ndarray:
    """uint8 (B, T, side_px, side_px), white: each found point a dot, each clip scaled so that all of it is seen."""
    frames_BTHW = np.full((*clips_BTPA.shape[:2], side_px, side_px), 255, np.uint8)
    grey_P = np.zeros(len(points), np.uint8)
    for part, positions in points.parts.items():
        grey_P[list(positions)] = _GREY.get(part, 0)
    radius = max(1, side_px // 100)
    for frames_THW, clip_TPA in zip(frames_BTHW, clips_BTPA, strict=True):
        places_TP2 = _placed(clip_TPA[..., :2].astype(np.float64), side_px)
        for frame_HW, places_P2 in zip(frames_THW, places_TP2, strict=True):
            for position in np.flatnonzero(np.isfinite(places_P2).all(axis=1)):
                x, y = places_P2[position].round().astype(int).tolist()
                cv2.circle(frame_HW, (x, y), radius, (int(grey_P[position]),), -1)
    return frames_BTHW


def _placed(clip_TP2: np.ndarray, side_px: int) -> np.ndarray:
    """In pixels: the clip's box in the middle of the picture."""
    found_N2 = clip_TP2[np.isfinite(clip_TP2).all(axis=2)]
    if not len(found_N2):
        return clip_TP2
    low_2, high_2 = found_N2.min(axis=0), found_N2.max(axis=0)
    scale = (1 - 2 * _MARGIN) * side_px / max(float((high_2 - low_2).max()), 1e-6)
    placed: np.ndarray = (clip_TP2 - (low_2 + high_2) / 2) * scale + side_px / 2
    return placed
