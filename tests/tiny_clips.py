"""Folders of tiny mouth clips: 6 frames of 24 px, written as mp4 or npz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np

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


def write_mp4(path: Path, frames_THW: np.ndarray, *, fps: int = 25) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps, options={"qscale": "1"})
        stream.height, stream.width = frames_THW.shape[1:]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.bit_rate = 4_000_000
        for gray_HW in frames_THW:
            for packet in stream.encode(av.VideoFrame.from_ndarray(gray_HW, format="gray")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_split(folder: Path, num_clips: int, *, start: int = 0) -> Path:
    """`num_clips` of each word, the first as mp4, the rest as npz."""
    for word in WORDS:
        for number in range(start, start + num_clips):
            stem = folder / word / f"{number:03}"
            if number == start:
                write_mp4(stem.with_suffix(".mp4"), frames(word, number))
            else:
                write_npz(stem.with_suffix(".npz"), frames(word, number))
    return folder
