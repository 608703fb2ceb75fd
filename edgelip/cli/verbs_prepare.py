"""The verb `edgelip data prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from edgelip.cli.arguments import AsJson
from edgelip.cli.mouth_options import AUTO, Landmarks, MeanFace, MouthChoice, MouthModel, MouthOptions, Persons
from edgelip.cli.prepare_options import Axes, ClipOptions, CropPx, Fps, Frames, Points, Pool, RoiPx, Timing
from edgelip.cli.source_options import (
    Annotations,
    Category,
    Endings,
    FirstWords,
    LabelMap,
    ReaderName,
    Root,
    SourceOptions,
    SpeakerPattern,
    Speakers,
    TestShare,
    TestSigners,
    ValShare,
    ValSigners,
    WordList,
    WordOrder,
)


def prepare(
    source: Annotated[Path, typer.Argument(help="Data set: a tree as LRW's, folders of clips, a CSV of spans.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the stores, words.txt and failures.csv.")],
    reader: ReaderName = "auto",
    words: WordList = None,
    word_order: WordOrder = None,
    first_words: FirstWords = None,
    root: Root = None,
    category: Category = None,
    annotations: Annotations = None,
    endings: Endings = None,
    speakers: Speakers = None,
    speaker_pattern: SpeakerPattern = None,
    val_share: ValShare = None,
    test_share: TestShare = None,
    val_signers: ValSigners = None,
    test_signers: TestSigners = None,
    label_map: LabelMap = None,
    mouth: MouthChoice = AUTO,
    landmarks: Landmarks = None,
    mean_face: MeanFace = None,
    persons: Persons = None,
    mouth_model: MouthModel = None,
    timing: Timing = None,
    frames: Frames = None,
    fps: Fps = None,
    roi_px: RoiPx = None,
    pool: Pool = None,
    crop_px: CropPx = None,
    points: Points = None,
    axes: Axes = None,
    jobs: Annotated[Optional[int], typer.Option(min=1, help="Workers; default one a processor.")] = None,
    cluster: Annotated[
        Optional[str],
        typer.Option(metavar="local|ADDRESS", help="On a Ray cluster; --out is then a folder that all machines share."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print clips, room and time needed; write nothing.")
    ] = False,
    clips: Annotated[
        Optional[int], typer.Option(min=1, help="With --dry-run: also what so many clips of this kind take.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find, cut and store every clip of a data set; what cannot be used is counted, listed and left out.

    The same command goes on where a stopped one stood. `edgelip train` reads the result by data.kind = "prepared".
    """
    from edgelip.cli.data_prepare import PrepareOptions, prepare_source

    reading = SourceOptions(
        reader=reader,
        words=words,
        word_order=word_order,
        first_words=first_words,
        root=root,
        category=category,
        annotations=annotations,
        endings=endings,
        speakers=speakers,
        speaker_pattern=speaker_pattern,
        val_share=val_share,
        test_share=test_share,
        val_signers=val_signers,
        test_signers=test_signers,
        label_map=label_map,
    )
    options = PrepareOptions(
        out=out,
        clip=ClipOptions(timing, frames, fps, roi_px, pool, crop_px, points, axes),
        mouth=MouthOptions(mouth, landmarks, mean_face, mouth_model, persons),
        jobs=jobs,
        cluster=cluster,
        dry_run=dry_run,
        scale_to=clips,
    )
    outcome = prepare_source(source, reading, options, as_json=as_json)
    typer.echo(outcome.text)
    if outcome.prepared is not None:
        outcome.prepared.refuse_empty()
