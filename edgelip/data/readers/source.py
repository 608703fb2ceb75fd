"""Readers of data sets by name: each gives a listing of samples and opens no video."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgelip.data.readers.samples import SPLITS, Listing
from edgelip.errors import UsageError
from edgelip.progress import Progress
from edgelip.registry import lookup

READERS = {
    "lrw": "edgelip.data.readers.lrw:read_lrw",
    "folders": "edgelip.data.readers.folders:read_folders",
    "csv": "edgelip.data.readers.spans:read_csv",
    "gislr": "edgelip.data.signs.gislr:read_gislr",
    "signer-files": "edgelip.data.signs.signer_files:read_signer_files",
}
MANIFEST = "words.csv"
TRAIN_CSV = "train.csv"
_MOST_LOOKED_AT = 20


def read_source(
    source: Path,
    *,
    reader: str = "auto",
    words: Sequence[str] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Listing:
    """The samples of `source`, by the reader of that name, or the one that its layout asks for ("auto").

    options: those of the reader; None stands for "not given". Raises UsageError for one that the reader does not take,
    and what the reader raises.
    """
    source = Path(source)
    name = detect_reader(source) if reader == "auto" else reader
    read = lookup(READERS, name, kind="reader", others=["auto"])
    given = {key: value for key, value in options.items() if value is not None}
    takes = inspect.signature(read).parameters
    for key in given:
        if key not in takes:
            others = [other for other in READERS if key in inspect.signature(_reader(other)).parameters]
            raise UsageError(
                f"{key} has no effect on {source}, read as {name!r}; it belongs to "
                f"{' and '.join(others) or 'no reader'}. Leave it out, or name another reader."
            )
    if name == "csv" and source.is_dir():
        source = source / MANIFEST
    listing: Listing = read(source, words=words, progress=progress, **given)
    return listing


def detect_reader(source: Path) -> str:
    """Name of the reader for a file or folder, by a few of its names. Raises UsageError where there is none."""
    source = Path(source)
    if source.suffix.lower() == ".csv":
        return "csv"
    if not source.is_dir():
        what = "is a file" if source.exists() else "does not exist"
        raise UsageError(f"{source} {what}; expected a folder of clips, or a CSV of spans. Check the path.")
    if (source / MANIFEST).is_file():
        return "csv"
    if (source / TRAIN_CSV).is_file():
        return "gislr"
    if any(source.glob("*.hdf5")):
        return "signer-files"
    folders = _folders(source)
    if any(folder in SPLITS for folder in folders):
        return "folders"
    for folder in folders[:_MOST_LOOKED_AT]:
        below = _folders(source / folder)
        if any(name in SPLITS for name in below) or any(
            split in _folders(source / folder / name) for name in below[:1] for split in SPLITS
        ):
            return "lrw"
    return "folders"


def _reader(name: str) -> Any:
    return lookup(READERS, name, kind="reader")


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []
