"""The mouth by OpenCV's bundled cascades: eyes found every few frames, followed between, lips by their dark line.

Axes: T frames, H rows, W columns. Points are complex numbers x + iy in source px.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from edgelip.data.mouth.finder import MouthFinder
from edgelip.data.mouth.following import Stretch, follow_face
from edgelip.data.mouth.lips import mouth_in, valleys
from edgelip.data.mouth.track import OUTER_EYES_PX, ROI_PX, MouthTrack, matrices_from_boxes
from edgelip.data.unusable import UnusableClip
from edgelip.errors import UsageError

# Outer eye corners over eye centres: 89.5 mm and (89.5 + 32.5) / 2 mm, means of women and men (Farkas, Anthropometry of
# the Head and Face, 1994: biocular and intercanthal width).
OUTER_EYES = 89.5 / ((89.5 + 32.5) / 2)
_STEADY_FRAMES = 20.0  # spread of the Gaussian over which eyes and lips are averaged, on the face at rest
_MOST_ENLARGED = 2  # above it there is a note
_CALM_FRAMES = 1.5  # and of the last smoothing, of what the flow leaves


class HaarFinder(MouthFinder):
    """Needs no model file. Frontal faces, turned by less than some 25 degrees, eyes visible in some frames.

    detect_every: frames between two searches for the face; min_share: of the frames, below which there is no face.
    """

    name: ClassVar[str] = "haar"

    def __init__(self, *, detect_every: int = 8, min_share: float = 0.2) -> None:
        if not 1 <= detect_every <= 100:
            raise UsageError(f"detect_every is {detect_every}; expected 1 to 100 frames. Use 8.")
        if not 0 < min_share <= 1:
            raise UsageError(f"min_share is {min_share}; expected above 0, at most 1. Use 0.2.")
        self.detect_every = detect_every
        self.min_share = min_share

    def identity(self) -> Mapping[str, Any]:
        return {"finder": self.name, "detect_every": self.detect_every, "min_share": self.min_share}

    def track(self, frames_THW: np.ndarray, *, source: str) -> MouthTrack:
        followed = follow_face(frames_THW, self.detect_every)
        boxes_T4 = np.full((len(frames_THW), 4), np.nan)
        for stretch in followed.stretches:
            boxes_T4[stretch.first : stretch.first + stretch.num_frames] = _boxes(frames_THW, stretch)
        found_T = np.isfinite(boxes_T4[:, 0])
        if found_T.mean() < self.min_share:
            raise UnusableClip(
                f"{source} shows a face in {found_T.sum()} of {len(found_T)} frames; expected at least "
                f"{100 * self.min_share:g} %: a frontal face, upright, both eyes visible, wider than a twelfth of the "
                "picture. Turn or crop the video, or use another finder.",
                reason="no face",
            )
        notes = []
        if followed.num_with_several:
            notes.append(
                "several faces, the largest and steadiest followed "
                f"({followed.most_faces} in {followed.num_with_several} of {followed.num_looked} frames looked at)"
            )
        if not found_T.all():
            notes.append(f"mouth interpolated in some frames ({100 * (1 - found_T.mean()):.0f} % of {len(found_T)})")
        if (side := float(np.nanmedian(boxes_T4[:, 2]))) < ROI_PX / _MOST_ENLARGED:
            notes.append(f"mouth small, ROIs enlarged (from {side:.0f} px to {ROI_PX})")
        return MouthTrack(matrices_from_boxes(boxes_T4), found_T, tuple(notes))


def _boxes(frames_THW: np.ndarray, stretch: Stretch) -> np.ndarray:
    """Float64 (T, 4) of the stretch: what was found is averaged on the face at rest, then put back into each frame."""
    turn_T, shift_T = np.array(stretch.turn), np.array(stretch.shift)
    keys = np.array(sorted(stretch.eyes)) - stretch.first
    eyes_K2 = np.array([stretch.eyes[stretch.first + key] for key in keys])
    resting_K2 = turn_T[keys, None] * eyes_K2 + shift_T[keys, None]
    usual = _usual(resting_K2)
    used = keys[usual]
    steady_T2 = _weights(np.arange(stretch.num_frames), used) @ resting_K2[usual]
    eyes_T2 = (steady_T2 - shift_T[:, None]) / turn_T[:, None]
    maps_KHW = np.stack([valleys(frames_THW[stretch.first + key], *eyes_T2[key]) for key in used])
    steady_maps = np.tensordot(_weights(used, used), maps_KHW, axes=1)
    mouths_K = np.array([complex(*mouth_in(valley_HW)) for valley_HW in steady_maps])
    at = np.arange(stretch.num_frames)
    mouth_T = np.interp(at, used, mouths_K.real) + 1j * np.interp(at, used, mouths_K.imag)
    apart_T = eyes_T2[:, 1] - eyes_T2[:, 0]
    centre_T = eyes_T2.mean(axis=1) + apart_T * mouth_T
    centre_T, apart_T = (_calm(values_T) for values_T in (centre_T, apart_T))
    side_T = ROI_PX / OUTER_EYES_PX * OUTER_EYES * np.abs(apart_T)
    return np.stack([centre_T.real, centre_T.imag, side_T, np.degrees(np.angle(apart_T))], axis=1)


def _usual(resting_K2: np.ndarray) -> np.ndarray:
    """Which pairs of eyes lie where most do; one eye taken for a brow makes a pair unusual."""
    middle_2 = np.median(resting_K2.real, axis=0) + 1j * np.median(resting_K2.imag, axis=0)
    usual: np.ndarray = (np.abs(resting_K2 - middle_2) < 0.15 * abs(middle_2[1] - middle_2[0])).all(axis=1)
    return usual if usual.any() else np.ones(len(resting_K2), bool)


def _weights(at: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Rows sum to 1: how much each of `where` counts `at` a frame. Symmetric in time, so that nothing lags."""
    distance = (at[:, None] - where[None]) / _STEADY_FRAMES
    exponent = -0.5 * distance**2
    weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    result: np.ndarray = weight / weight.sum(axis=1, keepdims=True)
    return result


def _calm(values_T: np.ndarray) -> np.ndarray:
    reach = min(int(4 * _CALM_FRAMES), len(values_T) - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _CALM_FRAMES) ** 2)
    # Mirrored through the end points, so that a steady motion stays one at the ends.
    before = 2 * values_T[0] - values_T[reach:0:-1]
    after = 2 * values_T[-1] - values_T[-2 : -reach - 2 : -1]
    result: np.ndarray = np.convolve(np.concatenate([before, values_T, after]), kernel / kernel.sum(), mode="valid")
    return result
