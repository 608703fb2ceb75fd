"""Clips a second of the synthetic generator, rendered 128 at a time as a training set is.

Run: pytest benchmarks/test_generator.py. Timed: from the indices to uint8 frames in memory, on all of torch's
threads. Goal: 150 clips/s on two CPU cores.
"""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from edgelip.data.synthetic.clips import SyntheticSpec, render_clips

CLIPS = 128
SPEC = SyntheticSpec(("BILLION", "MILLION", "SPEND", "SPENT", "PRICE", "PRESS"))


@pytest.mark.parametrize("num_threads", [1, 2])
def test_render_clips_per_second(benchmark: BenchmarkFixture, num_threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        batch = benchmark.pedantic(render_clips, (SPEC, "train", range(CLIPS)), warmup_rounds=1, rounds=8)
    finally:
        torch.set_num_threads(before)
    benchmark.extra_info["threads"] = num_threads
    benchmark.extra_info["clips"] = CLIPS
    benchmark.extra_info["clips_per_s_median"] = CLIPS / benchmark.stats["median"]
    assert batch.frames_BTHW.shape == (CLIPS, 29, 96, 96)
