"""The index of a prepared store: what it says, and what is refused before anything is read by it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.data.stores import shards
from edgelip.data.stores.npy_files import REMEDY
from edgelip.runtime.clip import ClipSpec
from edgelip.runtime.errors import ClipError, UsageError

_INDEX_FIELDS = (
    "version",
    "spec",
    "words",
    "speaker_names",
    "source_sha256",
    "num_clips",
    "shards",
    "rows_sha256",
    "names_sha256",
    "sha256",
)


def content_sha256(index: Mapping[str, Any]) -> str:
    """Hash of everything that the clips of an index are; not of where or when they were made."""
    names = ("version", "spec", "words", "speaker_names", "shards", "rows_sha256", "names_sha256")
    return hashlib.sha256(json.dumps({name: index[name] for name in names}, sort_keys=True).encode()).hexdigest()


def check_rows(rows_N: np.ndarray, num_words: int, num_speakers: int, num_frames: int, clip: str, start: int) -> None:
    """Raises ClipError for the first row whose label, speaker or frames point nowhere; 0 speakers: any number."""
    label, speaker, first, last = (rows_N[name] for name in ("label", "speaker", "first", "last"))
    bad = (label < 0) | (label >= num_words) | (first < 0) | (first > last) | (last >= num_frames) | (speaker < 0)
    if num_speakers:
        bad |= speaker >= num_speakers
    if bad.any():
        worst = int(np.flatnonzero(bad)[0])
        row = rows_N[worst]
        raise ClipError(
            f"{clip} {start + worst} has label {row['label']}, speaker {row['speaker']} and word frames "
            f"{row['first']}..{row['last']}; expected a label below {num_words}, a speaker "
            f"{f'below {num_speakers}' if num_speakers else 'from 0'} and frames within 0..{num_frames - 1}."
        )


def refuse_names(names: Iterable[str]) -> None:
    """Raises UsageError for a name that does not fit on a line."""
    for name in names:
        if not name or "\n" in name or not _is_utf8(name):
            raise UsageError(f"a clip is named {name!r}; expected text on one line, in UTF-8. Rename its file.")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a file name that is no text
        return False
    return True


def read_index(folder: Path) -> dict[str, Any]:
    """The fields of index.json, `spec` as ClipSpec. Raises ClipError if there is none or they do not fit each other."""
    path = folder / shards.INDEX
    try:
        index = shards.read_json(path)
    except FileNotFoundError:
        if (folder / shards.MADE_FROM).exists():
            done = len(list(folder.glob("shard-*.json")))
            raise ClipError(f"{folder} is not finished: {done} shards are made. Prepare it again to go on.") from None
        raise ClipError(f"{folder} holds no clip store ({shards.INDEX} is missing). Prepare it first.") from None
    if sorted(index) != sorted(_INDEX_FIELDS) or index["version"] != shards.VERSION:
        raise ClipError(f"{path} is no clip store index of version {shards.VERSION}. {REMEDY}")
    if not _is_index(index) or content_sha256(index) != index["sha256"]:
        raise ClipError(f"{path} is damaged: its fields do not fit each other. {REMEDY}")
    return {**index, "spec": ClipSpec.from_json(index["spec"])}


def _is_index(index: dict[str, Any]) -> bool:
    """Whether types and counts are those of an index; what the hash is over is anybody's to write."""
    texts = all(isinstance(index[name], str) for name in ("source_sha256", "rows_sha256", "names_sha256", "sha256"))
    lists = all(
        isinstance(index[name], list) and all(isinstance(entry, str) for entry in index[name])
        for name in ("words", "speaker_names")
    )
    if not (texts and lists and isinstance(index["spec"], dict) and isinstance(index["shards"], list)):
        return False
    numbers = []
    for entry in index["shards"]:
        if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[2], str):
            return False
        if any(type(value) is not int for value in entry[:2]) or not (0 <= entry[0] < 10**7 and 0 < entry[1] < 2**31):
            return False
        numbers.append(entry[0])
    total = sum(entry[1] for entry in index["shards"])
    ascending = all(before < after for before, after in pairwise(numbers))
    return ascending and index["num_clips"] == total and 0 < total < 2**31
