"""Reading a store of clips: opening it, one clip anywhere, a batch anywhere. Files are in the page cache."""

from __future__ import annotations

import numpy as np
from conftest import NUM_STORED
from pytest_benchmark.fixture import BenchmarkFixture
from surroundings import describe

from edgelip.data.stores.store import Store
from edgelip.train.feed import StoredClips

BATCH = 32


def test_open_store(benchmark: BenchmarkFixture, store: Store) -> None:
    describe(benchmark, threads=1, clips=NUM_STORED)
    assert len(benchmark(Store.open, store.folder)) == NUM_STORED


def test_read_one_clip_anywhere(benchmark: BenchmarkFixture, store: Store) -> None:
    describe(benchmark, threads=1, clips=1)
    clips, rng = StoredClips(store), np.random.default_rng(0)
    frames = benchmark(lambda: clips[[int(rng.integers(NUM_STORED))]][0])
    assert len(frames) == 1


def test_read_batch_anywhere(benchmark: BenchmarkFixture, store: Store) -> None:
    describe(benchmark, threads=1, clips=BATCH)
    clips, rng = StoredClips(store), np.random.default_rng(0)
    frames = benchmark(lambda: clips[rng.choice(NUM_STORED, BATCH, replace=False).tolist()][0])
    assert len(frames) == BATCH
