from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_board import ORIN_NANO, write_tree
from hypothesis import given
from hypothesis import strategies as st

from edgelip.runtime.sensors.board import (
    JETPACK_BY_L4T,
    board_facts,
    jetpack_from_l4t,
    jetpack_version,
    jetson_model,
    l4t_from_text,
    l4t_release,
    raspberry_pi_model,
)


def test_jetson_is_named_with_its_release(tmp_path: Path) -> None:
    root = write_tree(tmp_path, ORIN_NANO)
    assert jetson_model(root) == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert l4t_release(root) == "36.4.3"
    assert jetpack_version(root) == "6.2"
    assert raspberry_pi_model(root) is None


def test_module_on_a_carrier_of_another_maker_is_a_jetson(tmp_path: Path) -> None:
    files = {"proc/device-tree/model": "Acme Rugged Box 7", "etc/nv_tegra_release": ORIN_NANO["etc/nv_tegra_release"]}
    assert jetson_model(write_tree(tmp_path, files)) == "Acme Rugged Box 7"


def test_raspberry_pi_is_no_jetson(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0"})
    assert raspberry_pi_model(root) == "Raspberry Pi 5 Model B Rev 1.0"
    assert jetson_model(root) is None
    assert (l4t_release(root), jetpack_version(root)) == (None, None)


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64", "36.4.3"),
        ("# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref", "35.4.1"),
        ("# R38 (release), REVISION: 2.0, GCID: 41844464\n# KERNEL_VARIANT: oot\nTARGET_USERSPACE=lib64", "38.2.0"),
        ("R32 (release), REVISION: 7.1", "32.7.1"),
        ("# R38 (release), REVISION: 2", "38.2"),
        ("", None),
        ("Ubuntu 22.04", None),
    ],
)
def test_release_is_read_from_each_form(text: str, release: str | None) -> None:
    assert l4t_from_text(text) == release


@pytest.mark.parametrize(
    ("release", "jetpack"),
    [
        ("35.4.1", "5.1.2"),
        ("36.4.0", "6.1"),
        ("36.4.3", "6.2"),
        ("36.4.7", "6.2.1"),  # between two known releases: the earlier
        ("38.2", "7.0"),
        ("38.4.0", "7.1"),
        ("39.2.1", "7.2"),
        ("36.9.0", None),
        ("40.1.0", None),
        ("32.4.2", None),  # before the first known of its minor version
        ("", None),
    ],
)
def test_jetpack_follows_from_the_release(release: str, jetpack: str | None) -> None:
    assert jetpack_from_l4t(release) == jetpack


def test_the_table_of_releases_rises_in_both_columns() -> None:
    versions = [tuple(int(part) for part in version.split(".")) for version in JETPACK_BY_L4T.values()]
    assert list(JETPACK_BY_L4T) == sorted(JETPACK_BY_L4T)
    assert versions == sorted(versions)


@given(st.text(max_size=200))
def test_any_text_gives_a_release_or_none(text: str) -> None:
    assert l4t_from_text(text) is None or l4t_from_text(text)
    assert jetpack_from_l4t(text) is None or jetpack_from_l4t(text) in JETPACK_BY_L4T.values()


def test_facts_are_json_and_say_what_the_board_says(tmp_path: Path) -> None:
    facts = board_facts(write_tree(tmp_path, ORIN_NANO))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["jetpack"] == "6.2"
    assert facts["power_mode"] == {"number": 2, "name": "MAXN_SUPER"}
    assert facts["clocks_locked"] is False
    assert facts["over_current_events"] == 2
    assert [zone["name"] for zone in facts["thermal_zones"]] == ["cpu-thermal", "cv0-thermal"]


def test_facts_of_an_empty_machine_are_none_or_empty(tmp_path: Path) -> None:
    assert not any(board_facts(tmp_path).values())


def test_facts_of_this_machine_are_json() -> None:
    assert json.dumps(board_facts())
