"""Videos that tests write for themselves: at any times, turned, in any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av", reason="PyAV writes the test videos")


def numbered_frames(num_frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 (T, H, W), each frame of one brightness that tells its number."""
    greys = 20 + 200 * np.arange(num_frames) // max(1, num_frames - 1)
    return np.broadcast_to(greys[:, None, None], (num_frames, height, width)).astype(np.uint8)


def numbers_of(frames_THW: np.ndarray, num_frames: int) -> np.ndarray:
    """Which of the numbered frames each one is."""
    greys = numbered_frames(num_frames, 1, 1)[:, 0, 0].astype(float)
    return np.abs(frames_THW.mean(axis=(1, 2))[:, None] - greys).argmin(axis=1)


def write_video(
    path: Path,
    frames_THW: np.ndarray,
    *,
    fps: int = 25,
    codec: str = "mpeg4",
    encoder: Mapping[str, str] | None = None,
    container: Mapping[str, str] | None = None,
) -> Path:
    """A gray video at a fixed rate, by default nearly without loss. encoder, container: their options."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=dict(container or {})) as file:
        stream = file.add_stream(codec, rate=fps, options=dict(encoder or {"qscale": "1"}))
        stream.height, stream.width = frames_THW.shape[1:]
        stream.pix_fmt = "yuv420p"
        if encoder is None:
            stream.codec_context.bit_rate = 4_000_000
        for gray_HW in frames_THW:
            for packet in stream.encode(av.VideoFrame.from_ndarray(gray_HW, format="gray")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path


def write_timed(
    path: Path,
    frames_THW: np.ndarray,
    *,
    times_ms: Sequence[int] | None = None,
    fps: Fraction | int = 25,
    codec: str = "mpeg4",
    turned_deg: int = 0,
    mirrored: bool = False,
) -> Path:
    """A video whose frames are shown at `times_ms`, or at a fixed rate; turned_deg: in its display matrix alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options={"qscale": "1"})
        stream.height, stream.width = frames_THW.shape[1:]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.bit_rate = 8_000_000
        if times_ms is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if turned_deg or mirrored:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip(f"PyAV {av.__version__} cannot write a display matrix")
            stream.set_display_rotation(turned_deg, hflip=mirrored)
        for number, gray_HW in enumerate(frames_THW):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(gray_HW), format="gray")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
