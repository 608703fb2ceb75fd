"""Clips in folders, one folder a word: which they are, and the frames of one.

    words/train/ABOUT/0001.mp4
    words/train/ABOUT/0002.npz

Axes: T frames, H rows, W columns.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgelip.data.crops import clip_from_video
from edgelip.data.video import Video, read_gray_frames
from edgelip.errors import ClipError, UsageError
from edgelip.registry import nearest
from edgelip.runtime.arrays import open_array
from edgelip.runtime.clip import ClipSpec

VIDEOS = (".avi", ".mkv", ".mov", ".mp4", ".mpg", ".webm")
ARRAYS = (".npz",)
_ENDINGS = ", ".join((*VIDEOS, *ARRAYS))
_MAX_FRAMES = 3000
_MAX_ARRAY_BYTES = 1 << 28


@dataclass(frozen=True)
class WordClip:
    """One clip: its word, its file, and the file's path below the folder of its split, with slashes."""

    word: str
    path: Path
    name: str


def find_words(folder: Path) -> tuple[str, ...]:
    """Names of the folder's sub-folders, sorted; hidden ones are no words. Raises UsageError if there is none."""
    words = tuple(sorted(entry.name for entry in _entries(folder) if entry.is_dir()))
    if not words:
        raise UsageError(f"{folder} has no folders; expected one a word, as in {folder}/ABOUT/0001.mp4.")
    return words


def find_word_clips(folder: Path, words: Sequence[str]) -> tuple[WordClip, ...]:
    """The clips of every word's folder and of the folders in it, sorted by name. Hidden files are left out.

    Raises UsageError for a word that is none of `words`, a word's folder without clips, or a clip outside of them.
    """
    for word in find_words(folder):
        if word not in words:
            raise UsageError(f"{folder / word}: {word!r} is no word of the training clips. {nearest(word, words)}")
    clips = []
    for entry in _entries(folder):
        if entry.is_dir():
            found = [WordClip(entry.name, path, path.relative_to(folder).as_posix()) for path in _clips_below(entry)]
            if not found:
                raise UsageError(f"{entry} has no clip ({_ENDINGS}). Add clips or remove the folder.")
            clips += found
        elif _is_clip(entry):
            raise UsageError(f"{entry} lies in no word's folder; expected {folder}/WORD/{entry.name}. Move it.")
    return tuple(sorted(clips, key=lambda clip: clip.name))


def find_clips(folder: Path) -> tuple[Path, ...]:
    """Every clip in a folder and the folders in it, sorted by path. Raises UsageError if there is none."""
    _entries(folder)
    clips = _clips_below(folder)
    if not clips:
        raise UsageError(f"{folder} has no clip ({_ENDINGS}). Check the folder.")
    return clips


def hold_out(clips: Iterable[WordClip], share: float) -> tuple[tuple[WordClip, ...], tuple[WordClip, ...]]:
    """Split into (kept, held out): of every word with two clips or more, its share, at least one clip and never all.

    Which clips are held out follows from the hash of their names alone: not from order, machine or other words.
    Raises UsageError for a share outside 0..1 and where no word has two clips.
    """
    if not 0 < share < 1:
        raise UsageError(f"val_split is {share!r}; expected a share between 0 and 1, such as 0.1.")
    by_word: dict[str, list[WordClip]] = {}
    for clip in clips:
        by_word.setdefault(clip.word, []).append(clip)
    held: set[WordClip] = set()
    for found in by_word.values():
        found.sort(key=lambda clip: hashlib.sha256(clip.name.encode()).digest())
        held.update(found[: min(len(found) - 1, max(1, round(share * len(found))))])
    if not held:
        raise UsageError("no word has two clips, so none can be held out for validation. Add clips, or a val_folder.")
    kept = [clip for found in by_word.values() for clip in found if clip not in held]

    def sort(some: Iterable[WordClip]) -> tuple[WordClip, ...]:
        return tuple(sorted(some, key=lambda clip: clip.name))

    return sort(kept), sort(held)


def read_clip(path: Path, spec: ClipSpec) -> tuple[np.ndarray, int]:
    """One clip as `spec` asks, uint8 (frames, stored_px, stored_px), and the number of frames in its file.

    A video must have the rate and the size of `spec`; a .npz holds uint8 (T, roi_px, roi_px) as `frames` or `data`.
    The clip is cut around the middle of the file, or its first and last frames are repeated (timing "window"), or it
    is resampled in time (timing "span"). Raises ClipError naming the file.
    """
    if path.suffix.lower() not in (*VIDEOS, *ARRAYS):
        raise ClipError(f"{path} ends in {path.suffix!r}; expected {_ENDINGS}. Convert it.")
    if path.suffix.lower() in ARRAYS:
        video = Video(_read_array(path, spec), spec.fps)
    else:
        video = read_gray_frames(path, max_frames=_MAX_FRAMES)
    num_frames = len(video.frames_THW)
    return clip_from_video(video, 0, num_frames - 1, spec, source=str(path)), num_frames


def other_files(folder: Path) -> dict[str, int]:
    """How many files of each other ending lie below a folder: no clips, so nobody reads them."""
    others = (path for path in _files_below(folder) if not _is_clip(path))
    return dict(sorted(Counter(path.suffix.lower() or path.name for path in others).items()))


def _read_array(path: Path, spec: ClipSpec) -> np.ndarray:
    expected = f"uint8 (T, {spec.roi_px}, {spec.roi_px}) as 'frames' or 'data'"
    try:
        with open_array(path, ["frames", "data"]) as stream:
            if stream.dtype != np.uint8 or len(stream.shape) != 3 or not 1 <= stream.shape[0] <= _MAX_FRAMES:
                raise ClipError(
                    f"{path} holds {stream.dtype} {stream.shape}; expected {expected}, T up to {_MAX_FRAMES}."
                )
            return stream.read(limit_bytes=_MAX_ARRAY_BYTES)
    except ClipError:
        raise
    except ValueError as error:
        raise ClipError(f"{path} cannot be read: {error}. Expected {expected}.") from error


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; expected one with clips. Check the path.")
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _files_below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts) and path.is_file():
            yield path


def _clips_below(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in _files_below(folder) if _is_clip(path)))


def _is_clip(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in (*VIDEOS, *ARRAYS)
