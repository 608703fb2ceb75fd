from __future__ import annotations

from pathlib import Path

from fake_board import ORIN_NANO, write_tree

from edgelip.runtime.sensors.slowing import limits_mhz, slowed_by, slowing_counts

PI = "sys/devices/platform/soc/soc:firmware/get_throttled"


def test_board_at_rest_is_not_slowed(tmp_path: Path) -> None:
    root = write_tree(tmp_path, ORIN_NANO)
    assert slowed_by(root) == ()
    assert slowing_counts(root) == {"over-current events": 2.0}
    assert limits_mhz(root) == {"policy0": 1728.0, "17000000.gpu": 1020.0}


def test_hot_zone_is_named_with_the_trips_it_reached(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {**ORIN_NANO, "sys/class/thermal/thermal_zone0/temp": "99500"})
    assert slowed_by(root) == ("cpu-thermal at its passive temperature",)


def test_flags_of_a_raspberry_pi_are_told_now_and_since_its_start(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {PI: "50005"})
    assert slowed_by(root) == ("under-voltage", "throttled")
    assert slowing_counts(root) == {"spells of under-voltage": 1.0, "spells of throttled": 1.0}


def test_slow_downs_of_an_x86_processor_are_counted(tmp_path: Path) -> None:
    path = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    assert slowing_counts(write_tree(tmp_path, {path: "4"})) == {"thermal slow-downs of a core": 4.0}
