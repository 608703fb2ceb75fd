"""Words in videos by a CSV of frame spans, one row a word (the layout of GRID's word alignments).

Required columns: word, video (path below the root), first, last (frames, inclusive), split.
Optional: clip_id, speaker, category. Others are ignored.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

import numpy as np

from edgelip.data.crops import clip_from_video
from edgelip.data.video import Video, read_gray_frames
from edgelip.errors import ClipError, UsageError
from edgelip.registry import nearest
from edgelip.runtime.clip import ClipSpec

Split = Literal["train", "val", "test"]
_SPLITS: Mapping[str, Split] = {"train": "train", "val": "val", "test": "test"}
_REQUIRED = ("word", "video", "first", "last", "split")


@dataclass(frozen=True)
class Span:
    """One word: frames `first`..`last` (inclusive) of `video`, a path relative to the data root."""

    word: str
    video: str
    first: int
    last: int
    split: Split
    clip_id: str = ""
    speaker: str = ""
    category: str = ""

    @property
    def num_frames(self) -> int:
        return self.last - self.first + 1


def read_spans(csv_path: Path) -> list[Span]:
    """Every row, in file order. Raises ClipError naming the line of the first row that cannot be used."""
    csv_path = Path(csv_path)
    try:
        with csv_path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_header(csv_path, reader.fieldnames or ())
            spans: list[Span] = []
            seen: dict[object, int] = {}
            for row in reader:
                span = _span_from_row(row, f"{csv_path} line {reader.line_num}")
                for key in ((span.video, span.first, span.last), span.clip_id):
                    if key and key in seen:
                        what = f"clip_id {key!r}" if isinstance(key, str) else f"the span {key[0]} {key[1]}..{key[2]}"
                        raise ClipError(
                            f"{csv_path} line {reader.line_num} repeats {what} of line {seen[key]}. Remove one."
                        )
                    seen[key] = reader.line_num
                spans.append(span)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ClipError(
            f"{csv_path} cannot be read as CSV ({reason}). Check the data root and the manifest."
        ) from error
    if not spans:
        raise ClipError(f"{csv_path} has no rows below its header; expected one a word.")
    return spans


def select(
    spans: Iterable[Span],
    *,
    split: Split | None = None,
    category: str | None = None,
    words: Iterable[str] | None = None,
) -> list[Span]:
    """The spans that meet every condition given, order kept. Raises UsageError for a name that no span has."""
    chosen = list(spans)
    if category is not None:
        known = sorted({span.category for span in chosen})
        if category not in known:
            raise UsageError(f"no span has category {category!r}. {nearest(category, known)}")
        chosen = [span for span in chosen if span.category == category]
    if words is not None:
        wanted, known = set(words), sorted({span.word for span in chosen})
        for word in sorted(wanted.difference(known)):
            raise UsageError(f"no span has word {word!r}. {nearest(word, known)}")
        chosen = [span for span in chosen if span.word in wanted]
    return [span for span in chosen if split is None or span.split == split]


def group_by_video(spans: Iterable[Span]) -> list[Span]:
    """The same spans, those of one video together, videos in order of first appearance: each is then decoded once."""
    groups: dict[str, list[Span]] = {}
    for span in spans:
        groups.setdefault(span.video, []).append(span)
    return [span for group in groups.values() for span in group]


def load_span_clips(spans: Sequence[Span], root: Path, spec: ClipSpec) -> Iterator[tuple[Span, np.ndarray]]:
    """Each span with its clip, uint8 (frames, stored_px, stored_px), in the order given.

    A video is decoded again only if its spans are not together (`group_by_video`); one video is held at a time.
    Raises ClipError naming the video that cannot be read or does not fit.
    """
    name: str | None = None
    video: Video | None = None
    for span in spans:
        if video is None or span.video != name:
            name, video = span.video, read_gray_frames(Path(root) / span.video)
        yield span, clip_from_video(video, span.first, span.last, spec, source=str(Path(root) / span.video))


def _check_header(csv_path: Path, columns: Sequence[str]) -> None:
    for name in _REQUIRED:
        if name not in columns:
            hint = nearest(name, columns) if columns else "The file is empty."
            raise ClipError(f"{csv_path} line 1 has no column {name!r}; expected {', '.join(_REQUIRED)}. {hint}")
    repeated = sorted({name for name in columns if list(columns).count(name) > 1})
    if repeated:
        raise ClipError(f"{csv_path} line 1 has column {repeated[0]!r} twice. Remove one.")


def _span_from_row(row: Mapping[str | None, str | list[str] | None], where: str) -> Span:
    if None in row or None in row.values():
        raise ClipError(f"{where} has another number of fields than the header. Quote fields that hold a comma.")
    text = {str(name): str(value).strip() for name, value in row.items()}
    for name in ("word", "video"):
        if not text[name]:
            raise ClipError(f"{where} has an empty {name}. Fill it in or remove the row.")
    video = text["video"]
    windows = PureWindowsPath(video)
    if PurePosixPath(video).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise ClipError(f"{where} has video {video!r}; expected a path below the data root, without '..'.")
    if text["split"] not in _SPLITS:
        raise ClipError(f"{where} has split {text['split']!r}; expected train, val or test.")
    first, last = (_frame_number(text[name], name, where) for name in ("first", "last"))
    if first > last:
        raise ClipError(f"{where} has first {first} after last {last}; expected first <= last.")
    optional = {name: text.get(name, "") for name in ("clip_id", "speaker", "category")}
    return Span(text["word"], video, first, last, _SPLITS[text["split"]], **optional)


def _frame_number(text: str, name: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ClipError(f"{where} has {name} {text!r}; expected a frame number, a whole number from 0.")
    return int(text)
