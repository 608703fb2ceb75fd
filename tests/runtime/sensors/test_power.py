from __future__ import annotations

from pathlib import Path

import pytest
from fake_board import FakeNvml, rails, write_tree
from hypothesis import given
from hypothesis import strategies as st

from edgelip.runtime.errors import MeasurementError
from edgelip.runtime.sensors.power import (
    CPU_PACKAGE,
    GPU_BOARD,
    MODULE_INPUT,
    RAILS,
    RaplSource,
    find_power_sources,
    total_of_rails,
)

ORIN_NANO = rails(1, ("VDD_IN", 5000, 1000), ("VDD_CPU_GPU_CV", 5000, 200), ("VDD_SOC", 5000, 300))
AGX_ORIN = {
    **rails(1, ("VDD_GPU_SOC", 20000, 250), ("VDD_CPU_CV", 20000, 50), ("VIN_SYS_5V0", 5000, 600)),
    **rails(2, ("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 200), ("NC", 0, 0)),
}
AGX_XAVIER = {
    **rails(1, ("GPU", 19000, 100), ("CPU", 19000, 200), ("SOC", 19000, 300)),
    **rails(2, ("CV", 19000, 0), ("VDDRQ", 19000, 50), ("SYS5V", 5000, 400)),
}
THOR = {
    **rails(1, ("VDD_GPU", 20000, -20), ("VDD_CPU_SOC_MSS", 20000, 400), ("VIN_SYS_5V0", 5000, 900)),
    **rails(2, ("", 20000, 1500), name="ina238"),
}
NANO = rails(1, ("POM_5V_IN", 5000, 400), ("POM_5V_GPU", 5000, 40), ("POM_5V_CPU", 5000, 90))


@pytest.mark.parametrize(
    ("files", "boundary", "rank", "watts"),
    [
        (ORIN_NANO, "module input VDD_IN", MODULE_INPUT, 5.0),
        (NANO, "module input POM_5V_IN", MODULE_INPUT, 2.0),
        (THOR, "module input VIN", MODULE_INPUT, 30.0),
        (AGX_ORIN, "rails VDD_CPU_CV+VDD_GPU_SOC+VIN_SYS_5V0", RAILS, 5.0 + 1.0 + 3.0),
        (AGX_XAVIER, "rails CPU+CV+GPU+SOC+SYS5V+VDDRQ", RAILS, 19 * 0.65 + 2.0),
    ],
)
def test_module_input_stands_alone_and_rails_are_summed(
    tmp_path: Path, files: dict[str, str], boundary: str, rank: int, watts: float
) -> None:
    (source,) = find_power_sources(write_tree(tmp_path, files))
    assert (source.name, source.boundary, source.rank) == ("ina", boundary, rank)
    assert source.read() == pytest.approx(watts)


def test_idle_rail_may_be_negative(tmp_path: Path) -> None:
    (source,) = find_power_sources(write_tree(tmp_path, rails(1, ("VDD_GPU", 20000, -20), ("VDD_SOC", 5000, 100))))
    assert source.read() == pytest.approx(-0.4 + 0.5)


def test_sampling_period_is_twice_the_conversion_time(tmp_path: Path) -> None:
    (source,) = find_power_sources(write_tree(tmp_path, rails(1, ("VDD_IN", 5000, 1000), interval_ms=33)))
    assert source.min_period_s == pytest.approx(0.066)


def test_channels_that_are_off_or_shunt_sums_are_not_rails(tmp_path: Path) -> None:
    off = {**AGX_XAVIER, "sys/class/hwmon/hwmon2/in1_enable": "0", "sys/class/hwmon/hwmon1/in7_label": "sum of shunts"}
    (source,) = find_power_sources(write_tree(tmp_path, off))
    assert source.boundary == "rails CPU+GPU+SOC+SYS5V+VDDRQ"


def test_other_monitors_are_no_power_sources(tmp_path: Path) -> None:
    assert find_power_sources(write_tree(tmp_path, rails(1, ("VDD_IN", 5000, 1000), name="nct6775"))) == []


def test_rail_that_goes_away_is_an_error(tmp_path: Path) -> None:
    (source,) = find_power_sources(write_tree(tmp_path, ORIN_NANO))
    (tmp_path / "sys/class/hwmon/hwmon1/curr1_input").unlink()
    with pytest.raises(MeasurementError, match=r"rail VDD_IN gives no power \(.*in1_input\); expected millivolts and"):
        source.read()


@given(st.sets(st.sampled_from(["VDD_IN", "POM_5V_IN", "VIN", "VIN_SYS_5V0", "VDD_GPU", "VDDQ_VDD2_1V8AO", "CPU"])))
def test_a_total_never_shares_a_sum_with_a_rail(names: set[str]) -> None:
    boundary, rank, added = total_of_rails(names)
    totals = names & {"VDD_IN", "POM_5V_IN", "VIN"}
    assert set(added) <= names
    if totals:
        assert (rank, len(added)) == (MODULE_INPUT, 1)
        assert added[0] in totals
        assert boundary == f"module input {added[0]}"
    else:
        assert rank == RAILS
        assert names - set(added) <= {"VDDQ_VDD2_1V8AO"}


def _package(position: int, *, used_uj: int, range_uj: int | None = 262_143_328_850) -> dict[str, str]:
    folder = f"sys/class/powercap/intel-rapl:{position}"
    files = {f"{folder}/name": f"package-{position}", f"{folder}/energy_uj": str(used_uj)}
    if range_uj is not None:
        files[f"{folder}/max_energy_range_uj"] = str(range_uj)
    return files


def _rapl(root: Path, times_s: list[float]) -> RaplSource:
    folders = sorted((root / "sys/class/powercap").glob("intel-rapl:?"))
    clock = iter(times_s)
    return RaplSource({f"package-{folder.name[-1]}": folder for folder in folders}, clock=lambda: next(clock))


def test_rapl_gives_mean_watts_since_the_last_reading(tmp_path: Path) -> None:
    source = _rapl(write_tree(tmp_path, _package(0, used_uj=1_000_000)), [0.0, 2.0, 2.5])
    write_tree(tmp_path, _package(0, used_uj=21_000_000))
    assert source.read() == pytest.approx(10.0)
    assert source.read() == 0.0
    assert source.reads_mean


def test_rapl_counter_wraps_around(tmp_path: Path) -> None:
    source = _rapl(write_tree(tmp_path, _package(0, used_uj=999_000, range_uj=1_000_000)), [0.0, 0.5])
    write_tree(tmp_path, _package(0, used_uj=4_000, range_uj=1_000_000))
    assert source.read() == pytest.approx(0.01)  # 1,000 to the end of the range and 4,000 after it, in 0.5 s


def test_rapl_counter_that_falls_without_a_range_is_an_error(tmp_path: Path) -> None:
    source = _rapl(write_tree(tmp_path, _package(0, used_uj=9, range_uj=None)), [0.0, 1.0])
    write_tree(tmp_path, _package(0, used_uj=4, range_uj=None))
    with pytest.raises(
        MeasurementError, match="the RAPL counter of package-0 fell and gives no range; expected max_ene"
    ):
        source.read()


def test_packages_are_summed_and_named_and_their_parts_are_not(tmp_path: Path) -> None:
    files = {**_package(0, used_uj=0), **_package(1, used_uj=0), **_package(2, used_uj=0)}
    files["sys/class/powercap/intel-rapl:2/name"] = "psys"
    files["sys/class/powercap/intel-rapl:0:0/name"] = "core"
    (source,) = find_power_sources(write_tree(tmp_path, files))
    assert (source.boundary, source.rank) == ("CPU package, RAPL package-0+package-1", CPU_PACKAGE)
    assert source.read() == 0.0


def test_two_readings_at_one_time_are_an_error(tmp_path: Path) -> None:
    source = _rapl(write_tree(tmp_path, _package(0, used_uj=0)), [1.0, 1.0])
    with pytest.raises(MeasurementError, match="read twice at one time; expected some time between readings"):
        source.read()


def test_counter_that_may_not_be_read_is_told_and_left_out(tmp_path: Path) -> None:
    files = _package(0, used_uj=0)
    del files["sys/class/powercap/intel-rapl:0/energy_uj"]  # tests run as root, who may read everything
    told: list[str] = []
    assert find_power_sources(write_tree(tmp_path, files), say=told.append) == []
    assert told == [
        "the RAPL counters of ['package-0'] cannot be read. The kernel lets root alone read them: run as root, or make "
        "energy_uj readable."
    ]


def test_gpu_gives_watts_of_its_board(tmp_path: Path) -> None:
    (source,) = find_power_sources(tmp_path, nvml_library=FakeNvml())
    assert (source.name, source.boundary, source.rank) == ("gpu0", "GPU board, NVML (NVIDIA H200)", GPU_BOARD)
    assert source.read() == 71.5


def test_gpu_that_stops_answering_is_an_error(tmp_path: Path) -> None:
    library = FakeNvml()
    (source,) = find_power_sources(tmp_path, nvml_library=library)
    library.power_mw, library.power_code = None, 15
    with pytest.raises(MeasurementError, match=r"NVML gives no power of GPU 0 \(code 15\); expected milliwatts"):
        source.read()


@pytest.mark.parametrize(
    ("library", "message"),
    [
        (
            FakeNvml(power_mw=None),
            "NVML does not support power of GPU 0 (NOT_SUPPORTED, as on every Jetson); use its rails.",
        ),
        (FakeNvml(power_mw=None, power_code=4), "NVML gives no power of GPU 0 (code 4)."),
        (FakeNvml(init_code=9), "NVML does not answer: NVML cannot be initialised (code 9)"),
    ],
)
def test_gpu_without_power_is_told_and_left_out(tmp_path: Path, library: FakeNvml, message: str) -> None:
    told: list[str] = []
    (source,) = find_power_sources(write_tree(tmp_path, ORIN_NANO), nvml_library=library, say=told.append)
    assert source.boundary == "module input VDD_IN"
    assert len(told) == 1
    assert told[0].startswith(message)


def test_sources_are_ranked_by_what_their_boundary_holds(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {**ORIN_NANO, **_package(0, used_uj=0)})
    sources = find_power_sources(root, nvml_library=FakeNvml())
    assert [source.name for source in sources] == ["ina", "gpu0", "rapl"]


def test_this_machine_is_searched_without_error() -> None:
    assert all(source.boundary for source in find_power_sources())


ORIN_LINE = "RAM 3452/7620MB CPU [1%@1420,off] VDD_IN 4824mW/4824mW VDD_CPU_GPU_CV 518mW/518mW VDD_SOC 1475mW/1475mW"
NANO_LINE = "RAM 1545/3919MB POM_5V_IN 2100/2000 POM_5V_GPU 40/40"


@pytest.mark.parametrize(
    ("line", "boundary", "watts"),
    [(ORIN_LINE, "module input VDD_IN", 4.824), (NANO_LINE, "module input POM_5V_IN", 2.1)],
)
def test_tegrastats_serves_where_hwmon_shows_nothing(tmp_path: Path, line: str, boundary: str, watts: float) -> None:
    (source,) = find_power_sources(tmp_path, tegrastats_line=lambda: line)
    assert (source.name, source.boundary) == ("tegrastats", boundary)
    assert source.read() == pytest.approx(watts)


@pytest.mark.parametrize("line", [None, "", "no such monitor", "RAM 1545/3919MB CPU [off]"])
def test_tegrastats_without_rails_is_no_source(tmp_path: Path, line: str | None) -> None:
    assert find_power_sources(tmp_path, tegrastats_line=lambda: line) == []


def test_tegrastats_that_falls_silent_is_an_error(tmp_path: Path) -> None:
    lines = iter([ORIN_LINE, None])
    (source,) = find_power_sources(tmp_path, tegrastats_line=lambda: next(lines))
    with pytest.raises(MeasurementError, match=r"^tegrastats gives no power of VDD_IN; expected milliwatts\.$"):
        source.read()
