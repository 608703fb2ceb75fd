"""Chunks of a procedural set made side by side, each on one thread.

Chunks are the better grain: threads that share operations of this size wait for each other, on a busy machine 100 times
longer than they work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Chunk = TypeVar("Chunk")
Made = TypeVar("Made")


def side_by_side(make: Callable[[Chunk], Made], chunks: Sequence[Chunk], num_threads: int) -> list[Made]:
    """What `make` gives of each chunk, in order. torch's number of threads is `num_threads` afterwards."""
    try:
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(make, chunks))
    finally:
        torch.set_num_threads(num_threads)
