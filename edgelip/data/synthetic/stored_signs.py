"""Stored clips of procedural signers.

Axes: B clips, T frames, P points, A coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgelip.data.readers.samples import Split
from edgelip.data.stores.store import Store
from edgelip.data.synthetic.signing import SigningSpec, make_signs, words_of
from edgelip.data.synthetic.stored import GeneratedClips, generate_store
from edgelip.progress import Progress
from edgelip.recipe_sections import SigningData
from edgelip.runtime.clip import ClipSpec, landmarks_from_found

# Files of the package that decide what these clips are: for keys of caches.
SOURCES = (
    *(
        f"data/synthetic/{name}.py"
        for name in (
            "anatomy", "casting", "gestures", "hashing", "side_by_side", "signers", "signing", "stored", "stored_signs",
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


def made_signs(generator: SigningSpec, split: Split, indices: Sequence[int], spec: ClipSpec) -> GeneratedClips:
    """Clips `indices` of a split, as a store holds them."""
    batch = make_signs(generator, split, indices, points=spec.point_set)
    pairs = zip(batch.points_BTPA.numpy(), batch.lengths_B.tolist(), strict=True)
    clips_BTPA = np.stack([landmarks_from_found(points_TPA[:length], spec) for points_TPA, length in pairs])
    return GeneratedClips(clips_BTPA, batch.labels_B.numpy(), batch.signers_B.numpy())


def prepare_signing(folder: Path, data: SigningData, split: Split, spec: ClipSpec, progress: Progress) -> Store:
    """Make the signs of one split into a store; goes on where a killed run stood."""
    generator = signing_spec(data)
    return generate_store(
        folder,
        data,
        split,
        spec,
        progress,
        generator=generator,
        words=words_of(data.num_words),
        make=lambda indices: made_signs(generator, split, indices, spec),
        batch_size=CHUNK,
        name="sign",
    )
