"""Disturbed copies of stored clips, by which the robustness of a classifier is measured.

A copy depends on the seed, the number of the clip and the condition alone: all variants see the same ones. Pixels are
those of a mouth ROI of 96 px, scaled to that of the clip; where a frame is moved, its edge is repeated. Codecs work at
the size of that ROI, so that their blocks are as large against the mouth as they would be. Conditions in time take
clips to be at the rate of their contract.
Landmarks know fewer conditions; jitter moves each point of each frame there, by thousandths of the picture.
Axes: N clips, T frames, H rows, W columns, P points, A coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from edgelip.data.draws import Draws
from edgelip.data.recoding import h264, jpeg
from edgelip.data.resample import picks_at
from edgelip.errors import ShapeError, UsageError
from edgelip.registry import nearest
from edgelip.runtime.clip import ClipSpec

ROI_PX = 96  # to which the figures below belong
SOURCES = ("data/disturbances.py", "data/draws.py", "data/recoding.py", "data/resample.py")
PACKAGES = ("av", "numpy", "opencv-python-headless")
_MOUTH_PX = (60, 40)  # width and height of the box around a mouth in such an ROI
_READ_NOISE, _SHOT_NOISE = 2.0, 0.05  # grey levels; variance a grey level

Picks = Callable[[int, Draws, float], np.ndarray]
Change = Callable[[np.ndarray, Draws], np.ndarray]


@dataclass(frozen=True)
class Disturbance:
    """does: in words. One of: `picks`, frame numbers to show of any clip; or `frames`, and `points` of landmarks."""

    does: str
    picks: Picks | None = None
    frames: Change | None = None
    points: Change | None = None


def dropped(num_frames: int, draws: Draws, fps: float, *, share: float) -> np.ndarray:
    """A `share` of frames lost, the one before shown instead; the first is never lost.

    What is no whole number of frames is so on average over clips: 5 % of 29 is 1 or 2.
    """
    wanted = share * num_frames
    count = int(wanted) + int(draws.uniform("fraction", 1)[0] < wanted - int(wanted))
    order = np.argsort(draws.bits("order", num_frames - 1), kind="stable")
    shown = np.arange(num_frames)
    shown[1 + order[: min(count, num_frames - 1)]] = 0
    picks: np.ndarray = np.maximum.accumulate(shown)
    return picks


def at_fps(num_frames: int, draws: Draws, fps: float, *, lower_fps: float) -> np.ndarray:
    """Resampled to `lower_fps` and back, as a video of that rate would be; no random numbers."""
    low_T = picks_at(np.arange(num_frames) / fps, 1 / fps, lower_fps)
    back_N = picks_at(np.arange(len(low_T)) / lower_fps, 1 / lower_fps, fps)
    return np.pad(low_T[back_N], (0, max(0, num_frames - len(back_N))), mode="edge")[:num_frames]


def shifted(num_frames: int, draws: Draws, fps: float, *, by: int) -> np.ndarray:
    """Cut `by` frames too early or too late; the first or last frame is repeated."""
    picks: np.ndarray = np.clip(np.arange(num_frames) + draws.sign("way") * by, 0, num_frames - 1)
    return picks


def jittered(frames_THW: np.ndarray, draws: Draws, *, px: float) -> np.ndarray:
    """Every frame moved sideways and up or down, by up to `px` each."""
    aside_T2 = draws.uniform("aside", len(frames_THW), 2, low=-px, high=px) * (frames_THW.shape[2] / ROI_PX)
    return _moved(frames_THW, [(0.0, 1.0, right, down) for right, down in aside_T2.tolist()])


def jittered_points(points_TPA: np.ndarray, draws: Draws, *, px: float) -> np.ndarray:
    moved: np.ndarray = points_TPA + draws.uniform("aside", *points_TPA.shape, low=-px / 1000, high=px / 1000)
    return moved.astype(np.float32)


def rolled(frames_THW: np.ndarray, draws: Draws, *, degrees: float) -> np.ndarray:
    """The clip tilted to one side."""
    return _moved(frames_THW, [(draws.sign("way") * degrees, 1.0, 0.0, 0.0)] * len(frames_THW))


def scaled(frames_THW: np.ndarray, draws: Draws, *, share: float) -> np.ndarray:
    """The mouth larger or smaller."""
    return _moved(frames_THW, [(0.0, 1 + draws.sign("way") * share, 0.0, 0.0)] * len(frames_THW))


def darker(frames_THW: np.ndarray, draws: Draws, *, light: float) -> np.ndarray:
    """A share of the light, with read noise and shot noise of a sensor; their sizes are chosen, not fitted."""
    dim_THW = frames_THW * light
    noise_THW = draws.normal("noise", *frames_THW.shape) * np.sqrt(_READ_NOISE**2 + _SHOT_NOISE * dim_THW)
    return _as_grey(dim_THW + noise_THW * (light < 1))


def with_gamma(frames_THW: np.ndarray, draws: Draws, *, gamma: float) -> np.ndarray:
    """Grey to the power of `gamma`, black and white kept."""
    table = _as_grey(255 * (np.arange(256) / 255) ** gamma)
    changed: np.ndarray = table[frames_THW]
    return changed


def blurred(frames_THW: np.ndarray, draws: Draws, *, px: float) -> np.ndarray:
    """Out of focus: a Gaussian of standard deviation `px`."""
    sd = px * frames_THW.shape[2] / ROI_PX
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sd, borderType=cv2.BORDER_REPLICATE) for frame in frames_THW])


def occluded(frames_THW: np.ndarray, draws: Draws) -> np.ndarray:
    """A quarter of the box around the mouth, the same in all frames, covered in the clip's mean grey."""
    height, width = frames_THW.shape[1:]
    half_w, half_h = (max(1, round(side * width / ROI_PX / 2)) for side in _MOUTH_PX)
    left = width // 2 - (half_w if draws.sign("left") > 0 else 0)
    top = height // 2 - (half_h if draws.sign("top") > 0 else 0)
    covered = frames_THW.copy()
    covered[:, top : top + half_h, left : left + half_w] = _as_grey(frames_THW.mean())
    return covered


