"""`edgelip predict` of videos: find the mouth, bring the frames to the rate of the contract, read words by windows.

Axes: B clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelip.cli.mouth_options import NONE, MouthOptions
from edgelip.cli.network_inputs import word_indicator
from edgelip.cli.scorers import BATCH, Scorer
from edgelip.data.crops import boundary_in_clip, clip_from_video
from edgelip.data.video import Video
from edgelip.data.windows import Window, default_stride, sliding_windows, window_lengths
from edgelip.errors import ClipError, UsageError
from edgelip.runtime.clip import network_input, require_video
from edgelip.runtime.recogniser import prediction_from_logits

if TYPE_CHECKING:
    from edgelip.data.mouth.mouth_video import MouthVideo

CAMERA, CAMERA_S = "camera:", 3.0


@dataclass(frozen=True)
class VideoOptions:
    """Options of `predict` that belong to videos alone."""

    mouth: MouthOptions = field(default_factory=MouthOptions)
    every: int | None = None  # frames from one window to the next
    sheet: Path | None = None  # contact sheet of the ROIs
    boxes: Path | None = None  # CSV of where the mouth is
    seconds: float | None = None  # of a camera


@dataclass(frozen=True, eq=False)
class Reading:
    """What became of one video: rows to print, their scores (B, V), and the ROIs that were read."""

    rows: list[dict[str, Any]]
    logits_BV: np.ndarray
    mouths: MouthVideo


def read_video(
    path: Path,
    scorer: Scorer,
    options: VideoOptions,
    *,
    frames: str | None,
    top: int,
    say: Callable[[str], None],
) -> Reading:
    """The words of one video: of its frames FIRST:LAST if `frames` names them, else of windows that slide over it.

    Raises ClipError if it cannot be read, has no face or does not fit the contract.
    """
    require_video(scorer.spec)
    mouths = _mouths(path, options, scorer)
    name, spec = str(path), scorer.spec
    say(_account(name, mouths))
    for note in mouths.track.notes if mouths.track is not None else ():
        say(f"{name}: {note}")
    if frames is not None:
        chosen: tuple[tuple[Window, ...], ...] = ((_word(frames, mouths, path),),)
    else:
        num_frames, every = len(mouths.video.frames_THW), options.every or default_stride(spec)
        chosen = sliding_windows(num_frames, lengths=window_lengths(spec), every=every)
        if scorer.boundary and len(chosen) * len(chosen[0]) > 1:
            raise UsageError(f"This checkpoint needs to know where the word is in {path}: add --frames FIRST:LAST.")
        lengths = ", ".join(str(length) for length in dict.fromkeys(w.last - w.first + 1 for w in chosen[0]))
        one = f"one window of {lengths}" if len(chosen) == 1 else f"{len(chosen)} windows of {lengths}"
        say(f"{name}: {one} frames" + (f", every {every}" if len(chosen) > 1 else ""))
    rows, kept = [], []
    width = len(chosen[0])
    scores = _scores((w for place in chosen for w in place), mouths.video, scorer, source=name)
    for place in chosen:
        best = max(zip(place, islice(scores, width), strict=True), key=lambda pair: _confidence(pair[1]))
        rows.append(_row(name, *best, scorer, top=top, timed=frames is None))
        kept.append(best[1])
    return Reading(rows, np.stack(kept), mouths)


def find_videos(folder: Path) -> tuple[Path, ...]:
    """The videos directly in a folder and the folders in it, sorted. Raises UsageError if there is none."""
    from edgelip.data.clip_files import VIDEOS

    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEOS and path.is_file())
    if not found:
        raise UsageError(f"{folder} has no video ({', '.join(VIDEOS)}). Check the folder.")
    return tuple(found)


def write_sheet(path: Path, readings: Sequence[Reading], say: Callable[[str], None]) -> None:
    """A contact sheet of the ROIs: a row for each second, every third frame shown."""
    from edgelip.data.preview import contact_sheet, save_png

    rows, labels = [], []
    for reading in readings:
        video = reading.mouths.video
        a_second = max(1, round(video.fps))
        stem = Path(reading.rows[0]["clip"]).stem[:12]
        for start in range(0, len(video.frames_THW), a_second):
            frames = video.frames_THW[start : start + a_second]
            white = np.full((a_second - len(frames), *frames.shape[1:]), 255, np.uint8)
            rows.append(np.concatenate([frames, white]))
            labels.append(f"{stem} {start // a_second} s")
    if len({row.shape for row in rows}) > 1:
        raise UsageError("--sheet takes videos of one rate and ROI size. Give them one by one.")
    most = 64
    if len(rows) > most:
        say(f"{path} shows the first {most} of {len(rows)} seconds")
    save_png(path, contact_sheet(np.stack(rows[:most]), labels[:most], every=3))


def write_boxes(path: Path, readings: Sequence[Reading]) -> None:
    """A CSV of the square that each ROI was cut from: centre and side in px of the video, roll in degrees."""
    from edgelip.files import write_atomic

    tracked = [reading for reading in readings if reading.mouths.track is not None]
    if not tracked:
        raise UsageError("--boxes: the frames are mouth ROIs already, nothing was found in them. Leave it out.")
    lines = ["clip,frame,mouth_x,mouth_y,side,roll_deg"]
    for reading in tracked:
        assert reading.mouths.track is not None
        name = Path(reading.rows[0]["clip"]).name
        for frame, (x, y, side, roll) in enumerate(reading.mouths.track.boxes_T4):
            seen = np.isfinite([x, y, side, roll]).all()
            lines.append(
                f"{name},{frame},{x:.1f},{y:.1f},{side:.1f},{roll + 0.0:.2f}" if seen else f"{name},{frame},,,,"
            )
    write_atomic(path, "\n".join(lines) + "\n")


def _mouths(path: Path, options: VideoOptions, scorer: Scorer) -> MouthVideo:
    from edgelip.data.mouth.mouth_video import camera_mouths, mouth_video
    from edgelip.data.video import frame_size

    spec, mouth = scorer.spec, options.mouth
    finder = mouth.finder(path.parent)
    if str(path).startswith(CAMERA):
        index = str(path).removeprefix(CAMERA)
        if not (index.isascii() and index.isdigit()) or finder is None or mouth.landmarks is not None:
            raise UsageError(
                f"{path} with --mouth {mouth.mouth}: expected camera:N, and haar or mediapipe to look at it."
            )
        mouths = camera_mouths(int(index), finder, fps=spec.fps, seconds=options.seconds or CAMERA_S)
    else:
        if mouth.looks_for_rois and frame_size(path) == (spec.roi_px, spec.roi_px):
            finder = None
        mouths = mouth_video(path, finder, fps=spec.fps)
    height, width = mouths.video.frames_THW.shape[1:]
    if (width, height) != (spec.roi_px, spec.roi_px):
        remedy = "Leave out --mouth none." if mouth.mouth == NONE else "Use a classifier of such ROIs."
        raise ClipError(
            f"{path} gives ROIs of {width}x{height} px; the classifier takes {spec.roi_px}x{spec.roi_px} px. {remedy}"
        )
    return mouths


def _account(name: str, mouths: MouthVideo) -> str:
    """What was read, in a line."""
    num_frames, video = len(mouths.video.frames_THW), mouths.video
    parts = [f"{mouths.num_source_frames} frames at {mouths.source_fps:.4g} frames/s"]
    if num_frames != mouths.num_source_frames or abs(video.fps - mouths.source_fps) > 0.01 * video.fps:
        parts.append(f"brought to {num_frames} at {video.fps:g}")
    if mouths.track is None:
        parts.append("taken as mouth ROIs")
    else:
        parts.append(f"face found in {int(mouths.track.found_T.sum())} of {num_frames}")
    return f"{name}: {', '.join(parts)}"


def _word(text: str, mouths: MouthVideo, path: Path) -> Window:
    """FIRST:LAST, counted in the file, as a window of the frames that were made of it."""
    first, last = frame_range(text, mouths.num_source_frames, path)
    return Window(*mouths.span(first, last))


def frame_range(text: str, num_frames: int, clip: Path) -> tuple[int, int]:
    """FIRST:LAST as two frame numbers inside the video; an end that is left out is the video's."""
    first, colon, last = (part.strip() for part in text.partition(":"))
    if not colon or not all(part == "" or (part.isascii() and part.isdigit()) for part in (first, last)):
        raise UsageError(f"--frames is {text!r}; expected FIRST:LAST, as in --frames 12:21.")
    start, end = int(first or 0), int(last or num_frames - 1)
    if not start <= end < num_frames:
        what = "names the last frame first;" if start > end else "lies outside"
        raise UsageError(f"--frames {text} {what} {clip}, which has frames 0 to {num_frames - 1}.")
    return start, end


def _scores(windows: Iterator[Window], video: Video, scorer: Scorer, *, source: str) -> Iterator[np.ndarray]:
    """Logits (V,) of each window, made a batch at a time."""
    while batch := list(islice(windows, None if scorer.mixes_clips else BATCH)):
        frames_BTHW = np.stack([clip_from_video(video, w.first, w.last, scorer.spec, source=source) for w in batch])
        yield from score_frames(scorer, frames_BTHW, [boundary_in_clip(w.first, w.last, scorer.spec) for w in batch])


def score_frames(scorer: Scorer, frames_BTHW: np.ndarray, inside_B2: list[tuple[int, int]]) -> np.ndarray:
    """Scores of clips cut from videos, the frames of the word in each known."""
    boundaries_BT1 = np.stack([word_indicator(*inside, scorer.spec.frames) for inside in inside_B2])
    clips_B1THW = network_input(frames_BTHW, scorer.spec)
    return scorer.scores(clips_B1THW, None, boundaries_BT1 if scorer.boundary else None)


def _confidence(logits_V: np.ndarray) -> float:
    """Probability of the likeliest word, as a logarithm."""
    shifted_V = logits_V.astype(np.float64) - float(logits_V.max())
    return -float(np.log(np.exp(shifted_V).sum()))


def _row(name: str, window: Window, logits_V: np.ndarray, scorer: Scorer, *, top: int, timed: bool) -> dict[str, Any]:
    ranking = [list(pair) for pair in prediction_from_logits(logits_V, scorer.words, top=top).ranking]
    if not timed:
        return {"clip": name, "ranking": ranking}
    start_s, end_s = window.times_s(scorer.spec.fps)
    return {"clip": name, "start_s": round(start_s, 4), "end_s": round(end_s, 4), "ranking": ranking}
