"""Stored clips of procedural signers.

Axes: B clips, T frames, P points, A coordinates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgelip.data.readers.samples import Split
from edgelip.data.stores.store import Store, StoreWriter
from edgelip.data.synthetic.signing import SigningSpec, make_signs, words_of
from edgelip.progress import Progress
from edgelip.recipe import SigningData
from edgelip.runtime.clip import ClipSpec, landmarks_from_found

# Files of the package that decide what these clips are: for keys of caches.
SOURCES = (
    *(
        f"data/synthetic/{name}.py"
        for name in (
            "anatomy", "casting", "gestures", "hashing", "side_by_side", "signers", "signing", "stored_signs",
            "tracker",
        )
    ),
    "runtime/clip.py",
    "runtime/landmarks.py",
)  # fmt: skip
CHUNK = 128  # clips written together


def signing_spec(data: SigningData) -> SigningSpec:
    """The generator's part of a recipe's data section."""
    return SigningSpec(
        num_words=data.num_words,
        seed=data.seed,
        generator=data.generator,
        train_signers=data.train_signers,
        val_signers=data.val_signers,
        test_signers=data.test_signers,
        severity=data.severity,
    )


@dataclass(frozen=True, eq=False)
class MadeSigns:
    """clips_BTPA: as stored, float32; labels_B and signers_B: int64."""

    clips_BTPA: np.ndarray
    labels_B: np.ndarray
    signers_B: np.ndarray


def made_signs(generator: SigningSpec, split: Split, indices: Sequence[int], spec: ClipSpec) -> MadeSigns:
    """Clips `indices` of a split, as a store holds them."""
    batch = make_signs(generator, split, indices, points=spec.point_set)
    pairs = zip(batch.points_BTPA.numpy(), batch.lengths_B.tolist(), strict=True)
    clips_BTPA = np.stack([landmarks_from_found(points_TPA[:length], spec) for points_TPA, length in pairs])
    return MadeSigns(clips_BTPA, batch.labels_B.numpy(), batch.signers_B.numpy())


def prepare_signing(folder: Path, data: SigningData, split: Split, spec: ClipSpec, progress: Progress) -> Store:
    """Make the signs of one split into a store; goes on where a killed run stood."""
    generator = signing_spec(data)
    total = {"train": data.train_clips, "val": data.val_clips, "test": data.test_clips}[split]
    identity = json.dumps({"generator": repr(generator), "split": split}, sort_keys=True)
    source = hashlib.sha256(identity.encode()).hexdigest()
    with (
        StoreWriter(folder, total, spec, words=words_of(data.num_words), source_sha256=source) as writer,
        progress.task(f"sign {split}", total=total, unit="clips", done=writer.num_done) as task,
    ):
        while writer.num_done < total:
            start = writer.num_done
            signs = made_signs(generator, split, range(start, min(total, start + CHUNK)), spec)
            writer.write(start, signs.clips_BTPA, labels_B=signs.labels_B, speakers_B=signs.signers_B)
            task.advance(writer.num_done - start)
        return writer.finish()
