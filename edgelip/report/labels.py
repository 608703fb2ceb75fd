"""Places for the names of points in a plot, so that none covers another or what is drawn.

A box is left, bottom, right, top in pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

_RADII_PX = (14, 22, 34, 50, 70, 95, 125, 160)
_ANGLES = np.deg2rad([20, 160, -20, -160, 60, 120, -60, -120, 90, -90, 0, 180])
_GAP_PX = 3.0
_OUTSIDE_COST = 1e4  # px2 a px: outside the frame is worse than on top of something


def place_labels(
    points_px: np.ndarray, sizes_px: np.ndarray, *, frame: np.ndarray, drawn: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """A box for each label, nearest to its point of those that cover nothing; the least covering if there is none.

    points_px, sizes_px: (N, 2); frame: the box to stay within; drawn: boxes to keep free.
    """
    taken = [*drawn]
    placed = []
    for point_px, size_px in zip(points_px, sizes_px, strict=True):
        box = _best_box(point_px, size_px, frame, np.array(taken).reshape(-1, 4))
        taken.append(box)
        placed.append(box)
    return placed


def overlap_px2(box: np.ndarray, others_N4: np.ndarray, *, gap_px: float = 0.0) -> np.ndarray:
    """Area that `box` shares with each of the others, each grown by `gap_px`."""
    sides_N2 = np.minimum(box[2:], others_N4[:, 2:]) - np.maximum(box[:2], others_N4[:, :2]) + gap_px
    area_N: np.ndarray = np.maximum(sides_N2, 0).prod(axis=1)
    return area_N


def _best_box(point_px: np.ndarray, size_px: np.ndarray, frame: np.ndarray, taken_N4: np.ndarray) -> np.ndarray:
    best, least = np.zeros(4), np.inf
    for radius, angle in itertools.product(_RADII_PX, _ANGLES):
        direction = np.array([np.cos(angle), np.sin(angle)])
        centre = point_px + direction * radius + np.round(direction, 1) * size_px / 2
        box = np.concatenate([centre - size_px / 2, centre + size_px / 2])
        outside_px = np.maximum(frame[:2] - box[:2], 0).sum() + np.maximum(box[2:] - frame[2:], 0).sum()
        cost = overlap_px2(box, taken_N4, gap_px=_GAP_PX).sum() + _OUTSIDE_COST * outside_px
        if cost < least:
            best, least = box, cost
        if cost == 0:
            break
    return best
