from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden_landmarks import GoldenClip, assert_nearly_equal_images

from edgelip.data.mouth.four_keypoints import four_keypoint_rois
from edgelip.data.mouth.reference_face import own_face
from edgelip.data.unusable import UnusableClip


def test_crops_are_those_of_the_four_keypoint_tool(golden: Path) -> None:
    reference = GoldenClip(golden / "preproc")
    rois = four_keypoint_rois(reference.frames_bgr[..., ::-1], reference.keypoints, reference.face)
    assert_nearly_equal_images(rois, reference.array("ef_mouth_rgb.npy"), at_most=1)


def test_a_mouth_far_off_the_middle_is_refused_with_its_frame() -> None:
    face = own_face()
    good = np.stack([face[36:42].mean(0), face[42:48].mean(0), face[31:36].mean(0), face[48:68].mean(0)])
    off = good + np.array([[0, 0], [0, 0], [0, 0], [0, 90.0]])
    frames = np.zeros((2, 256, 256), np.uint8)
    with pytest.raises(UnusableClip, match=r"mouth of frame 1 lies \d+ px from the middle .* expected at most 53"):
        four_keypoint_rois(frames, [good, off], face)
    assert four_keypoint_rois(frames, [good, None], face).shape == (2, 96, 96)
