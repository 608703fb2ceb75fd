"""Who finds the mouth in the frames of a video: one interface, one table.

Axes: T frames, H rows, W columns; S = 96, the side of an ROI.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from edgelip.data.mouth.track import ROI_PX, MouthTrack, fill_gaps

# Name -> who finds it. "haar" needs no download.
FINDERS = {
    "haar": "edgelip.data.mouth.haar:HaarFinder",
    "landmarks": "edgelip.data.mouth.landmark_finder:LandmarkFinder",
    "landmarks-legacy": "edgelip.data.mouth.landmark_finder:LegacyLandmarkFinder",
    "mediapipe": "edgelip.data.mouth.face_mesh:FaceMeshFinder",
}


class MouthFinder(abc.ABC):
    """Finds the mouth of the one speaker in a video. Parameters are plain and the object pickles: workers get a copy.

    in_pieces: whether it may be given a long video a piece at a time, frames scaled and brought to the rate of the
    clips; if not, it gets all frames of the file at once, as they are.
    """

    name: ClassVar[str]
    in_pieces: ClassVar[bool] = True

    def identity(self) -> Mapping[str, Any]:
        """All settings that determine an ROI, as JSON; sha256 instead of paths of models and mean faces."""
        return {"finder": self.name}

    def sources(self, path: Path) -> tuple[Path, ...]:
        """The files it reads besides the video at `path`, its landmarks for example."""
        return ()

    @abc.abstractmethod
    def track(self, frames_THW: np.ndarray, *, source: str) -> MouthTrack:
        """Where the mouth is in each of the frames, uint8 gray; `source` is what messages call the video.

        Raises UnusableClip with reason "no face" where there is too little to go by.
        """

    def crop(self, frames_THW: np.ndarray, *, source: str) -> tuple[np.ndarray, MouthTrack]:
        """ROIs uint8 (T, S, S), eyes level, centred on the lips, gaps in the track filled; and the track."""
        track = self.track(frames_THW, source=source)
        return cut_rois(frames_THW, fill_gaps(track.matrices_T23)), track


def cut_rois(frames_THW: np.ndarray, matrices_T23: np.ndarray, roi_px: int = ROI_PX) -> np.ndarray:
    """Warp each frame by its similarity to uint8 (T, roi_px, roi_px): bilinear, black outside of the frame.

    A mouth of more than twice the ROI's size is averaged down first: bilinear alone would skip pixels.
    """
    rois = np.empty((len(frames_THW), roi_px, roi_px), np.uint8)
    for frame_HW, matrix_23, roi in zip(frames_THW, matrices_T23, rois, strict=True):
        shrink = int(1 / max(np.hypot(matrix_23[0, 0], matrix_23[1, 0]), 1e-6))
        if shrink >= 2:
            frame_HW, matrix_23 = _shrunk(frame_HW, matrix_23, shrink, roi_px)
        cv2.warpAffine(frame_HW, matrix_23, (roi_px, roi_px), dst=roi, flags=cv2.INTER_LINEAR)
    return rois


def _shrunk(frame_HW: np.ndarray, matrix_23: np.ndarray, shrink: int, roi_px: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of the frame that the ROI needs, each `shrink` x `shrink` pixels averaged, and the matrix from there."""
    inverse = cv2.invertAffineTransform(matrix_23)
    corners = np.array([[0, 0, 1], [roi_px, 0, 1], [0, roi_px, 1], [roi_px, roi_px, 1]]) @ inverse.T
    limit_xy = np.array(frame_HW.shape[::-1])
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - shrink, 0, limit_xy - 1)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + shrink, low + 1, limit_xy)
    part = frame_HW[low[1] : high[1], low[0] : high[0]]
    small_px = (max(1, part.shape[1] // shrink), max(1, part.shape[0] // shrink))
    small = cv2.resize(part, small_px, interpolation=cv2.INTER_AREA)
    step_xy = np.array([part.shape[1] / small_px[0], part.shape[0] / small_px[1]])
    # Pixel u of the small picture covers the source pixels around (u + 1/2) * step - 1/2.
    linear = matrix_23[:, :2] * step_xy
    offset = matrix_23[:, :2] @ (low + (step_xy - 1) / 2) + matrix_23[:, 2]
    return small, np.column_stack([linear, offset])
