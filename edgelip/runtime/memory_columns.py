"""What a model takes of memory, read at four moments of its process: before it, once loaded, once run, at the end."""

from __future__ import annotations

import time
from typing import Dict, List, Optional

from edgelip.runtime.engines import cuda as cuda_runtime
from edgelip.runtime.errors import EdgelipError
from edgelip.runtime.sensors import process as sensors
from edgelip.runtime.sensors.device_memory import free_memory_mib

Columns = Dict[str, Optional[float]]


class MemoryColumns:
    """`before()`, `loaded()`, `after()` in this order, then `columns()`; on a GPU `gpu` says which memory is read."""

    def __init__(self, *, on_gpu: bool) -> None:
        self._gpu = _Gpu() if on_gpu else None
        self._columns: Columns = {}
        self._available: List[Optional[float]] = []
        self.peak_from = "process start"

    def before(self) -> None:
        """Before the model: what is resident now is where the peak begins."""
        self._columns["rss_before_load"] = sensors.process_memory_mib()["rss"]
        self._available.append(sensors.available_memory_mib())
        if sensors.reset_peak_memory():
            self.peak_from = "clear_refs"

    def start_context(self) -> float:
        """Make the CUDA context that the engine will use; its milliseconds, 0.0 without a GPU."""
        return 0.0 if self._gpu is None else self._gpu.start_context()

    def loaded(self) -> None:
        self._columns["rss_after_load"] = sensors.process_memory_mib()["rss"]
        if self._gpu is not None:
            self._gpu.mark()

    def after(self) -> None:
        """After the run, the model still loaded."""
        after = sensors.process_memory_mib()
        self._columns.update({"rss_after_run": after["rss"], "peak": after["peak"]})
        self._columns.update(sensors.shared_memory_mib())
        self._columns["gpu_mapped"] = sensors.gpu_mapped_memory_mib()
        self._available.append(sensors.available_memory_mib())
        if self._gpu is not None:
            self._gpu.mark()

    def columns(self, *, activation_bytes: Optional[int]) -> Columns:
        """All of it in MiB. activation_bytes: as the engine tells."""
        context, model, run = (None, None, None) if self._gpu is None else self._gpu.taken_mib()
        return {
            **self._columns,
            "arena": None if activation_bytes is None else activation_bytes / 2**20,
            "device_context": context,
            "device_model": model,
            "device_run": run,
            "available_drop": _drop(self._available[0], self._available[-1]),
        }


class _Gpu:
    """Free memory of CUDA's device 0 before its context, after it, and at every mark."""

    def __init__(self) -> None:
        self._free_mib: List[Optional[float]] = []
        self._cuda: Optional[cuda_runtime.Cuda] = None
        self._bus_id = ""
        try:
            self._cuda = cuda_runtime.open_cuda()
            self._bus_id = self._cuda.bus_id()
        except EdgelipError:  # the engine will say what is missing
            self._cuda = None
        self.mark()

    def start_context(self) -> float:
        """Milliseconds; 0.0 where the CUDA runtime cannot be had apart from the engine."""
        if self._cuda is None:
            self.mark()
            return 0.0
        begin_ns = time.perf_counter_ns()
        self._cuda.free(0)  # frees nothing, but needs a context
        context_ms = (time.perf_counter_ns() - begin_ns) / 1e6
        self.mark()
        return context_ms

    def mark(self) -> None:
        self._free_mib.append(free_memory_mib(self._bus_id) if self._cuda is not None else None)

    def taken_mib(self) -> List[Optional[float]]:
        """By the context, by loading, by running. Other processes on that GPU would show in it."""
        return [_drop(before, after) for before, after in zip(self._free_mib, self._free_mib[1:])]


def _drop(before: Optional[float], after: Optional[float]) -> Optional[float]:
    return None if before is None or after is None else before - after
