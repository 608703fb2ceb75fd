"""The verbs of `edgelip data`; each imports only what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from edgelip.cli.arguments import AsJson, Overrides
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
from edgelip.cli.verbs_prepare import prepare

data = typer.Typer(help="Clips: what goes into a classifier.", no_args_is_help=True)


@data.command()
def inspect(
    source: Annotated[Path, typer.Argument(help="Folder of clips, CSV of spans, or prepared clips.")],
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
    sample: Annotated[
        Optional[int], typer.Option(min=1, help="Decode so many files, spread over all; default all.")
    ] = None,
    compare: Annotated[
        Optional[bool],
        typer.Option("--duplicates/--no-duplicates", help="Look for files that are there twice; not with --sample."),
    ] = None,
    jobs: Annotated[Optional[int], typer.Option(min=1, help="Processes; default one a processor core.")] = None,
    sheet: Annotated[Optional[Path], typer.Option(metavar="PNG", help="Also write a contact sheet.")] = None,
    clips: Annotated[int, typer.Option(min=1, max=64, help="Clips on the sheet.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Count clips, words and speakers, decode all, and say what cannot be used, is there twice, or on both sides."""
    from edgelip.cli.data_inspect import inspect_source

    options = SourceOptions(
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
    typer.echo(
        inspect_source(
            source,
            options,
            sample=sample,
            compare=compare,
            jobs=jobs,
            sheet=sheet,
            sheet_clips=clips,
            as_json=as_json,
        )
    )


@data.command()
def preview(
    source: Annotated[Path, typer.Argument(help="A TOML recipe, prepared clips, a folder of clips or a CSV of spans.")],
    set_: Overrides = [],  # noqa: B006  (typer copies it)
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("preview.png"),
    split: Annotated[str, typer.Option(help="train, val or test")] = "train",
    clips: Annotated[int, typer.Option(min=1, max=64, help="Number of clips.")] = 10,
    reader: ReaderName = "auto",
    words: WordList = None,
    root: Root = None,
    category: Category = None,
    annotations: Annotations = None,
) -> None:
    """Write a contact sheet of clips: look at what is learnt from."""
    from edgelip.cli.preview import write_preview

    options = SourceOptions(reader=reader, words=words, root=root, category=category, annotations=annotations)
    typer.echo(write_preview(source, options, overrides=set_, out=out, split=split, num_clips=clips))


data.command()(prepare)
