"""The input contract of a classifier: what a clip must be, and how its pixels become a tensor.

Axes: B clips, T frames, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Mapping

import numpy as np

from edgelip.runtime.errors import ClipError

SAMPLES_PER_FRAME = 640  # of audio: 16 kHz at 25 feature frames a second
_AUDIO_FPS = 25.0
_FIELDS = ("kind", "timing", "frames", "fps", "roi_px", "pool", "crop_px", "mean", "std")


@dataclass(frozen=True)
class ClipSpec:
    """What goes into a classifier: `frames` gray mouth ROIs of `roi_px` x `roi_px` at `fps`.

    An ROI is averaged over `pool` x `pool` pixels (rounded half up to uint8), cropped in the middle to
    `crop_px // pool` pixels a side, then normalised: (grey / 255 - mean) / std.
    timing: "window" takes the `frames` frames around the word; "span" resamples the word's own frames to `frames`.
    kind: "audio" takes normalised waveforms at 16 kHz instead, `frames` feature frames of 640 samples; the fields about
    pixels mean nothing then.
    """

    kind: str = "video"
    timing: str = "window"
    frames: int = 29  # LRW: 1.16 s
    fps: float = 25.0
    roi_px: int = 96
    pool: int = 1
    crop_px: int = 88
    mean: float = 0.421  # LRW grey level, Ma et al. 2021
    std: float = 0.165

    def __post_init__(self) -> None:
        if self.kind not in ("video", "audio"):
            raise ClipError(f"clip kind is {self.kind!r}; expected 'video' or 'audio'.")
        if self.timing not in ("window", "span"):
            raise ClipError(f"clip timing is {self.timing!r}; expected 'window' or 'span'.")
        for name, low, high in (("frames", 1, 1000), ("roi_px", 8, 1024), ("pool", 1, 16), ("crop_px", 8, 1024)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ClipError(f"clip {name} is {value!r}; expected a whole number from {low} to {high}.")
        for name in ("fps", "mean", "std"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise ClipError(f"clip {name} is {value!r}; expected a number.")
        if self.roi_px % self.pool or self.crop_px % self.pool or self.crop_px > self.roi_px:
            raise ClipError(
                f"clip roi_px {self.roi_px}, crop_px {self.crop_px}, pool {self.pool} do not fit: "
                "pool must divide both, and the crop must lie inside the ROI."
            )
        if not (0 < self.fps <= 1000 and self.std > 0 and 0 <= self.mean <= 1):
            raise ClipError(
                f"clip fps {self.fps}, mean {self.mean}, std {self.std}; expected fps, std above 0, mean from 0 to 1."
            )
        if self.kind == "audio" and (self.timing != "window" or self.fps != _AUDIO_FPS):
            raise ClipError(
                f"clip timing {self.timing!r}, fps {self.fps} of kind 'audio'; expected 'window' and {_AUDIO_FPS:g}, "
                f"feature frames of {SAMPLES_PER_FRAME} samples at 16 kHz."
            )

    @property
    def stored_px(self) -> int:
        """Side of a pooled, uncropped frame: what prepared clips are stored as."""
        return self.roi_px // self.pool

    @property
    def input_px(self) -> int:
        """Side of a frame as the network sees it."""
        return self.crop_px // self.pool

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ClipSpec:
        """Raises ClipError if a field is unknown, missing or out of range."""
        if not isinstance(fields, Mapping) or sorted(fields) != sorted(_FIELDS):
            got = sorted(fields) if isinstance(fields, Mapping) else type(fields).__name__
            raise ClipError(f"clip contract has fields {got}; expected {sorted(_FIELDS)}.")
        return cls(**dict(fields))


def pool_frames(frames_BTHW: np.ndarray, pool: int) -> np.ndarray:
    """Average uint8 frames over pool x pool pixels, rounded half up, in integers: the same on every machine."""
    if pool == 1:
        return frames_BTHW
    num_clips, num_frames, height, width = frames_BTHW.shape
    blocks = frames_BTHW.reshape(num_clips, num_frames, height // pool, pool, width // pool, pool)
    area = pool * pool
    means: np.ndarray = (blocks.sum(axis=(3, 5), dtype=np.uint32) + area // 2) // area
    return means.astype(np.uint8)


def fit_span(frames_THW: np.ndarray, num_frames: int) -> np.ndarray:
    """Resample the frames of one word to `num_frames`, linear in time, ends kept; uint8 in and out."""
    if len(frames_THW) == 0:
        raise ClipError("a word span has no frames; expected at least one.")
    position = np.linspace(0, len(frames_THW) - 1, num_frames)
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, len(frames_THW) - 1)
    weight = (position - low).astype(np.float32)[:, None, None]
    mixed = frames_THW[low] * (1 - weight) + frames_THW[high] * weight
    return np.clip(np.floor(mixed + 0.5), 0, 255).astype(np.uint8)


def require_video(spec: ClipSpec) -> None:
    """Raises ClipError if the classifier hears instead of sees."""
    if spec.kind != "video":
        raise ClipError(
            f"the classifier takes {spec.kind}, not frames; expected normalised waveforms, float32 (B, 1, samples) at "
            "16 kHz. Give them as .npy with `edgelip predict CHECKPOINT WAVEFORMS.npy --normalised`."
        )


def network_input(frames_BTHW: np.ndarray, spec: ClipSpec) -> np.ndarray:
    """Float32 (B, 1, T, h, w) from uint8 ROIs (B, T, roi_px, roi_px) or stored frames (B, T, stored_px, stored_px).

    Raises ClipError on another dtype, frame count or size, and for a classifier of audio.
    """
    require_video(spec)
    frames_BTHW = np.asarray(frames_BTHW)
    expected = f"uint8 (B, {spec.frames}, {spec.roi_px}, {spec.roi_px})"
    if spec.pool > 1:
        expected += f" or (B, {spec.frames}, {spec.stored_px}, {spec.stored_px})"
    if frames_BTHW.dtype != np.uint8 or frames_BTHW.ndim != 4:
        raise ClipError(f"clips are {frames_BTHW.dtype} {frames_BTHW.shape}; expected {expected}.")
    num_frames, height, width = frames_BTHW.shape[1:]
    if num_frames != spec.frames or height != width or height not in (spec.roi_px, spec.stored_px):
        raise ClipError(f"clips have shape {frames_BTHW.shape}; expected {expected}.")
    if height == spec.roi_px:
        frames_BTHW = pool_frames(frames_BTHW, spec.pool)
    offset = (spec.stored_px - spec.input_px) // 2
    inside = slice(offset, offset + spec.input_px)
    scale = np.float32(1.0 / (255.0 * spec.std))
    shift = np.float32(spec.mean / spec.std)
    normalised = frames_BTHW[:, :, inside, inside].astype(np.float32) * scale - shift
    result: np.ndarray = np.ascontiguousarray(normalised[:, None])
    return result
