"""The CUDA runtime by ctypes: with a library of Python functions in its place, and with the real one where it is."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelip.runtime.engines import cuda
from edgelip.runtime.engines.cuda import Cuda, library_candidates, open_cuda
from edgelip.runtime.errors import BundleError, EdgelipError, MissingError

ERRORS = {2: ("cudaErrorMemoryAllocation", "out of memory"), 700: ("cudaErrorIllegalAddress", "an illegal access")}
ERRORS[35] = ("cudaErrorInsufficientDriver", "CUDA driver version is insufficient")


class Function:
    """What ctypes gives for a function: callable, with argtypes and restype to set."""

    def __init__(self, body: Callable[..., Any]) -> None:
        self.body = body
        self.argtypes: list[Any] = []
        self.restype: Any = None

    def __call__(self, *arguments: Any) -> Any:
        assert len(arguments) == len(self.argtypes)
        return self.body(*arguments)


class FakeLibrary:
    """libcudart with one device of compute capability 8.7; `failing` gives an error code to a function."""

    def __init__(self, failing: dict[str, int] | None = None, num_devices: int = 1) -> None:
        self.calls: list[tuple[Any, ...]] = []
        failing = failing or {}
        values = {"cudaGetDeviceCount": num_devices, "cudaRuntimeGetVersion": 12060}
        values |= {"cudaMalloc": 4096, "cudaStreamCreate": 7}
        for name in cuda._SIGNATURES:
            setattr(self, name, Function(self._body(name, failing.get(name, 0), values.get(name))))
        self.cudaGetErrorName = Function(lambda code: ERRORS[code][0].encode())
        self.cudaGetErrorString = Function(lambda code: ERRORS[code][1].encode() if code != 700 else None)

    def _body(self, name: str, code: int, value: int | None) -> Callable[..., int]:
        def run(*arguments: Any) -> int:
            if name == "cudaDeviceGetAttribute":
                arguments[0]._obj.value = {75: 8, 76: 7}[arguments[1]]
            elif value is not None:
                arguments[0]._obj.value = value
            self.calls.append((name, *arguments))
            return code

        return run


def test_device_and_version_are_read() -> None:
    device = Cuda(FakeLibrary())
    assert device.compute_capability() == (8, 7)
    assert device.runtime_version() == "12.6"


def test_memory_and_stream_calls_reach_the_library_as_they_should() -> None:
    library = FakeLibrary()
    device = Cuda(library)
    array = np.zeros((2, 3), np.float32)
    address, stream = device.allocate(24), device.create_stream()
    device.copy_to_device(address, array, stream)
    device.copy_to_host(array, address, stream)
    device.synchronise(stream)
    device.free(address)
    device.destroy_stream(stream)
    host = array.ctypes.data
    assert library.calls[0][0::2] == ("cudaMalloc", 24)
    assert library.calls[2:] == [
        ("cudaMemcpyAsync", 4096, host, 24, 1, 7),
        ("cudaMemcpyAsync", host, 4096, 24, 2, 7),
        ("cudaStreamSynchronize", 7),
        ("cudaFree", 4096),
        ("cudaStreamDestroy", 7),
    ]


@pytest.mark.parametrize(
    ("name", "code", "kind", "message"),
    [
        (
            "cudaGetDeviceCount",
            35,
            MissingError,
            "there is no CUDA device (cudaGetDeviceCount: cudaErrorInsufficientDriver (35): CUDA driver version is "
            "insufficient). Run where an NVIDIA GPU and its driver are, or use --engine ort.",
        ),
        (
            "cudaMalloc",
            2,
            MissingError,
            "the CUDA device has too little memory (cudaMalloc: cudaErrorMemoryAllocation (2): out of memory). Free "
            "some, or use a smaller max_batch.",
        ),
        (
            "cudaStreamSynchronize",
            700,
            BundleError,
            "CUDA fails in cudaStreamSynchronize: cudaErrorIllegalAddress (700): unknown.",
        ),
    ],
)
def test_errors_carry_call_name_and_reason(name: str, code: int, kind: type[EdgelipError], message: str) -> None:
    device = Cuda(FakeLibrary({name: code}))
    with pytest.raises(kind) as caught:
        {
            "cudaGetDeviceCount": device.compute_capability,
            "cudaMalloc": lambda: device.allocate(1 << 40),
            "cudaStreamSynchronize": lambda: device.synchronise(7),
        }[name]()
    assert type(caught.value) is kind
    assert str(caught.value) == message


def test_a_driver_without_a_device_is_no_device() -> None:
    with pytest.raises(MissingError, match=r"^there is no CUDA device \(cudaGetDeviceCount finds none\)"):
        Cuda(FakeLibrary(num_devices=0)).compute_capability()


def test_wheels_and_toolkit_are_searched_after_the_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, toolkit = tmp_path / "nvidia/cuda_runtime/lib", tmp_path / "toolkit"
    for folder, name in ((wheel, "libcudart.so.12"), (toolkit, "libcudart.so.11.0"), (toolkit, "libother.so")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    monkeypatch.setattr(cuda, "_SYSTEM_FOLDERS", (str(toolkit),))
    assert library_candidates(["/nowhere", str(tmp_path)]) == [
        "libcudart.so",
        "libcudart.so.13",
        "libcudart.so.12",
        "libcudart.so.11.0",
        str(wheel / "libcudart.so.12"),
        str(toolkit / "libcudart.so.11.0"),
    ]


def test_a_library_that_cannot_be_used_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Any:
        if name == "libcudart.so.12":
            return FakeLibrary()
        if name == "libcudart.so.13":
            return object()  # has none of the functions
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert open_cuda().runtime_version() == "12.6"


def test_no_library_at_all_says_what_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "library_candidates", lambda search: [])
    with pytest.raises(MissingError) as caught:
        open_cuda()
    assert str(caught.value) == (
        "there is no CUDA runtime: none of libcudart.so, libcudart.so.13, libcudart.so.12, libcudart.so.11.0 can be "
        "loaded. Install it (on a Jetson with JetPack), or put its folder into LD_LIBRARY_PATH."
    )


@pytest.mark.gpu
def test_a_copy_goes_to_the_device_and_comes_back() -> None:
    device = open_cuda()
    assert device.compute_capability() >= (5, 0)
    stream, address = device.create_stream(), device.allocate(24)
    sent, received = np.arange(6, dtype=np.float32), np.zeros(6, np.float32)
    device.copy_to_device(address, sent, stream)
    device.copy_to_host(received, address, stream)
    device.synchronise(stream)
    np.testing.assert_array_equal(received, sent)
    device.free(address)
    device.destroy_stream(stream)
