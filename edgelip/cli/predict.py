"""`edgelip predict`: words of clips and videos through a checkpoint or a bundle, or the bare scores of arrays.

Axes: B clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelip.cli.network_inputs import (
    lengths_from_text,
    read_boundaries,
    read_frames,
    read_landmarks,
    read_network_inputs,
)
from edgelip.cli.scorers import BATCH, Scorer, open_scorer, score_in_batches
from edgelip.errors import ClipError, UsageError
from edgelip.files import write_atomic
from edgelip.progress import Progress
from edgelip.runtime.clip import landmarks_from_raw, network_input, require_stored, require_video
from edgelip.runtime.recogniser import prediction_from_logits

if TYPE_CHECKING:
    from edgelip.cli.predict_video import Reading, VideoOptions
    from edgelip.data.readers.samples import Sample

ARRAYS = (".npz", ".npy")
LANDMARKS = (".parquet",)


@dataclass(frozen=True)
class ClipOptions:
    """Options of `predict` for a single file of clips; each belongs to some kinds of clips only."""

    frames: str | None = None  # FIRST:LAST of a video
    normalised: bool = False  # the array holds network inputs
    lengths: str | None = None  # of normalised clips
    boundaries: Path | None = None  # of arrays, where the classifier needs them


@dataclass(frozen=True)
class Output:
    """What becomes of the scores: `top` words a line or as JSON, and float32 (B, V) at `logits`."""

    top: int = 3
    as_json: bool = False
    logits: Path | None = None


@dataclass(frozen=True)
class Predicted:
    """What is to be printed, and what went wrong with some of the videos, in a line."""

    text: str
    failed: str | None = None


def predict_clip(model: Path, clip: Path, options: ClipOptions, output: Output, *, engine: str | None) -> str:
    """One line a clip of an array, or of landmarks: words with probabilities."""
    if output.logits is not None and output.logits.resolve() in (clip.resolve(), model.resolve()):
        raise UsageError(f"--logits {output.logits} would overwrite what is read. Choose another file.")
    if options.lengths is not None and not options.normalised:
        raise UsageError("--lengths belongs to --normalised; other clips are cut to the classifier's own length.")
    if options.frames is not None:
        raise UsageError(f"--frames cuts a video; {clip} holds clips already.")
    with open_scorer(model, engine=engine) as scorer:
        _refuse_without_effect(model, scorer, options)
        if options.normalised:
            logits_BV = _logits_of_inputs(clip, scorer, options)
        elif clip.suffix in LANDMARKS:
            logits_BV = _logits_of_parquet(clip, scorer)
        else:
            logits_BV = _logits_of_frames(clip, scorer, options)
        rows = [{"clip": str(clip), "ranking": _ranking(row_V, scorer, output.top)} for row_V in logits_BV]
    return _finished(rows, logits_BV, output)


def predict_videos(
    model: Path, clip: Path, options: VideoOptions, output: Output, *, frames: str | None, engine: str | None
) -> Predicted:
    """One line a window: its time and words with probabilities; of a folder, all of its videos.

    Of several videos those that cannot be used are told and left out. Raises UsageError if none is left.
    """
    from edgelip.cli.predict_video import find_videos, read_video, write_boxes, write_sheet

    progress, failed = Progress(), []
    readings: list[Reading] = []
    with open_scorer(model, engine=engine) as scorer:
        require_video(scorer.spec)
        videos: Sequence[Path] = find_videos(clip) if clip.is_dir() else (clip,)
        for video in videos:
            try:
                readings.append(read_video(video, scorer, options, frames=frames, top=output.top, say=progress.say))
            except ClipError as error:
                if len(videos) == 1:
                    raise
                failed.append(str(error))
                progress.say(str(error))
    if not readings:
        raise ClipError(f"none of the {len(videos)} videos in {clip} can be used; the first: {failed[0]}")
    if options.boxes is not None:
        write_boxes(options.boxes, readings)
    if options.sheet is not None:
        write_sheet(options.sheet, readings, progress.say)
    rows = [row for reading in readings for row in reading.rows]
    text = _finished(rows, np.concatenate([reading.logits_BV for reading in readings]), output)
    return Predicted(text, f"{len(failed)} of {len(videos)} videos in {clip} cannot be used." if failed else None)


def predict_spans(
    model: Path,
    csv_path: Path,
    output: Output,
    *,
    root: Path | None,
    split: str | None,
    category: str | None,
    engine: str | None,
) -> str:
    """One line a span: what the CSV says, then words with probabilities; the share that agrees closes the list."""
    from edgelip.cli.predict_video import score_frames
    from edgelip.data.crops import boundary_in_clip
    from edgelip.data.readers.samples import SPLITS, select
    from edgelip.data.readers.spans import load_span_clips, read_spans, span_of

    if split is not None and split not in SPLITS:
        raise UsageError(f"--split is {split!r}; expected one of {', '.join(SPLITS)}.")
    with open_scorer(model, engine=engine) as scorer:
        require_video(scorer.spec)
        spans = select(read_spans(csv_path, root), split=split, category=category)
        if not spans:
            raise ClipError(f"{csv_path} has no span left after --split and --category.")
        rows: list[dict[str, Any]] = []
        parts = []
        clips = load_span_clips(spans, scorer.spec)
        for batch in _batches(clips, len(spans) if scorer.mixes_clips else BATCH):
            inside = [boundary_in_clip(*span_of(span), scorer.spec) for span, _ in batch]
            logits_BV = score_frames(scorer, np.stack([frames for _, frames in batch]), inside)
            parts.append(logits_BV)
            for (span, _), row_V in zip(batch, logits_BV, strict=True):
                name = span.clip_id or span.name
                rows.append({"clip": name, "word": span.word, "ranking": _ranking(row_V, scorer, output.top)})
    return _finished(rows, np.concatenate(parts), output)


def _refuse_without_effect(model: Path, scorer: Scorer, options: ClipOptions) -> None:
    if options.lengths is not None and not scorer.any_length:
        raise UsageError(
            f"--lengths: the bundle {model} takes clips of full length only. Leave it out, or use the checkpoint."
        )
    if options.boundaries is not None and not scorer.boundary:
        raise UsageError(f"--boundaries: {model} takes no word boundaries. Leave it out.")


def _logits_of_inputs(clip: Path, scorer: Scorer, options: ClipOptions) -> np.ndarray:
    clips = read_network_inputs(clip, scorer)
    lengths_B = None if options.lengths is None else lengths_from_text(options.lengths, clips, scorer.spec)
    boundaries_BT1 = _boundaries(scorer, options, num_clips=len(clips), num_frames=clips.shape[2])
    return score_in_batches(
        scorer, clips, network_inputs=lambda batch: batch, lengths_B=lengths_B, boundaries_BT1=boundaries_BT1
    )


def _logits_of_frames(clip: Path, scorer: Scorer, options: ClipOptions) -> np.ndarray:
    require_stored(scorer.spec)
    frames_BTHW = read_landmarks(clip, scorer.spec) if scorer.spec.kind == "landmarks" else read_frames(clip)
    boundaries_BT1 = _boundaries(scorer, options, num_clips=len(frames_BTHW), num_frames=scorer.spec.frames)
    return score_in_batches(
        scorer,
        frames_BTHW,
        network_inputs=lambda batch: network_input(batch, scorer.spec),
        boundaries_BT1=boundaries_BT1,
    )


def _logits_of_parquet(clip: Path, scorer: Scorer) -> np.ndarray:
    from edgelip.data.signs.parquet_landmarks import read_parquet

    if scorer.spec.kind != "landmarks":
        raise ClipError(f"{clip} holds landmarks; the classifier takes {scorer.spec.kind}. Give it what it takes.")
    stored_TPA = landmarks_from_raw(read_parquet(clip), scorer.spec)
    return scorer.scores(network_input(stored_TPA[None], scorer.spec))


def _boundaries(scorer: Scorer, options: ClipOptions, *, num_clips: int, num_frames: int) -> np.ndarray | None:
    if not scorer.boundary:
        return None
    if options.boundaries is None:
        raise UsageError(
            "This checkpoint needs word boundaries: add --boundaries FILE.npy, float32 "
            f"({num_clips}, {num_frames}, 1), 1 in the frames of the word, else 0."
        )
    return read_boundaries(options.boundaries, num_clips=num_clips, num_frames=num_frames)


def _batches(clips: Iterator[tuple[Sample, np.ndarray]], size: int) -> Iterator[list[tuple[Sample, np.ndarray]]]:
    while batch := list(islice(clips, size)):
        yield batch


def _ranking(logits_V: np.ndarray, scorer: Scorer, top: int) -> list[list[str | float]]:
    return [[word, share] for word, share in prediction_from_logits(logits_V, scorer.words, top=top).ranking]


def _finished(rows: list[dict[str, Any]], logits_BV: np.ndarray, output: Output) -> str:
    """Write what is to be written, and return what is to be printed."""
    if output.logits is not None:
        content = BytesIO()
        np.save(content, np.ascontiguousarray(logits_BV, np.float32))
        write_atomic(output.logits, content.getvalue())
    if output.as_json:
        return json.dumps(rows, indent=1)
    lines = []
    for row in rows:
        words = "  ".join(f"{word} {probability:.3f}" for word, probability in row["ranking"])
        truth = f"  ({row['word']})" if "word" in row else ""
        times = f"  {row['start_s']:.2f}-{row['end_s']:.2f} s" if "start_s" in row else ""
        lines.append(f"{row['clip']}{truth}{times}  {words}")
    known = [row for row in rows if "word" in row]
    if len(known) > 1:
        right = sum(row["ranking"][0][0] == row["word"] for row in known)
        lines.append(f"{right} of {len(known)} agree with the CSV ({100 * right / len(known):.1f} %)")
    return "\n".join(lines)
