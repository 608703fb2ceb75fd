from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from golden_landmarks import GoldenClip, assert_nearly_equal_images

from edgelip.data.mouth import alignment
from edgelip.data.mouth.reference_face import own_face
from edgelip.data.mouth.track import boxes_from_matrices
from edgelip.data.unusable import UnusableClip


@pytest.fixture(scope="module")
def reference(golden: Path) -> GoldenClip:
    return GoldenClip(golden / "preproc")


def similarity(scale: float, angle_deg: float, shift: tuple[float, float]) -> np.ndarray:
    a, b = scale * np.cos(np.radians(angle_deg)), scale * np.sin(np.radians(angle_deg))
    return np.array([[a, -b, shift[0]], [b, a, shift[1]]])


def test_lost_frames_are_those_of_the_reference(reference: GoldenClip) -> None:
    filled = alignment.interpolated(reference.landmarks)
    np.testing.assert_allclose(filled, reference.array("landmarks_interpolated.npy"), rtol=0, atol=1e-9)


def test_matrices_and_mapped_points_are_those_of_the_reference(reference: GoldenClip) -> None:
    matrices, smooth = alignment.alignment_of(reference.landmarks, reference.face)
    np.testing.assert_allclose(matrices, reference.array("affine_matrices.npy"), rtol=0, atol=1e-5)
    mapped = alignment.mapped(smooth, matrices)
    np.testing.assert_allclose(mapped, reference.array("transformed_landmarks.npy"), rtol=0, atol=1e-5)


def test_warped_frames_are_those_of_the_reference(reference: GoldenClip) -> None:
    warped = alignment.warp(reference.frames_gray, reference.array("affine_matrices.npy"))
    assert_nearly_equal_images(warped, reference.array("warped_gray_256.npz"), at_most=4)


def test_gray_crops_are_those_of_the_reference(reference: GoldenClip) -> None:
    rois = alignment.aligned_rois(reference.frames_gray, reference.landmarks, reference.face)
    assert_nearly_equal_images(rois, reference.array("mouth_gray.npz"), at_most=1)


def test_colour_crops_are_those_of_the_reference(reference: GoldenClip) -> None:
    rois = alignment.aligned_rois(reference.frames_bgr, reference.landmarks, reference.face)
    assert_nearly_equal_images(rois, reference.array("mouth_bgr.npy"), at_most=1)


def test_lost_frames_lie_on_the_line_between_their_neighbours() -> None:
    points = [None, np.zeros((2, 2)), None, None, np.full((2, 2), 6.0), None]
    filled = alignment.interpolated(points)
    np.testing.assert_allclose(filled[:, 0, 0], [0, 0, 2, 4, 6, 6])


def test_a_clip_without_any_face_is_unusable() -> None:
    with pytest.raises(UnusableClip, match="no landmarks in any of 12 frames") as refused:
        alignment.alignment_of([None] * 12, own_face())
    assert refused.value.reason == "landmarks"


def test_a_clip_shorter_than_the_window_is_reported() -> None:
    with pytest.raises(UnusableClip, match="11 frames; expected at least 12") as refused:
        alignment.aligned_rois(np.zeros((11, 8, 8), np.uint8), [own_face()] * 11, own_face())
    assert refused.value.reason == "too short"


def test_smoothing_takes_as_many_frames_on_both_sides() -> None:
    points = np.zeros((15, 4, 2))
    points[:, 0, 0] = np.arange(15) ** 2  # one point moves against the rest
    smooth = alignment.smoothed(points)
    for t in range(15):
        reach = min(6, t, 14 - t)
        mean = points[t - reach : t + reach + 1].mean(axis=0)
        np.testing.assert_allclose(smooth[t] - smooth[t].mean(axis=0), mean - mean.mean(axis=0), atol=1e-9)
        np.testing.assert_allclose(smooth[t].mean(axis=0), points[t].mean(axis=0), atol=1e-9)


@pytest.mark.parametrize("wrong", [0, 3])
def test_a_similarity_is_recovered_although_three_of_eight_points_are_wrong(wrong: int) -> None:
    truth = similarity(1.7, -12.0, (31.0, -4.0))
    inverse = cv2.invertAffineTransform(truth)
    target = own_face()[list(alignment.STABLE)]
    points = target @ inverse[:, :2].T + inverse[:, 2]
    points[:wrong] += np.array([[40.0, 25.0], [-30.0, 9.0], [5.0, 55.0]])[:wrong]
    np.testing.assert_allclose(alignment.similarities(points[None], target)[0], truth, atol=1e-4)  # float32 inside


def test_points_that_are_no_face_are_unusable() -> None:
    with pytest.raises(UnusableClip, match="landmarks of frame 0 fit no face"):
        alignment.alignment_of([np.zeros((68, 2))] * 12, own_face())


def test_the_window_is_rounded_to_even_and_stays_inside() -> None:
    centres = np.array([[100.5, 101.5], [3.0, 300.0], [48.2, 207.9]])
    np.testing.assert_array_equal(alignment.roi_corners(centres[:, None]), [[52, 54], [0, 160], [0, 160]])


def test_roi_matrices_lead_where_the_pixels_came_from() -> None:
    matrix = similarity(0.5, 20.0, (90.0, 60.0))
    frame = np.zeros((1, 240, 320), np.uint8)
    cv2.circle(frame[0], (200, 130), 9, 255, -1)
    corner = np.array([[100, 90]])
    roi = alignment.cut_around(alignment.warp(frame, matrix[None]), corner)[0]
    x, y = alignment.roi_matrices(matrix[None], corner)[0] @ np.array([200, 130, 1.0])
    weights = roi.astype(float)
    assert abs((weights.sum(axis=0) @ np.arange(96)) / weights.sum() - x) < 0.3
    assert abs((weights.sum(axis=1) @ np.arange(96)) / weights.sum() - y) < 0.3


def test_a_face_in_place_of_the_reference_face_is_cut_at_its_scale() -> None:
    matrices, smooth = alignment.alignment_of([own_face() * 2 + 10] * 12, own_face())
    corners = alignment.roi_corners(alignment.mapped(smooth, matrices)[:, alignment.LIPS])
    boxes = boxes_from_matrices(alignment.roi_matrices(matrices, corners))
    np.testing.assert_allclose(boxes[:, 2], 192, rtol=1e-6)
    np.testing.assert_allclose(boxes[:, 3], 0, atol=1e-6)
