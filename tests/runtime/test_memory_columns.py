from __future__ import annotations

import ctypes
from typing import Any

import pytest
from fake_board import FakeNvml

from edgelip.runtime import memory_columns
from edgelip.runtime.errors import MissingError
from edgelip.runtime.memory_columns import MemoryColumns
from edgelip.runtime.sensors.device_memory import free_memory_mib


class NvmlWithMemory(FakeNvml):
    """free_mib: what is free at each reading in turn; None where memory is not told, as on a Jetson."""

    def __init__(self, *free_mib: float | None) -> None:
        super().__init__()
        self._free_mib = iter(free_mib)
        self.asked_for: list[bytes] = []

    def nvmlDeviceGetHandleByPciBusId_v2(self, address: Any, handle: Any) -> int:
        self.asked_for.append(address.value)
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:
        free_mib = next(self._free_mib)
        if free_mib is None:
            return 3
        memory._obj.free = ctypes.c_ulonglong(int(free_mib * 2**20)).value
        return 0


class FakeCuda:
    def __init__(self) -> None:
        self.freed: list[int] = []

    def bus_id(self) -> str:
        return "0000:01:00.0"

    def free(self, address: int) -> None:
        self.freed.append(address)


def test_free_memory_is_that_of_the_device_at_its_address() -> None:
    library = NvmlWithMemory(100.0, None)
    assert free_memory_mib("0000:01:00.0", library=library) == 100.0
    assert free_memory_mib("0000:01:00.0", library=library) is None
    assert library.asked_for == [b"0000:01:00.0"] * 2
    assert library.closed == 2
    assert free_memory_mib("0000:01:00.0", library=FakeNvml()) is None  # a driver older than the functions
    assert free_memory_mib("0000:01:00.0", library=FakeNvml(init_code=9)) is None


def columns_of(memory: MemoryColumns, activation_bytes: int | None = None) -> dict[str, float | None]:
    memory.before()
    memory.start_context()
    memory.loaded()
    memory.after()
    return memory.columns(activation_bytes=activation_bytes)


def test_context_model_and_run_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    library, cuda = NvmlWithMemory(1000.0, 600.0, 520.0, 515.0), FakeCuda()
    monkeypatch.setattr("edgelip.runtime.sensors.device_memory.load_nvml", lambda: library)
    monkeypatch.setattr(memory_columns.cuda_runtime, "open_cuda", lambda: cuda)
    found = columns_of(MemoryColumns(on_gpu=True), 3 << 20)
    assert (found["device_context"], found["device_model"], found["device_run"]) == (400.0, 80.0, 5.0)
    assert found["arena"] == 3.0
    assert cuda.freed == [0]  # which makes the context and frees nothing


def test_without_the_cuda_runtime_nothing_is_said_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise MissingError("there is no CUDA runtime")

    monkeypatch.setattr(memory_columns.cuda_runtime, "open_cuda", missing)
    found = columns_of(MemoryColumns(on_gpu=True))
    assert (found["device_context"], found["device_model"], found["device_run"]) == (None, None, None)


def test_a_processor_has_the_columns_of_its_process() -> None:
    found = columns_of(MemoryColumns(on_gpu=False))
    before, loaded, after, peak = (
        found[name] for name in ("rss_before_load", "rss_after_load", "rss_after_run", "peak")
    )
    assert None not in (before, loaded, after, peak, found["pss"], found["uss"], found["available_drop"])
    assert found["arena"] is None
    assert found["gpu_mapped"] is None
