from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden_landmarks import GoldenClip

from edgelip.data.mouth.landmark_checks import check_landmarks
from edgelip.data.mouth.reference_face import own_face
from edgelip.data.unusable import UnusableClip

FRAMES = np.zeros((4, 240, 320), np.uint8)


def check(landmarks: list[np.ndarray | None]) -> None:
    check_landmarks(landmarks, FRAMES, own_face(), path=Path("x.pkl"), source="a.mp4")


def turned(angle_deg: float) -> np.ndarray:
    a, b = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return (own_face() - 128) @ np.array([[a, b], [-b, a]]) * 0.6 + 120


def narrowed(face: np.ndarray, share: float) -> np.ndarray:
    return (face - 128) * [share, 1] + 128


@pytest.mark.parametrize("face", [own_face(), own_face() * 0.2, turned(40), turned(180), narrowed(own_face(), 0.5)])
def test_faces_of_any_size_and_turn_pass(face: np.ndarray) -> None:
    check([face, None, face + 3, face])


def test_the_landmarks_of_the_reference_pass(golden: Path) -> None:
    reference = GoldenClip(golden / "preproc")
    check_landmarks(
        reference.landmarks, np.zeros((29, 256, 256), np.uint8), own_face(), path=Path("x.pkl"), source="a.mp4"
    )


@pytest.mark.parametrize(
    ("landmarks", "why"),
    [
        ([own_face()] * 3, r"has landmarks of 3 frames, but a\.mp4 has 4; expected one entry a frame"),
        ([None] * 4, "has no landmarks in any of 4 frames; expected a face in one"),
        ([own_face() / 256] * 4, r"has the eyes 0\.33 px apart; expected pixels of the video"),
        ([own_face() * 4] * 4, r"has the mouth in the picture of a\.mp4, 320x240 px, in 0 of 4 frames"),
        ([own_face() - 300, own_face() - 300, own_face(), None], "in 1 of 3 frames"),
        ([own_face()[:, ::-1]] * 4, r"has points that are \d+ px from where a face has them"),
        ([own_face() * [-1, 1] + np.array([256, 0])] * 4, "not mirrored"),
        ([own_face()[np.random.default_rng(0).permutation(68)]] * 4, "expected the 68 points in iBUG order"),
    ],
)
def test_what_cannot_be_landmarks_of_the_video_is_refused(landmarks: list[np.ndarray | None], why: str) -> None:
    with pytest.raises(UnusableClip, match=rf"x\.pkl .*{why}") as refused:
        check(landmarks)
    assert refused.value.reason == "landmarks"
