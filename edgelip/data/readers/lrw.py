"""Lip Reading in the Wild: `WORD/{train,val,test}/WORD_00001.mp4` and an annotation `.txt` of the same name.

Prepared crops mirror the tree as .npz or .npy. A label is the name of the word's folder. Annotations may lie in
another tree of the same form, as they do where only the crops were copied.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from edgelip.data.clip_files import ENDINGS_TEXT, ending_of
from edgelip.data.readers.clip_tables import read_clip_table, stem_of, unmatched
from edgelip.data.readers.listing import checked_words, closest, make_listing
from edgelip.data.readers.samples import SPLITS, Listing, Sample, Split
from edgelip.data.readers.walk import Walk, walk
from edgelip.data.unusable import UnusableClip
from edgelip.errors import UsageError
from edgelip.progress import Progress

_MAX_ANNOTATION_BYTES = 4096
_MAX_DURATION_S = 60.0
_EXAMPLE = "ABOUT/train/ABOUT_00001.mp4"


def read_lrw(
    root: Path,
    *,
    words: Sequence[str] | None = None,
    splits: Collection[Split] = SPLITS,
    annotations: Path | Literal["beside", "none"] = "beside",
    speakers: Path | None = None,
    endings: Collection[str] | None = None,
    progress: Progress | None = None,
) -> Listing:
    """Every clip of the tree with its duration; the videos are not opened.

    words: these alone, in label order; all, in alphabetical order, if None. splits: these alone.
    annotations: "beside" the clips, a folder with the same tree, or "none": no durations, so that nothing knows where
    in the clip the word is. A clip whose annotation is missing or garbled is unusable; the rest goes on.
    speakers: CSV of `path,speaker`.
    endings: of the clips, such as (".mp4",), where a tree holds videos and crops. Costs about 25 us a clip
    (benchmarks/listing.py).
    Raises UsageError for a tree of another form or a word that it does not have, ClipError for a table that is broken.
    """
    root, progress = Path(root), progress or Progress(quiet=True)
    wanted = None if words is None else set(checked_words(words))
    talkers = {} if speakers is None else read_clip_table(speakers, "speaker")
    found = walk(root, only=wanted)
    for word in words or ():
        if word not in found.folders:
            raise UsageError(
                f"{root} has no folder {word!r}, one of the words asked for. {closest(word, found.folders)}"
            )
    placed, notes = _placed(root, found, splits, endings)
    unusable = dict(found.unusable)
    durations: Mapping[str, float | None] = dict.fromkeys(placed)
    if annotations != "none":
        place = root if annotations == "beside" else Path(annotations)
        if annotations == "beside" and ".txt" not in found.others:
            raise UsageError(
                f"{root} has no annotation (.txt) beside its clips. Name the folder that has them (annotations), or "
                "say that there are none (annotations 'none'): then nothing knows where in a clip its word is."
            )
        durations, lost = _durations(place, placed, progress)
        unusable |= lost
    samples = [
        Sample(
            word=name.split("/", 1)[0],
            path=root / name,
            name=name,
            split=split,
            duration_s=durations[name],
            speaker=talkers.get(stem, ""),
        )
        for name, (split, stem) in placed.items()
        if name in durations
    ]
    if words is None and speakers is not None:
        notes += unmatched(talkers, {stem for _, stem in placed.values()}, speakers)
    return make_listing(root, samples, words=words, unusable=unusable, notes=notes)


def duration_from_annotation(text: str) -> float:
    """Seconds of the word: the second token of the fifth line. Raises ValueError, short, for any other text."""
    lines = text.split("\n")
    if len(lines) < 5:
        raise ValueError(f"has {len(lines)} lines")
    tokens = lines[4].split()
    try:
        duration_s = float(tokens[1])
    except (IndexError, ValueError):
        raise ValueError(f"has {lines[4].strip()[:40]!r} in line 5") from None
    if not 0 < duration_s <= _MAX_DURATION_S or math.isnan(duration_s):
        raise ValueError(f"gives {duration_s:g} s in line 5")
    return duration_s


def _placed(
    root: Path, found: Walk, splits: Collection[Split], endings: Collection[str] | None
) -> tuple[dict[str, tuple[Split, str]], list[str]]:
    """Split and stem of each clip by its name; notes on what is left out. Raises UsageError where nothing fits."""
    placed: dict[str, tuple[Split, str]] = {}
    kinds: Counter[str] = Counter()
    by_stem: dict[str, str] = {}
    elsewhere = 0
    for name in found.clips:
        parts = name.split("/")
        if len(parts) != 3 or parts[1] not in SPLITS:
            elsewhere += 1
            continue
        ending = ending_of(name)
        if parts[1] not in splits or (endings is not None and ending not in endings):
            continue
        stem = stem_of(name)
        if stem in by_stem:
            raise UsageError(
                f"{root} holds {by_stem[stem]} and {name}: one clip twice. Say which to take (endings), such as "
                f"{ending!r}."
            )
        by_stem[stem] = name
        kinds[ending] += 1
        placed[name] = (parts[1], stem)
    if not placed:
        below = [folder for folder in found.folders if (root / folder / "ABOUT").is_dir()]
        hint = f" Did you mean {root / below[0]}?" if below else ""
        of = "" if endings is None else f" among {', '.join(sorted(endings))}"
        raise UsageError(f"{root} has no clip at WORD/SPLIT/{of}; expected such as {_EXAMPLE} ({ENDINGS_TEXT}).{hint}")
    notes = [f"{elsewhere} clips do not lie at WORD/train, val or test and are left out"] if elsewhere else []
    if len(kinds) > 1:
        notes.append("clips of several kinds: " + ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())))
    return placed, notes


def _durations(
    place: Path, placed: Mapping[str, tuple[Split, str]], progress: Progress
) -> tuple[dict[str, float | None], dict[str, UnusableClip]]:
    durations: dict[str, float | None] = {}
    lost: dict[str, UnusableClip] = {}
    with progress.task("read annotations", total=len(placed), unit="files") as task:
        for number, (name, (_, stem)) in enumerate(placed.items(), start=1):
            path = f"{place}/{stem}.txt"
            try:
                durations[name] = duration_from_annotation(_read_text(path))
            except FileNotFoundError:
                lost[name] = UnusableClip(
                    f"{path} does not exist: no annotation of {name}. Copy it, or go without (--annotations none).",
                    reason="annotation",
                )
            except OSError as error:
                lost[name] = UnusableClip(
                    f"{path} cannot be read ({error.strerror}). Make it readable.", reason="annotation"
                )
            except ValueError as error:
                lost[name] = UnusableClip(
                    f"{path} {error}; expected five lines, the fifth as 'Duration: 0.42 seconds'. Copy it again.",
                    reason="annotation",
                )
            if number % 1000 == 0:
                task.advance(1000)
        task.advance(len(placed) % 1000)
    return durations, lost


def _read_text(path: str) -> str:
    """The first bytes of a file, as text; two system calls less than `open`, which matters half a million times."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _MAX_ANNOTATION_BYTES).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
