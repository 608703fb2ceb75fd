"""Words in videos by a CSV of frame spans, one row a word (the layout of GRID's word alignments).

Required columns: word, video (path below the root), split; and first, last (frames, inclusive), which may both be
absent, or empty in a row: the whole file then. Optional: clip_id, speaker, category. Others are ignored.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from edgelip.data.clip_files import read_frames
from edgelip.data.crops import clip_from_video
from edgelip.data.readers.listing import make_listing
from edgelip.data.readers.samples import SPLITS, Listing, Sample, Split, select
from edgelip.data.unusable import Reason, UnusableClip
from edgelip.data.video import Video
from edgelip.errors import ClipError, UsageError
from edgelip.progress import Progress
from edgelip.registry import nearest
from edgelip.runtime.clip import ClipSpec

_SPLITS: Mapping[str, Split] = {split: split for split in SPLITS}
_REQUIRED = ("word", "video", "first", "last", "split")
_MAX_BYTES = 1 << 30


def read_csv(
    csv_path: Path,
    *,
    root: Path | None = None,
    words: Sequence[str] | None = None,
    category: str | None = None,
    progress: Progress | None = None,
) -> Listing:
    """The words of a manifest; no video is opened.

    root: folder of the videos; that of the CSV if None. words: these alone, in label order; all, sorted, if None.
    A row that cannot be used is counted by its line, the rest goes on. Raises ClipError for a file that is no such
    CSV, UsageError for a word or category that no row has.
    """
    csv_path = Path(csv_path)
    samples, unusable = [], {}
    for line, row in _rows(csv_path, root):
        if isinstance(row, Sample):
            samples.append(row)
        else:
            unusable[f"{csv_path.name} line {line}"] = row
    if category is not None and samples:
        samples = select(samples, category=category)
    return make_listing(csv_path, samples, words=words, unusable=unusable)


def read_spans(csv_path: Path, root: Path | None = None) -> list[Sample]:
    """Every row, in file order. Raises ClipError naming the line of the first row that cannot be used."""
    samples = []
    for _, row in _rows(Path(csv_path), root):
        if not isinstance(row, Sample):
            raise row
        samples.append(row)
    return samples


def load_span_clips(samples: Sequence[Sample], spec: ClipSpec) -> Iterator[tuple[Sample, np.ndarray]]:
    """Each sample with its clip of mouth crops, uint8 (frames, stored_px, stored_px), in the order given.

    The sample of a whole file comes back with the frames that it has. A file is decoded again only if its words are
    not together (`samples.group_by_file`); one is held at a time.
    Raises ClipError naming the file that cannot be read or does not fit.
    """
    path: Path | None = None
    video: Video | None = None
    for sample in samples:
        if video is None or sample.path != path:
            path, video = sample.path, read_frames(sample.path, spec)
        if sample.first is None or sample.last is None:
            sample = replace(sample, first=0, last=len(video.frames_THW) - 1)
        first, last = span_of(sample)
        yield sample, clip_from_video(video, first, last, spec, source=str(path))


def span_of(sample: Sample) -> tuple[int, int]:
    """First and last frame. Raises UsageError for the sample of a whole file, which must be opened to know."""
    if sample.first is None or sample.last is None:
        raise UsageError(f"{sample.name} is a whole file; expected a span, first and last frame of its word.")
    return sample.first, sample.last


def _rows(csv_path: Path, root: Path | None) -> Iterator[tuple[int, Sample | UnusableClip]]:
    """Line number with the word in it, or with what is wrong."""
    places = _Places(csv_path.parent if root is None else Path(root))
    empty = True
    try:
        if csv_path.stat().st_size > _MAX_BYTES:
            raise ClipError(f"{csv_path} has {csv_path.stat().st_size} bytes; a manifest has at most {_MAX_BYTES}.")
        with csv_path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_header(csv_path, reader.fieldnames or ())
            seen: dict[str, int] = {}
            for row in reader:
                empty = False
                try:
                    sample = _sample_from_row(row, places)
                    for key, what in _keys(sample):
                        if key in seen:
                            raise _BadRow(f"repeats {what} of line {seen[key]}. Remove one.")
                    seen |= dict.fromkeys([key for key, _ in _keys(sample)], reader.line_num)
                    yield reader.line_num, sample
                except _BadRow as error:
                    where = f"{csv_path} line {reader.line_num}"
                    yield reader.line_num, UnusableClip(f"{where} {error}", reason=error.reason)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ClipError(
            f"{csv_path} cannot be read as CSV ({reason}). Check the data root and the manifest."
        ) from error
    if empty:
        raise ClipError(f"{csv_path} has no rows below its header; expected one a word.")


class _BadRow(Exception):
    """What is wrong with a row, without its place."""

    def __init__(self, text: str, reason: Reason = "row") -> None:
        super().__init__(text)
        self.reason: Reason = reason


class _Places:
    """Files below a root; a path or a link that leaves it is refused. Each is looked at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real = os.path.realpath(root)
        self._known: dict[str, Path] = {}

    def path(self, video: str) -> Path:
        if video not in self._known:
            windows = PureWindowsPath(video)
            if PurePosixPath(video).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
                raise _BadRow(f"has video {video!r}; expected a path below the data root, without '..'.", "outside")
            path = self.root / video
            target = os.path.realpath(path)
            if os.path.commonpath([target, self._real]) != self._real:
                raise _BadRow(
                    f"has video {video!r}, a link that leaves the data root for {target}. Copy the file, or give the "
                    "folder that it leads to as root.",
                    "outside",
                )
            self._known[video] = path
        return self._known[video]


