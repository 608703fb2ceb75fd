from __future__ import annotations

from pathlib import Path

import pytest
from fake_board import ORIN_NANO, write_tree
from hypothesis import given
from hypothesis import strategies as st

from edgelip.runtime.sensors import board_state
from edgelip.runtime.sensors.board_state import (
    PowerMode,
    clocks_locked,
    cpu_clocks,
    gpu_clocks,
    over_current_events,
    pi_throttling,
    pi_throttling_from_text,
    power_mode,
    power_mode_from_text,
    thermal_zones,
)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NV Power Mode: MAXN_SUPER\n2\n", PowerMode(2, "MAXN_SUPER")),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: 15W\n0\n", PowerMode(0, "15W")),
        ("NV Fan Mode:quiet\nNV Power Mode: MODE_15W_6CORE\n2\n", PowerMode(2, "MODE_15W_6CORE")),
        ("3\n", PowerMode(3, None)),
        ("nvpmodel: command failed", None),
        ("", None),
    ],
)
def test_power_mode_is_read_from_what_nvpmodel_prints(text: str, mode: PowerMode | None) -> None:
    assert power_mode_from_text(text) == mode


def test_power_mode_is_read_from_its_files(tmp_path: Path) -> None:
    assert power_mode(write_tree(tmp_path, ORIN_NANO)) == PowerMode(2, "MAXN_SUPER")


def test_power_mode_without_a_configuration_has_its_number_alone(tmp_path: Path) -> None:
    assert power_mode(write_tree(tmp_path, {"var/lib/nvpmodel/status": "pmode:0001"})) == PowerMode(1, None)


def test_nvpmodel_is_asked_on_this_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_state, "run_tool", lambda *command: "NV Power Mode: MAXN\n0\n")
    assert power_mode(tmp_path) is None
    assert power_mode() == PowerMode(0, "MAXN")


def test_clocks_are_in_megahertz_with_their_limits(tmp_path: Path) -> None:
    root = write_tree(tmp_path, ORIN_NANO)
    (cpu,), (gpu,) = cpu_clocks(root), gpu_clocks(root)  # the video engine's clock is no GPU clock
    assert (cpu.name, cpu.governor, cpu.now_mhz, cpu.lowest_mhz, cpu.highest_mhz) == (
        "policy0",
        "schedutil",
        1420.8,
        729.6,
        1728.0,
    )
    assert (gpu.name, gpu.now_mhz, gpu.highest_mhz) == ("17000000.gpu", 306.0, 1020.0)


CPU_LIMIT = {"sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq": "1728000"}
GPU_LIMIT = {"sys/class/devfreq/17000000.gpu/min_freq": "1020000000"}


@pytest.mark.parametrize(
    ("changed", "locked"), [({}, False), (CPU_LIMIT, False), (GPU_LIMIT, False), ({**CPU_LIMIT, **GPU_LIMIT}, True)]
)
def test_clocks_are_locked_when_all_limits_meet(tmp_path: Path, changed: dict[str, str], locked: bool) -> None:
    assert clocks_locked(write_tree(tmp_path, {**ORIN_NANO, **changed})) is locked


def test_clocks_that_do_not_tell_are_neither_locked_nor_free(tmp_path: Path) -> None:
    assert clocks_locked(tmp_path) is None
    assert clocks_locked(write_tree(tmp_path, {"sys/class/devfreq/17000000.gpu/cur_freq": "1"})) is None


def test_zones_have_names_temperatures_and_trips(tmp_path: Path) -> None:
    cpu, powered_down = thermal_zones(write_tree(tmp_path, ORIN_NANO))
    assert (cpu.name, cpu.temperature_c, cpu.trips_c) == ("cpu-thermal", 50.031, {"passive": 99.0, "critical": 104.5})
    assert cpu.beyond == ()
    assert (powered_down.name, powered_down.temperature_c, powered_down.beyond) == ("cv0-thermal", None, ())


def test_zone_beyond_a_trip_says_which(tmp_path: Path) -> None:
    hot = {**ORIN_NANO, "sys/class/thermal/thermal_zone0/temp": "99000"}
    assert thermal_zones(write_tree(tmp_path, hot))[0].beyond == ("passive",)


def test_trip_that_is_switched_off_does_not_count(tmp_path: Path) -> None:
    off = {**ORIN_NANO, "sys/class/thermal/thermal_zone0/trip_point_0_temp": "-127000"}
    assert thermal_zones(write_tree(tmp_path, off))[0].trips_c == {"critical": 104.5}


def test_over_current_events_are_summed(tmp_path: Path) -> None:
    assert over_current_events(tmp_path) is None
    assert over_current_events(write_tree(tmp_path, ORIN_NANO)) == 2


@pytest.mark.parametrize(
    ("text", "now", "since_boot"),
    [
        ("throttled=0x0\n", [], []),
        ("throttled=0x50005\n", ["under-voltage", "throttled"], ["under-voltage", "throttled"]),
        ("throttled=0x80008", ["soft temperature limit"], ["soft temperature limit"]),
        ("e0002", ["clock capped"], ["clock capped", "throttled", "soft temperature limit"]),
    ],
)
def test_pi_flags_are_named(text: str, now: list[str], since_boot: list[str]) -> None:
    assert pi_throttling_from_text(text) == {"now": now, "since_boot": since_boot}


@pytest.mark.parametrize("text", ["", "VCHI initialization failed", "throttled=", "throttled=0x123456789"])
def test_other_text_has_no_pi_flags(text: str) -> None:
    assert pi_throttling_from_text(text) is None


def test_pi_flags_are_read_from_the_kernel_and_the_command_is_asked_on_this_machine_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_state, "run_tool", lambda *command: "throttled=0x1\n")
    root = write_tree(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "4"})
    assert pi_throttling(root) == {"now": ["throttled"], "since_boot": []}
    assert pi_throttling(tmp_path / "other") is None
    assert pi_throttling() == {"now": ["under-voltage"], "since_boot": []}
    monkeypatch.setattr(board_state, "read_text", lambda path, max_bytes: "4")
    assert pi_throttling() == {"now": ["throttled"], "since_boot": []}


@given(st.text(max_size=200))
def test_no_text_breaks_a_parser(text: str) -> None:
    power_mode_from_text(text)
    pi_throttling_from_text(text)
    board_state.mode_names(text)
