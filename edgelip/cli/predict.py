"""`edgelip predict`: words of real clips through a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.errors import ClipError, UsageError

MAX_CLIPS_BYTES = 1 << 30


def predict_clip(bundle: Path, clip: Path, *, frames: str | None, top: int, engine: str, as_json: bool) -> str:
    """One line a clip: words with probabilities."""
    from edgelip.runtime.bundle import Bundle
    from edgelip.runtime.recogniser import Recogniser

    opened = Bundle.open(bundle)
    with Recogniser(opened, engine=engine) as recogniser:
        if clip.suffix in (".npz", ".npy"):
            from edgelip.runtime.arrays import open_array

            if frames is not None:
                raise UsageError(f"--frames cuts a video; {clip} holds clips already.")
            with open_array(clip, ["frames", "data"]) as stream:
                frames_BTHW = stream.read(limit_bytes=MAX_CLIPS_BYTES)
            frames_BTHW = frames_BTHW if frames_BTHW.ndim == 4 else frames_BTHW[None]
        else:
            from edgelip.data.crops import clip_from_video
            from edgelip.data.video import read_gray_frames

            video = read_gray_frames(clip)
            first, last = _frame_range(frames, len(video.frames_THW), clip)
            frames_BTHW = clip_from_video(video, first, last, opened.manifest.clip, source=str(clip))[None]
        rows = [
            {"clip": str(clip), "ranking": [[word, probability] for word, probability in prediction.ranking]}
            for prediction in recogniser.predict(frames_BTHW, top=top)
        ]
    return _text(rows, as_json=as_json)


def predict_spans(
    bundle: Path,
    csv_path: Path,
    *,
    root: Path | None,
    split: str | None,
    category: str | None,
    top: int,
    engine: str,
    as_json: bool,
) -> str:
    """One line a span: what the CSV says, then words with probabilities; the share that agrees closes the list."""
    from edgelip.data.prepare import SPLITS
    from edgelip.data.spans import load_span_clips, read_spans, select
    from edgelip.runtime.bundle import Bundle
    from edgelip.runtime.recogniser import Recogniser

    if split is not None and split not in SPLITS:
        raise UsageError(f"--split is {split!r}; expected one of {', '.join(SPLITS)}.")
    opened = Bundle.open(bundle)
    spans = select(read_spans(csv_path), split=split, category=category)
    if not spans:
        raise ClipError(f"{csv_path} has no span left after --split and --category.")
    rows: list[dict[str, Any]] = []
    with Recogniser(opened, engine=engine) as recogniser:
        for span, frames in load_span_clips(spans, root or csv_path.parent, opened.manifest.clip):
            prediction = recogniser.predict(np.asarray(frames)[None], top=top)[0]
            rows.append(
                {
                    "clip": span.clip_id or f"{span.video}:{span.first}:{span.last}",
                    "word": span.word,
                    "ranking": [[word, probability] for word, probability in prediction.ranking],
                }
            )
    return _text(rows, as_json=as_json)


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


def _text(rows: list[dict[str, Any]], *, as_json: bool) -> str:
    if as_json:
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
