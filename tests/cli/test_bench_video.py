from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_videos import numbered_frames, numbers_of, write_video

import edgelip.data.mouth.haar as haar_module
from edgelip.cli.bench_video import main, timed_split, video_split
from edgelip.errors import ClipError, UsageError
from edgelip.runtime.clip import ClipSpec

SPEC = ClipSpec(frames=6, roi_px=24, pool=1, crop_px=20)


class Finder:
    """Keeps what it was given."""

    seen: list[np.ndarray]

    def __init__(self) -> None:
        type(self).seen = []

    def crop(self, frames_THW: np.ndarray, *, source: str) -> None:
        self.seen.append(frames_THW)


def test_a_clips_worth_of_frames_is_decoded_and_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haar_module, "HaarFinder", Finder)
    video = write_video(tmp_path / "a.mp4", numbered_frames(20), fps=50)
    samples = timed_split(video, num_frames=6, fps=25.0, repeats=3, threads=1)
    assert {name: len(found) for name, found in samples.items()} == {"decode": 3, "mouth": 3}
    assert min(samples["decode"]) > 0
    assert len(Finder.seen) == 4  # one counts for nothing
    assert numbers_of(Finder.seen[0], 20).tolist() == [0, 2, 4, 6, 8, 10]


def test_a_video_without_a_face_is_refused_by_the_process_that_times(tmp_path: Path) -> None:
    video = write_video(tmp_path / "grey.mp4", numbered_frames(8))
    with pytest.raises(UsageError, match=r"grey\.mp4 shows a face in 0 of 6 frames"):
        video_split(video, SPEC, repeats=1)


def test_a_short_video_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "short.mp4", numbered_frames(5))
    assert main([str(video), "--frames", "6"]) == 2
    assert "short.mp4 has 5 frames at 25 frames/s; a clip takes 6. Give a longer video." in capsys.readouterr().err


def test_other_kinds_and_counts_are_refused(tmp_path: Path) -> None:
    signs = ClipSpec(kind="landmarks", timing="span", frames=8, points="lips40", axes=2)
    with pytest.raises(ClipError, match="takes landmarks, not frames"):
        video_split(tmp_path / "a.mp4", signs, repeats=1)
    with pytest.raises(UsageError, match="repeats is 0; expected 1 or more, and 11 for a median"):
        video_split(tmp_path / "a.mp4", SPEC, repeats=0)
