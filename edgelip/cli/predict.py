"""`edgelip predict`: words of clips through a checkpoint or a bundle, or the bare scores of arrays.

Axes: B clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
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
    read_network_inputs,
    word_indicator,
)
from edgelip.cli.scorers import BATCH, Scorer, open_scorer, score_in_batches
from edgelip.errors import ClipError, UsageError
from edgelip.files import write_atomic
from edgelip.runtime.clip import network_input, require_video
from edgelip.runtime.recogniser import prediction_from_logits

if TYPE_CHECKING:
    from edgelip.data.spans import Span

ARRAYS = (".npz", ".npy")


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


def predict_clip(model: Path, clip: Path, options: ClipOptions, output: Output, *, engine: str | None) -> str:
    """One line a clip: words with probabilities."""
    is_array = clip.suffix in ARRAYS
    if output.logits is not None and output.logits.resolve() in (clip.resolve(), model.resolve()):
        raise UsageError(f"--logits {output.logits} would overwrite what is read. Choose another file.")
    if options.lengths is not None and not options.normalised:
        raise UsageError("--lengths belongs to --normalised; other clips are cut to the classifier's own length.")
    if options.frames is not None and (is_array or options.normalised):
        raise UsageError(f"--frames cuts a video; {clip} holds clips already.")
    if options.boundaries is not None and not (is_array or options.normalised):
        raise UsageError(f"--boundaries belongs to arrays; those of the video {clip} follow from --frames.")
    with open_scorer(model, engine=engine) as scorer:
        _refuse_without_effect(model, scorer, options)
        if options.normalised:
            logits_BV = _logits_of_inputs(clip, scorer, options)
        else:
            require_video(scorer.spec)
            logits_BV = (_logits_of_frames if is_array else _logits_of_video)(clip, scorer, options)
        rows = [{"clip": str(clip), "ranking": _ranking(row_V, scorer, output.top)} for row_V in logits_BV]
    return _finished(rows, logits_BV, output)


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
    from edgelip.data.crops import boundary_in_clip
    from edgelip.data.prepare import SPLITS
    from edgelip.data.spans import load_span_clips, read_spans, select

    if split is not None and split not in SPLITS:
        raise UsageError(f"--split is {split!r}; expected one of {', '.join(SPLITS)}.")
    with open_scorer(model, engine=engine) as scorer:
        require_video(scorer.spec)
        spans = select(read_spans(csv_path), split=split, category=category)
        if not spans:
            raise ClipError(f"{csv_path} has no span left after --split and --category.")
        rows: list[dict[str, Any]] = []
        parts = []
        clips = load_span_clips(spans, root or csv_path.parent, scorer.spec)
        for batch in _batches(clips, len(spans) if scorer.mixes_clips else BATCH):
            inside = [boundary_in_clip(span.first, span.last, scorer.spec) for span, _ in batch]
            logits_BV = _score_frames(scorer, np.stack([frames for _, frames in batch]), inside)
            parts.append(logits_BV)
            for (span, _), row_V in zip(batch, logits_BV, strict=True):
                name = span.clip_id or f"{span.video}:{span.first}:{span.last}"
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
    frames_BTHW = read_frames(clip)
    boundaries_BT1 = _boundaries(scorer, options, num_clips=len(frames_BTHW), num_frames=scorer.spec.frames)
    return score_in_batches(
        scorer,
        frames_BTHW,
        network_inputs=lambda batch: network_input(batch, scorer.spec),
        boundaries_BT1=boundaries_BT1,
    )


def _logits_of_video(clip: Path, scorer: Scorer, options: ClipOptions) -> np.ndarray:
    from edgelip.data.crops import boundary_in_clip, clip_from_video
    from edgelip.data.video import read_gray_frames

    video = read_gray_frames(clip)
    first, last = _frame_range(options.frames, len(video.frames_THW), clip)
    frames_THW = clip_from_video(video, first, last, scorer.spec, source=str(clip))
    return _score_frames(scorer, frames_THW[None], [boundary_in_clip(first, last, scorer.spec)])


def _score_frames(scorer: Scorer, frames_BTHW: np.ndarray, inside_B2: list[tuple[int, int]]) -> np.ndarray:
    """Scores of clips cut from videos, the frames of the word in each known."""
    boundaries_BT1 = np.stack([word_indicator(*inside, scorer.spec.frames) for inside in inside_B2])
    clips_B1THW = network_input(frames_BTHW, scorer.spec)
    return scorer.scores(clips_B1THW, None, boundaries_BT1 if scorer.boundary else None)


def _boundaries(scorer: Scorer, options: ClipOptions, *, num_clips: int, num_frames: int) -> np.ndarray | None:
    if not scorer.boundary:
        return None
    if options.boundaries is None:
        raise UsageError(
            "This checkpoint needs word boundaries: add --boundaries FILE.npy, float32 "
            f"({num_clips}, {num_frames}, 1), 1 in the frames of the word, else 0."
        )
    return read_boundaries(options.boundaries, num_clips=num_clips, num_frames=num_frames)


def _batches(clips: Iterator[tuple[Span, np.ndarray]], size: int) -> Iterator[list[tuple[Span, np.ndarray]]]:
    while batch := list(islice(clips, size)):
        yield batch


def _ranking(logits_V: np.ndarray, scorer: Scorer, top: int) -> list[list[str | float]]:
    return [[word, share] for word, share in prediction_from_logits(logits_V, scorer.words, top=top).ranking]


def _frame_range(text: str | None, num_frames: int, clip: Path) -> tuple[int, int]:
    """FIRST:LAST as two frame numbers inside the video; the whole video if not given."""
    if text is None:
        return 0, num_frames - 1
    first, colon, last = text.partition(":")
    if not colon or not first.isdigit() or not last.isdigit():
        raise UsageError(f"--frames is {text!r}; expected FIRST:LAST, as in --frames 12:21.")
    if not int(first) <= int(last) < num_frames:
        raise UsageError(f"--frames {text} lies outside {clip}, which has frames 0 to {num_frames - 1}.")
    return int(first), int(last)


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
        lines.append(f"{row['clip']}{truth}  {words}")
    known = [row for row in rows if "word" in row]
    if len(known) > 1:
        right = sum(row["ranking"][0][0] == row["word"] for row in known)
        lines.append(f"{right} of {len(known)} agree with the CSV ({100 * right / len(known):.1f} %)")
    return "\n".join(lines)
