"""Where the mouth is in each frame of a video, and the squares that this means.

Axes: T frames; 2x3 matrices map (x, y, 1) of a source pixel to a pixel of the ROI; boxes are centre x, centre y, side,
all in source pixels, and roll in degrees. Pixel centres lie at whole numbers: an ROI's middle is at (roi_px - 1) / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROI_PX = 96
OUTER_EYES_PX = (
    88.0  # distance of the outer eye corners in an ROI: the scale of all ROIs but those of reference alignment
)


@dataclass(frozen=True, eq=False)
class MouthTrack:
    """One entry a frame.

    matrices_T23: float64 similarities, source px -> ROI px; nan where nothing was found.
    found_T: bool, seen in this frame (not interpolated).
    notes: what a user should know, figures in brackets: "several faces, the largest and steadiest followed (2 in 3 of 4
    frames looked at)".
    """

    matrices_T23: np.ndarray
    found_T: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def boxes_T4(self) -> np.ndarray:
        """Float64: centre x, y and side of the ROI in source px, roll in degrees (positive: the right end is lower)."""
        return boxes_from_matrices(self.matrices_T23)

    @property
    def boxes(self) -> np.ndarray:
        return self.boxes_T4

    @property
    def found_share(self) -> float:
        return float(np.mean(self.found_T)) if len(self.found_T) else 0.0


def boxes_from_matrices(matrices_T23: np.ndarray, roi_px: int = ROI_PX) -> np.ndarray:
    """The squares that the ROIs of `roi_px` are cut from; nan stays nan."""
    a, b = matrices_T23[:, 0, 0], matrices_T23[:, 1, 0]  # [[a, -b], [b, a]] turns by atan2(b, a) and scales
    scale2 = a * a + b * b
    middle = (roi_px - 1) / 2
    x, y = middle - matrices_T23[:, 0, 2], middle - matrices_T23[:, 1, 2]
    centre_x, centre_y = (a * x + b * y) / scale2, (a * y - b * x) / scale2
    return np.stack([centre_x, centre_y, roi_px / np.sqrt(scale2), -np.degrees(np.arctan2(b, a))], axis=1)


def matrices_from_boxes(boxes_T4: np.ndarray, roi_px: int = ROI_PX) -> np.ndarray:
    """The similarities that cut these squares upright; the inverse of `boxes_from_matrices`."""
    boxes_T4 = np.asarray(boxes_T4, np.float64)
    centre_x, centre_y, side, roll_deg = boxes_T4.T
    angle = -np.radians(roll_deg)
    a, b = roi_px / side * np.cos(angle), roi_px / side * np.sin(angle)
    middle = (roi_px - 1) / 2
    matrices_T23 = np.empty((len(boxes_T4), 2, 3))
    matrices_T23[:, 0] = np.stack([a, -b, middle - a * centre_x + b * centre_y], axis=1)
    matrices_T23[:, 1] = np.stack([b, a, middle - b * centre_x - a * centre_y], axis=1)
    return matrices_T23


def fill_gaps(matrices_T23: np.ndarray) -> np.ndarray:
    """The same with nan rows filled: squares linear in time between known ones, the first and last held at the ends.

    One row must be known.
    """
    known = np.isfinite(matrices_T23).all(axis=(1, 2))
    assert known.any(), "a track without any frame raises UnusableClip before it gets here"
    if known.all():
        return matrices_T23
    boxes_T4 = boxes_from_matrices(matrices_T23[known])
    boxes_T4[:, 3] = np.degrees(np.unwrap(np.radians(boxes_T4[:, 3])))
    at, where = np.arange(len(known)), np.flatnonzero(known)
    filled_T4 = np.stack([np.interp(at, where, boxes_T4[:, column]) for column in range(4)], axis=1)
    filled_T23 = matrices_from_boxes(filled_T4)
    filled_T23[known] = matrices_T23[known]
    return filled_T23
