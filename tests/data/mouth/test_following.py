"""Faces here are textures that the fakes say are faces; test_haar.py has real ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import cv2
import numpy as np
import pytest

import edgelip.data.mouth.following as following_module
from edgelip.data.mouth.following import Stretch, follow_face

EYES = (complex(75, 70), complex(115, 70))  # in the first frame
BOX = np.array([45.0, 35.0, 100.0, 100.0])


def texture(seed: int) -> np.ndarray:
    """A smooth random picture, uint8 (200, 240), that optical flow can hold on to."""
    rough = np.random.default_rng(seed).integers(0, 255, (200, 240), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(rough, (0, 0), 2.5), None, 0, 255, cv2.NORM_MINMAX)


def moved(picture: np.ndarray, turn: complex, shift: complex) -> np.ndarray:
    matrix = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
    return cv2.warpAffine(picture, matrix, (240, 200), borderMode=cv2.BORDER_REFLECT)


def path_of(number: int) -> tuple[complex, complex]:
    """A slow turn, a slow growth and a sway."""
    turn = (1 + 0.003 * number) * np.exp(0.004j * number)
    return turn, complex(0.8 * number, 4 * np.sin(number / 6))


class Fakes:
    """Where faces and eyes are said to be, in the frame that is looked at; `faces` of whole frames, in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, faces: list[np.ndarray], eyes_in_view: object) -> None:
        self._faces = faces
        monkeypatch.setattr(following_module, "find_faces", lambda frame: np.array(self._faces).reshape(-1, 4))
        monkeypatch.setattr(following_module, "find_face_near", lambda view, box: box)
        monkeypatch.setattr(following_module, "find_eyes", eyes_in_view)


def still_eyes(view: np.ndarray, box: np.ndarray) -> tuple[complex, complex]:
    """Eyes at fixed shares of the box."""
    corner = complex(box[0], box[1])
    return corner + (0.3 + 0.35j) * box[2], corner + (0.7 + 0.35j) * box[2]


def on_the_face(stretch: Stretch, number: int, point: complex) -> complex:
    return stretch.turn[number] * point + stretch.shift[number]


def test_a_point_of_the_face_lies_still_while_the_face_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    Fakes(monkeypatch, faces=[BOX], eyes_in_view=still_eyes)
    frames = np.stack([moved(texture(0), *path_of(number)) for number in range(40)])
    followed = follow_face(frames, detect_every=8)
    assert len(followed.stretches) == 1
    stretch = followed.stretches[0]
    assert (stretch.first, stretch.num_frames, sorted(stretch.eyes)) == (0, 40, [0, 8, 16, 24, 32])
    unit = abs(stretch.turn[0])
    for point in (*EYES, complex(95, 95)):
        places = [on_the_face(stretch, number, path_of(number)[0] * point + path_of(number)[1]) for number in range(40)]
        assert np.abs(np.array(places) - places[0]).max() / unit < 1.0  # px of the first frame, over 40 frames


def test_a_cut_begins_a_new_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    Fakes(monkeypatch, faces=[BOX], eyes_in_view=still_eyes)
    frames = np.stack([texture(1)] * 13 + [texture(2)] * 9)
    stretches = follow_face(frames, detect_every=8).stretches
    assert [(stretch.first, stretch.num_frames) for stretch in stretches] == [(0, 13), (13, 9)]


def test_a_face_that_is_not_found_again_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    Fakes(monkeypatch, faces=[BOX], eyes_in_view=still_eyes)
    monkeypatch.setattr(following_module, "find_face_near", lambda view, box: None)
    followed = follow_face(np.stack([texture(3)] * 200), detect_every=4)
    assert followed.stretches == []  # eyes were never found in a face that was


def test_a_stretch_ends_where_the_face_was_seen_last(monkeypatch: pytest.MonkeyPatch) -> None:
    Fakes(monkeypatch, faces=[BOX], eyes_in_view=still_eyes)
    looks = count()
    monkeypatch.setattr(following_module, "find_face_near", lambda view, box: box if next(looks) <= 5 else None)
    stretch, *_ = follow_face(np.stack([texture(3)] * 100), detect_every=8).stretches
    assert (stretch.first, stretch.num_frames, max(stretch.eyes)) == (0, 48, 40)


def test_what_seldom_has_eyes_is_no_face(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Iterator[bool] = iter([True] + [False] * 1000)
    Fakes(monkeypatch, faces=[BOX], eyes_in_view=lambda view, box: still_eyes(view, box) if next(answers) else None)
    assert follow_face(np.stack([texture(3)] * 40), detect_every=8).stretches == []


def test_the_largest_of_the_steady_faces_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    small, flicker = np.array([10.0, 100.0, 60.0, 60.0]), np.array([100.0, 20.0, 110.0, 110.0])
    answers = iter([[flicker, BOX, small], [BOX, small], [BOX, small]])
    Fakes(monkeypatch, faces=[], eyes_in_view=still_eyes)
    monkeypatch.setattr(following_module, "find_faces", lambda frame: np.array(next(answers)))
    followed = follow_face(np.stack([texture(4)] * 101), detect_every=8)
    assert (followed.num_looked, followed.num_with_several, followed.most_faces) == (3, 3, 3)
    left_eye, _ = followed.stretches[0].eyes[0]
    expected = complex(BOX[0], BOX[1]) + (0.3 + 0.35j) * BOX[2]
    assert abs(left_eye - expected) < 1


def test_without_faces_there_is_no_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    Fakes(monkeypatch, faces=[], eyes_in_view=still_eyes)
    followed = follow_face(np.stack([texture(5)] * 12), detect_every=8)
    assert (followed.stretches, followed.num_looked, followed.most_faces) == ([], 2, 0)
