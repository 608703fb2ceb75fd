"""GISLR (Kaggle's asl-signs): `train.csv` with path, participant_id, sequence_id, sign; one parquet file a sign.

Beside it `sign_to_prediction_index_map.json` gives the label order.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from edgelip.data.readers.listing import make_listing
from edgelip.data.readers.samples import Listing, Sample
from edgelip.data.signs.label_map import LABEL_MAP, read_label_map
from edgelip.data.signs.signers import signers_apart
from edgelip.data.unusable import Reason, UnusableClip
from edgelip.errors import ClipError
from edgelip.progress import Progress

TRAIN_CSV = "train.csv"
_COLUMNS = ("path", "participant_id", "sequence_id", "sign")
_MAX_BYTES = 1 << 28


def read_gislr(
    root: Path,
    *,
    words: Sequence[str] | None = None,
    label_map: Path | None = None,
    val_signers: Sequence[str] | None = None,
    test_signers: Sequence[str] | None = None,
    val_share: float | None = None,
    test_share: float | None = None,
    progress: Progress | None = None,
) -> Listing:
    """The signs that `train.csv` names; no parquet file is opened. root: its folder, or the CSV itself.

    words: these alone, in label order; all that occur, in the order of the label map, then by name, if None.
    label_map: `sign_to_prediction_index_map.json`; that beside the CSV if None, where there is one.
    val_signers, test_signers: participants whose signs are for validation and testing alone; val_share, test_share:
    or so many of the signs, by whole signers. Nothing given leaves all for training.
    Raises ClipError for a CSV or map that is broken, UsageError for words, signers or shares that do not fit.
    """
    root = Path(root)
    csv_path = root if root.suffix == ".csv" else root / TRAIN_CSV
    if label_map is None and (beside := csv_path.parent / LABEL_MAP).is_file():
        label_map = beside
    known = None if label_map is None else read_label_map(label_map)
    samples, unusable = [], {}
    for line, row in _rows(csv_path):
        if isinstance(row, Sample):
            samples.append(row)
        else:
            unusable[f"{csv_path.name} line {line}"] = row
    samples, notes = signers_apart(
        samples, val_signers=val_signers, test_signers=test_signers, val_share=val_share, test_share=test_share
    )
    if words is None and known is not None and samples:
        there = {sample.word for sample in samples}
        others = sorted(there.difference(known))
        words = (*(word for word in known if word in there), *others)
        if others:
            notes.append(f"{len(others)} signs are not in {label_map} and follow those that are, such as {others[0]!r}")
    return make_listing(csv_path.parent, samples, words=words, unusable=unusable, notes=notes)


def _rows(csv_path: Path) -> Iterator[tuple[int, Sample | UnusableClip]]:
    """Line number with the sign in it, or with what is wrong."""
    root, seen = csv_path.parent, dict[str, int]()
    real_root = os.path.realpath(root)
    try:
        if csv_path.stat().st_size > _MAX_BYTES:
            raise ClipError(f"{csv_path} has {csv_path.stat().st_size} bytes; {TRAIN_CSV} has at most {_MAX_BYTES}.")
        with csv_path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for name in _COLUMNS:
                if name not in (reader.fieldnames or ()):
                    raise ClipError(f"{csv_path} has no column {name!r}; expected {', '.join(_COLUMNS)}.")
            for row in reader:
                try:
                    sample = _sample(row, root, real_root)
                    if sample.name in seen:
                        raise _bad(f"repeats {sample.name} of line {seen[sample.name]}. Remove one.")
                    seen[sample.name] = reader.line_num
                    yield reader.line_num, sample
                except UnusableClip as error:
                    where = f"{csv_path} line {reader.line_num}"
                    yield reader.line_num, UnusableClip(f"{where} {error}", reason=error.reason)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise ClipError(
            f"{csv_path} cannot be read as CSV ({said}); expected {', '.join(_COLUMNS)}. Check the data root."
        ) from error
    if not seen:
        yield 1, _bad("is all there is; expected rows below the header.")


def _sample(row: Mapping[str | None, str | list[str] | None], root: Path, real_root: str) -> Sample:
    text = {name: str(row.get(name) or "").strip() for name in _COLUMNS}
    for name in ("path", "participant_id", "sign"):
        if not text[name] or not text[name].isprintable():
            raise _bad(f"has {name} {text[name]!a:.60}; expected printable text.")
    windows = PureWindowsPath(text["path"])
    if PurePosixPath(text["path"]).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise _bad(f"has path {text['path']!r:.100}; expected one below the data root, without '..'.", "outside")
    path = root / text["path"]
    target = os.path.realpath(path)
    if os.path.commonpath([target, real_root]) != real_root:
        raise _bad(f"has path {text['path']!r:.100}, a link that leaves the data root. Copy the file.", "outside")
    if not Path(target).is_file():
        raise _bad(f"names {text['path']}, which is not there. Copy it, or remove the row.", "missing")
    return Sample(
        text["sign"],
        path,
        PurePosixPath(text["path"]).as_posix(),
        "train",
        speaker=text["participant_id"],
        clip_id=text["sequence_id"],
    )


def _bad(text: str, reason: Reason = "row") -> UnusableClip:
    return UnusableClip(text, reason=reason)
