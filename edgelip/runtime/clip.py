"""The input contract of a classifier: what a clip must be, and how its pixels or landmarks become a tensor.

Axes: B clips, T frames, H rows, W columns, P points, A coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Tuple

import numpy as np

from edgelip.runtime.errors import ClipError
from edgelip.runtime.landmarks import (
    NORMALISATIONS,
    PointSet,
    chosen_points,
    fit_points,
    found_frames,
    normalised,
    point_set,
    require_finite,
)

SAMPLES_PER_FRAME = 640  # of audio: 16 kHz at 25 feature frames a second
_AUDIO_FPS = 25.0
_FIELDS = ("kind", "timing", "frames", "fps", "roi_px", "pool", "crop_px", "mean", "std")
_LANDMARK_FIELDS = ("kind", "timing", "frames", "points", "axes", "normalise")


@dataclass(frozen=True)
class ClipSpec:
    """What goes into a classifier: `frames` gray mouth ROIs of `roi_px` x `roi_px` at `fps`.

    An ROI is averaged over `pool` x `pool` pixels (rounded half up to uint8), cropped in the middle to
    `crop_px // pool` pixels a side, then normalised: (grey / 255 - mean) / std.
    timing: "window" takes the `frames` frames around the word; "span" resamples the word's own frames to `frames`.
    kind: "audio" takes normalised waveforms at 16 kHz instead, `frames` feature frames of 640 samples; the fields about
    pixels mean nothing then. "landmarks" takes points of a signer: the subset `points` of MediaPipe Holistic's 543, of
    each the first `axes` coordinates, the sign resampled to `frames`; the fields about pixels keep their defaults.
    normalise: how points are moved and scaled, "body" or "parts"; see edgelip.runtime.landmarks.normalised.
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
    points: str = ""  # a name of edgelip.runtime.landmarks.POINTS; "" unless kind is "landmarks"
    axes: int = 2
    normalise: str = "body"

    def __post_init__(self) -> None:
        if self.kind not in ("video", "audio", "landmarks"):
            raise ClipError(f"clip kind is {self.kind!r}; expected 'video', 'audio' or 'landmarks'.")
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
        self._check_points()

    def _check_points(self) -> None:
        foreign = _FIELDS[3:] if self.kind == "landmarks" else _LANDMARK_FIELDS[3:]
        for name in foreign:
            if getattr(self, name) != getattr(type(self), name):
                raise ClipError(f"clip {name} has no effect on kind {self.kind!r}. Leave it out.")
        if self.kind != "landmarks":
            return
        if self.timing != "span":
            raise ClipError(f"clip timing {self.timing!r} of kind 'landmarks'; expected 'span': a sign is resampled.")
        point_set(self.points)
        if self.axes not in (2, 3) or not isinstance(self.axes, int):
            raise ClipError(f"clip axes is {self.axes!r}; expected 2 (x, y) or 3 (x, y, z).")
        if self.normalise not in NORMALISATIONS:
            raise ClipError(f"clip normalise is {self.normalise!r}; expected one of {', '.join(NORMALISATIONS)}.")

    @property
    def stored_px(self) -> int:
        """Side of a pooled, uncropped frame: what prepared clips are stored as."""
        return self.roi_px // self.pool

    @property
    def input_px(self) -> int:
        """Side of a frame as the network sees it."""
        return self.crop_px // self.pool

    @property
    def point_set(self) -> PointSet:
        """Which points a clip of landmarks holds. Raises ClipError for another kind."""
        return point_set(self.points)

    @property
    def num_points(self) -> int:
        """Points of a clip of landmarks; 0 for another kind."""
        return len(self.point_set) if self.kind == "landmarks" else 0

    @property
    def input_shape(self) -> Tuple[int, ...]:
        """What the network takes of one clip: (1, T, h, w), (1, T, P, A), or (1, samples) of audio."""
        if self.kind == "audio":
            return (1, self.frames * SAMPLES_PER_FRAME)
        if self.kind == "landmarks":
            return (1, *self.stored_shape)
        return (1, self.frames, self.input_px, self.input_px)

    @property
    def stored_shape(self) -> Tuple[int, ...]:
        """A prepared clip: (T, S, S) or (T, P, A). Raises ClipError for audio, which is not stored."""
        require_stored(self)
        if self.kind == "landmarks":
            return (self.frames, self.num_points, self.axes)
        return (self.frames, self.stored_px, self.stored_px)

    @property
    def stored_dtype(self) -> str:
        """ "uint8" of frames, "float32" of landmarks."""
        return "float32" if self.kind == "landmarks" else "uint8"

    def to_json(self) -> Dict[str, Any]:
        names = _LANDMARK_FIELDS if self.kind == "landmarks" else _FIELDS
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ClipSpec:
        """Raises ClipError if a field is unknown, missing or out of range."""
        of_landmarks = isinstance(fields, Mapping) and fields.get("kind") == "landmarks"
        expected = sorted(_LANDMARK_FIELDS if of_landmarks else _FIELDS)
        if not isinstance(fields, Mapping) or sorted(fields) != expected:
            got = sorted(fields) if isinstance(fields, Mapping) else type(fields).__name__
            raise ClipError(f"clip contract has fields {got}; expected {expected}.")
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


def landmarks_from_raw(raw_T543C: np.ndarray, spec: ClipSpec) -> np.ndarray:
    """A stored clip, float32 (T, P, A), NaN where a point is lost, of all points of a sign, float (T0, 543, 2 or 3).

    Frames in which no point of the subset was found are left out; the rest is resampled to `spec.frames`.
    Raises ClipError on another shape or kind of number, infinite coordinates, or where nothing was found.
    """
    return landmarks_from_found(chosen_points(raw_T543C, spec.point_set, spec.axes), spec)


def landmarks_from_found(points_TPA: np.ndarray, spec: ClipSpec) -> np.ndarray:
    """A stored clip, float32 (T, P, A), of the subset's points of any number of frames (T0, P, A or more).

    Raises ClipError as `landmarks_from_raw` does.
    """
    return fit_points(found_frames(points_TPA[..., : spec.axes], spec.point_set), spec.frames)


def require_video(spec: ClipSpec) -> None:
    """Raises ClipError if the classifier takes no frames."""
    require_stored(spec)
    if spec.kind == "landmarks":
        raise ClipError(
            f"the classifier takes {spec.kind}, not frames; expected float (T, 543, 3), MediaPipe Holistic's points of "
            "one sign, as .npy or .npz."
        )


def require_stored(spec: ClipSpec) -> None:
    """Raises ClipError if the classifier hears instead of sees."""
    if spec.kind == "audio":
        raise ClipError(
            f"the classifier takes {spec.kind}, not frames; expected normalised waveforms, float32 (B, 1, samples) at "
            "16 kHz. Give them as .npy with `edgelip predict CHECKPOINT WAVEFORMS.npy --normalised`."
        )


def network_input(clips: np.ndarray, spec: ClipSpec) -> np.ndarray:
    """Float32 (B, *spec.input_shape) from clips.

    Of video: uint8 ROIs (B, T, roi_px, roi_px) or stored frames (B, T, stored_px, stored_px).
    Of landmarks: float32 (B, T, P, A) as stored, NaN where a point is lost.
    Raises ClipError on another dtype, frame count or size, and for a classifier of audio.
    """
    return normalise_clips(crop_clips(clips, spec), spec)


def crop_clips(clips: np.ndarray, spec: ClipSpec) -> np.ndarray:
    """The first half of `network_input`: uint8 (B, T, input_px, input_px), pooled and cropped; a view where it can be.

    Landmarks are looked at and come back as they are. Raises what `network_input` raises.
    """
    require_stored(spec)
    clips = np.asarray(clips)
    if spec.kind == "landmarks":
        return _checked_landmarks(clips, spec)
    return _cropped_frames(clips, spec)


def normalise_clips(clips: np.ndarray, spec: ClipSpec) -> np.ndarray:
    """The second half of `network_input`: float32 (B, *spec.input_shape) of what `crop_clips` gave."""
    if spec.kind == "landmarks":
        return normalised(clips, spec.point_set, spec.normalise)[:, None]
    scale = np.float32(1.0 / (255.0 * spec.std))
    shift = np.float32(spec.mean / spec.std)
    result: np.ndarray = np.ascontiguousarray((clips.astype(np.float32) * scale - shift)[:, None])
    return result


def _checked_landmarks(points_BTPA: np.ndarray, spec: ClipSpec) -> np.ndarray:
    if points_BTPA.dtype != np.float32 or points_BTPA.ndim != 4 or points_BTPA.shape[1:] != spec.stored_shape:
        shape = ", ".join(str(length) for length in spec.stored_shape)
        raise ClipError(
            f"clips are {points_BTPA.dtype} {points_BTPA.shape}; expected float32 (B, {shape}), {spec.points} as "
            "stored; of all 543 points edgelip.runtime.clip.landmarks_from_raw makes them."
        )
    require_finite(points_BTPA)
    return points_BTPA


def _cropped_frames(frames_BTHW: np.ndarray, spec: ClipSpec) -> np.ndarray:
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
    return frames_BTHW[:, :, inside, inside]
