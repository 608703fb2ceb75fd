"""What may befall a video of a face, and where its mouths lie then: for `mouths.py`.

Axes: T frames, H rows, W columns; boxes are centre x, y, side, roll in degrees. Each takes frames and boxes and gives
both anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

Disturbed = tuple[np.ndarray, np.ndarray]
Disturbance = Callable[[np.ndarray, np.ndarray], Disturbed]


def mirrored(frames_THW: np.ndarray, boxes_T4: np.ndarray) -> Disturbed:
    width = frames_THW.shape[2]
    x, y, side, roll = boxes_T4.T
    return np.ascontiguousarray(frames_THW[:, :, ::-1]), np.stack([width - 1 - x, y, side, -roll], axis=1)


def dark(frames_THW: np.ndarray, boxes_T4: np.ndarray) -> Disturbed:
    return (frames_THW * 0.2).astype(np.uint8), boxes_T4


def noisy(frames_THW: np.ndarray, boxes_T4: np.ndarray) -> Disturbed:
    noise = np.random.default_rng(0).normal(0, 8, frames_THW.shape)
    return np.clip(frames_THW + noise, 0, 255).astype(np.uint8), boxes_T4


def half_the_size(frames_THW: np.ndarray, boxes_T4: np.ndarray) -> Disturbed:
    return _moved(frames_THW, boxes_T4, [(0.5, 0.0, 0.0, 0.0)] * len(frames_THW), size=0.5)


def three_times_the_size(frames_THW: np.ndarray, boxes_T4: np.ndarray) -> Disturbed:
    return _moved(frames_THW, boxes_T4, [(3.0, 0.0, 0.0, 0.0)] * len(frames_THW), size=3.0)


def tilted(frames_THW: np.ndarray, boxes_T4: np.ndarray) -> Disturbed:
    return _moved(frames_THW, boxes_T4, [(0.8, 15.0, 0.0, 0.0)] * len(frames_THW))


def swaying(frames_THW: np.ndarray, boxes_T4: np.ndarray) -> Disturbed:
    """Nearer and farther by 10 %, tilted by 8 degrees, aside by 30 px, in waves of two to three seconds."""
    waves = [
        (0.8 + 0.1 * np.sin(t / 12), 8 * np.sin(t / 10), 30 * np.sin(t / 9), 10 * np.sin(t / 6))
        for t in range(len(frames_THW))
    ]
    return _moved(frames_THW, boxes_T4, waves)


def cut_in_the_middle(frames_THW: np.ndarray, boxes_T4: np.ndarray) -> Disturbed:
    before = len(frames_THW) // 2
    places = [(0.8, 0.0, -50.0, 0.0)] * before + [(1.0, 3.0, 40.0, 0.0)] * (len(frames_THW) - before)
    return _moved(frames_THW, boxes_T4, places)


DISTURBANCES: dict[str, Disturbance] = {
    "mirrored": mirrored,
    "a fifth of the light": dark,
    "noise of 8 grey levels": noisy,
    "half the size": half_the_size,
    "three times the size": three_times_the_size,
    "tilted by 15 degrees": tilted,
    "swaying": swaying,
    "a cut, face elsewhere": cut_in_the_middle,
}


def _moved(
    frames_THW: np.ndarray, boxes_T4: np.ndarray, places: Sequence[tuple[float, float, float, float]], size: float = 1.0
) -> Disturbed:
    """Each frame scaled, turned by degrees clockwise and shifted by px around its middle; size: of the picture."""
    height, width = frames_THW.shape[1:]
    to_px = (round(width * size), round(height * size))
    frames, boxes = [], []
    for gray_HW, box, (scale, turn_deg, right, down) in zip(frames_THW, boxes_T4, places, strict=True):
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -turn_deg, scale)
        matrix[:, 2] += np.array([(to_px[0] - width) / 2 + right, (to_px[1] - height) / 2 + down])
        how = cv2.INTER_AREA if scale < 0.7 else cv2.INTER_LINEAR
        frames.append(cv2.warpAffine(gray_HW, matrix, to_px, flags=how, borderMode=cv2.BORDER_REPLICATE))
        boxes.append([*(matrix[:, :2] @ box[:2] + matrix[:, 2]), box[2] * scale, box[3] + turn_deg])
    return np.stack(frames), np.array(boxes)
