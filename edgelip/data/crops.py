"""From the frames of a mouth video to one clip of the input contract.

Axes: T frames, H rows, W columns.
"""

from __future__ import annotations

import numpy as np

from edgelip.data.unusable import UnusableClip, one_frame
from edgelip.data.video import Video
from edgelip.runtime.clip import ClipSpec, fit_span, pool_frames

_FPS_TOLERANCE = 0.01


def clip_from_video(video: Video, first: int, last: int, spec: ClipSpec, *, source: str) -> np.ndarray:
    """Cut the word in frames `first`..`last` (inclusive) as `spec` asks: uint8 (frames, stored_px, stored_px).

    timing "span": the word's own frames, resampled in time; "window": the frames around its middle, the first or last
    frame of the video repeated where it ends.
    source: what the error calls the video. Raises UnusableClip if size, rate or frame numbers do not fit.
    """
    num_frames, height, width = video.frames_THW.shape
    if (height, width) != (spec.roi_px, spec.roi_px):
        raise UnusableClip(
            f"{source} is {width}x{height} px; expected mouth crops of {spec.roi_px}x{spec.roi_px} px. "
            "Crop the mouth first, or set clip.roi_px.",
            reason="size",
        )
    if num_frames == 1 < spec.frames:
        raise one_frame(source)
    if not 0 <= first <= last < num_frames:
        raise UnusableClip(
            f"{source} has frames 0..{num_frames - 1}; the word is given as {first}..{last}. Correct its span.",
            reason="span",
        )
    if spec.timing == "span":
        frames_THW = fit_span(video.frames_THW[first : last + 1], spec.frames)
    else:
        if abs(video.fps - spec.fps) > _FPS_TOLERANCE * spec.fps:
            raise UnusableClip(
                f"{source} has {video.fps:g} frames/s; expected {spec.fps:g}. Convert it first.", reason="size"
            )
        position = _window_start(first, last, spec) + np.arange(spec.frames)
        frames_THW = video.frames_THW[np.clip(position, 0, num_frames - 1)]
    pooled: np.ndarray = pool_frames(frames_THW[None], spec.pool)[0]
    return pooled


def boundary_in_clip(
    first: int, last: int, spec: ClipSpec, *, around: tuple[int, int] | None = None
) -> tuple[int, int]:
    """First and last frame of the word inside the clip that `clip_from_video` cuts.

    around: the frames that the clip was cut by where they are not the word's: the whole file of a centred word.
    """
    if spec.timing == "span":
        return 0, spec.frames - 1
    start = _window_start(*(around or (first, last)), spec)
    return max(first - start, 0), min(last - start, spec.frames - 1)


def _window_start(first: int, last: int, spec: ClipSpec) -> int:
    return (first + last + 1) // 2 - spec.frames // 2
