"""GPUs through NVIDIA's management library (NVML), by ctypes: the library comes with the driver, no package does.

On a Jetson it answers NOT_SUPPORTED for power and clocks; such values are None here.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Set, Tuple

LIBRARY = "libnvidia-ml.so.1"
NOT_SUPPORTED = 3  # NVML_ERROR_NOT_SUPPORTED
_TEXT_BYTES = 96  # NVML_DEVICE_NAME_V2_BUFFER_SIZE
_BUS_ID_BYTES = 32  # NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE
_GPU_SENSOR = 0  # NVML_TEMPERATURE_GPU
_SM_CLOCK = 1  # NVML_CLOCK_SM
_THROTTLE_REASONS = {  # nvmlClocksEventReason*; idle and the clocks that a user asked for are no throttling
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "thermal slowdown (software)",
    0x40: "thermal slowdown (hardware)",
    0x80: "power brake",
}
_HELD_BACK = {0: "power cap", 1: "thermal slowdown"}  # nvmlPerfPolicyType_t
_MOST_PROCESSES = 256
_V = ("_v3", "_v2")  # of the functions that list processes, newest first


class _ViolationTime(ctypes.Structure):
    """nvmlViolationTime_t."""

    _fields_ = [("at_us", ctypes.c_ulonglong), ("held_ns", ctypes.c_ulonglong)]


class _ProcessInfo(ctypes.Structure):
    """nvmlProcessInfo_v2_t, which _v2 and _v3 of the functions fill."""

    _fields_ = [
        ("pid", ctypes.c_uint),
        ("used_bytes", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    ]


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


@dataclass(frozen=True)
class GpuUse:
    """A GPU, the processes on it, and how long it was held back since the driver's start, in seconds by cause."""

    gpu: Gpu
    process_ids: Optional[Tuple[int, ...]]
    held_back_s: Dict[str, float]


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

    def index_of(self, bus_id: str) -> int:
        """Index of the GPU at a PCI address, as '0000:01:00.0'; 0 if there is none.

        CUDA numbers the devices that CUDA_VISIBLE_DEVICES leaves, NVML all of them.
        """
        handle, index = ctypes.c_void_p(), ctypes.c_uint()
        address = ctypes.create_string_buffer(bus_id.encode(), _BUS_ID_BYTES)
        if self._library.nvmlDeviceGetHandleByPciBusId_v2(address, ctypes.byref(handle)):
            return 0
        return 0 if self._library.nvmlDeviceGetIndex(handle, ctypes.byref(index)) else int(index.value)

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

    def process_ids(self, index: int) -> Optional[Tuple[int, ...]]:
        """The processes that compute or draw on the GPU, as the host numbers them; None if the driver does not tell."""
        handle, told = self._handle(index), False
        found: Set[int] = set()
        for work in ("Compute", "Graphics"):
            names = [f"nvmlDeviceGet{work}RunningProcesses{version}" for version in _V]
            function = next(filter(None, map(self._function, names)), None)
            rows = (_ProcessInfo * _MOST_PROCESSES)()
            count = ctypes.c_uint(_MOST_PROCESSES)
            if function is not None and function(handle, ctypes.byref(count), rows) == 0:
                told = True
                found.update(row.pid for row in rows[: count.value])
        return tuple(sorted(found)) if told else None

    def held_back_s(self, index: int) -> Dict[str, float]:
        """Seconds since the driver's start in which the GPU ran below its clocks, by cause, as far as it tells."""
        function = self._function("nvmlDeviceGetViolationStatus")
        found: Dict[str, float] = {}
        for policy, name in _HELD_BACK.items():
            time = _ViolationTime()
            if function is not None and function(self._handle(index), policy, ctypes.byref(time)) == 0:
                found[name] = time.held_ns / 1e9
        return found

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

    def _function(self, name: str) -> Optional[Any]:
        return getattr(self._library, name, None)  # a driver may be older than it

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


def gpu_use(library: Optional[Any], bus_id: Optional[str] = None) -> Optional[GpuUse]:
    """The state of a GPU and who uses it; None without a library or a driver that answers.

    bus_id: its PCI address; default the first.
    """
    if library is None:
        return None
    try:
        with Nvml(library) as nvml:
            index = nvml.index_of(bus_id) if bus_id else 0
            return GpuUse(nvml.gpu(index), nvml.process_ids(index), nvml.held_back_s(index))
    except (OSError, AttributeError):  # as above
        return None
