from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import edgelip.data.mouth.faces as faces_module
from edgelip.data.mouth.faces import find_eyes, find_face_near, find_faces, overlap
from edgelip.errors import MissingError


def test_overlap_is_shared_area_over_covered_area() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [5, 5, 10, 10], [20, 20, 5, 5]])
    np.testing.assert_allclose(overlap(boxes[0], boxes), [1, 25 / 175, 0])


def test_nothing_is_found_in_a_blank_picture() -> None:
    blank = np.full((120, 160), 128, np.uint8)
    box = np.array([40.0, 30.0, 60.0, 60.0])
    assert find_faces(blank).shape == (0, 4)
    assert find_face_near(blank, box) is None
    assert find_eyes(blank, box) is None


@pytest.mark.parametrize("box", [[-50.0, -50, 60, 60], [150.0, 110, 80, 80], [1000.0, 1000, 50, 50], [0.0, 0, 3, 3]])
def test_a_box_at_the_border_or_outside_is_no_mistake(box: list[float]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (120, 160), np.uint8)
    find_face_near(noise, np.array(box))
    find_eyes(noise, np.array(box))


def test_opencv_without_cascades_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(faces_module, "_loaded", type("Fresh", (), {})())
    monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path))
    with pytest.raises(
        MissingError,
        match=r"OpenCV 4\S* has no haarcascade_frontalface_alt2\.xml here; expected the cascades that OpenCV 4 "
        r'carries\. Install them: pip install "opencv-python-headless>=4\.10,<5"',
    ):
        find_faces(np.zeros((50, 50), np.uint8))
