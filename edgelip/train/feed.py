"""Batches of stored clips in an order that depends on (seed, epoch) alone, so that a resumed run sees the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from edgelip.data.stores.store import Store
from edgelip.train.feature_store import FeatureStore

Batch = tuple[Tensor, Tensor, Tensor]


@final
class StoredClips:
    """A prepared store, read a batch at a time: indices -> (stored clips as the store has them, labels_B,
    boundaries_B2), in page-locked memory where there is a GPU to copy them to.
    """

    def __init__(self, store: Store | FeatureStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store.labels)

    def __getitem__(self, indices: list[int]) -> Batch:
        store, order = self.store, np.sort(np.asarray(indices))  # ascending reads; order inside a batch is free
        labels, boundaries = torch.from_numpy(store.labels[order]), torch.from_numpy(store.boundaries[order])
        batch = torch.from_numpy(np.asarray(store.frames[order])), labels.long(), boundaries.long()
        if torch.cuda.is_available():
            batch = (batch[0].pin_memory(), batch[1], batch[2])
        return batch


@final
class EpochBatches(Sampler[list[int]]):
    """Index lists of one epoch, shuffled by (seed, epoch) or in order where seed is None.

    clips_per_epoch: how many of the clips an epoch draws, others each time; all if None.
    """

    def __init__(
        self, num_clips: int, batch_size: int, *, seed: int | None, clips_per_epoch: int | None = None
    ) -> None:
        self.num_clips, self.batch_size, self.seed, self.epoch = num_clips, batch_size, seed, 0
        self.num_drawn = min(num_clips, clips_per_epoch or num_clips)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        if self.seed is None or self.num_drawn < self.batch_size:
            return -(-self.num_drawn // self.batch_size)
        return self.num_drawn // self.batch_size  # a last, smaller batch would weigh its clips more

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.num_clips)
        if self.seed is not None:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_clips)
        order = order[: self.num_drawn]
        for batch in range(len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()


@final
class ReadAhead:
    """The batches of an epoch, read by a thread of its own while the one before is worked on.

    One thread, no processes: reading is a copy out of the page cache, or a wait for the disk, and numpy does both
    without holding the interpreter. ahead: batches that are read before they are asked for.
    sampler, batch_sampler: the names by which Lightning finds whom to tell the epoch.
    """

    batch_sampler = None

    def __init__(self, clips: StoredClips, sampler: EpochBatches, *, ahead: int = 2) -> None:
        self.clips, self.sampler, self.ahead = clips, sampler, ahead

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        reader = ThreadPoolExecutor(1, thread_name_prefix="edgelip-clips")
        waiting: deque[Future[Batch]] = deque()
        try:
            for indices in self.sampler:
                waiting.append(reader.submit(self.clips.__getitem__, indices))
                if len(waiting) > self.ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # also when the epoch is left early
            reader.shutdown(wait=True, cancel_futures=True)


def loader(
    store: Store | FeatureStore, *, batch_size: int, seed: int | None, clips_per_epoch: int | None = None
) -> ReadAhead:
    """Batches of a store; shuffled each epoch if a seed is given."""
    clips = StoredClips(store)
    return ReadAhead(clips, EpochBatches(len(clips), batch_size, seed=seed, clips_per_epoch=clips_per_epoch))
