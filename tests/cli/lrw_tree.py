"""A made-up tree in the form of Lip Reading in the Wild: real mp4 files and annotations, five words."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

WORDS = ("ABOUT", "BENEFIT", "CHANCE", "DURING", "EVERY")
SIDE_PX = 32
FRAMES = 29
_ANNOTATION = "Disk reference: 5\nChannel: BBC One HD\nProgram start: 1\nClip start: 2\nDuration: {:.2f} seconds\n"


def write_lrw_tree(root: Path, *, train_clips: int = 4, other_clips: int = 2) -> Path:
    """WORD/SPLIT/WORD_00001.mp4 and .txt: a bar that moves in each word at its own speed."""
    for label, word in enumerate(WORDS):
        for split, num_clips in (("train", train_clips), ("val", other_clips), ("test", other_clips)):
            folder = root / word / split
            folder.mkdir(parents=True)
            for number in range(1, num_clips + 1):
                stem = folder / f"{word}_{number:05d}"
                write_mp4(stem.with_suffix(".mp4"), _bar(label, number))
                stem.with_suffix(".txt").write_text(_ANNOTATION.format(0.2 + 0.1 * label))
    return root


def write_mp4(path: Path, frames_THW: np.ndarray, *, fps: int = 25) -> Path:
    """H.264 as LRW's, of any even size."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "18"})
        stream.height, stream.width = frames_THW.shape[1:]
        stream.pix_fmt = "yuv420p"
        for gray_HW in frames_THW:
            for packet in stream.encode(av.VideoFrame.from_ndarray(gray_HW, format="gray")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def _bar(label: int, number: int) -> np.ndarray:
    frames_THW = np.full((FRAMES, SIDE_PX, SIDE_PX), 60 + number, np.uint8)
    for t in range(FRAMES):
        top = (t * (label + 1) + number) % (SIDE_PX - 6)
        frames_THW[t, top : top + 6] = 200
    return frames_THW
