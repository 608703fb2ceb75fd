"""Frames at any times -> frames at a fixed rate, by their time stamps.

Axes: T frames of the source, N frames of the result.

Rule: frame n of the result shows the time n / fps after the first frame, and is the source frame whose time stamp is
nearest; of two as near, the earlier. Where frames lie more than two frames of the result apart, the earlier one is held
until one frame of the result before the next: recorders leave out frames in which nothing moves.
Nothing is blended: two mouths laid over each other are a shape that no lips make and that training has not seen, while
a whole frame is wrong by half a source interval at most (17 ms at 30 frames/s, less than half a frame of the result).
At the source's own rate the frames are the source's, bit for bit.
The result lasts as long as the source, its last frame included, rounded to whole frames, one at least.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from edgelip.data.unusable import UnusableClip
from edgelip.data.video import StampedFrame

_TIE_S = 1e-6  # time stamps are fractions of whole ticks; their sums in floating point are not


def picks_at(times_T: np.ndarray, last_s: float, fps: float) -> np.ndarray:
    """The source frame of each frame of the result, int64 (N,), not falling.

    times_T: seconds, rising; last_s: how long the last frame is shown.
    """
    times_T = np.asarray(times_T, np.float64)
    num_result = max(1, math.floor((times_T[-1] - times_T[0] + last_s) * fps + 0.5))
    at_N = times_T[0] + np.arange(num_result) / fps
    until_T = np.maximum((times_T[1:] + times_T[:-1]) / 2, times_T[1:] - 1 / fps) + _TIE_S
    picks_N: np.ndarray = np.searchsorted(until_T, at_N, side="left")
    return picks_N


def resample(
    frames: Iterable[StampedFrame], fps: float, *, source: str, max_frames: int
) -> Iterator[tuple[int, StampedFrame]]:
    """Each frame of the result with its number in the source, as `picks_at` has it, one source frame behind the input.

    Raises UnusableClip above `max_frames`, before they are made: a time stamp can lie years ahead.
    """
    num_result, held = 0, None
    for number, frame in enumerate(frames):
        if held is not None:
            until_s = max((held.time_s + frame.time_s) / 2, frame.time_s - 1 / fps) + _TIE_S
            until = math.floor(until_s * fps) + 1
            yield from _repeated(number - 1, held, range(num_result, until), source, fps, max_frames)
            num_result = max(num_result, until)
        held, last = frame, number
    if held is not None:
        until = max(1, math.floor((held.time_s + held.duration_s) * fps + 0.5))
        yield from _repeated(last, held, range(num_result, until), source, fps, max_frames)


def span_at(picks_N: np.ndarray, first: int, last: int) -> tuple[int, int]:
    """Frames of the result that show source frames first..last, inclusive; the one nearest where none does."""
    inside = np.flatnonzero((picks_N >= first) & (picks_N <= last))
    if not len(inside):  # a word of one frame that a lower rate left out
        nearest = int(np.argmin(np.abs(picks_N - (first + last) / 2)))
        return nearest, nearest
    return int(inside[0]), int(inside[-1])


def _repeated(
    number: int, frame: StampedFrame, at: range, source: str, fps: float, max_frames: int
) -> Iterator[tuple[int, StampedFrame]]:
    if at.stop > max_frames:
        raise UnusableClip(
            f"{source} lasts {at.stop / fps:.0f} s by its time stamps; expected at most {max_frames / fps:.0f} s. "
            "Cut out the part with the words.",
            reason="too large",
        )
    for _ in at:
        yield number, frame
