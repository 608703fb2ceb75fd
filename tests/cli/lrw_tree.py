"""A made-up tree in the form of Lip Reading in the Wild: real mp4 files and annotations, five words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from written_videos import write_video

WORDS = ("ABOUT", "BENEFIT", "CHANCE", "DURING", "EVERY")
SIDE_PX = 32
FRAMES = 29
H264: dict[str, Any] = {"codec": "libx264", "encoder": {"preset": "ultrafast", "crf": "18"}}  # as LRW's
_ANNOTATION = "Disk reference: 5\nChannel: BBC One HD\nProgram start: 1\nClip start: 2\nDuration: {:.2f} seconds\n"


def write_lrw_tree(root: Path, *, train_clips: int = 4, other_clips: int = 2) -> Path:
    """WORD/SPLIT/WORD_00001.mp4 and .txt: a bar that moves in each word at its own speed."""
    for label, word in enumerate(WORDS):
        for split, num_clips in (("train", train_clips), ("val", other_clips), ("test", other_clips)):
            folder = root / word / split
            folder.mkdir(parents=True)
            for number in range(1, num_clips + 1):
                stem = folder / f"{word}_{number:05d}"
                write_video(stem.with_suffix(".mp4"), _bar(label, number), **H264)
                stem.with_suffix(".txt").write_text(_ANNOTATION.format(0.2 + 0.1 * label))
    return root


def _bar(label: int, number: int) -> np.ndarray:
    frames_THW = np.full((FRAMES, SIDE_PX, SIDE_PX), 60 + number, np.uint8)
    for t in range(FRAMES):
        top = (t * (label + 1) + number) % (SIDE_PX - 6)
        frames_THW[t, top : top + 6] = 200
    return frames_THW
