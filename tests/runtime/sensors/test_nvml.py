from __future__ import annotations

import pytest
from fake_board import FakeNvml

from edgelip.runtime.sensors.nvml import NOT_SUPPORTED, Gpu, Nvml, gpus


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
