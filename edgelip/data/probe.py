"""What one file of clips holds, found by decoding all of it: its frames are looked at, none is kept.

Axes: T frames, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgelip.data.clip_files import ARRAYS, ENDINGS_TEXT, MAX_FRAMES, VIDEOS, ending_of, read_array
from edgelip.data.signs.hdf5_landmarks import sign_tokens
from edgelip.data.signs.maker import LANDMARK_FILES
from edgelip.data.signs.parquet_landmarks import read_parquet
from edgelip.data.unusable import UnusableClip, one_frame
from edgelip.data.video import open_video
from edgelip.errors import ClipError
from edgelip.runtime.clip import ClipSpec

_FLAT = 2.0  # grey levels: a picture that varies less shows nothing


@dataclass(frozen=True)
class FileFacts:
    """Frames, size and rate (None for arrays); flat: no frame shows anything; reason, message: why it is unusable.

    num_frames 0: a file of many signs, which is not read to its end. Landmarks have no size.
    """

    path: Path
    num_frames: int = 0
    width_px: int = 0
    height_px: int = 0
    fps: float | None = None
    flat: bool = False
    reason: str | None = None
    message: str = ""


def probe(path: Path) -> FileFacts:
    """Never raises for a file, whatever is in it."""
    try:
        if ending_of(path.name) in LANDMARK_FILES:
            return _signs(path)
        if ending_of(path.name) in ARRAYS:
            frames_THW = read_array(path, ClipSpec())
            num_frames, height, width = frames_THW.shape
            if num_frames == 1:
                raise one_frame(str(path))
            flat = all(float(frame.std()) < _FLAT for frame in frames_THW)
            return FileFacts(path, num_frames, width, height, None, flat)
        if ending_of(path.name) not in VIDEOS:
            raise UnusableClip(
                f"{path} ends in {path.suffix!r}; expected {ENDINGS_TEXT}. Convert it.", reason="unreadable"
            )
        with open_video(path, max_frames=MAX_FRAMES) as video:
            num_frames, flat, shape = 0, True, (0, 0)
            for frame in video:
                num_frames += 1
                shape = frame.gray_HW.shape
                flat = flat and float(np.std(frame.gray_HW[::4, ::4])) < _FLAT
            if num_frames == 1:
                raise one_frame(str(path))
            return FileFacts(path, num_frames, shape[1], shape[0], video.fps, flat)
    except ClipError as error:
        return FileFacts(path, reason=str(getattr(error, "reason", "unreadable")), message=str(error))


def _signs(path: Path) -> FileFacts:
    """Of a file of one sign its frames; of one of many signs that they can be listed. Raises UnusableClip."""
    if ending_of(path.name) == ".parquet":
        raw_T543A = read_parquet(path)
        return FileFacts(path, len(raw_T543A), flat=bool(np.isnan(raw_T543A).all()))
    sign_tokens(path)
    return FileFacts(path)


def probe_all(paths: tuple[Path, ...]) -> list[FileFacts]:
    """The same of several, for a worker."""
    return [probe(path) for path in paths]
