from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_video import write_video

from edgelip.data.prepare import prepare_spans
from edgelip.data.spans import Span
from edgelip.progress import Progress
from edgelip.runtime.clip import ClipSpec

SPANS = [
    Span("red", "a.mp4", 2, 3, "train", speaker="s2"),
    Span("blue", "b.mp4", 0, 5, "train", speaker="s1"),
    Span("blue", "a.mp4", 5, 8, "train", speaker="s2"),
]


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
    quiet = Progress(quiet=True)
    store = prepare_spans(tmp_path / "store", SPANS, videos, ("blue", "red"), spec, quiet, name="decode")
    assert store.frames.shape == (3, 5, 48, 48)
    assert store.labels.tolist() == [1, 0, 0]  # both of a.mp4 first: each video is decoded once
    assert store.speakers.tolist() == [1, 1, 0]
    assert store.boundaries.tolist() == boundaries
