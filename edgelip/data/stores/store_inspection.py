"""What is in prepared stores: read from their index and clips, no video is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgelip.data.inspection import Inspection, facts_of_samples, lengths_of
from edgelip.data.readers.duplicates import duplicates, store_sources
from edgelip.data.readers.samples import SPLITS, Sample, Split
from edgelip.data.stores.shards import INDEX
from edgelip.data.stores.store import Store
from edgelip.errors import ClipError
from edgelip.progress import Progress

_CHUNK = 256
_FLAT_RANGE = 4  # grey levels between the brightest and the darkest point of a clip that shows nothing


def find_stores(folder: Path) -> dict[Split, Path]:
    """The stores in a folder: itself, which counts as training clips, or those called train, val and test."""
    if (folder / INDEX).is_file():
        named: Split = folder.name if folder.name in SPLITS else "train"
        return {named: folder}
    return {split: folder / split for split in SPLITS if (folder / split / INDEX).is_file()}


def inspect_stores(folders: Mapping[Split, Path], source: Path, *, verify: bool, progress: Progress) -> Inspection:
    """verify: read every byte and compare its hash. A store that is damaged is told in `unusable`.

    Raises ClipError for one that cannot be opened, or where the stores have different words.
    """
    stores = {split: Store.open(folder) for split, folder in folders.items()}
    words = next(iter(stores.values())).words
    samples: list[Sample] = []
    contents: dict[str, object] = {}
    unusable: dict[str, tuple[str, str]] = {}
    flat: list[str] = []
    seconds: list[float | None] = []
    sizes: Counter[str] = Counter()
    for split, store in stores.items():
        if store.words != words:
            raise ClipError(
                f"{store.folder} has {len(store.words)} words, {next(iter(folders.values()))} has {len(words)}, or in "
                "another order. Prepare them together."
            )
        of_split = _samples(store, split)
        samples += of_split
        contents |= dict(zip([item.name for item in of_split], store_sources(store), strict=True))
        seconds += [None if np.isnan(length) else float(length) for length in store.durations_s]
        sizes["x".join(map(str, store.spec.stored_shape[1:]))] += len(store)
        if verify:
            try:
                store.verify()
            except ClipError as error:
                unusable[str(store.folder)] = ("damaged", str(error))
        if store.spec.kind == "video":
            flat += _flat(store, of_split, progress)
    known = {name: content for name, content in contents.items() if isinstance(content, bytes)}
    first_store = next(iter(stores.values()))
    return Inspection(
        source=str(source),
        reader="store",
        words=words,
        num_files=len(samples),
        num_decoded=len(samples),
        frames=lengths_of(float(row[1] - row[0] + 1) for store in stores.values() for row in store.boundaries),
        seconds=lengths_of(seconds),
        sizes=dict(sizes),
        rates={f"{first_store.spec.fps:.6g}": len(samples)} if first_store.spec.kind == "video" else {},
        unusable=unusable,
        flat=tuple(flat),
        shared_files=0,
        doubles=duplicates(samples, known),
        notes=(),
        **facts_of_samples(samples, words),
    )


def _samples(store: Store, split: Split) -> list[Sample]:
    speakers = [""] * len(store) if not store.speaker_names else [store.speaker_names[n] for n in store.speakers]
    return [
        Sample(store.words[label], store.folder, f"{split}: {name}", split, speaker=speaker)
        for label, name, speaker in zip(store.labels, store.names, speakers, strict=True)
    ]


def _flat(store: Store, samples: list[Sample], progress: Progress) -> list[str]:
    flat = []
    with progress.task(f"look at {store.folder.name}", total=len(store), unit="clips") as task:
        for start in range(0, len(store), _CHUNK):
            clips = np.asarray(store.frames[start : start + _CHUNK]).reshape(-1, int(np.prod(store.spec.stored_shape)))
            spans = clips.max(axis=1).astype(int) - clips.min(axis=1)
            flat += [samples[start + number].name for number in np.flatnonzero(spans < _FLAT_RANGE)]
            task.advance(len(clips))
    return flat
