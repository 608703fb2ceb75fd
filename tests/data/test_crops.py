from __future__ import annotations

import numpy as np
import pytest

from edgelip.data.crops import boundary_in_clip, clip_from_video
from edgelip.data.video import Video
from edgelip.errors import ClipError
from edgelip.runtime.clip import ClipSpec

WINDOW = ClipSpec(timing="window", frames=5, roi_px=8, pool=1, crop_px=8)
SPAN = ClipSpec(timing="span", frames=5, roi_px=8, pool=1, crop_px=8)


def _counting_video(num_frames: int = 20, fps: float = 25.0) -> Video:
    """Every pixel of frame t has the value 10 t."""
    return Video(np.broadcast_to((10 * np.arange(num_frames, dtype=np.uint8))[:, None, None], (num_frames, 8, 8)), fps)


def _values(video: Video, first: int, last: int, spec: ClipSpec) -> list[int]:
    clip_THW = clip_from_video(video, first, last, spec, source="a.mp4")
    assert clip_THW.shape == (spec.frames, spec.stored_px, spec.stored_px)
    assert clip_THW.dtype == np.uint8
    return clip_THW[:, 0, 0].tolist()


def test_a_span_is_resampled_with_its_ends_kept() -> None:
    assert _values(_counting_video(), 4, 12, SPAN) == [40, 60, 80, 100, 120]
    assert _values(_counting_video(), 4, 6, SPAN) == [40, 45, 50, 55, 60]
    assert _values(_counting_video(), 7, 7, SPAN) == [70] * 5


def test_a_window_is_centred_and_repeats_the_ends_of_the_video() -> None:
    assert _values(_counting_video(), 10, 10, WINDOW) == [80, 90, 100, 110, 120]
    assert _values(_counting_video(), 9, 11, WINDOW) == [80, 90, 100, 110, 120]
    assert _values(_counting_video(), 0, 1, WINDOW) == [0, 0, 10, 20, 30]
    assert _values(_counting_video(), 19, 19, WINDOW) == [170, 180, 190, 190, 190]


def test_the_boundary_marks_the_word_in_the_window() -> None:
    assert boundary_in_clip(9, 11, WINDOW) == (1, 3)
    assert boundary_in_clip(4, 16, WINDOW) == (0, 4)
    assert boundary_in_clip(4, 16, SPAN) == (0, 4)
    video = _counting_video()
    for first, last in ((0, 1), (9, 11), (18, 19), (7, 7)):
        start, end = boundary_in_clip(first, last, WINDOW)
        assert _values(video, first, last, WINDOW)[start : end + 1] == [10 * t for t in range(first, last + 1)]


def test_frames_are_pooled() -> None:
    spec = ClipSpec(timing="span", frames=2, roi_px=8, pool=4, crop_px=8)
    frames_THW = np.random.default_rng(0).integers(0, 256, (2, 8, 8), dtype=np.uint8)
    clip_THW = clip_from_video(Video(frames_THW, 25.0), 0, 1, spec, source="a")
    expected = [[[f[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean() for j in (0, 1)] for i in (0, 1)] for f in frames_THW]
    np.testing.assert_allclose(clip_THW, expected, atol=0.5)


def test_what_does_not_fit_the_contract_is_refused() -> None:
    video = _counting_video()
    with pytest.raises(
        ClipError, match=r"a\.mp4 is 8x8 px; expected mouth crops of 96x96 px\. Crop the mouth first, or"
    ):
        clip_from_video(video, 0, 1, ClipSpec(), source="a.mp4")
    for first, last in ((3, 20), (-1, 3), (5, 4)):
        with pytest.raises(
            ClipError, match=rf"a\.mp4 has frames 0\.\.19; the word is given as {first}\.\.{last}\. Correct"
        ):
            clip_from_video(video, first, last, SPAN, source="a.mp4")
    with pytest.raises(ClipError, match=r"a\.mp4 has 30 frames/s; expected 25\. Convert it first\."):
        clip_from_video(_counting_video(fps=30.0), 3, 4, WINDOW, source="a.mp4")
    assert len(clip_from_video(_counting_video(fps=30.0), 3, 4, SPAN, source="a.mp4")) == 5
