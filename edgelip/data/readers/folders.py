"""Clips in folders, one folder a word, with or without a folder a split above them.

words/ABOUT/0001.mp4          words/train/ABOUT/0001.mp4
words/ABOUT/s1/0002.npz       words/test/ABOUT/0002.npz
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from edgelip.data.clip_files import ENDINGS_TEXT
from edgelip.data.readers.clip_tables import read_clip_table, stem_of, unmatched
from edgelip.data.readers.held_out import held_out_by, hold_out
from edgelip.data.readers.listing import checked_words, closest, make_listing
from edgelip.data.readers.samples import SPLITS, Listing, Sample, Split
from edgelip.data.readers.walk import walk
from edgelip.errors import UsageError
from edgelip.progress import Progress

Layout = Literal["auto", "words", "splits"]
_OTHER_SPLIT_NAMES = ("valid", "validation", "dev", "eval", "testing", "training")


def read_folders(
    root: Path,
    *,
    words: Sequence[str] | None = None,
    layout: Layout = "auto",
    val_share: float | None = None,
    test_share: float | None = None,
    speakers: Path | None = None,
    speaker_pattern: str | None = None,
    progress: Progress | None = None,
) -> Listing:
    """Every clip below `root`; no file is opened.

    words: these alone, in label order; the names of the folders, sorted, if None.
    layout: "words": a folder a word; "splits": train, val and test, and in each a folder a word; "auto": by the names.
    val_share, test_share: of the training clips, held out by hash where the split has no folder; by whole speakers
    where each clip's is known. speakers: CSV of `path,speaker`; speaker_pattern: regular expression whose first group
    is the speaker in the clip's path below the root, such as "/(s[0-9]+)_".
    Raises UsageError for folders or settings that do not fit, ClipError for a table that is broken.
    """
    root = Path(root)
    found = walk(root)
    splits = _splits(root, found.folders, layout)
    depth = 1 if splits else 0
    samples, strays = [], []
    talkers = _Speakers(speakers, speaker_pattern)
    for name in found.clips:
        parts = name.split("/")
        if len(parts) < depth + 2:
            strays.append(name)
            continue
        split: Split = parts[0] if depth else "train"  # type: ignore[assignment]
        samples.append(Sample(parts[depth], root / name, name, split, speaker=talkers.of(name)))
    notes = [*_other_files(found.others), *_strays(strays, splits)]
    shares: tuple[tuple[Split, float | None], ...] = (("test", test_share), ("val", val_share))
    for share_split, share in shares:
        if share is not None:
            samples, note = _held_out(samples, share_split, share, root)
            notes += note
    if speakers is not None and words is None:
        notes += unmatched(talkers.table, {stem_of(sample.name) for sample in samples}, speakers)
    return make_listing(root, samples, words=words, unusable=found.unusable, notes=notes)


def find_words(folder: Path) -> tuple[str, ...]:
    """Names of the folder's sub-folders, sorted; hidden ones are no words. Raises UsageError if there is none."""
    words = walk(folder, only=()).folders
    if not words:
        raise UsageError(f"{folder} has no folders; expected one a word, as in {folder}/ABOUT/0001.mp4.")
    return words


def find_split(
    folder: Path,
    split: Split,
    words: Sequence[str],
    *,
    subset: bool,
    speakers: Path | None = None,
    speaker_pattern: str | None = None,
) -> Listing:
    """The clips of one split, `folder/WORD/...`; their names begin with the word.

    subset: folders of other words are left out and noted; otherwise another word, or a clip in no word's folder, is
    an error. A word without a folder is none here. speakers, speaker_pattern: as those of `read_folders`.
    Raises UsageError, also for a word's folder without clips.
    """
    folder, wanted, talkers = Path(folder), checked_words(words), _Speakers(speakers, speaker_pattern)
    there = find_words(folder)
    strange = [word for word in there if word not in wanted]
    if strange and not subset:
        raise UsageError(
            f"{folder / strange[0]}: {strange[0]!r} is no word of the training clips. {closest(strange[0], wanted)}"
        )
    found = walk(folder, only=set(wanted))
    samples = []
    for name in found.clips:
        word, slash, _ = name.partition("/")
        if not slash:
            raise UsageError(f"{folder / name} lies in no word's folder; expected {folder}/WORD/{name}. Move it.")
        samples.append(Sample(word, folder / name, name, split, speaker=talkers.of(name)))
    full = {sample.word for sample in samples} | {name.split("/")[0] for name in found.unusable}
    for word in there:
        if word in wanted and word not in full:
            raise UsageError(f"{folder / word} has no clip ({ENDINGS_TEXT}). Add clips or remove the folder.")
    notes = _other_files(found.others)
    if strange:
        some = ", ".join(strange[:5]) + (f" and {len(strange) - 5} more" if len(strange) > 5 else "")
        notes.append(f"words that are not in the word list are left out: {some}")
    return Listing(folder, tuple(samples), wanted, found.unusable, tuple(notes))


