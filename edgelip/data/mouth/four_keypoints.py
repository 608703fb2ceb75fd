"""Mouth crops from four keypoints of a face detector, as EfLip's authors cut them.

Right eye, left eye, nose and middle of the mouth, not smoothed. Neither the crops of the reference alignment nor those
of the older tool. Axes as in `alignment`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelip.data.mouth.alignment import (
    FACE_PX,
    LEFT_EYE,
    LIPS,
    RIGHT_EYE,
    cut_around,
    interpolated,
    mapped,
    roi_corners,
    similarities,
    warp,
)
from edgelip.data.mouth.track import ROI_PX
from edgelip.data.unusable import UnusableClip

_NOSE_WINGS = slice(31, 36)
_MARGIN_PX = 5


def four_keypoint_rois(
    frames_THWC: np.ndarray, keypoints_T: Sequence[np.ndarray | None], face_P2: np.ndarray
) -> np.ndarray:
    """Crops uint8 (T, 96, 96), or (T, 96, 96, 3) in the colour order of the frames.

    keypoints_T: (4, 2) pixels: right eye, left eye, nose, mouth; None where lost. Raises UnusableClip if
    the mouth ends up more than 53 px from the middle of the 256-px frame.
    """
    face = np.asarray(face_P2, np.float64)
    target_42 = np.stack([face[part].mean(axis=0) for part in (RIGHT_EYE, LEFT_EYE, _NOSE_WINGS, LIPS)])
    keypoints_T42 = interpolated(keypoints_T)
    matrices_T23 = similarities(keypoints_T42, target_42)
    mouth_T12 = mapped(keypoints_T42, matrices_T23)[:, 3:]
    off_px = np.abs(mouth_T12[:, 0] - FACE_PX / 2).max(axis=1)
    if off_px.max() > ROI_PX // 2 + _MARGIN_PX:
        raise UnusableClip(
            f"the mouth of frame {int(off_px.argmax())} lies {off_px.max():.0f} px from the middle of the aligned "
            f"face; expected at most {ROI_PX // 2 + _MARGIN_PX}. Keypoints are right eye, left eye, nose, mouth.",
            reason="landmarks",
        )
    return cut_around(warp(frames_THWC, matrices_T23), roi_corners(mouth_T12))
