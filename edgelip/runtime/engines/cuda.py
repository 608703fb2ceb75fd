"""The few calls of the CUDA runtime that a TensorRT engine needs, by ctypes: boards have no Python package for it."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from edgelip.runtime.errors import BundleError, MissingError

_NAMES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
_WHEEL_FOLDERS = ("nvidia/cu13/lib", "nvidia/cuda_runtime/lib")
_SYSTEM_FOLDERS = ("/usr/local/cuda/lib64", "/usr/local/cuda/lib")

_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2
_MAJOR, _MINOR = 75, 76  # cudaDevAttrComputeCapabilityMajor and -Minor
_OUT_OF_MEMORY = 2
_BUS_ID_BYTES = 32
_NO_DEVICE = (35, 46, 100)  # cudaErrorInsufficientDriver, -DevicesUnavailable, -NoDevice

_SIGNATURES: Dict[str, Tuple[Any, ...]] = {
    "cudaGetDeviceCount": (ctypes.POINTER(ctypes.c_int),),
    "cudaDeviceGetAttribute": (ctypes.POINTER(ctypes.c_int), ctypes.c_int, ctypes.c_int),
    "cudaDeviceGetPCIBusId": (ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
    "cudaRuntimeGetVersion": (ctypes.POINTER(ctypes.c_int),),
    "cudaMalloc": (ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t),
    "cudaFree": (ctypes.c_void_p,),
    "cudaStreamCreate": (ctypes.POINTER(ctypes.c_void_p),),
    "cudaStreamDestroy": (ctypes.c_void_p,),
    "cudaStreamSynchronize": (ctypes.c_void_p,),
    "cudaMemcpyAsync": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p),
}


def library_candidates(search: Sequence[str]) -> List[str]:
    """Where libcudart may be, in order: the loader's own path, wheels below `search`, the toolkit."""
    found = list(_NAMES)
    folders = [Path(place) / wheel for place in search for wheel in _WHEEL_FOLDERS] + [Path(f) for f in _SYSTEM_FOLDERS]
    for folder in folders:
        found.extend(str(folder / name) for name in _NAMES if (folder / name).is_file())
    return found


def open_cuda() -> Cuda:
    """The CUDA runtime of this machine. Raises MissingError if there is none."""
    for candidate in library_candidates(sys.path):
        try:
            return Cuda(ctypes.CDLL(candidate))
        except (OSError, AttributeError):  # not there, of another processor, or something else of that name
            continue
    raise MissingError(
        f"there is no CUDA runtime: none of {', '.join(_NAMES)} can be loaded. Install it (on a Jetson with JetPack), "
        "or put its folder into LD_LIBRARY_PATH."
    )


class Cuda:
    """Device 0 of the CUDA runtime in `library`. Addresses and streams are plain numbers, 0 is none.

    Every call raises MissingError without a device or without enough memory on it, and BundleError naming CUDA's own
    reason where an engine's work failed, which CUDA may say in a later call.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = list(arguments), ctypes.c_int
        for name in ("cudaGetErrorName", "cudaGetErrorString"):
            function = getattr(library, name)
            function.argtypes, function.restype = [ctypes.c_int], ctypes.c_char_p

    def compute_capability(self) -> Tuple[int, int]:
        """(8, 7) on an Orin."""
        count = ctypes.c_int()
        self._call("cudaGetDeviceCount", ctypes.byref(count))
        if count.value == 0:
            raise MissingError(_no_device("cudaGetDeviceCount finds none"))
        numbers = []
        for attribute in (_MAJOR, _MINOR):
            number = ctypes.c_int()
            self._call("cudaDeviceGetAttribute", ctypes.byref(number), attribute, 0)
            numbers.append(number.value)
        return numbers[0], numbers[1]

    def bus_id(self) -> str:
        """'0000:01:00.0', by which other libraries know the device."""
        text = ctypes.create_string_buffer(_BUS_ID_BYTES)
        self._call("cudaDeviceGetPCIBusId", text, _BUS_ID_BYTES, 0)
        return text.value.decode("ascii", "replace")

    def runtime_version(self) -> str:
        """'12.6' of the library itself, whatever the driver can do."""
        number = ctypes.c_int()
        self._call("cudaRuntimeGetVersion", ctypes.byref(number))
        return f"{number.value // 1000}.{number.value % 1000 // 10}"

    def allocate(self, num_bytes: int) -> int:
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), num_bytes)
        return address.value or 0

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def create_stream(self) -> int:
        stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(stream))
        return stream.value or 0

    def destroy_stream(self, stream: int) -> None:
        self._call("cudaStreamDestroy", stream)

    def synchronise(self, stream: int) -> None:
        """Wait until all that was put on the stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def copy_to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        """Put a copy on the stream; `array` is contiguous and must live until synchronise."""
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, _HOST_TO_DEVICE, stream)

    def copy_to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        """The other way; `array` holds the values after synchronise."""
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, _DEVICE_TO_HOST, stream)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code == 0:
            return
        reason = f"{name}: {self._text('Name', code)} ({code}): {self._text('String', code)}"
        if code in _NO_DEVICE:
            raise MissingError(_no_device(reason))
        if code == _OUT_OF_MEMORY:
            raise MissingError(
                f"the CUDA device has too little memory ({reason}). Free some, or use a smaller max_batch."
            )
        raise BundleError(f"CUDA fails in {reason}.")

    def _text(self, kind: str, code: int) -> str:
        text = getattr(self._library, f"cudaGetError{kind}")(code)
        return text.decode("utf-8", "replace") if text else "unknown"


def _no_device(reason: str) -> str:
    return f"there is no CUDA device ({reason}). Run where an NVIDIA GPU and its driver are, or use --engine ort."
