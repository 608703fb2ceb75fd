"""What a frozen trunk made of stored clips, on disk: safetensors files of bounded size and an index with their hashes.

Axes: N clips, K views of each, T frames, F features.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from pydantic import Field, ValidationError
from safetensors.numpy import save

from edgelip.errors import ClipError, MissingError
from edgelip.files import write_atomic
from edgelip.linked import sha256_of
from edgelip.recipe_sections import Strict

Precision = Literal["fp16", "fp32"]
DTYPES: dict[Precision, type[np.floating[Any]]] = {"fp16": np.float16, "fp32": np.float32}
SHARD_BYTES = 64 << 20
_INDEX, _TENSOR = "features.json", "features"
_MAX_HEADER_BYTES = 4096


class _Shard(Strict):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    num_clips: int = Field(ge=1)


class _Index(Strict):
    version: Literal[1]
    precision: Precision
    shape: tuple[int, int, int, int]  # N, K, T, F
    shard_clips: int = Field(ge=1)
    shards: tuple[_Shard, ...] = Field(max_length=1_000_000)


@final
class FeatureArray:
    """Features (N, K, T, F), read by memory map; indexed by an array of clips."""

    def __init__(self, parts: list[np.ndarray], shape: tuple[int, int, int, int], shard_clips: int) -> None:
        self._parts, self.shape, self._shard_clips = parts, shape, shard_clips
        self.dtype = parts[0].dtype

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self._parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, clips: np.ndarray) -> np.ndarray:
        chosen = np.asarray(clips)
        out = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        shard_of, inside = np.divmod(chosen, self._shard_clips)
        for shard in np.unique(shard_of):
            here = shard_of == shard
            out[here] = self._parts[shard][inside[here]]
        return out


@final
@dataclass(frozen=True, eq=False)
class FeatureStore:
    """Features of the clips of a store, with the labels and boundaries of those: fed to training like the store."""

    frames: FeatureArray
    labels: np.ndarray
    boundaries: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


class FeatureWriter:
    """Fills a folder shard by shard; goes on after the last whole shard of a killed run.

    Raises MissingError, before anything is computed, where the disk has less room than the features take.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int, int], precision: Precision) -> None:
        self.folder, self.shape, self.precision = folder, shape, precision
        clip_bytes = int(np.prod(shape[1:])) * np.dtype(DTYPES[precision]).itemsize
        self.shard_clips = max(1, min(shape[0], SHARD_BYTES // clip_bytes))
        self._shards = self._done_before()
        self.num_done = sum(shard.num_clips for shard in self._shards)
        needed, free = (shape[0] - self.num_done) * clip_bytes, shutil.disk_usage(folder).free
        if needed > free:
            raise MissingError(
                f"cannot write {folder}: the features of {shape[0]} clips take {needed / 1e9:.2f} GB more and "
                f"{free / 1e9:.2f} GB are free. Free space, take fewer views or fp16, or leave out the feature cache."
            )
        self.num_bytes = shape[0] * clip_bytes

    def write(self, features_NKTF: np.ndarray) -> None:
        """Add the next shard: `shard_clips` clips, or the last ones. On disk when this returns."""
        path = _shard_path(self.folder, len(self._shards))
        content = save({_TENSOR: np.ascontiguousarray(features_NKTF, DTYPES[self.precision])})
        write_atomic(path, content)
        self._shards.append(_Shard(sha256=hashlib.sha256(content).hexdigest(), num_clips=len(features_NKTF)))
        self.num_done += len(features_NKTF)
        write_atomic(self.folder / _INDEX, self._index().model_dump_json(indent=1) + "\n")

    def _index(self) -> _Index:
        return _Index(
            version=1,
            precision=self.precision,
            shape=self.shape,
            shard_clips=self.shard_clips,
            shards=tuple(self._shards),
        )

    def _done_before(self) -> list[_Shard]:
        """Shards of a killed run that are whole, in order; none if they are of other features."""
        try:
            index = _Index.model_validate_json((self.folder / _INDEX).read_bytes())
        except (OSError, ValidationError):
            return []
        if (index.precision, index.shape, index.shard_clips) != (self.precision, self.shape, self.shard_clips):
            return []
        whole: list[_Shard] = []
        for shard in index.shards:
            path = _shard_path(self.folder, len(whole))
            if not path.is_file() or sha256_of(path) != shard.sha256:
                break
            whole.append(shard)
        return whole


def open_features(folder: Path) -> FeatureArray:
    """The features in a finished folder; every hash is checked once. Raises ClipError if they are damaged."""
    again = f"Delete {folder} and train again."
    try:
        index = _Index.model_validate_json((folder / _INDEX).read_bytes())
    except (OSError, ValidationError) as error:
        raise ClipError(f"{folder} holds no features that can be read. {again}") from error
    num_clips, *clip_shape = index.shape
    parts = []
    for number, shard in enumerate(index.shards):
        path = _shard_path(folder, number)
        if not path.is_file() or sha256_of(path) != shard.sha256:
            raise ClipError(f"{path} has changed or is missing; expected sha256 {shard.sha256[:12]}. {again}")
        parts.append(_mapped(path, (shard.num_clips, *clip_shape), DTYPES[index.precision], again))
    if sum(len(part) for part in parts) != num_clips or any(len(part) != index.shard_clips for part in parts[:-1]):
        raise ClipError(f"{folder} holds {sum(map(len, parts))} of {num_clips} clips. {again}")
    return FeatureArray(parts, index.shape, index.shard_clips)


def _mapped(path: Path, shape: tuple[int, ...], dtype: type[np.floating[Any]], again: str) -> np.ndarray:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(size, _MAX_HEADER_BYTES))) if size <= _MAX_HEADER_BYTES else {}
    entry = header.get(_TENSOR, {})
    if list(header) != [_TENSOR] or tuple(entry.get("shape", ())) != shape:
        raise ClipError(f"{path} holds other features than its index says. {again}")
    return np.memmap(path, dtype=dtype, mode="r", offset=8 + size, shape=shape)


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"features-{number:05}.safetensors"
