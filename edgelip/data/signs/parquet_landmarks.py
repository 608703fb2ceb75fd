"""One sign in a parquet file, as GISLR distributes them: a row for each frame and landmark.

Axes: T frames, 543 landmarks, A coordinates (x, y, z).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgelip.data.unusable import UnusableClip
from edgelip.registry import require
from edgelip.runtime.landmarks import NUM_POINTS, PARTS

MAX_FRAMES = 5000
_MAX_BYTES = 1 << 29  # packed or not
_AXES = ("x", "y", "z")
_PLACES = ("frame", "type", "landmark_index")
_EXPECTED = f"columns frame, type, landmark_index, x, y, z and {NUM_POINTS} rows a frame"


def read_parquet(path: Path) -> np.ndarray:
    """Float32 (T, 543, 3), NaN where a landmark is lost, frames in order; needs pyarrow.

    Rows may come in any order; a file with the columns x, y, z alone has them by frame and landmark.
    Raises UnusableClip naming the file: missing, damaged, too large, or of another form.
    """
    arrow, parquet = require("pyarrow", extra="signs"), require("pyarrow.parquet", extra="signs")
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise UnusableClip(f"{path} has {size} bytes; one sign has at most {_MAX_BYTES}.", reason="too large")
        with parquet.ParquetFile(path) as file:
            _check_size(path, file)
            columns = _columns(path, file.schema_arrow.names)
            table = file.read(columns=columns)
        xyz_NA = np.stack([_numbers(path, table, axis) for axis in _AXES], axis=1)
        if len(columns) == len(_AXES):
            return xyz_NA.reshape(-1, NUM_POINTS, 3)
        return _placed(path, xyz_NA, _numbers(path, table, "frame"), _columns_of_rows(path, table))
    except FileNotFoundError:
        raise UnusableClip(f"{path} does not exist; expected a parquet file of one sign.", reason="missing") from None
    except (OSError, arrow.ArrowException) as error:  # ArrowInvalid is a ValueError
        denied = isinstance(error, PermissionError)
        said = " ".join(str(error).split())[:200]
        raise UnusableClip(
            f"{path} cannot be read as parquet ({said}). Copy it again.", reason="unreadable" if denied else "damaged"
        ) from error


def _check_size(path: Path, file: Any) -> None:
    metadata = file.metadata
    num_rows = metadata.num_rows
    if num_rows == 0 or num_rows % NUM_POINTS or num_rows > MAX_FRAMES * NUM_POINTS:
        raise UnusableClip(
            f"{path} has {num_rows} rows; expected {NUM_POINTS} a frame, 1 to {MAX_FRAMES} frames.", reason="landmarks"
        )
    unpacked = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    if unpacked > _MAX_BYTES:
        raise UnusableClip(f"{path} unpacks to {unpacked} bytes; the limit is {_MAX_BYTES}.", reason="too large")


def _columns(path: Path, names: list[str]) -> list[str]:
    """The columns to read. Raises UnusableClip if one is missing."""
    placed = [name for name in _PLACES if name in names]
    missing = [name for name in (*_AXES, *(_PLACES if placed else ())) if name not in names]
    if missing:
        raise UnusableClip(f"{path} has no column {missing[0]!r}; expected {_EXPECTED}.", reason="landmarks")
    return [*placed, *_AXES]


def _numbers(path: Path, table: Any, name: str) -> np.ndarray:
    column = table.column(name)
    try:
        values: np.ndarray = column.to_numpy()  # a null becomes NaN
        if values.dtype.kind not in "iuf":
            raise ValueError(f"{column.type}")
        numbers: np.ndarray = values.astype(np.float32 if name in _AXES else np.float64)
    except (ValueError, TypeError) as error:
        raise UnusableClip(
            f"{path}: column {name!r} holds {column.type}; expected numbers, {_EXPECTED}.", reason="landmarks"
        ) from error
    return numbers


def _columns_of_rows(path: Path, table: Any) -> np.ndarray:
    """Which of the 543 landmarks each row is."""
    types, index_N = table.column("type").combine_chunks(), _numbers(path, table, "landmark_index")
    codes = types.dictionary_encode() if hasattr(types, "dictionary_encode") else types
    names = codes.dictionary.to_pylist()
    unknown = [name for name in names if name not in PARTS]
    if unknown or codes.null_count:
        what = repr(unknown[0]) if unknown else "an empty one"
        raise UnusableClip(f"{path} has the type {what}; expected {', '.join(PARTS)}.", reason="landmarks")
    starts = np.array([PARTS[name].start for name in names], np.int64)
    lengths = np.array([len(PARTS[name]) for name in names], np.int64)
    codes_N = codes.indices.to_numpy()
    if not ((index_N >= 0) & (index_N < lengths[codes_N]) & (index_N == np.floor(index_N))).all():
        raise UnusableClip(f"{path} has a landmark_index that its type does not have.", reason="landmarks")
    columns_N: np.ndarray = starts[codes_N] + index_N.astype(np.int64)
    return columns_N


def _placed(path: Path, xyz_NA: np.ndarray, frame_N: np.ndarray, column_N: np.ndarray) -> np.ndarray:
    """Each row at its frame and landmark; every place filled once."""
    if not np.isfinite(frame_N).all():
        raise UnusableClip(f"{path} has a frame without a number; expected {_EXPECTED}.", reason="landmarks")
    frames, rank_N = np.unique(frame_N, return_inverse=True)
    place_N = rank_N * NUM_POINTS + column_N
    num_places = len(frames) * NUM_POINTS
    if len(place_N) != num_places or (np.bincount(place_N, minlength=num_places) != 1).any():
        raise UnusableClip(
            f"{path} lacks landmarks in some of its {len(frames)} frames, or has one twice; expected {_EXPECTED}.",
            reason="landmarks",
        )
    placed_NA = np.empty_like(xyz_NA)
    placed_NA[place_N] = xyz_NA
    return placed_NA.reshape(len(frames), NUM_POINTS, 3)
