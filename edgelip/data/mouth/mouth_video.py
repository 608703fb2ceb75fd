"""A whole video -> mouth ROIs at a fixed rate, read once and held a piece at a time.

Axes: T frames at the rate asked for, H rows, W columns; S pixels of an ROI.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from edgelip.data.camera import record
from edgelip.data.mouth.finder import MouthFinder
from edgelip.data.mouth.track import ROI_PX, MouthTrack
from edgelip.data.resample import picks_at, resample, span_at
from edgelip.data.unusable import UnusableClip
from edgelip.data.video import WORK_PX, StampedFrame, Video, open_video

MAX_MINUTES = 30
PIECE_BYTES = 1 << 28  # of frames that are held at once
_PIECE_FRAMES = (96, 3000)  # at least and at most
_OVERLAP = 16  # frames on each side of a piece that only steady it
_MOST_NOTES = 5
_WHOLE_BYTES = 1 << 30  # where pieces will not do


@dataclass(frozen=True, eq=False)
class MouthVideo:
    """video: ROIs, uint8 (T, S, S), and their rate. track: in px of the upright source; None if nobody was asked.

    times_T: seconds after the first frame; picks_T: which source frame each ROI is of, int64; source_fps: declared, or
    counted if nothing is.
    """

    video: Video
    track: MouthTrack | None
    times_T: np.ndarray
    picks_T: np.ndarray
    source_fps: float
    num_source_frames: int

    def span(self, first: int, last: int) -> tuple[int, int]:
        """ROIs that show source frames first..last, inclusive."""
        return span_at(self.picks_T, first, last)


def mouth_video(
    path: Path, finder: MouthFinder | None, fps: float = 25.0, *, piece_bytes: int = PIECE_BYTES
) -> MouthVideo:
    """The mouth in every frame of a video file. finder None: the frames are mouth ROIs already.

    A video whose frames take more than `piece_bytes` is followed a piece at a time: squares may change by a few percent
    from one to the next; where a piece has no face at all, ROIs are black and the track is nan.
    Raises UnusableClip naming the file; reason "no face" if no piece has one.
    """
    most = round(MAX_MINUTES * 60 * max(fps, 60.0))
    whole = finder is not None and not finder.in_pieces  # it knows of pixels and frames of the file
    with open_video(path, max_frames=most, work_px=None if whole else WORK_PX) as frames:
        return mouths_in(
            frames, finder, fps, source=str(path), scale=frames.scale, declared_fps=frames.fps, piece_bytes=piece_bytes
        )


def camera_mouths(index: int, finder: MouthFinder, fps: float = 25.0, *, seconds: float) -> MouthVideo:
    """The mouth before a camera, for so long. Raises DeviceError if there is none, UnusableClip as `mouth_video`."""
    return mouths_in(record(index, seconds=seconds), finder, fps, source=f"camera {index}")


def mouths_in(
    frames: Iterable[StampedFrame],
    finder: MouthFinder | None,
    fps: float,
    *,
    source: str,
    scale: float = 1.0,
    declared_fps: float | None = None,
    piece_bytes: int = PIECE_BYTES,
) -> MouthVideo:
    """The same of frames from anywhere. scale: their size over that of the source that the track is to be in."""
    counted = _Counted(frames)
    picks: list[int] = []

    def at_fps() -> Iterator[np.ndarray]:
        for number, frame in resample(counted, fps, source=source, max_frames=round(MAX_MINUTES * 60 * fps)):
            picks.append(number)
            yield frame.gray_HW

    track: MouthTrack | None
    if finder is None:
        rois, track = np.stack(list(_bounded(at_fps(), source))), None
    elif finder.in_pieces:
        rois, track = _in_pieces(at_fps(), finder, piece_bytes, source)
    else:  # what it knows belongs to frames of the file: it gets all of them, and the result is picked from its ROIs
        rois, track = finder.crop(np.stack(list(_bounded((frame.gray_HW for frame in counted), source))), source=source)
        picks = picks_at(np.array(counted.times), counted.last_s, fps).tolist()
        rois, track = rois[picks], MouthTrack(track.matrices_T23[picks], track.found_T[picks], track.notes)
    if track is not None and scale != 1:
        track = MouthTrack(track.matrices_T23 * np.array([scale, scale, 1.0]), track.found_T, track.notes)
    return MouthVideo(
        Video(rois, fps),
        track,
        np.arange(len(rois)) / fps,
        np.array(picks, np.int64),
        declared_fps or counted.fps,
        len(counted.times),
    )


class _Counted:
    """The frames as they pass, and what was seen of them."""

    def __init__(self, frames: Iterable[StampedFrame]) -> None:
        self._frames = frames
        self.times: list[float] = []
        self.last_s = 0.0

    def __iter__(self) -> Iterator[StampedFrame]:
        for frame in self._frames:
            self.times.append(frame.time_s)
            self.last_s = frame.duration_s
            yield frame

    @property
    def fps(self) -> float:
        return len(self.times) / (self.times[-1] + self.last_s)


def _bounded(frames: Iterable[np.ndarray], source: str) -> Iterator[np.ndarray]:
    num_bytes = 0
    for gray_HW in frames:
        num_bytes += gray_HW.size
        if num_bytes > _WHOLE_BYTES:
            raise UnusableClip(
                f"{source} has more than {_WHOLE_BYTES >> 20} MiB of gray frames. Cut or scale it down.",
                reason="too large",
            )
        yield gray_HW


def _in_pieces(
    frames: Iterator[np.ndarray], finder: MouthFinder, piece_bytes: int, source: str
) -> tuple[np.ndarray, MouthTrack]:
    rois: list[np.ndarray] = []
    matrices: list[np.ndarray] = []
    found: list[np.ndarray] = []
    notes: dict[str, None] = {}
    nobody: UnusableClip | None = None
    for frames_THW, kept in _pieces(frames, piece_bytes):
        try:
            piece_rois, track = finder.crop(frames_THW, source=source)
        except UnusableClip as error:
            if error.reason != "no face":
                raise
            nobody = nobody or error
            piece_rois = np.zeros((len(frames_THW), ROI_PX, ROI_PX), np.uint8)
            track = MouthTrack(np.full((len(frames_THW), 2, 3), np.nan), np.zeros(len(frames_THW), bool))
        rois.append(piece_rois[kept].copy())
        matrices.append(track.matrices_T23[kept])
        found.append(track.found_T[kept])
        notes.update(dict.fromkeys(track.notes))
    found_T = np.concatenate(found)
    if nobody is not None:
        if not found_T.any():
            raise nobody
        notes[f"no face at all in some parts ({100 * (1 - found_T.mean()):.0f} % of frames without a mouth)"] = None
    return np.concatenate(rois), MouthTrack(np.concatenate(matrices), found_T, tuple(notes)[:_MOST_NOTES])


def _pieces(frames: Iterator[np.ndarray], piece_bytes: int) -> Iterator[tuple[np.ndarray, slice]]:
    """Frames (T, H, W) and which of them to keep; the array is used again for the next piece.

    Neighbours share twice `_OVERLAP` frames, of which each keeps its own half.
    """
    first = next(frames)
    most = int(np.clip(piece_bytes // first.size, *_PIECE_FRAMES))
    held_THW = np.empty((most, *first.shape), np.uint8)  # pages are taken as they are filled
    held_THW[0], num_held, start = first, 1, 0
    while True:
        for gray_HW in islice(frames, most - num_held):
            held_THW[num_held] = gray_HW
            num_held += 1
        if num_held < most:
            yield held_THW[:num_held], slice(start, num_held)
            return
        yield held_THW, slice(start, most - _OVERLAP)
        num_held, start = 2 * _OVERLAP, _OVERLAP
        held_THW[:num_held] = held_THW[-num_held:]
