"""Fill prepared stores: from the generator, or from words cut out of videos."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from edgelip.data.crops import boundary_in_clip
from edgelip.data.spans import Span, group_by_video, load_span_clips
from edgelip.data.store import Store, StoreWriter
from edgelip.data.synthetic.clips import SyntheticSpec, render_clips
from edgelip.errors import RecipeError
from edgelip.progress import Progress
from edgelip.recipe import SpanData, SyntheticData
from edgelip.runtime.clip import ClipSpec, pool_frames

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
CHUNK = 64


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


def prepare_spans(
    folder: Path,
    spans: Sequence[Span],
    root: Path,
    words: Sequence[str],
    spec: ClipSpec,
    progress: Progress,
    *,
    name: str,
) -> Store:
    """Decode the videos of `spans` into a store, each video once; goes on where a killed run stood."""
    spans = group_by_video(spans)
    labels = {word: label for label, word in enumerate(words)}
    speakers = {speaker: number for number, speaker in enumerate(sorted({span.speaker for span in spans}))}
    source = _hash([repr(span) for span in spans])
    with (
        StoreWriter(folder, len(spans), spec, words=words, source_sha256=source) as writer,
        progress.task(name, total=len(spans), unit="clips", done=writer.num_done) as task,
    ):
        clips = load_span_clips(spans[writer.num_done :], root, spec)
        while batch := list(islice(clips, CHUNK)):
            writer.write(
                writer.num_done,
                np.stack([frames for _, frames in batch]),
                labels_B=np.array([labels[span.word] for span, _ in batch]),
                speakers_B=np.array([speakers[span.speaker] for span, _ in batch]),
                boundaries_B2=np.array([boundary_in_clip(span.first, span.last, spec) for span, _ in batch]),
            )
            task.advance(len(batch))
        return writer.finish()


def span_words(data: SpanData, spans: Sequence[Span]) -> tuple[str, ...]:
    """The vocabulary in label order: as the recipe lists it, else alphabetical."""
    return data.words or tuple(sorted({span.word for span in spans}))


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
