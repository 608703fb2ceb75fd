"""A face from frame to frame: found by cascades every few frames, followed by optical flow between.

Axes: T frames. Points are complex numbers x + iy, a similarity is the pair (a, b) of z -> a z + b: a turns and scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from edgelip.data.mouth.faces import find_eyes, find_face_near, find_faces, overlap

FACE_PX = 120  # a face is followed in a view in which it is so wide: eyes are then larger than the cascade's 20 px
LOOK_EVERY = 50  # frames; the whole picture is searched so often
_SHARE_WITH_EYES = 0.25  # of the searches, below which it was no face
_PATIENCE = 4  # looks without the face until it counts as gone
_MOST_POINTS, _FEWEST_POINTS, _SHARE_AGREEING = 40, 8, 0.5
_APART_PX = 1.5  # a point that moves otherwise than the face, in px of the view
_FLOW_WINDOW, _FLOW_LEVELS = (13, 13), 2
_FLOW_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 0.02)


@dataclass
class Stretch:
    """Frames first..last in which one face was followed without a break.

    turn_T, shift_T: the similarity from source px of each frame to coordinates that lie still on the face;
    eyes: frame -> the two eyes as found, in source px; num_searched: frames in which they were looked for.
    """

    first: int
    turn: list[complex] = field(default_factory=list)
    shift: list[complex] = field(default_factory=list)
    eyes: dict[int, tuple[complex, complex]] = field(default_factory=dict)
    num_searched: int = 0

    @property
    def num_frames(self) -> int:
        return len(self.turn)


@dataclass(frozen=True)
class Followed:
    stretches: Sequence[Stretch]
    num_looked: int  # frames that were searched as a whole
    num_with_several: int  # of them, with more than one face
    most_faces: int


def follow_face(frames_THW: np.ndarray, detect_every: int) -> Followed:
    """Every stretch in which the largest, steadiest face was seen with both eyes."""
    looked = {t: find_faces(frames_THW[t]) for t in _frames_to_look_at(len(frames_THW))}
    stretches: list[Stretch] = []
    t = 0
    while t < len(frames_THW):
        box = _choose(frames_THW[t], looked.get(t), looked)
        if box is None:
            t += min(detect_every, 5)
            continue
        stretch = _follow(frames_THW, t, box, detect_every)
        if len(stretch.eyes) >= _SHARE_WITH_EYES * stretch.num_searched:
            stretches.append(stretch)
        t += stretch.num_frames
    counts = [len(boxes) for boxes in looked.values()]
    return Followed(stretches, len(counts), sum(count > 1 for count in counts), max(counts, default=0))


def _frames_to_look_at(num_frames: int) -> list[int]:
    return sorted({*range(0, num_frames, LOOK_EVERY), num_frames - 1})


def _choose(frame_HW: np.ndarray, boxes: np.ndarray | None, looked: dict[int, np.ndarray]) -> np.ndarray | None:
    """The face with two eyes that is widest, width weighed by the share of looks that have a face there too."""
    candidates = find_faces(frame_HW) if boxes is None else boxes
    weighed = []
    for box in candidates:
        view = _view_around(box, frame_HW.shape)
        if find_eyes(view.of(frame_HW), view.inside(box)) is not None:
            again = sum(bool((overlap(box, others) > 0.3).any()) for others in looked.values() if len(others))
            weighed.append((box[2] * (1 + again), box))
    return max(weighed, key=lambda pair: pair[0])[1] if weighed else None


@dataclass(frozen=True)
class _View:
    """A part of the frames around a face, three of its widths a side, in which the face is FACE_PX wide."""

    left: int
    top: int
    right: int
    bottom: int
    factor: float

    def of(self, frame_HW: np.ndarray) -> np.ndarray:
        part = frame_HW[self.top : self.bottom, self.left : self.right]
        how = cv2.INTER_AREA if self.factor < 1 else cv2.INTER_LINEAR
        size = (round(part.shape[1] * self.factor), round(part.shape[0] * self.factor))
        view_HW: np.ndarray = cv2.resize(part, size, interpolation=how)
        return view_HW

    @property
    def offset(self) -> complex:
        """Where a source pixel z lies in the view: z * factor + offset. Pixel centres lie at whole numbers in both."""
        return (self.factor - 1) / 2 * (1 + 1j) - self.factor * complex(self.left, self.top)

    def inside(self, box: np.ndarray) -> np.ndarray:
        """A box of the source in the view."""
        corner = complex(box[0], box[1]) * self.factor + self.offset
        return np.array([corner.real, corner.imag, box[2] * self.factor, box[3] * self.factor])


def _view_around(box: np.ndarray, shape: tuple[int, ...]) -> _View:
    x, y, width, _ = box
    left, top = (max(0, round(start - width)) for start in (x, y))
    right, bottom = min(shape[1], round(x + 2 * width)), min(shape[0], round(y + 2 * width))
    return _View(left, top, right, bottom, FACE_PX / width)


def _follow(frames_THW: np.ndarray, start: int, box: np.ndarray, detect_every: int) -> Stretch:
    stretch = Stretch(start)
    view = _view_around(box, frames_THW.shape[1:])
    factor, offset = view.factor, view.offset
    before = view.of(frames_THW[start])
    key_box = view.inside(box)
    key_turn, key_shift = 1 + 0j, 0j  # from the view of the key frame to the face
    key_points = points = _points_on(before, key_box)
    turn, shift = 1 + 0j, 0j  # from the view of the key frame to that of this frame
    num_missed = last_seen = 0
    for t in range(start, len(frames_THW)):
        if t > start:
            seen = view.of(frames_THW[t])
            moved = _moved(before, seen, key_points, points)
            if moved is None:
                break
            key_points, points, turn, shift = moved
            before = seen
        to_face = key_turn / turn, key_shift - key_turn * shift / turn  # view of this frame -> face
        stretch.turn.append(to_face[0] * factor)
        stretch.shift.append(to_face[0] * offset + to_face[1])
        if (t - start) % detect_every:
            continue
        stretch.num_searched += 1
        width = key_box[2] * abs(turn)
        middle = turn * (complex(key_box[0], key_box[1]) + (1 + 1j) * key_box[2] / 2) + shift
        here = np.array([middle.real - width / 2, middle.imag - width / 2, width, width])
        found = find_face_near(before, here)
        if found is None:
            num_missed += 1
            if num_missed > _PATIENCE:  # what the flow went on with since was the background
                del stretch.turn[last_seen + detect_every :], stretch.shift[last_seen + detect_every :]
                break
        else:
            num_missed, last_seen, here = 0, t - start, found
            if (eyes := find_eyes(before, found)) is not None:
                stretch.eyes[t] = ((eyes[0] - offset) / factor, (eyes[1] - offset) / factor)
        key_turn, key_shift, key_box = *to_face, here
        turn, shift = 1 + 0j, 0j
        key_points = points = _points_on(before, here)
    return stretch


def _points_on(small_HW: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Corners on eyes, brows and nose, which move with the skull: float32 (N, 1, 2)."""
    x, y, width, _ = box
    top, bottom = (int(max(0, y + share * width)) for share in (0.2, 0.7))
    left, right = (int(max(0, x + share * width)) for share in (0.15, 0.85))
    part = small_HW[top:bottom, left:right]
    if min(part.shape) < 8:
        return np.zeros((0, 1, 2), np.float32)
    points = cv2.goodFeaturesToTrack(part, _MOST_POINTS, 0.01, 4)
    if points is None:
        return np.zeros((0, 1, 2), np.float32)
    moved: np.ndarray = (points + np.array([left, top], np.float32)).astype(np.float32)
    return moved


def _moved(
    before_HW: np.ndarray, after_HW: np.ndarray, key_points: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray, complex, complex] | None:
    """The points that could be followed, where they are now, and the similarity from the key frame; None if lost."""
    if len(points) < _FEWEST_POINTS:
        return None
    after, followed, _ = cv2.calcOpticalFlowPyrLK(
        before_HW,
        after_HW,
        points,
        np.empty_like(points),
        winSize=_FLOW_WINDOW,
        maxLevel=_FLOW_LEVELS,
        criteria=_FLOW_STOP,
    )
    kept = followed[:, 0] == 1
    if kept.sum() < _FEWEST_POINTS:
        return None
    key_points, after = key_points[kept], after[kept]
    matrix, agreeing = cv2.estimateAffinePartial2D(
        key_points, after, method=cv2.RANSAC, ransacReprojThreshold=_APART_PX, maxIters=200, confidence=0.99
    )
    if matrix is None or agreeing.sum() < max(_FEWEST_POINTS, _SHARE_AGREEING * len(after)):
        return None
    turn = complex(matrix[0, 0], matrix[1, 0])
    if not 0.5 < abs(turn) < 2:
        return None
    return key_points, after, turn, complex(matrix[0, 2], matrix[1, 2])
