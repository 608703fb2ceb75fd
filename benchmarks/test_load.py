"""How long a bundle takes to be read and verified, and an engine to be ready for it. Files are in the page cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from surroundings import describe

from edgelip.runtime.bundle import Bundle
from edgelip.runtime.recogniser import Recogniser


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_open_and_verify_bundle(benchmark: BenchmarkFixture, bundles: dict[str, Path], precision: str) -> None:
    describe(benchmark, threads=1, clips=0)
    bundle = benchmark.pedantic(Bundle.open, (bundles[precision],), warmup_rounds=1, rounds=20)
    assert bundle.name == precision


@pytest.mark.parametrize("engine", ["ort", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_load_engine(benchmark: BenchmarkFixture, bundles: dict[str, Path], precision: str, engine: str) -> None:
    pytest.importorskip({"ort": "onnxruntime"}.get(engine, engine))
    bundle = Bundle.open(bundles[precision])
    if not any(engine in model.engines for model in bundle.manifest.models):
        pytest.skip(f"the {precision} bundle of an untrained network has no file for {engine}")
    describe(benchmark, threads=1, clips=0, engine=engine)

    def load() -> None:
        Recogniser(bundle, engine=engine, threads=1).close()

    benchmark.pedantic(load, warmup_rounds=1, rounds=8)
