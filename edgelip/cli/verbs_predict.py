"""The verb that reads words: from arrays, landmarks, spans of a CSV, videos, a camera."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from edgelip.cli.arguments import AsJson
from edgelip.cli.mouth_options import AUTO, Landmarks, MeanFace, MouthChoice, MouthModel, MouthOptions, Persons
from edgelip.errors import ClipError, UsageError


def predict(
    model: Annotated[Path, typer.Argument(help="A checkpoint (file) or a bundle (folder).")],
    clip: Annotated[
        Optional[Path],
        typer.Argument(
            help="Video of a face or a mouth ROI, folder of videos, camera:0, .npz/.npy of uint8 frames, "
            "landmarks (T, 543, 3) as .npy/.npz/.parquet, or --normalised array."
        ),
    ] = None,
    frames: Annotated[
        Optional[str], typer.Option(metavar="FIRST:LAST", help="Frames of a video's one word, inclusive.")
    ] = None,
    every: Annotated[
        Optional[int], typer.Option(min=1, help="Frames from one window of a video to the next; default 0.2 s.")
    ] = None,
    mouth: MouthChoice = AUTO,
    landmarks: Landmarks = None,
    mean_face: MeanFace = None,
    persons: Persons = None,
    mouth_model: MouthModel = None,
    sheet: Annotated[Optional[Path], typer.Option(help="Write a contact sheet of the mouth ROIs, PNG.")] = None,
    boxes: Annotated[
        Optional[Path], typer.Option(help="Write where the mouth is, CSV: clip, frame, centre, side, roll.")
    ] = None,
    seconds: Annotated[
        Optional[float], typer.Option(min=0.1, max=60, help="Of camera:N: how long to watch; default 3.")
    ] = None,
    normalised: Annotated[
        bool, typer.Option("--normalised", help="CLIP holds float32 network inputs (B, 1, T, H, W); audio (B, 1, L).")
    ] = False,
    lengths: Annotated[
        Optional[str], typer.Option(metavar="N,N,..", help="Valid frames (audio: samples) of each --normalised clip.")
    ] = None,
    boundaries: Annotated[
        Optional[Path], typer.Option(help="float32 .npy (B, T, 1): 1 in the word's frames, for checkpoints that ask.")
    ] = None,
    logits: Annotated[Optional[Path], typer.Option(help="Also write the scores, float32 (B, V), as .npy.")] = None,
    spans: Annotated[Optional[Path], typer.Option(help="CSV of spans, one row a word, instead of CLIP.")] = None,
    root: Annotated[Optional[Path], typer.Option(help="Folder of the videos of --spans; default its own.")] = None,
    split: Annotated[Optional[str], typer.Option(help="Only the spans of this split.")] = None,
    category: Annotated[Optional[str], typer.Option(help="Only the spans of this category.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many words to print.")] = 3,
    engine: Annotated[Optional[str], typer.Option(help="Inference engine of a bundle; default ort.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read words from a clip or a video, with probabilities and times."""
    from edgelip.cli.predict import ARRAYS, LANDMARKS, ClipOptions, Output, predict_clip, predict_spans, predict_videos
    from edgelip.cli.predict_video import CAMERA, VideoOptions

    of_video = VideoOptions(
        MouthOptions(mouth, landmarks, mean_face, mouth_model, persons), every, sheet, boxes, seconds
    )
    options, output = ClipOptions(frames, normalised, lengths, boundaries), Output(top, as_json, logits)
    if (clip is None) == (spans is None):
        raise UsageError("predict needs either a CLIP or --spans CSV, and not both.")
    no_video = "--every, --mouth and the options with it, --sheet, --boxes and --seconds belong to a"
    if spans is not None:
        if frames is not None:
            raise UsageError("--frames belongs to a single CLIP; --spans names the frames of each row.")
        if options != ClipOptions():
            raise UsageError("--normalised, --lengths and --boundaries belong to a CLIP of arrays, not to --spans.")
        if of_video != VideoOptions():
            raise UsageError(f"{no_video} video, not to --spans.")
        typer.echo(predict_spans(model, spans, output, root=root, split=split, category=category, engine=engine))
        return
    assert clip is not None
    if (root, split, category) != (None, None, None):
        raise UsageError("--root, --split and --category belong to --spans CSV, not to a CLIP.")
    if normalised or clip.suffix in (*ARRAYS, *LANDMARKS):
        if of_video != VideoOptions():
            raise UsageError(f"{no_video} video; {clip} holds clips already.")
        typer.echo(predict_clip(model, clip, options, output, engine=engine))
        return
    if lengths is not None:
        raise UsageError("--lengths belongs to --normalised; other clips are cut to the classifier's own length.")
    if boundaries is not None:
        raise UsageError(f"--boundaries belongs to arrays; those of the video {clip} follow from --frames.")
    if frames is not None and every is not None:
        raise UsageError("--frames names one word and --every lets windows slide. Leave one of them out.")
    if frames is not None and clip.is_dir():
        raise UsageError(f"--frames belongs to a single CLIP; {clip} is a folder.")
    if seconds is not None and not str(clip).startswith(CAMERA):
        raise UsageError(f"--seconds belongs to {CAMERA}N; a video has a length of its own.")
    predicted = predict_videos(model, clip, of_video, output, frames=frames, engine=engine)
    typer.echo(predicted.text)
    if predicted.failed is not None:
        raise ClipError(predicted.failed)
