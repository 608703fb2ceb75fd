from __future__ import annotations

from importlib import import_module

import cv2
import numpy as np
import pytest

from edgelip.data.mouth.finder import FINDERS, MouthFinder, cut_rois
from edgelip.data.mouth.track import MouthTrack, matrices_from_boxes


class Told(MouthFinder):
    """Knows where the mouth is."""

    name = "told"

    def __init__(self, boxes_T4: np.ndarray) -> None:
        self.boxes_T4 = boxes_T4

    def track(self, frames_THW: np.ndarray, *, source: str) -> MouthTrack:
        return MouthTrack(matrices_from_boxes(self.boxes_T4), np.isfinite(self.boxes_T4[:, 0]))


def smooth_picture(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    waves = np.sin(rows / height * 7) + np.cos(columns / width * 9)
    return (127 + 60 * waves).astype(np.uint8)


def test_a_square_of_the_rois_size_is_cut_as_it_is() -> None:
    picture = smooth_picture(150, 200)
    rois = cut_rois(picture[None], matrices_from_boxes(np.array([[100.5, 70.5, 96.0, 0.0]])))
    np.testing.assert_array_equal(rois[0], picture[23 : 23 + 96, 53 : 53 + 96])


def test_what_lies_outside_of_the_frame_is_black() -> None:
    picture = np.full((60, 60), 200, np.uint8)
    rois = cut_rois(picture[None], matrices_from_boxes(np.array([[0.0, 0.0, 96.0, 0.0]])))
    assert (rois[0, 50:90, 50:90] == 200).all()
    assert not rois[0, :40].any()


def test_a_turned_square_comes_level() -> None:
    picture = smooth_picture(200, 200)
    upright = cut_rois(picture[None], matrices_from_boxes(np.array([[100.0, 100.0, 96.0, 0.0]])))[0]
    turning = cv2.getRotationMatrix2D((100.0, 100.0), -20, 1.0)  # clockwise in the picture: the right end goes down
    turned = cv2.warpAffine(picture, turning, (200, 200), flags=cv2.INTER_CUBIC)
    rois = cut_rois(turned[None], matrices_from_boxes(np.array([[100.0, 100.0, 96.0, 20.0]])))
    assert np.abs(rois[0].astype(int) - upright)[10:-10, 10:-10].max() <= 3


@pytest.mark.parametrize("side", [200.0, 431.0, 900.0])
def test_a_large_mouth_is_averaged_not_skipped(side: float) -> None:
    """Fine stripes turn grey, coarse shapes stay where they are."""
    stripes = np.zeros((1000, 1000), np.uint8)
    stripes[:, ::2] = 255
    matrices = matrices_from_boxes(np.array([[500.0, 480.0, side, 0.0]]))
    striped = cut_rois(stripes[None], matrices)[0]
    assert np.abs(striped.astype(int) - 127).max() < 45
    smooth = smooth_picture(1000, 1000)
    rows, columns = np.mgrid[:96, :96].astype(np.float32)
    at_x, at_y = (500 + (columns - 47.5) * side / 96).astype(np.float32), (480 + (rows - 47.5) * side / 96)
    expected = cv2.remap(smooth, at_x, at_y.astype(np.float32), cv2.INTER_LINEAR)
    assert np.abs(cut_rois(smooth[None], matrices)[0].astype(int) - expected).max() <= 3


def test_crop_fills_gaps_and_keeps_the_track_as_found() -> None:
    boxes_T4 = np.array([[60.0, 60, 96, 0], [np.nan] * 4, [64.0, 60, 96, 0]])
    picture = smooth_picture(120, 140)
    rois, track = Told(boxes_T4).crop(np.stack([picture] * 3), source="a")
    assert rois.dtype == np.uint8
    np.testing.assert_array_equal(
        rois[1], cut_rois(picture[None], matrices_from_boxes(np.array([[62.0, 60, 96, 0]])))[0]
    )
    assert track.found_T.tolist() == [True, False, True]
    assert np.isnan(track.matrices_T23[1]).all()


def test_every_finder_of_the_table_is_there() -> None:
    for name, place in FINDERS.items():
        module, _, attribute = place.partition(":")
        assert issubclass(getattr(import_module(module), attribute), MouthFinder), name
