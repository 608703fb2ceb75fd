"""Stored clips of procedural mouths."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from edgelip.data.readers.samples import Split
from edgelip.data.stores.store import Store, StoreWriter
from edgelip.data.synthetic.clips import SyntheticSpec, render_clips
from edgelip.errors import RecipeError
from edgelip.progress import Progress
from edgelip.recipe import SyntheticData
from edgelip.runtime.clip import ClipSpec, pool_frames

# Files of the package that decide what these clips are: for keys of caches.
SOURCES = (
    *(
        f"data/synthetic/{name}.py"
        for name in (
            "articulation", "casting", "clips", "geometry", "hashing", "render", "side_by_side", "speakers",
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
    total = {"train": data.train_clips, "val": data.val_clips, "test": data.test_clips}[split]
    source = _hash({"generator": repr(generator), "split": split})
    with (
        StoreWriter(folder, total, spec, words=data.words, source_sha256=source) as writer,
        progress.task(f"render {split}", total=total, unit="clips", done=writer.num_done) as task,
    ):
        while writer.num_done < total:
            start = writer.num_done
            batch = render_clips(generator, split, range(start, min(total, start + CHUNK)))
            writer.write(
                start,
                pool_frames(batch.frames_BTHW.numpy(), spec.pool),
                labels_B=batch.labels_B.numpy(),
                speakers_B=batch.speakers_B.numpy(),
                boundaries_B2=batch.boundary_B2.numpy(),
            )
            task.advance(writer.num_done - start)
        return writer.finish()


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
