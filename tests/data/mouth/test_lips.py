from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.data.mouth.lips import mouth_in, valleys

_BELOW = 0.025


def drawn_face(
    *, mouth: tuple[float, float], apart_px: float = 50.0, roll_deg: float = 0.0
) -> tuple[np.ndarray, complex, complex]:
    """A grey picture with nostrils and a dark line between lips at `mouth` (right, down in eye distances); its eyes."""
    along = np.exp(1j * np.radians(roll_deg)) * apart_px
    middle = 150 + 90j
    picture = np.full((300, 300), 170, np.uint8)

    def at(right: float, down: float) -> tuple[int, int]:
        place = (middle + along * complex(right, down)) * 16
        return round(place.real), round(place.imag)

    for right in (-0.12, 0.12):
        cv2.circle(picture, at(right, 0.68), round(0.05 * apart_px * 16), (110,), -1, cv2.LINE_AA, 4)
    right, down = mouth
    thickness = max(1, round(0.06 * apart_px))
    cv2.line(picture, at(right - 0.4, down), at(right + 0.4, down), (60,), thickness, cv2.LINE_AA, 4)
    return picture, middle - along / 2, middle + along / 2


@given(st.floats(-0.12, 0.12), st.floats(1.0, 1.35), st.sampled_from([28.0, 50.0, 90.0]), st.floats(-15, 15))
def test_the_line_between_the_lips_is_found(right: float, down: float, apart_px: float, roll_deg: float) -> None:
    picture, left_eye, right_eye = drawn_face(mouth=(right, down), apart_px=apart_px, roll_deg=roll_deg)
    found = mouth_in(valleys(picture, left_eye, right_eye))
    np.testing.assert_allclose(found, (right, down + _BELOW), atol=0.05)


def test_brightness_changes_nothing() -> None:
    picture, *eyes = drawn_face(mouth=(0.03, 1.2))
    expected = mouth_in(valleys(picture, *eyes))
    assert mouth_in(valleys((picture * 0.4).astype(np.uint8), *eyes)) == pytest.approx(expected, abs=0.02)


def test_a_face_without_a_line_gets_the_usual_place() -> None:
    blank = np.full((200, 200), 90, np.uint8)
    assert mouth_in(valleys(blank, 70 + 60j, 120 + 60j)) == (0.0, pytest.approx(1.15 + _BELOW))
