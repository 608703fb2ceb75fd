from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from written_videos import write_video

from edgelip.data.clip_maker import CropMaker, made_from_video, word_frames
from edgelip.data.readers.samples import Sample
from edgelip.data.unusable import UnusableClip
from edgelip.data.video import Video
from edgelip.runtime.clip import ClipSpec

SPEC = ClipSpec(roi_px=8, crop_px=8)


def sample(duration_s: float | None = None, first: int | None = None, last: int | None = None) -> Sample:
    return Sample("ABOUT", Path("ABOUT_00001.mp4"), "a", "train", first, last, duration_s)


def counting_video(num_frames: int = 29) -> Video:
    """Every pixel of frame t has the value 5 t."""
    frames = np.broadcast_to((5 * np.arange(num_frames, dtype=np.uint8))[:, None, None], (num_frames, 8, 8))
    return Video(frames, 25.0)


@pytest.mark.parametrize(
    ("duration_s", "first", "num_ones"),
    # 0.4 s: facts of LRW's boundary indicator; the others by the rule mid - half - 1 .. mid + half, mid 14.
    [(0.4, 8, 12), (0.03, 13, 2), (0.08, 12, 4), (1.16, 0, 29), (5.0, 0, 29)],
)
def test_a_word_known_by_its_duration_is_centred_as_lrw_has_it(duration_s: float, first: int, num_ones: int) -> None:
    start, last = word_frames(sample(duration_s), 29, 25.0)
    assert (start, last - start + 1) == (first, num_ones)
    made = made_from_video(counting_video(), sample(duration_s), SPEC)
    assert (made.first, made.last, made.duration_s) == (start, last, duration_s)
    assert made.frames[:, 0, 0].tolist() == [5 * t for t in range(29)]  # the whole file, whatever the word's length


def test_the_boundaries_are_those_of_the_reference(golden: Path) -> None:
    rows = json.loads((golden / "preproc" / "varlen_table.json").read_text())
    assert rows
    for row in rows:
        first, last = word_frames(sample(row["duration"]), 29, 25.0)
        assert (first, last - first + 1) == tuple(row["boundary"]), row


def test_a_span_wins_over_the_middle_of_the_file() -> None:
    made = made_from_video(counting_video(40), sample(first=30, last=35), ClipSpec(roi_px=8, crop_px=8, frames=9))
    assert made.frames[:, 0, 0].tolist() == [5 * t for t in range(29, 38)]
    assert (made.first, made.last, made.duration_s) == (1, 6, 0.24)
    with pytest.raises(
        UnusableClip, match=r"has frames 0\.\.28; the word is given as 27\.\.29\. Correct its span"
    ) as no:
        word_frames(sample(first=27, last=29), 29, 25.0)
    assert no.value.reason == "span"


def test_a_whole_file_is_the_word_where_nothing_is_known() -> None:
    made = made_from_video(counting_video(5), sample(), ClipSpec(roi_px=8, crop_px=8, timing="span", frames=3))
    assert made.frames[:, 0, 0].tolist() == [0, 10, 20]
    assert (made.first, made.last, made.duration_s) == (0, 2, 0.2)
    short = made_from_video(counting_video(3), sample(), ClipSpec(roi_px=8, crop_px=8, frames=5))
    assert short.frames[:, 0, 0].tolist() == [0, 0, 5, 10, 10]
    assert (short.first, short.last) == (1, 3)


def test_a_video_of_several_words_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgelip.data import clip_maker

    write_video(tmp_path / "a.mp4", np.full((12, 96, 96), 100, np.uint8))
    read = []
    monkeypatch.setattr(clip_maker, "read_frames", lambda path, spec: read.append(path) or counting_video(12))
    maker = pickle.loads(pickle.dumps(CropMaker(SPEC)))
    for first in (0, 3, 6):
        maker.make(Sample("w", tmp_path / "a.mp4", f"a:{first}", "train", first, first + 2))
    assert len(read) == 1
    write_video(tmp_path / "a.mp4", np.full((13, 96, 96), 100, np.uint8))
    maker.make(Sample("w", tmp_path / "a.mp4", "a:0", "train", 0, 2))
    assert len(read) == 2  # another file now
