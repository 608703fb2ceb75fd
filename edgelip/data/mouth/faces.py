"""Faces and eyes in one picture, by the cascades that OpenCV carries along.

Cascades: Viola and Jones, CVPR 2001; Lienhart and Maydt, ICIP 2002. Boxes are rows x, y, width, height in pixels; an
eye is a complex number x + iy.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgelip.errors import MissingError

FACE, EYE = "haarcascade_frontalface_alt2.xml", "haarcascade_eye.xml"
_LONGEST_PX = 288  # a picture is searched for faces at this size
_SMALLEST_FACE = 1 / 12  # of the longer side
_ENOUGH_GREYS = 100
_loaded = threading.local()  # a cascade keeps buffers: one for each thread


def find_faces(frame_HW: np.ndarray) -> np.ndarray:
    """Boxes float64 (N, 4) of all frontal faces wider than a twelfth of the picture's longer side, largest first."""
    scale = min(1.0, _LONGEST_PX / max(frame_HW.shape))
    small = _lit(_resized(frame_HW, scale))
    smallest = max(20, round(_SMALLEST_FACE * max(small.shape)))
    boxes_N4 = _detected(FACE, small, step=1.1, votes=4, low=smallest, high=max(small.shape)) / scale
    largest_first: np.ndarray = boxes_N4[np.argsort(-boxes_N4[:, 2], kind="stable")]
    return largest_first


def find_face_near(frame_HW: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """The face of about the size and at about the place of `box`, or None."""
    x, y, width, _ = box
    left, top = (int(max(0, start - 0.25 * width)) for start in (x, y))
    part = frame_HW[top : int(y + 1.25 * width) + 1, left : int(x + 1.25 * width) + 1]
    low, high = (round(factor * width) for factor in (0.8, 1.25))
    if min(part.shape) < low or low < 20:
        return None
    boxes_N4 = _detected(FACE, _lit(part), step=1.1, votes=3, low=low, high=high)
    if len(boxes_N4) == 0:
        return None
    best: np.ndarray = np.array([left, top, 0, 0]) + boxes_N4[0]
    return best


def find_eyes(frame_HW: np.ndarray, box: np.ndarray) -> tuple[complex, complex] | None:
    """Centres of the eyes left and right in the picture, inside a face; None where they do not look like a pair.

    A pair lies 0.25 to 0.55 face widths apart and turned by less than 25 degrees.
    """
    x, y, width, _ = box
    eyes = []
    for start in (0.06, 0.48):
        left, top = int(x + start * width), int(y + 0.18 * width)
        part = frame_HW[max(0, top) : int(y + 0.6 * width), max(0, left) : int(left + 0.46 * width)]
        low, high = (round(factor * width) for factor in (0.14, 0.36))
        if part.size == 0 or min(part.shape) < low:
            return None
        found_N4 = _detected(EYE, _lit(part), step=1.08, votes=3, low=low, high=high)
        if len(found_N4) == 0:
            return None
        eye_x, eye_y, eye_w, eye_h = found_N4[0]
        eyes.append(complex(max(0, left) + eye_x + (eye_w - 1) / 2, max(0, top) + eye_y + (eye_h - 1) / 2))
    apart = eyes[1] - eyes[0]
    if not 0.25 * width <= abs(apart) <= 0.55 * width or abs(np.degrees(np.angle(apart))) > 25:
        return None
    return eyes[0], eyes[1]


def overlap(box: np.ndarray, boxes_N4: np.ndarray) -> np.ndarray:
    """Intersection over union of one square with each of N."""
    low = np.maximum(box[:2], boxes_N4[:, :2])
    high = np.minimum(box[:2] + box[2:], boxes_N4[:, :2] + boxes_N4[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    union = box[2] * box[3] + boxes_N4[:, 2] * boxes_N4[:, 3] - shared
    result: np.ndarray = shared / union
    return result


def _resized(frame_HW: np.ndarray, scale: float) -> np.ndarray:
    return frame_HW if scale == 1 else cv2.resize(frame_HW, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _detected(file: str, picture: np.ndarray, *, step: float, votes: int, low: int, high: int) -> np.ndarray:
    """Boxes float64 (N, 4), those of most votes first; the same order whatever the number of threads."""
    boxes, num_votes = _cascade(file).detectMultiScale2(
        picture, scaleFactor=step, minNeighbors=votes, minSize=(low, low), maxSize=(high, high)
    )
    rows = sorted(zip((-int(each) for each in num_votes), (tuple(map(int, box)) for box in boxes), strict=True))
    return np.array([box for _, box in rows], np.float64).reshape(-1, 4)


def _lit(frame_HW: np.ndarray) -> np.ndarray:
    """A dark or flat picture with its 1st to 99th percentile stretched over all greys; others as they are.

    The cascades pass over windows of little contrast.
    """
    low, high = np.percentile(frame_HW[::3, ::3], (1, 99))
    if high - low > _ENOUGH_GREYS:
        return frame_HW
    gain = 255 / max(1.0, high - low)
    lit: np.ndarray = cv2.convertScaleAbs(np.clip(frame_HW, low, high), alpha=gain, beta=-low * gain)
    return lit


def _cascade(file: str) -> Any:
    """Raises MissingError if OpenCV came without its cascades, as distributions' packages do."""
    cascades: dict[str, Any] = _loaded.__dict__.setdefault("cascades", {})
    if file not in cascades:
        folder = getattr(getattr(cv2, "data", None), "haarcascades", None)
        if folder is None or not hasattr(cv2, "CascadeClassifier") or not Path(folder, file).is_file():
            raise MissingError(
                f"OpenCV {cv2.__version__} has no {file} here; expected the cascades that OpenCV 4 carries. "
                'Install them: pip install "opencv-python-headless>=4.10,<5"'
            )
        cascades[file] = cv2.CascadeClassifier(str(Path(folder, file)))
    return cascades[file]
