"""Landmarks of a signer, as MediaPipe Holistic orders them: subsets, parts, mirror pairs, and how they become a tensor.

543 points a frame: face 0..467, left hand 468..488, pose 489..521, right hand 522..542; x and y in parts of the image's
width and height, z in units of its own for each part; NaN where a point was not found.
Axes: B clips, T frames, P points of a subset, A coordinates (x, y or x, y, z).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Dict, Optional, Sequence, Tuple

import numpy as np

from edgelip.runtime.errors import ClipError

NUM_POINTS = 543
PARTS: Dict[str, range] = {
    "face": range(468),
    "left_hand": range(468, 489),
    "pose": range(489, 522),
    "right_hand": range(522, 543),
}
NORMALISATIONS = ("body", "parts")
_REFERENCE = 17  # middle of the lower lip's lower edge: the origin of the 1st place of Kaggle's asl-signs
_MAX_FRAMES = 20_000
_MAX_COORDINATE = 1e6
_SMALLEST_UNIT = 1e-6

# Face mesh points of the lips, the outer contour and then the inner one.
_LIPS_40 = (
    *(61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146),
    *(78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95),
)
# The same points as the 1st place of Kaggle's asl-signs orders them.
_LIPS_118 = (
    *(0, 61, 185, 40, 39, 37, 267, 269, 270, 409, 291, 146, 91, 181, 84, 17, 314, 405, 321, 375),
    *(78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
)
_NOSE = (1, 2, 98, 327)
_RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173)
_LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398)
_ARMS = tuple(range(500, 512))  # pose 11..22: shoulders, elbows, wrists, hands
_SUBSETS: Dict[str, Tuple[int, ...]] = {
    "lips40": _LIPS_40,
    "holistic118": (*_LIPS_118, *PARTS["left_hand"], *PARTS["right_hand"], *_NOSE, *_RIGHT_EYE, *_LEFT_EYE),
    "holistic130": (
        *sorted((*_LIPS_40, *_NOSE, *_RIGHT_EYE, *_LEFT_EYE)),
        *PARTS["left_hand"],
        *_ARMS,
        *PARTS["right_hand"],
    ),
    "all543": tuple(range(NUM_POINTS)),
}
POINTS = tuple(_SUBSETS)
"""Names of the subsets that a clip contract may ask for."""

_FACE_PAIRS = (
    *((37, 267), (39, 269), (40, 270), (185, 409), (61, 291), (84, 314), (181, 405), (91, 321), (146, 375)),
    *((82, 312), (81, 311), (80, 310), (191, 415), (78, 308), (87, 317), (178, 402), (88, 318), (95, 324)),
    *((98, 327), (173, 398), (157, 384), (158, 385), (159, 386), (160, 387), (161, 388), (246, 466), (133, 362)),
    *((33, 263), (155, 382), (154, 381), (153, 380), (145, 374), (144, 373), (163, 390), (7, 249)),
)
_ON_THE_AXIS = (0, 1, 2, 13, 14, 17)  # of the face points above


@dataclass(frozen=True)
class PointSet:
    """A subset of the 543 points.

    indices: which, in the order of the tensor. parts: positions in the subset of each part that it has points of.
    mirror: for each position that of the point on the other side of the body; None where some have no known partner.
    reference: position of the origin of normalisation "body".
    """

    name: str
    indices: Tuple[int, ...]
    parts: Dict[str, Tuple[int, ...]]
    mirror: Optional[Tuple[int, ...]]
    reference: int

    def __len__(self) -> int:
        return len(self.indices)


@lru_cache(maxsize=None)
def point_set(name: str) -> PointSet:
    """The subset `name`. Raises ClipError naming those there are."""
    if name not in _SUBSETS:
        raise ClipError(f"clip points is {name!r}; expected one of {', '.join(POINTS)}.")
    indices = _SUBSETS[name]
    position = {index: place for place, index in enumerate(indices)}
    parts = {part: tuple(position[index] for index in indices if index in inside) for part, inside in PARTS.items()}
    partners = _partners()
    mirror = None
    if all(index in partners for index in indices):
        mirror = tuple(position[partners[index]] for index in indices)
    return PointSet(
        name, indices, {part: found for part, found in parts.items() if found}, mirror, position[_REFERENCE]
    )


def _partners() -> Dict[int, int]:
    hands = tuple(zip(PARTS["left_hand"], PARTS["right_hand"]))
    arms = tuple((500 + even, 501 + even) for even in range(0, 12, 2))
    both = (*_FACE_PAIRS, *hands, *arms)
    return {**{index: index for index in _ON_THE_AXIS}, **dict(both), **{b: a for a, b in both}}


def normalised(points_BTPA: np.ndarray, points: PointSet, normalise: str) -> np.ndarray:
    """Float32 (B, T, P, A): each coordinate less its origin, divided by its unit; 0 where a point is lost.

    Origin and unit belong to one clip and one coordinate: the mean over time of a reference point, and the root mean
    square distance from it of all found points. "body" has one origin, the lower lip, so that places of hands count;
    "parts" gives face, pose and each hand their own, so that only shapes and movements count.
    Where the reference is never found, the mean of all found points is the origin.
    """
    if normalise == "body":
        return _centred_and_scaled(points_BTPA, (points.reference,))
    result = np.empty(points_BTPA.shape, np.float32)
    for positions in points.parts.values():
        inside = list(positions)
        result[:, :, inside] = _centred_and_scaled(points_BTPA[:, :, inside], range(len(inside)))
    return result


def _centred_and_scaled(points_BTPA: np.ndarray, reference: Sequence[int]) -> np.ndarray:
    """Points that are normalised together. reference: those whose mean is the origin."""
    shape = points_BTPA.shape
    points_BNA = points_BTPA.reshape(shape[0], -1, shape[3]).astype(np.float64)
    found_BN1 = _found(points_BNA)[..., None]
    points_BNA[~found_BN1[..., 0]] = 0.0
    num_B1 = found_BN1.sum(axis=1)
    origin_BA = points_BNA.sum(axis=1) / np.maximum(num_B1, 1)
    if len(reference) < shape[2]:
        inside = (slice(None), slice(None), list(reference))
        num_reference_B1 = found_BN1.reshape(*shape[:3], 1)[inside].sum(axis=(1, 2))
        reference_BA = points_BNA.reshape(shape)[inside].sum(axis=(1, 2)) / np.maximum(num_reference_B1, 1)
        origin_BA = np.where(num_reference_B1 > 0, reference_BA, origin_BA)
    points_BNA -= origin_BA[:, None]
    points_BNA *= found_BN1
    unit_BA = np.sqrt(np.einsum("bna,bna->ba", points_BNA, points_BNA) / np.maximum(num_B1, 1))
    unit_BA[unit_BA < _SMALLEST_UNIT] = 1.0
    points_BNA /= unit_BA[:, None]
    return points_BNA.reshape(shape).astype(np.float32)


def _found(points: np.ndarray) -> np.ndarray:
    """Whether a point has all its coordinates, (..., P) of (..., P, A)."""
    found: np.ndarray = np.isfinite(points).all(axis=-1, keepdims=True)[..., 0]
    return found


def require_finite(points: np.ndarray) -> None:
    """Raise ClipError if a coordinate is infinite or beyond all sense; NaN is a lost point."""
    if bool((np.abs(points) > _MAX_COORDINATE).any()):
        raise ClipError(
            f"landmarks hold {float(np.nanmax(np.abs(points))):g}; expected coordinates up to {_MAX_COORDINATE:g}, "
            "parts of the image's size, and NaN for a lost point."
        )


def chosen_points(raw_T543C: np.ndarray, points: PointSet, num_axes: int) -> np.ndarray:
    """Float32 (T, P, A): the subset of all 543 points. Raises ClipError on another shape or kind of number."""
    raw_T543C = np.asarray(raw_T543C)
    shape = raw_T543C.shape
    fits = raw_T543C.ndim == 3 and shape[1] == NUM_POINTS and num_axes <= shape[2] <= 3
    if raw_T543C.dtype.kind != "f" or not fits or not 1 <= shape[0] <= _MAX_FRAMES:
        raise ClipError(
            f"landmarks are {raw_T543C.dtype} {shape}; expected float (T, {NUM_POINTS}, 3), T from 1 to {_MAX_FRAMES}: "
            "x, y, z of MediaPipe Holistic's points, NaN where one is lost."
        )
    return raw_T543C[:, list(points.indices), :num_axes].astype(np.float32)


def found_frames(points_TPA: np.ndarray, points: PointSet) -> np.ndarray:
    """Those frames in which any point was found. Raises ClipError where there is none, or a coordinate is infinite."""
    require_finite(points_TPA)
    kept_TPA: np.ndarray = points_TPA[_found(points_TPA).any(axis=1)]
    if len(kept_TPA) == 0:
        raise ClipError(f"no point of {points.name} was found in any of {len(points_TPA)} frames; expected a signer.")
    return kept_TPA


def fit_points(points_TPA: np.ndarray, num_frames: int) -> np.ndarray:
    """Resample to `num_frames`, linear in time, ends kept; between a found and a lost point the nearer one counts."""
    position = np.linspace(0, len(points_TPA) - 1, num_frames)
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, len(points_TPA) - 1)
    weight_T11 = (position - low).astype(np.float32)[:, None, None]
    mixed_TPA = points_TPA[low] * (1 - weight_T11) + points_TPA[high] * weight_T11
    nearer_TPA = np.where(weight_T11 < 0.5, points_TPA[low], points_TPA[high])
    result: np.ndarray = np.where(np.isnan(mixed_TPA), nearer_TPA, mixed_TPA).astype(np.float32)
    return result
