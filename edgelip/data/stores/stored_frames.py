"""The clips of a store as one array over its shards. numpy only.

Axes: N clips of the store, B clips of a batch.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.data.stores.npy_files import REMEDY, map_npy, npy_bytes, regular_size, size_in_words
from edgelip.data.stores.shards import shard_name
from edgelip.runtime.clip import ClipSpec
from edgelip.runtime.errors import ClipError


class StoredFrames:
    """The clips of a store as one array (N, ...) over its shards; a shard is mapped when it is first read.

    `frames[i]` is a view of the map; slices, index and mask arrays give new arrays, each clip copied once.
    """

    def __init__(self, folder: Path, spec: ClipSpec, shards: Sequence[tuple[int, int]]) -> None:
        """shards: number and clips of each. Raises ClipError if a file is missing, a link or of another size."""
        self._folder, self._shards = folder, tuple(shards)
        self._clip_shape, self.dtype = spec.stored_shape, np.dtype(spec.stored_dtype)
        for number, num_clips in shards:
            path = folder / shard_name(number)
            expected = npy_bytes((num_clips, *self._clip_shape), self.dtype)
            if (got := regular_size(path)) != expected:
                raise ClipError(f"{path} {size_in_words(got)}; expected {expected} bytes. {REMEDY}")
        sizes = np.array([num_clips for _, num_clips in shards], np.int32)
        self._shard_N = np.repeat(np.arange(len(shards), dtype=np.int32), sizes)
        self._row_N = np.arange(len(self._shard_N), dtype=np.int32) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        self._maps: list[np.ndarray | None] = [None] * len(shards)

    def __len__(self) -> int:
        return len(self._shard_N)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self._clip_shape)

    @property
    def ndim(self) -> int:
        return 1 + len(self._clip_shape)

    @property
    def nbytes(self) -> int:
        return len(self) * int(np.prod(self._clip_shape)) * self.dtype.itemsize

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple):
            return self[key[0]][(slice(None),) * (np.ndim(key[0]) or isinstance(key[0], slice)) + key[1:]]
        if isinstance(key, slice):
            return self._gathered(np.arange(len(self))[key])
        indices = np.asarray(key)
        if indices.dtype == np.bool_:
            if indices.shape != (len(self),):
                raise IndexError(f"a mask of {indices.shape} for {len(self)} clips")
            return self._gathered(np.flatnonzero(indices))
        if indices.ndim == 0:
            position = operator.index(key)
            if not -len(self) <= position < len(self):
                raise IndexError(f"clip {position} of {len(self)}")
            view: np.ndarray = self._map(int(self._shard_N[position]))[self._row_N[position]]
            return view
        return self._gathered(indices if indices.size else indices.astype(np.int64))

    def take_into(self, indices_B: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Copy clips into the first B places of `out` (B or more, ...) and return those: no allocation, no torch.

        Raises IndexError outside of 0 .. N-1.
        """
        indices_B = np.asarray(indices_B)
        if len(indices_B) and not (indices_B.min() >= 0 and indices_B.max() < len(self)):
            raise IndexError(f"clips {indices_B.min()}..{indices_B.max()} of {len(self)}")
        maps = self._maps
        shards, rows = self._shard_N[indices_B].tolist(), self._row_N[indices_B].tolist()
        for place, (shard, row) in enumerate(zip(shards, rows, strict=True)):
            clips = maps[shard]
            out[place] = (self._map(shard) if clips is None else clips)[row]
        return out[: len(shards)]

    def only(self, indices: np.ndarray) -> StoredFrames:
        """The same clips in another order or fewer of them; nothing is read."""
        chosen = object.__new__(StoredFrames)
        chosen.__dict__ |= {**vars(self), "_shard_N": self._shard_N[indices], "_row_N": self._row_N[indices]}
        return chosen

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("the clips lie in several files; an array of all of them is a copy")
        whole = self._gathered(np.arange(len(self)))
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[number] for number in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:  # workers of a loader map the files themselves
        return {**vars(self), "_maps": [None] * len(self._maps)}

    def _gathered(self, indices_B: np.ndarray) -> np.ndarray:
        flat = np.where(indices_B < 0, indices_B + len(self), indices_B).ravel()
        taken = self.take_into(flat, np.empty((flat.size, *self._clip_shape), self.dtype))
        return taken.reshape(*indices_B.shape, *self._clip_shape)

    def _map(self, shard: int) -> np.ndarray:
        clips = self._maps[shard]
        if clips is None:
            number, num_clips = self._shards[shard]
            shape = (num_clips, *self._clip_shape)
            clips = self._maps[shard] = map_npy(self._folder / shard_name(number), shape, self.dtype)
        return clips