def find_clips(folder: Path) -> tuple[Path, ...]:
    """Every clip in a folder and the folders in it, sorted by path. Raises UsageError if there is none."""
    clips = walk(folder).clips
    if not clips:
        raise UsageError(f"{folder} has no clip ({ENDINGS_TEXT}). Check the folder.")
    return tuple(Path(folder) / name for name in clips)


class _Speakers:
    """Who speaks in a clip, by a table or by the clip's path."""

    def __init__(self, table: Path | None, pattern: str | None) -> None:
        if table is not None and pattern is not None:
            raise UsageError("speakers and speaker_pattern both say who speaks. Give one.")
        self.table = {} if table is None else read_clip_table(table, "speaker")
        self._pattern: re.Pattern[str] | None = None
        if pattern is not None:
            try:
                self._pattern = re.compile(pattern)
            except re.error as error:
                raise UsageError(
                    f"speaker_pattern {pattern!r} is no regular expression: {error}. Correct it."
                ) from None
            if self._pattern.groups < 1:
                raise UsageError(f"speaker_pattern {pattern!r} has no group; put the speaker in brackets: '(s[0-9]+)'.")

    def of(self, name: str) -> str:
        if self._pattern is not None:
            match = self._pattern.search(name)
            return (match[1] or "") if match else ""
        return self.table.get(stem_of(name), "")


def _splits(root: Path, folders: Sequence[str], layout: Layout) -> bool:
    """Whether the folders are splits. Raises UsageError where they are both or neither."""
    if layout not in ("auto", "words", "splits"):
        raise UsageError(f"layout is {layout!r}; expected auto, words or splits.")
    if not folders:
        raise UsageError(f"{root} has no folders; expected one a word, as in {root}/ABOUT/0001.mp4.")
    named = [folder for folder in folders if folder in SPLITS]
    others = [folder for folder in folders if folder not in SPLITS]
    if layout == "words" or (layout == "auto" and not named):
        return False
    if others or not named:
        first = others[0]
        meant = " Rename it to 'val', 'train' or 'test'." if first.lower() in _OTHER_SPLIT_NAMES else ""
        raise UsageError(
            f"{root} holds {first!r} beside {', '.join(named) or 'no split'}; expected train, val and test alone, or "
            f"words alone (layout 'words').{meant}"
        )
    return True


def _held_out(samples: list[Sample], split: Split, share: float, root: Path) -> tuple[list[Sample], list[str]]:
    if any(sample.split == split for sample in samples):
        raise UsageError(
            f"{split}_share holds clips out of the training clips, but {root} has a folder {split!r}. Leave one out."
        )
    train = [sample for sample in samples if sample.split == "train"]
    kept, held = hold_out(train, share, split)
    rest = [sample for sample in samples if sample.split != "train"]
    by = "speakers" if held_out_by(train) == "speaker" else "clips; speakers are not known, so one may be on both sides"
    return [*kept, *held, *rest], [f"{split}: {len(held)} clips held out by whole {by}"]


def _other_files(others: Counter[str]) -> list[str]:
    if not others:
        return []
    listed = ", ".join(f"{number} {ending}" for ending, number in sorted(others.items()))
    return [f"files that are no clips are left out ({listed})"]


def _strays(strays: Sequence[str], splits: bool) -> list[str]:
    if not strays:
        return []
    place = "SPLIT/WORD/" if splits else "WORD/"
    return [f"{len(strays)} clips lie in no word's folder and are left out, such as {strays[0]}; expected {place}..."]
