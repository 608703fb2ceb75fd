"""From stored frames to the network's input, and from another frame rate to the contract's."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import SPEC, mouth_clips
from pytest_benchmark.fixture import BenchmarkFixture
from surroundings import describe

from edgelip.data.resample import picks_at
from edgelip.runtime.clip import ClipSpec, network_input


@pytest.mark.parametrize("num_clips", [1, 8])
@pytest.mark.parametrize("pixels", [44, 88])
def test_crop_and_normalise(benchmark: BenchmarkFixture, num_clips: int, pixels: int) -> None:
    spec = SPEC if pixels == 44 else ClipSpec()
    describe(benchmark, threads=1, clips=num_clips)
    clips = benchmark(network_input, mouth_clips(num_clips, spec), spec)
    assert clips.shape == (num_clips, 1, spec.frames, pixels, pixels)


def test_resample_a_second_from_30_fps(benchmark: BenchmarkFixture) -> None:
    describe(benchmark, threads=1, clips=1)
    frames_THW = mouth_clips(2, SPEC).reshape(-1, 48, 48)[:30]
    times_T = np.arange(30) / 30

    def to_25_fps() -> np.ndarray:
        return frames_THW[picks_at(times_T, 1 / 30, 25.0)]

    assert len(benchmark(to_25_fps)) == 25
