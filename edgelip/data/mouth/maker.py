"""Samples of whole faces to clips: the mouth is found, frames brought to the contract's rate, the word cut out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, final

from edgelip.data.clip_files import ARRAYS, ending_of
from edgelip.data.clip_maker import CROP_SOURCES, MadeClip, made_from_video, word_frames
from edgelip.data.mouth.finder import MouthFinder
from edgelip.data.mouth.mouth_video import MouthVideo, mouth_video
from edgelip.data.readers.samples import Sample
from edgelip.data.unusable import UnusableClip
from edgelip.runtime.clip import ClipSpec

MOUTH_SOURCES = (*CROP_SOURCES, "data/mouth", "data/resample.py")  # as CROP_SOURCES, of a MouthMaker
SEEN_SHARE = 0.5


@final
@dataclass(frozen=True, eq=False)
class MouthMaker:
    """A ClipMaker for videos of faces. A span counts frames of the file and is mapped to those of the clip.

    Unusable is also a word with less than half of its frames seen: what lies between would be guessed.
    """

    spec: ClipSpec
    finder: MouthFinder

    def identity(self) -> Mapping[str, Any]:
        return {"maker": "mouth", **self.finder.identity()}

    def sources(self, sample: Sample) -> tuple[Path, ...]:
        return (sample.path, *self.finder.sources(sample.path))

    def make(self, sample: Sample) -> MadeClip:
        mouths = self._mouths(sample.path)
        if sample.first is not None and sample.last is not None:
            counted = replace(sample, duration_s=None)
            first, last = mouths.span(*word_frames(counted, mouths.num_source_frames, mouths.source_fps))
            sample = replace(sample, first=first, last=last)
        first, last = word_frames(sample, len(mouths.video.frames_THW), mouths.video.fps)
        assert mouths.track is not None
        seen = mouths.track.found_T[first : last + 1]
        if seen.mean() < SEEN_SHARE:
            raise UnusableClip(
                f"{sample.path} shows the face in {seen.sum()} of the {len(seen)} frames of {sample.word!r}; expected "
                f"at least {100 * SEEN_SHARE:g} %. Choose another span, or another finder.",
                reason="no face",
            )
        return made_from_video(mouths.video, sample, self.spec, notes=_countable(mouths.track.notes))

    def _mouths(self, path: Path) -> MouthVideo:
        if ending_of(path.name) in ARRAYS:
            raise UnusableClip(
                f"{path} is an array, which holds mouth ROIs already; a mouth is found in videos. Prepare arrays in a "
                "folder of their own, with --mouth none.",
                reason="unreadable",
            )
        files = (path, *self.finder.sources(path))
        seen = tuple((file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else (0, 0) for file in files)
        return _found(self, path, seen)


def _countable(notes: Sequence[str]) -> tuple[str, ...]:
    """The same words for every clip: without the figures, which stand in brackets."""
    return tuple(dict.fromkeys(note.partition(" (")[0] for note in notes))


@lru_cache(maxsize=1)  # several words of one video: found once
def _found(maker: MouthMaker, path: Path, seen: tuple[tuple[int, int], ...]) -> MouthVideo:
    return mouth_video(path, maker.finder, fps=maker.spec.fps)
