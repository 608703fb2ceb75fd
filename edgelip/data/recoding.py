"""Frames as they come back from a lossy codec: really encoded and decoded.

Axes: T frames, H rows, W columns.
"""

from __future__ import annotations

import cv2
import numpy as np

from edgelip.errors import MeasurementError, MissingError
from edgelip.registry import require

_MOST_BYTES = 1 << 28  # of one clip
_FPS = 25
_BLACK, _RANGE = 16, 219  # of luma in video


def jpeg(frames_THW: np.ndarray, quality: int) -> np.ndarray:
    """Each frame by itself as JPEG of `quality` 1..100."""
    _require_bounded(frames_THW)
    decoded = np.empty_like(frames_THW)
    for number, frame_HW in enumerate(frames_THW):
        _, content = cv2.imencode(".jpg", frame_HW, [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded[number] = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
    return decoded


def h264(frames_THW: np.ndarray, crf: int) -> np.ndarray:
    """The clip as one H.264 stream of constant rate factor `crf` 0..51, by libx264's medium preset on one thread.

    Raises MissingError without PyAV or its libx264, MeasurementError if other frames come back than went in.
    """
    _require_bounded(frames_THW)
    num_frames, height, width = frames_THW.shape
    even = np.pad(frames_THW, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    av = require("av", extra="train")
    try:
        encoder, decoder = av.CodecContext.create("libx264", "w"), av.CodecContext.create("h264", "r")
    except av.codec.codec.UnknownCodecError as error:
        raise MissingError(
            f"PyAV here has no {error}. Install a wheel of PyAV that has it, or leave out the conditions h264_*."
        ) from error
    encoder.width, encoder.height, encoder.pix_fmt = even.shape[2], even.shape[1], "yuv420p"
    encoder.framerate = _FPS
    # With assembly x264 gives other bytes from one run to the next, by how its buffers lie (PyAV 18.1).
    encoder.options = {"crf": str(crf), "preset": "medium", "x264-params": "asm=0"}
    encoder.thread_count = decoder.thread_count = 1
    packets = []
    for number, picture in enumerate(_yuv(even)):
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts = number
        packets += encoder.encode(frame)
    frames = [frame for packet in [*packets, *encoder.encode(None)] for frame in decoder.decode(packet)]
    frames += decoder.decode(None)
    if [frame.pts for frame in frames] != list(range(num_frames)):
        raise MeasurementError(f"H.264 gave {len(frames)} frames for {num_frames}; expected the same.")
    luma_THW = np.stack([frame.to_ndarray()[:height, :width] for frame in frames]).astype(np.int32)
    decoded: np.ndarray = np.clip(((luma_THW - _BLACK) * 255 + _RANGE // 2) // _RANGE, 0, 255).astype(np.uint8)
    return decoded


def _yuv(frames_THW: np.ndarray) -> np.ndarray:
    """Pictures as yuv420p has them, uint8 (T, H * 3 / 2, W): luma in video's range, in integers, chroma grey."""
    luma_THW = (frames_THW.astype(np.int32) * _RANGE + 127) // 255 + _BLACK
    chroma_THW = np.full((len(frames_THW), frames_THW.shape[1] // 2, frames_THW.shape[2]), 128)
    pictures: np.ndarray = np.concatenate([luma_THW, chroma_THW], axis=1).astype(np.uint8)
    return pictures


def _require_bounded(frames_THW: np.ndarray) -> None:
    if frames_THW.nbytes > _MOST_BYTES:
        raise MeasurementError(
            f"a clip to encode has {frames_THW.nbytes:,} bytes; the limit is {_MOST_BYTES:,}. Use shorter clips."
        )
