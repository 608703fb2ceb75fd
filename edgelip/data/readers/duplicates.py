"""The same clip twice: by what its file holds, never by its name."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgelip.data.readers.samples import Sample
from edgelip.data.stores import shards
from edgelip.data.stores.npy_files import map_npy
from edgelip.data.stores.shards import ROW
from edgelip.data.stores.store import Store
from edgelip.data.stores.store_index import read_index
from edgelip.progress import Progress

_UNREAD = bytes(32)
_SPAN = re.compile(":[0-9]+:[0-9]+$")


@dataclass(frozen=True)
class Duplicates:
    """Groups of names that are one clip: those on both sides of a split, under two words, and others.

    num_leaked: val and test clips that are training clips too, or val clips that are test clips.
    """

    across_splits: tuple[tuple[str, ...], ...]
    across_words: tuple[tuple[str, ...], ...]
    within: tuple[tuple[str, ...], ...]


def duplicates(samples: Iterable[Sample], contents: Mapping[str, object]) -> Duplicates:
    """contents: what each sample's file holds, as a hash, by the sample's name; a sample without one has no twin.

    Words of one video are told apart by their frames.
    """
    groups: dict[object, list[Sample]] = {}
    for sample in samples:
        if sample.name in contents:
            groups.setdefault((contents[sample.name], sample.first, sample.last), []).append(sample)
    found: dict[str, list[tuple[str, ...]]] = {"splits": [], "words": [], "within": []}
    for group in groups.values():
        if len(group) < 2:
            continue
        names = tuple(sorted(sample.name for sample in group))
        apart = len({sample.split for sample in group}) > 1
        mislabelled = len({sample.word for sample in group}) > 1
        found["splits"] += [names] if apart else []
        found["words"] += [names] if mislabelled else []
        found["within"] += [] if apart or mislabelled else [names]
    return Duplicates(*(tuple(sorted(found[kind])) for kind in ("splits", "words", "within")))


def file_contents(samples: Sequence[Sample], progress: Progress) -> dict[str, object]:
    """sha256 of the file of each sample that shares its size with another file; files of their own size are not read.

    Files that cannot be read are left out.
    """
    sizes: dict[Path, int] = {}
    for path in dict.fromkeys(sample.path for sample in samples):
        try:
            sizes[path] = os.stat(path).st_size  # noqa: PTH116  (half a million times)
        except OSError:
            continue
    common = {size for size, number in Counter(sizes.values()).items() if number > 1}
    again = [path for path, size in sizes.items() if size in common]
    hashes: dict[Path, object] = {path: str(path) for path, size in sizes.items() if size not in common}
    with progress.task("compare files", total=len(again), unit="files") as task:
        for path in again:
            with suppress(OSError):
                hashes[path] = shards.file_sha256(path)
            task.advance(1)
    return {sample.name: hashes[sample.path] for sample in samples if sample.path in hashes}


def store_sources(store: Store) -> list[bytes | int]:
    """What each clip of a store was made of: sha256 of its files and its frames; its own number where unknown."""
    rows = map_npy(store.folder / shards.ROWS, (int(read_index(store.folder)["num_clips"]),), ROW)
    rows = rows if store.kept is None else rows[store.kept]
    sources = np.ascontiguousarray(rows["source"])
    spans = [_SPAN.search(name) for name in store.names]
    return [
        number if (source := row.tobytes()) == _UNREAD else source + (span[0].encode() if span else b"")
        for number, (row, span) in enumerate(zip(sources, spans, strict=True))
    ]
