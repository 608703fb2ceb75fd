"""Which wheels a machine can load: the rules of the packaging specifications, on machines made up here."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgelip.runtime.errors import MissingError
from edgelip.runtime.packed import wheel_tags
from edgelip.runtime.packed.wheel_tags import Machine, check_wheels, fits, this_machine

BOARD = Machine((3, 11), "CPython", "cp311", "linux", "aarch64", (2, 36))
MAC = replace(BOARD, system="darwin", processor="arm64", glibc=None)
ALPINE = replace(BOARD, glibc=None)

FIT = [
    ("py3-none-any", BOARD),
    ("py3-none-any", ALPINE),
    ("py311-none-any", BOARD),
    ("cp311-cp311-manylinux_2_28_aarch64", BOARD),
    ("cp311-cp311-manylinux_2_36_aarch64", BOARD),
    ("cp311-cp311-manylinux2014_aarch64", BOARD),
    ("cp311-cp311-linux_aarch64", BOARD),
    ("cp311-none-manylinux_2_28_aarch64", BOARD),
    ("cp38-abi3-manylinux_2_28_aarch64", BOARD),
    ("cp311-abi3-manylinux_2_28_aarch64", BOARD),
    ("py3-none-manylinux_2_28_aarch64", BOARD),
    ("cp311-cp311-macosx_11_0_arm64", MAC),
    ("cp311-cp311-macosx_10_9_universal2", MAC),
    ("cp311-cp311-musllinux_1_2_aarch64", ALPINE),
    ("cp313-cp313t-linux_aarch64", replace(BOARD, python=(3, 13), abi="cp313t")),
]
MISFIT = [
    ("py2-none-any", BOARD),
    ("cp310-cp310-manylinux_2_28_aarch64", BOARD),
    ("cp312-cp312-manylinux_2_28_aarch64", BOARD),
    ("cp312-abi3-manylinux_2_28_aarch64", BOARD),
    ("cp311-cp311t-manylinux_2_28_aarch64", BOARD),
    ("cp311-cp311-manylinux_2_28_x86_64", BOARD),
    ("cp311-cp311-manylinux_2_28_armv7l", BOARD),
    ("cp311-cp311-manylinux_2_37_aarch64", BOARD),
    ("cp311-cp311-manylinux_3_0_aarch64", BOARD),
    ("cp311-cp311-manylinux_2_28_aarch64", ALPINE),
    ("cp311-cp311-musllinux_1_2_aarch64", BOARD),
    ("cp311-cp311-macosx_11_0_arm64", BOARD),
    ("cp311-cp311-manylinux_2_28_aarch64", MAC),
    ("cp311-cp311-macosx_11_0_x86_64", MAC),
    ("cp311-cp311-win_amd64", BOARD),
    ("pp311-pypy311_pp73-manylinux_2_28_aarch64", BOARD),
    ("cp311-cp311-manylinux_2_28_aarch64", replace(BOARD, implementation="PyPy")),
    ("cp313-cp313-linux_aarch64", replace(BOARD, python=(3, 13), abi="cp313t")),
    ("cp38-abi3-linux_aarch64", replace(BOARD, python=(3, 13), abi="cp313t")),
    ("cp311-cp311-manylinux_2_28_aarch64", replace(BOARD, processor="armv7l")),
    ("cp-cp-any", BOARD),
    ("", BOARD),
]


@pytest.mark.parametrize(("tag", "machine"), FIT, ids=str)
def test_a_wheel_fits(tag: str, machine: Machine) -> None:
    assert fits(tag, machine)


@pytest.mark.parametrize(("tag", "machine"), MISFIT, ids=str)
def test_a_wheel_does_not_fit(tag: str, machine: Machine) -> None:
    assert not fits(tag, machine)


def test_the_packages_installed_here_fit_here() -> None:
    import numpy

    for folder in {Path(numpy.__file__).parents[1]}:
        infos = [path for path in folder.glob("numpy-*.dist-info/WHEEL") if path.is_file()]
        assert infos
        for info in infos:
            tags = wheel_tags.tags_from_text(info.read_text())
            assert any(fits(tag, this_machine()) for tag in tags), tags


def test_one_fitting_tag_of_several_is_enough(tmp_path: Path) -> None:
    info = tmp_path / "numpy-2.4.6.dist-info"
    info.mkdir()
    tags = ["cp311-cp311-manylinux_2_27_aarch64", "cp311-cp311-manylinux_2_28_aarch64"]
    (info / "WHEEL").write_text("Wheel-Version: 1.0\n" + "".join(f"Tag: {tag}\n" for tag in tags))
    check_wheels(tmp_path, replace(BOARD, glibc=(2, 27)))
    with pytest.raises(MissingError) as caught:
        check_wheels(tmp_path, replace(BOARD, glibc=(2, 26)))
    assert str(caught.value) == (
        "this pack carries numpy 2.4.6 for cp311-cp311-manylinux_2_27_aarch64, cp311-cp311-manylinux_2_28_aarch64; "
        "this is CPython 3.11 on linux aarch64 with glibc 2.26. Pack again with a wheel of numpy that fits."
    )


def test_a_32_bit_python_takes_no_64_bit_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_tags.platform, "machine", lambda: "aarch64")
    assert this_machine().processor == "aarch64"
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    assert this_machine().processor == "armv7l"


def test_another_c_library_has_no_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    def confstr(_: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(wheel_tags.os, "confstr", confstr)
    assert this_machine().glibc is None
    assert "glibc" not in str(this_machine())
