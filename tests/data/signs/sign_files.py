"""Small GISLR files with made-up landmarks, and where the real ones lie."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgelip.runtime.landmarks import NUM_POINTS, PARTS

REAL = Path(__file__).parents[4] / "shared" / "data" / "signs"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real sign landmarks at {REAL}")


def made_raw(num_frames: int = 3, *, seed: int = 0) -> np.ndarray:
    """Float32 (T, 543, 3) with a lost hand."""
    raw = np.random.default_rng(seed).random((num_frames, NUM_POINTS, 3), dtype=np.float32)
    raw[0, PARTS["left_hand"].start : PARTS["left_hand"].stop] = np.nan
    return raw


def parquet_table(raw: np.ndarray) -> dict[str, object]:
    """Columns as the competition has them, frames from 20 on."""
    num_frames = len(raw)
    types = [part for part, inside in PARTS.items() for _ in inside]
    index = [place for inside in PARTS.values() for place in range(len(inside))]
    return {
        "frame": np.repeat(np.arange(20, 20 + num_frames), NUM_POINTS).astype(np.int16),
        "row_id": [f"{frame}-{kind}-{i}" for frame in range(num_frames) for kind, i in zip(types, index, strict=True)],
        "type": types * num_frames,
        "landmark_index": np.tile(index, num_frames).astype(np.int16),
        **{axis: raw[..., column].reshape(-1).astype(np.float64) for column, axis in enumerate("xyz")},
    }


def write_parquet(path: Path, raw: np.ndarray, **columns: object) -> Path:
    """columns replaces some; None leaves one out."""
    table = {name: column for name, column in {**parquet_table(raw), **columns}.items() if column is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path)
    return path


def write_hdf5(path: Path, signs: dict[str, tuple[np.ndarray, int]], *, channels_first: bool = True) -> Path:
    with h5py.File(path, "w") as file:
        for name, (raw, token) in signs.items():
            group = file.create_group(name)
            group["feature"] = raw.transpose(2, 0, 1) if channels_first else raw
            group["token"] = np.array([token])
    return path


def write_gislr(root: Path, rows: list[tuple[str, str, str, str]], *, signs: tuple[str, ...] | None = None) -> Path:
    """train.csv of (path, participant_id, sequence_id, sign), a parquet file of each path, a label map of `signs`."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "participant_id", "sequence_id", "sign"])
        writer.writerows(rows)
    for number, (path, *_) in enumerate(rows):
        if not path.startswith(("/", "..")):
            write_parquet(root / path, made_raw(2 + number % 3, seed=number))
    if signs is not None:
        (root / "sign_to_prediction_index_map.json").write_text(json.dumps({sign: i for i, sign in enumerate(signs)}))
    return root
