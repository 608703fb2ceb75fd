"""What a timing of pytest-benchmark says beside its numbers, so that two saved runs can be told apart."""

from __future__ import annotations

from importlib.metadata import version

from pytest_benchmark.fixture import BenchmarkFixture

from edgelip.runtime.sensors import process

PACKAGES = {"ort": "onnxruntime", "openvino": "openvino"}


def describe(benchmark: BenchmarkFixture, *, threads: int, clips: int, engine: str | None = None) -> None:
    """Write device, threads, clips a call and the engine's version into extra_info."""
    machine = process.environment()
    benchmark.extra_info["device"] = f"{machine['cpu']}, {machine['num_cpus_allowed']} processors"
    benchmark.extra_info["threads"] = threads
    benchmark.extra_info["clips"] = clips
    if engine is not None:
        benchmark.extra_info["engine"] = f"{engine} {version(PACKAGES[engine])}"
