"""Batches of stored clips in an order that depends on (seed, epoch) alone, so that a resumed run sees the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from edgelip.data.store import Store

Batch = tuple[Tensor, Tensor, Tensor]


class StoredClips(Dataset[Batch]):
    """A prepared store, read a batch at a time: indices -> (frames_BTHW uint8, labels_B, boundaries_B2)."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store.labels)

    def __getitem__(self, indices: list[int]) -> Batch:
        store, order = self.store, np.sort(np.asarray(indices))  # ascending reads; order inside a batch is free
        labels, boundaries = torch.from_numpy(store.labels[order]), torch.from_numpy(store.boundaries[order])
        return torch.from_numpy(store.frames[order]), labels.long(), boundaries.long()


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


def loader(store: Store, *, batch_size: int, seed: int | None, clips_per_epoch: int | None = None) -> DataLoader[Batch]:
    """Batches of a store; shuffled each epoch if a seed is given."""
    clips = StoredClips(store)
    sampler = EpochBatches(len(clips), batch_size, seed=seed, clips_per_epoch=clips_per_epoch)
    return DataLoader(clips, sampler=sampler, batch_size=None)
