"""Where in a video a word may be: windows that slide over its frames. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgelip.errors import UsageError
from edgelip.runtime.clip import ClipSpec

WORD_LENGTHS_S = (0.24, 0.36, 0.52)  # tried at each place where a clip is the word's own frames
_EVERY_S = 0.2
_NUM_MOST = 100_000


@dataclass(frozen=True)
class Window:
    """Frames `first` to `last`, inclusive."""

    first: int
    last: int

    @property
    def middle(self) -> int:
        return (self.first + self.last + 1) // 2

    def times_s(self, fps: float) -> tuple[float, float]:
        """When the first frame begins and the last one ends."""
        return self.first / fps, (self.last + 1) / fps


def window_lengths(spec: ClipSpec) -> tuple[int, ...]:
    """Frames of the windows to try: those of the contract, or for timing "span" lengths that words have."""
    if spec.timing == "window":
        return (spec.frames,)
    return tuple(dict.fromkeys(max(1, round(length_s * spec.fps)) for length_s in WORD_LENGTHS_S))


def default_stride(spec: ClipSpec) -> int:
    """Frames from one window to the next: 5 at 25 frames/s."""
    return max(1, round(_EVERY_S * spec.fps))


def sliding_windows(num_frames: int, *, lengths: Sequence[int], every: int) -> tuple[tuple[Window, ...], ...]:
    """The windows at each place of a video, places `every` frames apart: one window a length, about one middle.

    The first place has its longest window at the start of the video, the last one at its end: every frame is seen. A
    length that the video has not is that of the whole video. Raises UsageError for a stride or length below 1.
    """
    if every < 1 or not lengths or min(lengths) < 1:
        raise UsageError(f"windows of {list(lengths)} frames every {every}; expected whole numbers from 1.")
    longest = min(max(lengths), num_frames)
    last_start = num_frames - longest
    if last_start // every > _NUM_MOST:
        raise UsageError(f"{num_frames} frames give more than {_NUM_MOST} windows. Raise --every or cut the video.")
    starts = list(range(0, last_start + 1, every))
    if starts[-1] != last_start:
        starts.append(last_start)
    return tuple(tuple(_inside(start, longest, min(length, longest)) for length in lengths) for start in starts)


def _inside(start: int, longest: int, length: int) -> Window:
    """The window of `length` in the middle of the longest one."""
    first = start + (longest - length) // 2
    return Window(first, first + length - 1)
