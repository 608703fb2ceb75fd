"""Folders of tiny mouth clips: 6 frames of 24 px, written as mp4 or npz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from written_videos import write_video

from edgelip.runtime.clip import ClipSpec

SPEC = ClipSpec(frames=6, roi_px=24, pool=1, crop_px=20)
OPTIONS: dict[str, Any] = {"stem_width": 8, "trunk_widths": [8, 16], "temporal_width": 16, "temporal_blocks": 1}
WORDS = ("ABOUT", "BELOW")


def frames(word: str, number: int, *, num_frames: int = 6, side_px: int = 24) -> np.ndarray:
    """uint8 (T, S, S): a grey wedge and some noise; BELOW is brighter than ABOUT."""
    noise = np.random.default_rng([number, len(word)]).integers(0, 40, (num_frames, side_px, side_px))
    wedge = np.linspace(0, 60, side_px)[None, None, :]
    return (noise + wedge + 80 * WORDS.index(word) + 2 * np.arange(num_frames)[:, None, None]).astype(np.uint8)


def write_npz(path: Path, frames_THW: np.ndarray, *, name: str = "frames") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{name: frames_THW})
    return path


def write_split(folder: Path, num_clips: int, *, start: int = 0) -> Path:
    """`num_clips` of each word, the first as mp4, the rest as npz."""
    for word in WORDS:
        for number in range(start, start + num_clips):
            stem = folder / word / f"{number:03}"
            if number == start:
                write_video(stem.with_suffix(".mp4"), frames(word, number))
            else:
                write_npz(stem.with_suffix(".npz"), frames(word, number))
    return folder
