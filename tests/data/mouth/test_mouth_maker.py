from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from written_videos import numbered_frames, numbers_of, write_timed

import edgelip.data.mouth.maker as maker_module
from edgelip.data.mouth.finder import MouthFinder
from edgelip.data.mouth.maker import MouthMaker
from edgelip.data.mouth.track import MouthTrack, matrices_from_boxes
from edgelip.data.readers.samples import Sample
from edgelip.data.unusable import UnusableClip
from edgelip.runtime.clip import ClipSpec

SPEC = ClipSpec(timing="span", frames=4)


class Middle(MouthFinder):
    """The middle of the picture in all frames, the face seen in the first ones only."""

    name = "middle"

    def __init__(self, num_seen: int = 1000) -> None:
        self.num_seen = num_seen

    def track(self, frames_THW: np.ndarray, *, source: str) -> MouthTrack:
        num_frames, height, width = frames_THW.shape
        boxes_T4 = np.tile([width / 2, height / 2, 40.0, 0.0], (num_frames, 1))
        return MouthTrack(matrices_from_boxes(boxes_T4), np.arange(num_frames) < self.num_seen, ("a note (3 of 9)",))


def sample_of(path: Path, **fields: object) -> Sample:
    return Sample(word="lip", path=path, name=path.name, split="train", **fields)  # type: ignore[arg-type]


def test_a_span_of_the_file_is_the_same_word_at_25(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.mp4", numbered_frames(40), fps=50)
    made = MouthMaker(SPEC, Middle()).make(sample_of(path, first=10, last=16))
    assert made.frames.shape == (4, 96, 96)
    np.testing.assert_array_equal(numbers_of(made.frames[:, 40:56, 40:56], 40), [10, 12, 14, 16])
    assert (made.first, made.last) == (0, 3)
    assert made.duration_s == pytest.approx(0.16)
    assert made.notes == ("a note",)


def test_an_array_is_no_video_to_find_a_mouth_in(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 96, 96), np.uint8))
    with pytest.raises(UnusableClip) as refused:
        MouthMaker(SPEC, Middle()).make(sample_of(tmp_path / "a.npy"))
    assert str(refused.value) == (
        f"{tmp_path / 'a.npy'} is an array, which holds mouth ROIs already; a mouth is found in videos. Prepare arrays "
        "in a folder of their own, with --mouth none."
    )


def test_a_word_in_the_middle_by_its_duration(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.mp4", numbered_frames(29))
    made = MouthMaker(ClipSpec(), Middle()).make(sample_of(path, duration_s=0.4))
    assert (made.first, made.last, made.duration_s) == (8, 19, 0.4)
    whole = MouthMaker(ClipSpec(), Middle()).make(sample_of(path))
    assert (whole.first, whole.last) == (0, 28)


def test_several_words_of_a_file_are_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_timed(tmp_path / "a.mp4", numbered_frames(20))
    read = []
    monkeypatch.setattr(
        maker_module,
        "mouth_video",
        lambda path, *rest, real=maker_module.mouth_video, **more: read.append(path) or real(path, *rest, **more),
    )
    maker = MouthMaker(SPEC, Middle())
    for first in (0, 5, 10):
        maker.make(sample_of(path, first=first, last=first + 4))
    assert read == [path]


def test_a_word_that_is_hardly_seen_is_not_made_up(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.mp4", numbered_frames(20))
    maker = MouthMaker(SPEC, Middle(num_seen=12))
    maker.make(sample_of(path, first=10, last=13))
    with pytest.raises(
        UnusableClip, match=r"a\.mp4 shows the face in 2 of the 5 frames of 'lip'; expected at least 50 %\. Choose"
    ) as caught:
        maker.make(sample_of(path, first=10, last=14))
    assert caught.value.reason == "no face"


def test_a_span_outside_of_the_file_is_refused(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.mp4", numbered_frames(20), fps=50)
    with pytest.raises(UnusableClip, match=r"has frames 0\.\.19; the word is given as 12\.\.20\. Correct its span\."):
        MouthMaker(SPEC, Middle()).make(sample_of(path, first=12, last=20))


def test_the_maker_says_what_it_depends_on_and_travels(tmp_path: Path) -> None:
    maker = MouthMaker(SPEC, Middle())
    assert maker.identity() == {"maker": "mouth", "finder": "middle"}
    assert maker.sources(sample_of(tmp_path / "a.mp4")) == (tmp_path / "a.mp4",)
    assert pickle.loads(pickle.dumps(maker)).identity() == maker.identity()