def as_jpeg(frames_THW: np.ndarray, draws: Draws, *, quality: int) -> np.ndarray:
    return _at_roi_size(frames_THW, partial(jpeg, quality=quality))


def as_h264(frames_THW: np.ndarray, draws: Draws, *, crf: int) -> np.ndarray:
    return _at_roi_size(frames_THW, partial(h264, crf=crf))


def _jitter(px: int) -> Disturbance:
    does = f"crop off by up to {px} px, anew in every frame"
    return Disturbance(does, frames=partial(jittered, px=px), points=partial(jittered_points, px=px))


DISTURBANCES: Mapping[str, Disturbance] = {
    "dropped_5": Disturbance("5 % of frames lost, the one before repeated", picks=partial(dropped, share=0.05)),
    "dropped_10": Disturbance("10 % of frames lost, the one before repeated", picks=partial(dropped, share=0.10)),
    "dropped_20": Disturbance("20 % of frames lost, the one before repeated", picks=partial(dropped, share=0.20)),
    "fps_15": Disturbance("a camera of 15 frames/s", picks=partial(at_fps, lower_fps=15.0)),
    "fps_20": Disturbance("a camera of 20 frames/s", picks=partial(at_fps, lower_fps=20.0)),
    "shift_3": Disturbance("cut 3 frames too early or too late", picks=partial(shifted, by=3)),
    "shift_6": Disturbance("cut 6 frames too early or too late", picks=partial(shifted, by=6)),
    "half_light": Disturbance("half of the light, sensor noise", frames=partial(darker, light=0.5)),
    "low_light": Disturbance("a fifth of the light, sensor noise", frames=partial(darker, light=0.2)),
    "gamma_bright": Disturbance("gamma 0.6: middle greys brighter", frames=partial(with_gamma, gamma=0.6)),
    "gamma_dark": Disturbance("gamma 1.7: middle greys darker", frames=partial(with_gamma, gamma=1.7)),
    "jpeg_q50": Disturbance("JPEG of quality 50", frames=partial(as_jpeg, quality=50)),
    "jpeg_q20": Disturbance("JPEG of quality 20", frames=partial(as_jpeg, quality=20)),
    "h264_crf28": Disturbance("H.264 of rate factor 28", frames=partial(as_h264, crf=28)),
    "h264_crf35": Disturbance("H.264 of rate factor 35", frames=partial(as_h264, crf=35)),
    "h264_crf42": Disturbance("H.264 of rate factor 42", frames=partial(as_h264, crf=42)),
    "jitter_2": _jitter(2),
    "jitter_4": _jitter(4),
    "jitter_8": _jitter(8),
    "roll_5": Disturbance("tilted by 5 degrees to either side", frames=partial(rolled, degrees=5.0)),
    "roll_10": Disturbance("tilted by 10 degrees to either side", frames=partial(rolled, degrees=10.0)),
    "scale_10": Disturbance("10 % larger or smaller", frames=partial(scaled, share=0.1)),
    "blur": Disturbance("out of focus by 2 px", frames=partial(blurred, px=2.0)),
    "occlusion": Disturbance("a quarter of the mouth covered", frames=occluded),
}  # fmt: skip


