"""GPUs through NVIDIA's management library (NVML), by ctypes: the library comes with the driver, no package does.

On a Jetson it answers NOT_SUPPORTED for power and clocks; such values are None here.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, List, Optional, Tuple

LIBRARY = "libnvidia-ml.so.1"
NOT_SUPPORTED = 3  # NVML_ERROR_NOT_SUPPORTED
_TEXT_BYTES = 96  # NVML_DEVICE_NAME_V2_BUFFER_SIZE
_GPU_SENSOR = 0  # NVML_TEMPERATURE_GPU
_SM_CLOCK = 1  # NVML_CLOCK_SM
_THROTTLE_REASONS = {  # nvmlClocksEventReason*; idle and the clocks that a user asked for are no throttling
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "thermal slowdown (software)",
    0x40: "thermal slowdown (hardware)",
    0x80: "power brake",
}


@dataclass(frozen=True)
class Gpu:
    """One GPU now; compute_capability as '9.0', None for what the driver does not tell."""

    index: int
    name: Optional[str]
    compute_capability: Optional[str]
    driver: Optional[str]
    power_w: Optional[float]
    temperature_c: Optional[float]
    clock_mhz: Optional[float]
    throttled_by: Tuple[str, ...]


class Nvml:
    """The library, initialised: `with Nvml(library) as nvml`."""

    def __init__(self, library: Any) -> None:
        """library: from `load_nvml`. Raises OSError if the driver does not answer."""
        self._library = library
        code = library.nvmlInit_v2()
        if code:
            raise OSError(f"NVML cannot be initialised (code {code}); expected 0. Is the NVIDIA driver loaded?")

    def count(self) -> int:
        """Number of GPUs that this process may see."""
        found = ctypes.c_uint()
        return 0 if self._library.nvmlDeviceGetCount_v2(ctypes.byref(found)) else int(found.value)

    def gpu(self, index: int) -> Gpu:
        """What the GPU says about itself now."""
        handle = self._handle(index)
        major, minor = ctypes.c_int(), ctypes.c_int()
        code = self._library.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor))
        reasons = ctypes.c_ulonglong()
        if self._library.nvmlDeviceGetCurrentClocksThrottleReasons(handle, ctypes.byref(reasons)):
            reasons.value = 0
        return Gpu(
            index=index,
            name=self._text(self._library.nvmlDeviceGetName, handle),
            compute_capability=None if code else f"{major.value}.{minor.value}",
            driver=self._text(self._library.nvmlSystemGetDriverVersion),
            power_w=self.power_w(index)[0],
            temperature_c=self._number(self._library.nvmlDeviceGetTemperature, handle, _GPU_SENSOR)[0],
            clock_mhz=self._number(self._library.nvmlDeviceGetClockInfo, handle, _SM_CLOCK)[0],
            throttled_by=tuple(name for bit, name in _THROTTLE_REASONS.items() if reasons.value & bit),
        )

    def power_w(self, index: int) -> Tuple[Optional[float], int]:
        """Watts of the GPU's board, a mean of one second on newer GPUs, or None; and NVML's code."""
        milliwatts, code = self._number(self._library.nvmlDeviceGetPowerUsage, self._handle(index))
        return (None if milliwatts is None else milliwatts / 1000), code

    def close(self) -> None:
        self._library.nvmlShutdown()

    def __enter__(self) -> Nvml:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _handle(self, index: int) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle))
        return handle

    def _number(self, function: Any, *arguments: Any) -> Tuple[Optional[float], int]:
        found = ctypes.c_uint()
        code = int(function(*arguments, ctypes.byref(found)))
        return (None if code else float(found.value)), code

    def _text(self, function: Any, *arguments: Any) -> Optional[str]:
        buffer = ctypes.create_string_buffer(_TEXT_BYTES)
        code = function(*arguments, buffer, ctypes.c_uint(_TEXT_BYTES))
        return None if code else buffer.value.decode("utf-8", "replace")


def load_nvml() -> Optional[Any]:
    """The library of this machine's driver; None where there is no NVIDIA driver."""
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        return None


def gpus(library: Optional[Any] = None) -> List[Gpu]:
    """Every GPU of this machine; none without a driver that answers. library: another one, for a test."""
    library = load_nvml() if library is None else library
    if library is None:
        return []
    try:
        with Nvml(library) as nvml:
            return [nvml.gpu(index) for index in range(nvml.count())]
    except (OSError, AttributeError):  # a driver older than these functions
        return []
