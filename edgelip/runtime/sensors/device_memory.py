"""Memory of a GPU of its own: how much is free now, and the CUDA context, which takes hundreds of MiB by itself."""

from __future__ import annotations

import ctypes
from typing import Any, Optional

from edgelip.runtime.sensors.nvml import Nvml, load_nvml

_BUS_ID_BYTES = 32  # NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def free_memory_mib(bus_id: str, *, library: Optional[Any] = None) -> Optional[float]:
    """Free memory of the GPU at a PCI address, such as '0000:01:00.0', for all processes together.

    None without a driver that tells: a Jetson has no memory but the machine's. library: another NVML, for a test.
    """
    library = load_nvml() if library is None else library
    if library is None:
        return None
    try:
        with Nvml(library):
            handle, memory = ctypes.c_void_p(), _Memory()
            address = ctypes.create_string_buffer(bus_id.encode(), _BUS_ID_BYTES)
            if library.nvmlDeviceGetHandleByPciBusId_v2(address, ctypes.byref(handle)):
                return None
            code = library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
            return None if code else int(memory.free) / 2**20
    except (OSError, AttributeError):  # no driver behind the library, or one older than these functions
        return None
