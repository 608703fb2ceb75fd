from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from golden_landmarks import GoldenClip, assert_nearly_equal_images

from edgelip.data.mouth import alignment, legacy_alignment
from edgelip.data.mouth.reference_face import own_face
from edgelip.data.unusable import UnusableClip


@pytest.fixture(scope="module")
def reference(golden: Path) -> GoldenClip:
    return GoldenClip(golden / "preproc")


def test_crops_are_those_of_the_older_tool(reference: GoldenClip) -> None:
    rois = legacy_alignment.legacy_rois(reference.frames_bgr, reference.landmarks, reference.face)
    assert_nearly_equal_images(rois, reference.array("legacy_mouth_gray.npz"), at_most=2)


def test_crops_of_gray_frames_are_those_of_the_older_tool(reference: GoldenClip) -> None:
    rois = legacy_alignment.legacy_rois(reference.frames_gray, reference.landmarks, reference.face)
    assert_nearly_equal_images(rois, reference.array("legacy_mouth_gray.npz"), at_most=2)


def test_crops_of_the_two_tools_differ(reference: GoldenClip) -> None:
    rois = alignment.aligned_rois(reference.frames_gray, reference.landmarks, reference.face)
    apart = np.abs(rois.astype(int) - reference.array("legacy_mouth_gray.npz").astype(int))
    assert (apart <= 2).mean() < 0.5


def test_the_similarity_is_that_of_least_squares() -> None:
    generator = np.random.default_rng(0)
    points, target = generator.uniform(0, 200, (2, 5, 2))
    matrix = legacy_alignment.least_squares_similarity(points, target)
    rows = [([x, -y, 1, 0], [y, x, 0, 1]) for x, y in points]
    a, b, right, down = np.linalg.lstsq(np.concatenate(rows), target.reshape(-1), rcond=None)[0]
    np.testing.assert_allclose(matrix, [[a, -b, right], [b, a, down]], rtol=1e-9, atol=1e-9)


def test_points_in_one_place_fit_no_similarity() -> None:
    with pytest.raises(UnusableClip, match="eyes and nose in one place"):
        legacy_alignment.legacy_roi_matrices([np.ones((68, 2))] * 12, own_face())


def test_the_similarity_looks_twelve_frames_ahead_and_the_crop_follows_the_frame() -> None:
    landmarks = [own_face() + 0.9 * t for t in range(20)]
    matrices = legacy_alignment.legacy_roi_matrices(landmarks, own_face())
    np.testing.assert_allclose(matrices[:, 0, 0], 1, atol=1e-9)
    # Window t..t+11 has its mean 5.5 frames ahead; the last 11 frames keep the similarity of frame 8.
    ahead = np.array([0.9 * (min(t, 8) + 5.5) for t in range(20)])
    lips = own_face()[48:].mean(axis=0)
    corners = np.rint(lips + 0.9 * np.arange(20)[:, None] - ahead[:, None]) - 48
    np.testing.assert_allclose(matrices[:, :, 2], -ahead[:, None] - corners, atol=1e-9)


def test_a_clip_shorter_than_the_window_is_reported_by_the_older_tool() -> None:
    with pytest.raises(UnusableClip, match="11 frames; expected at least 12"):
        legacy_alignment.legacy_roi_matrices([own_face()] * 11, own_face())


def test_sampling_is_bilinear_truncated_and_black_outside() -> None:
    frame = np.arange(120 * 130, dtype=np.int64).reshape(120, 130) % 251
    matrix = np.array([[1.0, 0, -20.25], [0, 1.0, 10.5]])  # ROI pixel (0, 0) is frame pixel (20.25, -10.5)
    roi = legacy_alignment.sampled(frame.astype(np.uint8), matrix)
    assert roi[:10].max() == 0  # rows -10.5 to -1.5
    for row, column in ((20, 3), (60, 95), (95, 40)):
        y, x = row - 11, column + 20  # between rows y and y + 1, a quarter into the column
        exact = (0.75 * (frame[y, x] + frame[y + 1, x]) + 0.25 * (frame[y, x + 1] + frame[y + 1, x + 1])) / 2
        assert roi[row, column] == int(exact)


def test_whole_grey_levels_survive_truncation() -> None:
    frame = np.full((200, 200), 173, np.uint8)
    matrix = cv2.getRotationMatrix2D((100, 100), 33.0, 0.9)
    matrix[:, 2] -= 50
    assert set(np.unique(legacy_alignment.sampled(frame, matrix))) == {173}