def require_conditions(names: Sequence[str], spec: ClipSpec) -> None:
    """Raises UsageError for a condition that does not exist, is named twice, or means nothing for such clips."""
    for number, name in enumerate(names):
        if name not in DISTURBANCES:
            raise UsageError(f"There is no robustness condition {name!r}. {nearest(name, DISTURBANCES)}")
        if name in names[:number]:
            raise UsageError(f"The robustness condition {name!r} is named twice. Name each once.")
        found = DISTURBANCES[name]
        if spec.kind == "landmarks" and found.picks is None and found.points is None:
            fitting = [key for key, each in DISTURBANCES.items() if each.picks or each.points]
            raise UsageError(
                f"Robustness condition {name!r} needs frames; these bundles take landmarks, for which there are "
                f"{', '.join(fitting)}."
            )
        if name.startswith("fps_") and float(name.removeprefix("fps_")) >= spec.fps:
            raise UsageError(
                f"Robustness condition {name!r} lowers the rate; these clips have {spec.fps:g} frames/s. Leave it out."
            )


def disturbed(
    clips_NTHW: np.ndarray, condition: str, spec: ClipSpec, *, numbers: Sequence[int], seed: int = 0
) -> np.ndarray:
    """Stored clips under `condition`, of the same shape and dtype: uint8 frames, or float32 landmarks (N, T, P, A).

    numbers: which clip of its file each is. Raises UsageError as `require_conditions`, ShapeError if there is not one
    number a clip.
    """
    require_conditions([condition], spec)
    if len(numbers) != len(clips_NTHW) or clips_NTHW.ndim != 4:
        raise ShapeError(
            f"{len(numbers)} numbers for clips of shape {clips_NTHW.shape}; expected (N, T, H, W) and N numbers."
        )
    found, result = DISTURBANCES[condition], np.empty_like(clips_NTHW)
    for row, (clip, number) in enumerate(zip(clips_NTHW, numbers, strict=True)):
        draws = Draws(seed, int(number), condition)
        change = found.points if spec.kind == "landmarks" else found.frames
        if found.picks is not None:
            result[row] = clip[found.picks(len(clip), draws, spec.fps)]
        else:
            assert change is not None
            result[row] = change(clip, draws)
    return result


def _moved(frames_THW: np.ndarray, places: Sequence[tuple[float, float, float, float]]) -> np.ndarray:
    """Each frame turned by degrees clockwise and scaled around its middle, then shifted by px right and down."""
    height, width = frames_THW.shape[1:]
    moved = np.empty_like(frames_THW)
    for number, (degrees, scale, right, down) in enumerate(places):
        matrix_23 = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, scale)
        matrix_23[:, 2] += (right, down)
        moved[number] = cv2.warpAffine(
            frames_THW[number], matrix_23, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return moved


def _at_roi_size(frames_THW: np.ndarray, recode: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Recode frames that were pooled at the size that they had before."""
    height, width = frames_THW.shape[1:]
    times = max(1, round(ROI_PX / width))
    if times == 1:
        return recode(frames_THW)
    large_px, small_px = (width * times, height * times), (width, height)
    large = np.stack([cv2.resize(frame, large_px, interpolation=cv2.INTER_LINEAR) for frame in frames_THW])
    return np.stack([cv2.resize(frame, small_px, interpolation=cv2.INTER_AREA) for frame in recode(large)])


def _as_grey(levels: np.ndarray) -> np.ndarray:
    grey: np.ndarray = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return grey
