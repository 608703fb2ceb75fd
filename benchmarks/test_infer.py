"""From frames to words: Recogniser.predict, with crop, normalisation and softmax, on one thread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from surroundings import describe

from edgelip.runtime.bundle import Bundle
from edgelip.runtime.recogniser import Recogniser

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("num_clips", [1, 8])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_predict(
    benchmark: BenchmarkFixture, bundles: dict[str, Path], frames_BTHW: np.ndarray, precision: str, num_clips: int
) -> None:
    describe(benchmark, threads=1, clips=num_clips, engine="ort")
    with Recogniser(Bundle.open(bundles[precision]), engine="ort", threads=1) as recogniser:
        words = benchmark.pedantic(
            recogniser.predict, (frames_BTHW[:num_clips], num_clips), warmup_rounds=20, rounds=200 // num_clips
        )
    assert len(words) == num_clips
