from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.data.mouth.track import MouthTrack, boxes_from_matrices, fill_gaps, matrices_from_boxes

boxes = st.tuples(st.floats(-500, 4000), st.floats(-500, 4000), st.floats(8, 2000), st.floats(-179, 179))


@given(st.lists(boxes, min_size=1, max_size=5))
def test_boxes_and_matrices_are_each_others_inverse(rows: list[tuple[float, ...]]) -> None:
    boxes_T4 = np.array(rows)
    np.testing.assert_allclose(boxes_from_matrices(matrices_from_boxes(boxes_T4)), boxes_T4, rtol=1e-6, atol=1e-6)


def test_a_box_of_the_rois_own_size_is_a_shift_by_half() -> None:
    matrix = matrices_from_boxes(np.array([[200.0, 100.0, 96.0, 0.0]]))[0]
    np.testing.assert_allclose(matrix, [[1, 0, 47.5 - 200], [0, 1, 47.5 - 100]], atol=1e-12)


def test_roll_is_positive_where_the_right_eye_of_the_picture_is_lower() -> None:
    matrix = matrices_from_boxes(np.array([[50.0, 60.0, 48.0, 30.0]]))[0]
    left, right = np.array([50.0, 60.0]), np.array([50.0, 60.0]) + 10 * np.array([np.cos(np.pi / 6), 0.5])
    placed = np.array([left, right]) @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(placed, [[47.5, 47.5], [67.5, 47.5]], atol=1e-9)  # level, at twice the size


def test_gaps_are_filled_in_time_and_the_ends_held() -> None:
    boxes_T4 = np.full((7, 4), np.nan)
    boxes_T4[1] = 10, 20, 40, -4
    boxes_T4[5] = 18, 12, 80, 4
    filled = boxes_from_matrices(fill_gaps(matrices_from_boxes(boxes_T4)))
    np.testing.assert_allclose(filled[[0, 1]], [boxes_T4[1]] * 2, atol=1e-9)
    np.testing.assert_allclose(filled[3], [14, 16, 60, 0], atol=1e-9)
    np.testing.assert_allclose(filled[[5, 6]], [boxes_T4[5]] * 2, atol=1e-9)
    whole = matrices_from_boxes(boxes_T4[[1, 5]])
    assert fill_gaps(whole) is whole


def test_roll_is_filled_the_short_way_round() -> None:
    boxes_T4 = np.full((3, 4), 50.0)
    boxes_T4[:, 3] = 178, np.nan, -178
    matrices = matrices_from_boxes(boxes_T4)
    matrices[1] = np.nan
    assert abs(boxes_from_matrices(fill_gaps(matrices))[1, 3]) == pytest.approx(180)


def test_a_track_without_any_frame_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="UnusableClip"):
        fill_gaps(np.full((2, 2, 3), np.nan))


def test_the_share_that_was_seen() -> None:
    track = MouthTrack(np.full((4, 2, 3), np.nan), np.array([True, False, False, False]))
    assert track.found_share == 0.25
    assert np.isnan(track.boxes).all()
    assert MouthTrack(np.zeros((0, 2, 3)), np.zeros(0, bool)).found_share == 0
