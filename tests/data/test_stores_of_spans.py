from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_videos import write_video

from edgelip.data.clip_maker import CropMaker
from edgelip.data.readers.samples import Sample
from edgelip.data.stores.building import Built, build_store, refuse_failures
from edgelip.data.stores.workers import Workers
from edgelip.errors import ClipError
from edgelip.progress import Progress
from edgelip.runtime.clip import ClipSpec


def spans(videos: Path) -> list[Sample]:
    """One video has two words."""
    return [
        Sample(word, videos / video, f"{video}:{first}:{last}", "train", first, last, speaker=speaker)
        for word, video, first, last, speaker in (
            ("red", "a.mp4", 2, 3, "s2"), ("blue", "b.mp4", 0, 5, "s1"), ("blue", "a.mp4", 5, 8, "s2")
        )
    ]  # fmt: skip


def built(folder: Path, samples: list[Sample], spec: ClipSpec) -> Built:
    return build_store(
        folder,
        samples,
        CropMaker(spec),
        words=("blue", "red"),
        progress=Progress(quiet=True),
        name="decode",
        workers=Workers(1),
    )


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, np.full((12, 96, 96), 100, np.uint8))
    return tmp_path


@pytest.mark.parametrize(
    ("timing", "boundaries"),
    # A window of 5 frames starts 2 frames before the middle frame (first + last + 1) // 2 of its word.
    [("window", [[1, 2], [0, 3], [0, 4]]), ("span", [[0, 4]] * 3)],
)
def test_spans_become_a_store_with_words_speakers_and_boundaries(
    videos: Path, tmp_path: Path, timing: str, boundaries: list[list[int]]
) -> None:
    spec = ClipSpec(timing=timing, frames=5, pool=2)
    store = built(tmp_path / "store", spans(videos), spec).usable()
    assert store.frames.shape == (3, 5, 48, 48)
    assert store.labels.tolist() == [1, 0, 0]  # both of a.mp4 first: each video is decoded once
    assert store.speakers.tolist() == [1, 1, 0]
    assert store.boundaries.tolist() == boundaries
    np.testing.assert_allclose(store.durations_s, [0.08, 0.16, 0.24])


def test_a_span_that_cannot_be_used_is_an_error(videos: Path, tmp_path: Path) -> None:
    beyond = Sample("red", videos / "a.mp4", "a.mp4:9:12", "train", 9, 12)
    message = r"1 of 4 clips cannot be used: .*a\.mp4 has frames 0\.\.11; the word is given as 9\.\.12\. Correct its"
    failures = built(tmp_path / "store", [*spans(videos), beyond], ClipSpec(frames=5)).failures
    with pytest.raises(ClipError, match=message):
        refuse_failures(failures, 4)
