"""Video files in: gray frames of a whole, bounded, undamaged video, or a one-line reason why not.

Axes: T frames, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.errors import ClipError
from edgelip.registry import require

_MAX_BYTES = 1 << 30
_AGAIN = "Copy or convert it again."


@dataclass(frozen=True, eq=False)
class Video:
    """frames_THW: uint8 gray, 0 black to 255 white; fps: frames per second."""

    frames_THW: np.ndarray
    fps: float


def read_gray_frames(path: Path, *, max_frames: int = 3000, max_side_px: int = 2048) -> Video:
    """Decode every frame of the first video stream to gray.

    A file that ends early or is damaged inside is refused, never shortened: fewer packets than the container declares,
    a packet that does not decode, or a frame the decoder marks as corrupt. Containers that declare no frame count
    (MPEG-1, raw streams) can end early unseen if they end between two pictures.
    Raises ClipError naming the file; MissingError without PyAV.
    """
    path = Path(path)
    av = require("av", extra="train")
    if path.is_dir():
        raise ClipError(f"{path} is a folder; expected a video file.")
    if not path.exists():
        raise ClipError(f"{path} does not exist; expected a video file. Check the path and the data root.")
    try:
        if path.stat().st_size == 0:
            raise ClipError(f"{path} is empty (0 bytes); expected a video file. Copy or download it again.")
        with av.open(f"file:{path}") as container:  # a colon in a name is no protocol
            stream = next(iter(container.streams.video), None)
            if stream is None or stream.codec_context is None or not stream.width or not stream.height:
                raise ClipError(f"{path} has no video stream that can be read; expected a video. {_AGAIN}")
            if max(stream.width, stream.height) > max_side_px:
                size = f"{stream.width}x{stream.height} px"
                raise ClipError(f"{path} is {size}; expected at most {max_side_px} px a side. Scale it down.")
            # One for all frames: frame.to_ndarray(format=...) sets up a new conversion for each, at 4x the time.
            to_gray = av.video.reformatter.VideoReformatter()
            frames = _decode(path, container, stream, to_gray, max_frames)
            rate = stream.average_rate or stream.guessed_rate
    except PermissionError as error:
        raise ClipError(f"{path} cannot be opened: permission denied. Make it readable.") from error
    except ClipError:
        raise
    except Exception as error:  # on a damaged header PyAV trips over text, sizes and rates in many ways
        reason = getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
        raise ClipError(f"{path} is not a whole, readable video ({reason}). {_AGAIN}") from error
    if not frames:
        raise ClipError(f"{path} has no frame that can be decoded; expected at least 1. {_AGAIN}")
    if not rate:
        raise ClipError(f"{path} declares no frame rate. Write it again with a fixed rate.")
    return Video(np.stack(frames), float(rate))


def _decode(path: Path, container: Any, stream: Any, to_gray: Any, max_frames: int) -> list[np.ndarray]:
    frames: list[np.ndarray] = []
    num_packets = num_hidden = 0
    for packet in container.demux(stream):
        num_packets += packet.size > 0
        num_hidden += packet.size > 0 and packet.is_discard  # cut away by an edit list, not damage
        for frame in packet.decode():
            if frame.is_corrupt:
                raise ClipError(f"{path} is damaged or cut off at frame {len(frames)}. {_AGAIN}")
            if len(frames) == max_frames:
                raise ClipError(f"{path} has more than {max_frames} frames. Cut out the part with the word.")
            gray_HW = to_gray.reformat(frame, format="gray").to_ndarray()
            if frames and gray_HW.shape != frames[0].shape:
                raise ClipError(f"{path} changes its frame size at frame {len(frames)}; expected one size. {_AGAIN}")
            frames.append(gray_HW)
            if len(frames) * gray_HW.size > _MAX_BYTES:
                raise ClipError(f"{path} has more than {_MAX_BYTES >> 20} MiB of gray frames. Cut or scale it down.")
    expected = stream.frames
    if num_packets < expected or len(frames) < expected - num_hidden:
        raise ClipError(f"{path} is cut off: {len(frames)} of {expected} frames can be decoded. {_AGAIN}")
    return frames
