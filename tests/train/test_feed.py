from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from edgelip.data.stores.store import Store, StoreWriter
from edgelip.runtime.clip import ClipSpec
from edgelip.train.feed import EpochBatches, ReadAhead, StoredClips, loader

SPEC = ClipSpec(frames=2, roi_px=8, pool=1, crop_px=8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Clip i is filled with i and says word i % 2, from frame i % 2 on."""
    numbers = np.arange(10)
    clips = np.broadcast_to(numbers.astype(np.uint8)[:, None, None, None], (10, 2, 8, 8))
    words = np.stack([numbers % 2, np.ones(10, np.int64)], axis=1)
    folder = tmp_path_factory.mktemp("feed") / "store"
    with StoreWriter(folder, 10, SPEC, words=("A", "B"), source_sha256="0" * 64) as writer:
        writer.write(0, clips, labels_B=numbers % 2, speakers_B=numbers * 0, boundaries_B2=words)
        return writer.finish()


def test_batches_hold_the_clips_that_were_asked_for(store: Store) -> None:
    frames, labels, boundaries = StoredClips(store)[[7, 2, 4]]
    assert frames[:, 0, 0, 0].tolist() == [2, 4, 7]
    assert labels.tolist() == [0, 0, 1]
    assert boundaries.tolist() == [[0, 1], [0, 1], [1, 1]]


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_reading_ahead_changes_no_batch(store: Store, ahead: int) -> None:
    clips = StoredClips(store)
    feed = ReadAhead(clips, EpochBatches(10, 3, seed=1), ahead=ahead)
    seen = []
    for epoch in (0, 1, 0):
        feed.sampler.set_epoch(epoch)
        seen.append([frames[:, 0, 0, 0].tolist() for frames, _, _ in feed])
    assert seen[0] == seen[2] != seen[1]
    alone = EpochBatches(10, 3, seed=1)
    assert seen[0] == [sorted(batch) for batch in alone]
    assert len(feed) == len(seen[0]) == 3


def test_batches_are_read_while_the_one_before_is_worked_on() -> None:
    asked: list[int] = []

    class Watched:
        def __getitem__(self, indices: list[int]) -> object:
            asked.append(len(asked))
            return indices

    feed = ReadAhead(Watched(), EpochBatches(10, 1, seed=None), ahead=2)  # type: ignore[arg-type]
    batches = iter(feed)
    next(batches)
    deadline = time.monotonic() + 10
    while len(asked) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(asked) == 3  # the one given and two ahead, no more
    batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgelip-clips")]


def test_what_fails_in_reading_fails_where_the_batch_is_taken() -> None:
    class Broken:
        def __getitem__(self, indices: list[int]) -> object:
            if indices == [2]:
                raise OSError("the disk is gone")
            return indices

    feed = ReadAhead(Broken(), EpochBatches(5, 1, seed=None), ahead=3)  # type: ignore[arg-type]
    batches = iter(feed)
    assert [next(batches), next(batches)] == [[0], [1]]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgelip-clips")]


def test_a_loader_in_order_gives_every_clip_once(store: Store) -> None:
    batches = [frames[:, 0, 0, 0].tolist() for frames, _, _ in loader(store, batch_size=4, seed=None)]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
