"""Generated clips into a store, a batch at a time; goes on where a killed run stood."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgelip.data.readers.samples import Split
from edgelip.data.stores.store import Store, StoreWriter
from edgelip.progress import Progress
from edgelip.recipe_sections import SigningData, SyntheticData
from edgelip.runtime.clip import ClipSpec


@dataclass(frozen=True, eq=False)
class GeneratedClips:
    """clips: as stored, uint8 (B, T, S, S) or float32 (B, T, P, A); labels_B, speakers_B: int64.

    boundaries_B2: first and last frame of the word in its clip; None where it fills the clip.
    """

    clips: np.ndarray
    labels_B: np.ndarray
    speakers_B: np.ndarray
    boundaries_B2: np.ndarray | None = None


def generate_store(
    folder: Path,
    data: SyntheticData | SigningData,
    split: Split,
    spec: ClipSpec,
    progress: Progress,
    *,
    generator: object,
    words: Sequence[str],
    make: Callable[[range], GeneratedClips],
    batch_size: int,
    name: str,
) -> Store:
    """The clips of one split: `make` gives those of a range of indices. generator: its repr says what it makes."""
    total = {"train": data.train_clips, "val": data.val_clips, "test": data.test_clips}[split]
    identity = json.dumps({"generator": repr(generator), "split": split}, sort_keys=True)
    source = hashlib.sha256(identity.encode()).hexdigest()
    with (
        StoreWriter(folder, total, spec, words=words, source_sha256=source) as writer,
        progress.task(f"{name} {split}", total=total, unit="clips", done=writer.num_done) as task,
    ):
        while writer.num_done < total:
            start = writer.num_done
            made = make(range(start, min(total, start + batch_size)))
            writer.write(
                start,
                made.clips,
                labels_B=made.labels_B,
                speakers_B=made.speakers_B,
                boundaries_B2=made.boundaries_B2,
            )
            task.advance(writer.num_done - start)
        return writer.finish()
