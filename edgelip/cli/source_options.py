"""What a verb is told of a data set: who reads it, which words, and what each reader takes beside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from edgelip.errors import UsageError
from edgelip.words import in_order, read_words

if TYPE_CHECKING:
    from edgelip.data.readers.samples import Listing
    from edgelip.progress import Progress

ReaderName = Annotated[str, typer.Option("--reader", help="lrw, folders, csv, gislr, signer-files; auto: by layout.")]
WordList = Annotated[
    Optional[str], typer.Option("--words", metavar="FILE|WORD,WORD", help="These words alone, in label order.")
]
WordOrder = Annotated[
    Optional[str],
    typer.Option("--word-order", metavar="alphabetical|eflip", help="Labels of --words in this order, not the list's."),
]
FirstWords = Annotated[Optional[int], typer.Option("--first-words", min=1, help="Only so many of --words.")]
Root = Annotated[Optional[Path], typer.Option("--root", help="csv: folder of the videos; default the CSV's.")]
Category = Annotated[Optional[str], typer.Option("--category", help="csv: only the rows of this category.")]
Annotations = Annotated[
    Optional[str],
    typer.Option("--annotations", metavar="FOLDER|none", help="lrw: where the .txt are; default beside the clips."),
]
Endings = Annotated[
    Optional[str], typer.Option("--endings", metavar=".mp4,.npz", help="lrw: of the clips, where a tree has several.")
]
Speakers = Annotated[Optional[Path], typer.Option("--speakers", help="lrw, folders: CSV of path,speaker.")]
SpeakerPattern = Annotated[
    Optional[str],
    typer.Option("--speaker-pattern", metavar="REGEX", help="folders: its first group in a clip's path."),
]
ValShare = Annotated[Optional[float], typer.Option("--val-share", help="folders, signs: share for validation.")]
TestShare = Annotated[Optional[float], typer.Option("--test-share", help="folders, signs: share for testing.")]
ValSigners = Annotated[
    Optional[str], typer.Option("--val-signers", metavar="ID,ID", help="signs: who is for validation alone.")
]
TestSigners = Annotated[
    Optional[str], typer.Option("--test-signers", metavar="ID,ID", help="signs: who is for testing alone.")
]
LabelMap = Annotated[
    Optional[Path], typer.Option("--label-map", help="signs: JSON of each sign's number; default that of the folder.")
]


@dataclass(frozen=True)
class SourceOptions:
    """As given on the command line; None was not given."""

    reader: str = "auto"
    words: str | None = None
    word_order: str | None = None
    first_words: int | None = None
    root: Path | None = None
    category: str | None = None
    annotations: str | None = None
    endings: str | None = None
    speakers: Path | None = None
    speaker_pattern: str | None = None
    val_share: float | None = None
    test_share: float | None = None
    val_signers: str | None = None
    test_signers: str | None = None
    label_map: Path | None = None

    def listing(self, source: Path, progress: Progress) -> Listing:
        """What the reader finds. Raises UsageError for options that do not fit it, and what the reader raises."""
        from edgelip.data.readers.source import read_source

        annotations = self.annotations if self.annotations in (None, "none", "beside") else Path(str(self.annotations))
        return read_source(
            source,
            reader=self.reader,
            words=self.word_list(),
            progress=progress,
            root=self.root,
            category=self.category,
            annotations=annotations,
            endings=None if self.endings is None else tuple(part.strip().lower() for part in self.endings.split(",")),
            speakers=self.speakers,
            speaker_pattern=self.speaker_pattern,
            val_share=self.val_share,
            test_share=self.test_share,
            val_signers=_listed(self.val_signers),
            test_signers=_listed(self.test_signers),
            label_map=self.label_map,
        )

    def word_list(self) -> tuple[str, ...] | None:
        """The words asked for, in label order. Raises UsageError for a list that cannot be read."""
        if self.words is None:
            if self.word_order is not None or self.first_words is not None:
                raise UsageError("--word-order and --first-words belong to --words FILE.")
            return None
        path = Path(self.words)
        if path.is_file() or path.suffix:
            words = read_words(path)
        else:
            words = tuple(word.strip() for word in self.words.split(","))
        return in_order(words, self.word_order or "file", first=self.first_words)

    def refuse_all(self, source: Path) -> None:
        """Raises UsageError if anything was given: for a source that is prepared already."""
        if self != SourceOptions():
            raise UsageError(
                f"{source} is prepared already: options of readers and words have no effect. Leave them out."
            )


def _listed(text: str | None) -> tuple[str, ...] | None:
    """What stands between the commas."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())
