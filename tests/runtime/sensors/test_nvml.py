from __future__ import annotations

import pytest
from fake_board import FakeNvml

from edgelip.runtime.sensors.nvml import NOT_SUPPORTED, Gpu, Nvml, gpu_use, gpus


def test_gpu_is_described_with_units() -> None:
    library = FakeNvml()
    assert gpus(library) == [
        Gpu(
            index=0,
            name="NVIDIA H200",
            compute_capability="9.0",
            driver="580.65.06",
            power_w=71.5,
            temperature_c=41.0,
            clock_mhz=1980.0,
            throttled_by=(),
        )
    ]
    assert library.closed == 1


def test_power_that_is_not_supported_is_none_with_the_code() -> None:
    library = FakeNvml(power_mw=None)
    assert gpus(library)[0].power_w is None
    with Nvml(library) as nvml:
        assert nvml.power_w(0) == (None, NOT_SUPPORTED)


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (0x0, ()),
        (0x1, ()),  # idle
        (0x2, ()),  # clocks that a user asked for
        (0x4, ("power cap",)),
        (0x68, ("hardware slowdown", "thermal slowdown (software)", "thermal slowdown (hardware)")),
    ],
)
def test_reasons_of_throttling_are_named(bits: int, names: tuple[str, ...]) -> None:
    assert gpus(FakeNvml(reasons=bits))[0].throttled_by == names


def test_driver_that_does_not_answer_has_no_gpus() -> None:
    library = FakeNvml(init_code=9)
    assert gpus(library) == []
    with pytest.raises(
        OSError, match=r"NVML cannot be initialised \(code 9\); expected 0. Is the NVIDIA driver loaded"
    ):
        Nvml(library)


def test_driver_older_than_a_function_has_no_gpus() -> None:
    assert gpus(object()) == []


def test_processes_that_compute_or_draw_are_listed_once() -> None:
    library = FakeNvml()
    library.computing, library.drawing = [4100, 77], [77]
    with Nvml(library) as nvml:
        assert nvml.process_ids(0) == (77, 4100)
        library.drawing = None
        assert nvml.process_ids(0) == (77, 4100)
        library.computing = None
        assert nvml.process_ids(0) is None


def test_driver_without_lists_of_processes_tells_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for work in ("Compute", "Graphics"):
        for version in ("_v3", "_v2"):
            monkeypatch.delattr(FakeNvml, f"nvmlDeviceGet{work}RunningProcesses{version}", raising=False)
    monkeypatch.delattr(FakeNvml, "nvmlDeviceGetViolationStatus")
    use = gpu_use(FakeNvml())
    assert use is not None
    assert use.process_ids is None
    assert use.held_back_s == {}


def test_gpu_in_use_is_found_by_its_address() -> None:
    with Nvml(FakeNvml()) as nvml:
        assert nvml.index_of("0000:02:00.0") == 2
        assert nvml.index_of("0000:99:00.0") == 0
    use = gpu_use(FakeNvml(), "0000:02:00.0")
    assert use is not None
    assert use.gpu.index == 2


def test_time_held_back_is_told_by_cause() -> None:
    library = FakeNvml()
    library.held_ns = [250_000_000, 1_000]
    with Nvml(library) as nvml:
        assert nvml.held_back_s(0) == {"power cap": 0.25, "thermal slowdown": 1e-6}


@pytest.mark.parametrize("library", [None, object(), FakeNvml(init_code=9)])
def test_use_of_no_gpu_is_none(library: object) -> None:
    assert gpu_use(library) is None
