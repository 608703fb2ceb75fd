"""Files that hold one clip or more: videos and arrays, told by their endings.

Axes: T frames, H rows, W columns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelip.data.crops import clip_from_video
from edgelip.data.unusable import UnusableClip
from edgelip.data.video import Video, read_gray_frames
from edgelip.errors import ClipError
from edgelip.runtime.arrays import open_array
from edgelip.runtime.clip import ClipSpec

VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
ARRAYS = (".npy", ".npz")
ENDINGS = (*VIDEOS, *ARRAYS)
ENDINGS_TEXT = ", ".join(ENDINGS)
MAX_FRAMES = 3000
_MAX_ARRAY_BYTES = 1 << 28


def ending_of(name: str) -> str:
    """What follows the last dot, with it, in small letters; nothing for a name without one."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot > name.rfind("/") + 1 else ""


def read_frames(path: Path, spec: ClipSpec) -> Video:
    """The whole file as uint8 gray frames.

    A .npz holds uint8 (T, roi_px, roi_px) as `frames` or `data`, a .npy the same; their rate is that of `spec`.
    Raises ClipError naming the file (UnusableClip where it is an array).
    """
    ending = path.suffix.lower()
    if ending in ARRAYS:
        return Video(read_array(path, spec), spec.fps)
    if ending not in VIDEOS:
        raise UnusableClip(f"{path} ends in {path.suffix!r}; expected {ENDINGS_TEXT}. Convert it.", reason="unreadable")
    return read_gray_frames(path, max_frames=MAX_FRAMES)


def read_clip(path: Path, spec: ClipSpec) -> np.ndarray:
    """One clip as `spec` asks, uint8 (frames, stored_px, stored_px).

    A video must have the rate and the size of `spec`; arrays are those of `read_frames`.
    The clip is cut around the middle of the file, or its first and last frames are repeated (timing "window"), or it
    is resampled in time (timing "span"). Raises ClipError naming the file.
    """
    video = read_frames(path, spec)
    return clip_from_video(video, 0, len(video.frames_THW) - 1, spec, source=str(path))


def read_array(path: Path, spec: ClipSpec) -> np.ndarray:
    """uint8 (T, H, W) of a .npy or .npz; its size in pixels is not compared. Raises UnusableClip naming the file."""
    expected = f"uint8 (T, {spec.roi_px}, {spec.roi_px}) as 'frames' or 'data'"
    if not path.exists():
        raise UnusableClip(f"{path} does not exist; expected {expected}. Check the path.", reason="missing")
    try:
        with open_array(path, ["frames", "data"]) as stream:
            if stream.dtype != np.uint8 or len(stream.shape) != 3 or not 1 <= stream.shape[0] <= MAX_FRAMES:
                raise UnusableClip(
                    f"{path} holds {stream.dtype} {stream.shape}; expected {expected}, T up to {MAX_FRAMES}.",
                    reason="size",
                )
            if stream.num_bytes > _MAX_ARRAY_BYTES:
                raise UnusableClip(
                    f"{path} cannot be read: unpacks to {stream.num_bytes} bytes; the limit is {_MAX_ARRAY_BYTES}. "
                    f"Expected {expected}.",
                    reason="too large",
                )
            return stream.read(limit_bytes=_MAX_ARRAY_BYTES)
    except ClipError:
        raise
    except ValueError as error:
        denied = "Permission denied" in str(error)
        raise UnusableClip(
            f"{path} cannot be read: {error}. Expected {expected}.", reason="unreadable" if denied else "damaged"
        ) from error
