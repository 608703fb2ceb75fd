"""Video files in: gray frames of a whole, bounded, undamaged video, upright and with their times, or why not in a line.

Axes: T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.data.unusable import UnusableClip
from edgelip.registry import require

# Frames to find a mouth in are brought to this many pixels on their longer side as they are decoded: a 4K frame takes
# 8 MB, this one 2. A face that fills a tenth of the picture's width then still has eyes 88 px apart, as an ROI has.
WORK_PX = 1920
MAX_SIDE_PX = 8192
_MAX_PIXELS = 8192 * 4352  # 8K; a decoder keeps up to 17 pictures
_MAX_BYTES = 1 << 30
_UPRIGHT_9 = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], np.int32)
_AGAIN = "Copy or convert it again."


@dataclass(frozen=True, eq=False)
class Video:
    """frames_THW: uint8 gray, 0 black to 255 white; fps: frames per second."""

    frames_THW: np.ndarray
    fps: float


@dataclass(frozen=True, eq=False)
class StampedFrame:
    """One frame, uint8 gray, shown from `time_s` seconds after the first one for `duration_s`."""

    time_s: float
    duration_s: float
    gray_HW: np.ndarray


class GrayFrames:
    """An open video: what its header says, and its frames, once.

    width_px, height_px: as coded, before the picture is turned upright; fps: declared, None if nothing is;
    scale: size of the frames given over that of the file's.
    Frames come upright (display matrix obeyed), times rise strictly: a frame without a time stamp, or with one not
    after that of the frame before, follows that one by a declared frame interval.
    """

    def __init__(self, path: Path, container: Any, stream: Any, max_frames: int, work_px: int | None) -> None:
        self.width_px, self.height_px = int(stream.width), int(stream.height)
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) if rate else None
        longest = max(self.width_px, self.height_px)
        self.scale = 1.0 if work_px is None or longest <= work_px else work_px / longest
        self._path, self._container, self._stream, self._max_frames = path, container, stream, max_frames
        self._matrix_9: np.ndarray | None = None

    def __iter__(self) -> Iterator[StampedFrame]:
        """Raises UnusableClip where the file is damaged or ends early, which may be after frames were given."""
        with _refusing(self._path):
            yield from self._decoded()

    def _decoded(self) -> Iterator[StampedFrame]:
        path, stream, num_frames, num_packets, num_hidden = self._path, self._stream, 0, 0, 0
        # One for all frames: frame.to_ndarray(format=...) sets up a new conversion for each, at 4x the time.
        to_gray = require("av", extra="train").video.reformatter.VideoReformatter()
        size, first_s, before_s = None, None, 0.0
        interval_s = 1 / self.fps if self.fps else None
        for packet in self._container.demux(stream):
            num_packets += packet.size > 0
            num_hidden += packet.size > 0 and packet.is_discard  # cut away by an edit list, not damage
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise _damaged(f"{path} is damaged or cut off at frame {num_frames}. {_AGAIN}")
                if num_frames == self._max_frames:
                    raise UnusableClip(
                        f"{path} has more than {self._max_frames} frames. Cut out the part with the word.",
                        reason="too large",
                    )
                if size not in (None, (frame.width, frame.height)):
                    raise UnusableClip(
                        f"{path} changes its frame size at frame {num_frames}; expected one size. {_AGAIN}",
                        reason="unreadable",
                    )
                size = frame.width, frame.height
                time_s = None if frame.time is None else float(frame.time)
                if num_frames == 0:
                    first_s, time_s = time_s, 0.0
                elif time_s is None or first_s is None or time_s - first_s <= before_s:
                    if interval_s is None:
                        raise UnusableClip(
                            f"{path} gives frame {num_frames} no time of its own and declares no frame rate. "
                            "Write it again with a fixed rate.",
                            reason="unreadable",
                        )
                    time_s = before_s + interval_s
                else:
                    time_s -= first_s
                lasts_s = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else None
                yield StampedFrame(time_s, lasts_s or interval_s or time_s - before_s, self._upright(frame, to_gray))
                num_frames, before_s = num_frames + 1, time_s
        if num_packets < stream.frames or num_frames < stream.frames - num_hidden:
            raise _damaged(f"{path} is cut off: {num_frames} of {stream.frames} frames can be decoded. {_AGAIN}")
        if not num_frames:
            raise _damaged(f"{path} has no frame that can be decoded; expected at least 1. {_AGAIN}")

    def _upright(self, frame: Any, to_gray: Any) -> np.ndarray:
        if self.scale == 1:
            gray = to_gray.reformat(frame, format="gray")
        else:
            width, height = (max(1, round(side * self.scale)) for side in (frame.width, frame.height))
            gray = to_gray.reformat(frame, width=width, height=height, format="gray", interpolation="AREA")
        gray_HW: np.ndarray = gray.to_ndarray()
        if self._matrix_9 is None:  # of the first frame: to ask for it ties a frame to itself until the next gc
            found = (side for side in frame.side_data if side.type.name == "DISPLAYMATRIX")
            self._matrix_9 = next((np.frombuffer(bytes(side), np.int32) for side in found), _UPRIGHT_9)
        return _turned(gray_HW, self._matrix_9)


@contextmanager
def open_video(
    path: Path,
    *,
    max_frames: int,
    max_side_px: int = MAX_SIDE_PX,
    work_px: int | None = WORK_PX,
    num_threads: int = 1,
) -> Iterator[GrayFrames]:
    """The first video stream of a file, frames scaled to at most `work_px` a side as they are decoded.

    num_threads: of the decoder; 0: as many as it likes. Raises UnusableClip naming the file; MissingError without PyAV.
    """
    path = Path(path)
    av = require("av", extra="train")
    with _refusing(path):
        if path.is_dir():
            raise UnusableClip(f"{path} is a folder; expected a video file.", reason="unreadable")
        if not path.exists():
            raise UnusableClip(
                f"{path} does not exist; expected a video file. Check the path and the data root.", reason="missing"
            )
        if path.stat().st_size == 0:
            raise _damaged(f"{path} is empty (0 bytes); expected a video file. Copy or download it again.")
        container = av.open(f"file:{path}")  # a colon in a name is no protocol
    with container:
        with _refusing(path):
            frames = _first_stream(path, container, max_side_px, max_frames, work_px, num_threads)
        yield frames


def read_gray_frames(path: Path, *, max_frames: int = 3000, max_side_px: int = 2048) -> Video:
    """Decode every frame of the first video stream to gray, at its own size.

    A file that ends early or is damaged inside is refused, never shortened: fewer packets than the container declares,
    a packet that does not decode, or a frame the decoder marks as corrupt. Containers that declare no frame count
    (MPEG-1, raw streams) can end early unseen if they end between two pictures.
    Raises UnusableClip naming the file; MissingError without PyAV.
    """
    frames: list[np.ndarray] = []
    with open_video(path, max_frames=max_frames, max_side_px=max_side_px, work_px=None) as video:
        if video.fps is None:
            raise UnusableClip(f"{path} declares no frame rate. Write it again with a fixed rate.", reason="unreadable")
        for frame in video:
            frames.append(frame.gray_HW)
            if len(frames) * frame.gray_HW.size > _MAX_BYTES:
                raise UnusableClip(
                    f"{path} has more than {_MAX_BYTES >> 20} MiB of gray frames. Cut or scale it down.",
                    reason="too large",
                )
        return Video(np.stack(frames), video.fps)


def frame_size(path: Path) -> tuple[int, int]:
    """Width and height in px, of the header alone, before the picture is turned upright. Raises as `open_video`."""
    with open_video(path, max_frames=1) as video:
        return video.width_px, video.height_px


def _first_stream(
    path: Path, container: Any, max_side_px: int, max_frames: int, work_px: int | None, num_threads: int
) -> GrayFrames:
    stream = next(iter(container.streams.video), None)
    if stream is None or stream.codec_context is None or not stream.width or not stream.height:
        raise UnusableClip(
            f"{path} has no video stream that can be read; expected a video. {_AGAIN}", reason="unreadable"
        )
    if max(stream.width, stream.height) > max_side_px or stream.width * stream.height > _MAX_PIXELS:
        size = f"{stream.width}x{stream.height} px"
        raise UnusableClip(
            f"{path} is {size}; expected at most {max_side_px} px a side. Scale it down.", reason="too large"
        )
    stream.codec_context.thread_count = num_threads
    return GrayFrames(path, container, stream, max_frames, work_px)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """What goes wrong inside is the file's fault: on a damaged header PyAV trips over text, sizes and rates."""
    try:
        yield
    except (UnusableClip, GeneratorExit):
        raise
    except PermissionError as error:
        raise UnusableClip(
            f"{path} cannot be opened: permission denied. Make it readable.", reason="unreadable"
        ) from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
        raise _damaged(f"{path} is not a whole, readable video ({reason}). {_AGAIN}") from error


def _damaged(message: str) -> UnusableClip:
    return UnusableClip(message, reason="damaged")


def _turned(gray_HW: np.ndarray, matrix_9: np.ndarray) -> np.ndarray:
    """The picture as its display matrix shows it, by the nearest quarter turn and mirror image.

    (x, y) goes to (a x + c y, b x + d y), matrix_9 = a b u c d v x y w. Source: ISO 14496-12, track header.
    """
    if len(matrix_9) != 9:
        return gray_HW
    a, b, c, d = (int(matrix_9[index]) for index in (0, 1, 3, 4))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        mirrored = gray_HW[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    else:
        mirrored = gray_HW.T[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]
    return np.ascontiguousarray(mirrored)
