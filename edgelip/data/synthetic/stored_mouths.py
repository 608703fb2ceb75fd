"""Stored clips of procedural mouths."""

from __future__ import annotations

from pathlib import Path

from edgelip.data.readers.samples import Split
from edgelip.data.stores.store import Store
from edgelip.data.synthetic.clips import SyntheticSpec, render_clips
from edgelip.data.synthetic.stored import GeneratedClips, generate_store
from edgelip.errors import RecipeError
from edgelip.progress import Progress
from edgelip.recipe_sections import SyntheticData
from edgelip.runtime.clip import ClipSpec, pool_frames

# Files of the package that decide what these clips are: for keys of caches.
SOURCES = (
    *(
        f"data/synthetic/{name}.py"
        for name in (
            "articulation", "casting", "clips", "geometry", "hashing", "render", "side_by_side", "speakers", "stored",
            "stored_mouths", "words",
        )
    ),
    "data/synthetic/lrw500.cmudict",
    "runtime/clip.py",
)  # fmt: skip
CHUNK = 64  # clips written together


def synthetic_spec(data: SyntheticData) -> SyntheticSpec:
    """The generator's part of a recipe's data section."""
    return SyntheticSpec(
        words=data.words,
        seed=data.seed,
        generator=data.generator,
        train_speakers=data.train_speakers,
        val_speakers=data.val_speakers,
        test_speakers=data.test_speakers,
        severity=data.severity,
    )


def prepare_synthetic(folder: Path, data: SyntheticData, split: Split, spec: ClipSpec, progress: Progress) -> Store:
    """Render one split into a store; goes on where a killed run stood."""
    generator = synthetic_spec(data)
    if (spec.timing, spec.frames, spec.roi_px, spec.fps) != ("window", generator.frames, 96, 25.0):
        raise RecipeError(
            f"the generator gives windows of {generator.frames} frames of 96 px at 25 fps; [clip] asks for "
            f"{spec.timing} of {spec.frames} frames of {spec.roi_px} px at {spec.fps:g} fps. Correct [clip]."
        )

    def make(indices: range) -> GeneratedClips:
        batch = render_clips(generator, split, indices)
        return GeneratedClips(
            pool_frames(batch.frames_BTHW.numpy(), spec.pool),
            batch.labels_B.numpy(),
            batch.speakers_B.numpy(),
            batch.boundary_B2.numpy(),
        )

    return generate_store(
        folder,
        data,
        split,
        spec,
        progress,
        generator=generator,
        words=data.words,
        make=make,
        batch_size=CHUNK,
        name="render",
    )