def _check_header(csv_path: Path, columns: Sequence[str]) -> None:
    whole_files = not {"first", "last"} & set(columns) and {"word", "video", "split"} <= set(columns)
    for name in _REQUIRED:
        if name not in columns and not whole_files:
            hint = nearest(name, columns) if columns else "The file is empty."
            raise ClipError(f"{csv_path} line 1 has no column {name!r}; expected {', '.join(_REQUIRED)}. {hint}")
    repeated = sorted({name for name in columns if list(columns).count(name) > 1})
    if repeated:
        raise ClipError(f"{csv_path} line 1 has column {repeated[0]!r} twice. Remove one.")


def _sample_from_row(row: Mapping[str | None, str | list[str] | None], places: _Places) -> Sample:
    if None in row or None in row.values():
        raise _BadRow("has another number of fields than the header. Quote fields that hold a comma.")
    text = {str(name): str(value).strip() for name, value in row.items()}
    for name in ("word", "video"):
        if not text[name]:
            raise _BadRow(f"has an empty {name}. Fill it in or remove the row.")
        if not text[name].isprintable():
            raise _BadRow(f"has {name} {text[name]!a:.60} with a character that cannot be printed. Correct it.")
    if text["split"] not in _SPLITS:
        raise _BadRow(f"has split {text['split']!r}; expected train, val or test.")
    path, name = places.path(text["video"]), PurePosixPath(text["video"]).as_posix()
    first = last = None
    if text.get("first") or text.get("last"):
        first, last = (_frame_number(text[side], side) for side in ("first", "last"))
        if first > last:
            raise _BadRow(f"has first {first} after last {last}; expected first <= last.", "span")
        name = f"{name}:{first}:{last}"
    return Sample(
        text["word"],
        path,
        name,
        _SPLITS[text["split"]],
        first,
        last,
        speaker=text.get("speaker", ""),
        category=text.get("category", ""),
        clip_id=text.get("clip_id", ""),
    )


def _keys(sample: Sample) -> Iterator[tuple[str, str]]:
    """What no second row may have, and what it is called."""
    if sample.first is None:
        yield f"name {sample.name}", sample.name
    else:
        video = sample.name.removesuffix(f":{sample.first}:{sample.last}")
        yield f"name {sample.name}", f"the span {video} {sample.first}..{sample.last}"
    if sample.clip_id:
        yield f"id {sample.clip_id}", f"clip_id {sample.clip_id!r}"


def _frame_number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise _BadRow(f"has {name} {text!r}; expected a frame number, a whole number from 0.", "span")
    return int(text)
