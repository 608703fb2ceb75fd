"""The line between the lips: a dark valley, wider than high, below the eyes.

Everything is measured in eye distances, from the middle between the eyes: right along the line of the eyes, and down.
"""

from __future__ import annotations

import cv2
import numpy as np

UNIT_PX = 40  # an eye distance in the upright picture of a face
WIDTH_PX, HEIGHT_PX = 80, 56
_TOP = 0.6  # eye distances below the eyes, where the picture begins
# Eyes to the line between the lips: 60 to 75 mm of adults, where the eyes are some 62 mm apart (Farkas, 1994).
# Nostrils, the other valley, lie at 0.7.
_DOWN, _DOWN_SPREAD, _SIDE_SPREAD = 1.15, 0.15, 0.4
_RIDGE_X, _RIDGE_Y = 0.13, 0.035  # blur before the second derivative: half a lip's width, a third of its height
_CORNER = 0.3  # of the deepest place: the valley ends there, which is at the corners of the mouth
_ROWS = 3  # above and below the deepest row: the line is bent, and turned with the mouth
# The lower lip is the thicker one and goes down as the mouth opens, so the middle of both lies below the line. Measured
# on 10 sentences of GRID's s1, whose crops are centred on the lips.
_BELOW_LINE = 0.025


def valleys(frame_HW: np.ndarray, left_eye: complex, right_eye: complex) -> np.ndarray:
    """How much darker each place is than above and below, float32 (HEIGHT_PX, WIDTH_PX), over the mean brightness."""
    turn = UNIT_PX / (right_eye - left_eye)
    shift = complex((WIDTH_PX - 1) / 2, -_TOP * UNIT_PX) - turn * (left_eye + right_eye) / 2
    matrix_23 = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
    face = cv2.warpAffine(frame_HW, matrix_23, (WIDTH_PX, HEIGHT_PX), borderMode=cv2.BORDER_REPLICATE).astype(
        np.float32
    )
    smooth = cv2.GaussianBlur(face, (0, 0), sigmaX=_RIDGE_X * UNIT_PX, sigmaY=_RIDGE_Y * UNIT_PX)
    bend = cv2.Sobel(smooth, cv2.CV_32F, 0, 2, ksize=3)
    result: np.ndarray = np.maximum(bend, 0) / (float(face.mean()) + 1)
    return result


def mouth_in(valleys_HW: np.ndarray) -> tuple[float, float]:
    """Middle of the lips, right and down in eye distances: halfway between the ends of the line, a little below."""
    right = (np.arange(WIDTH_PX) - (WIDTH_PX - 1) / 2) / UNIT_PX
    down = _TOP + np.arange(HEIGHT_PX) / UNIT_PX
    likely_W = np.exp(-0.5 * (right / _SIDE_SPREAD) ** 2)
    likely_H = np.exp(-0.5 * ((down - _DOWN) / _DOWN_SPREAD) ** 2)
    row = int(np.argmax((valleys_HW * likely_W).max(axis=1) * likely_H))
    rows = slice(max(0, row - _ROWS), row + _ROWS + 1)
    line_W = valleys_HW[rows].max(axis=0) * likely_W
    if line_W.max() <= 0:
        return 0.0, _DOWN + _BELOW_LINE
    start, end = _ends(line_W, _CORNER)
    middle = float(np.interp((start + end) / 2, np.arange(WIDTH_PX), right))
    weight_H = valleys_HW[rows, round(start) : round(end) + 1].sum(axis=1)
    return middle, float((weight_H * down[rows]).sum() / weight_H.sum()) + _BELOW_LINE


def _ends(line_W: np.ndarray, share: float) -> tuple[float, float]:
    """Where the hill around the highest place falls below `share` of its height, between two columns."""
    peak = int(np.argmax(line_W))
    level = share * line_W[peak]

    def walk(step: int) -> float:
        at = peak
        while 0 <= at + step < len(line_W) and line_W[at + step] > level:
            at += step
        if not 0 <= at + step < len(line_W):
            return float(at)
        return at + step * float((line_W[at] - level) / (line_W[at] - line_W[at + step]))

    return walk(-1), walk(1)
