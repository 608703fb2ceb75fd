"""Wheels unpacked by hand: what pip would put into site-packages, and what is refused."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_wheels import FILES, INFO, NAME, TAGS, write_wheel

from edgelip.deploy import wheels as wheels_module
from edgelip.deploy.wheels import Wheel, unpack_wheel
from edgelip.errors import UsageError


def test_a_wheel_becomes_what_pip_would_install(tmp_path: Path) -> None:
    wheel = unpack_wheel(write_wheel(tmp_path), tmp_path / "site")
    assert wheel == Wheel("mouth", "1.2", ("py3-none-any",))
    site = tmp_path / "site"
    found = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert found == {
        "mouth/__init__.py",
        "mouth.libs/libmouth.so",
        "lips.py",
        f"{INFO}/WHEEL",
        f"{INFO}/RECORD",
    }
    assert (tmp_path / "site" / "mouth" / "__init__.py").read_bytes() == FILES["mouth/__init__.py"]


def refusal(path: Path, folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        unpack_wheel(path, folder / "site")
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["mouth.whl", "mouth-1.2.tar.gz", "mouth-1.2-py3-none.whl", "mouth 1-2-py3-none-any.whl"]
)
def test_a_file_of_another_name_is_no_wheel(tmp_path: Path, name: str) -> None:
    path = write_wheel(tmp_path, name=name)
    assert refusal(path, tmp_path) == (f"{path} is no wheel; expected a file NAME-VERSION-PYTHON-ABI-PLATFORM.whl.")


def test_a_wheel_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / NAME
    assert (
        refusal(path, tmp_path)
        == f"{path} does not exist; expected a wheel. Fetch it: pip download --only-binary=:all:"
    )


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("text")
    assert refusal(tmp_path / NAME, tmp_path) == (
        f"{NAME} is damaged or no wheel: File is not a zip file. Fetch it again."
    )


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "mouth/../../x", "mouth\\x", "c:x", "mouth//x", "./x", "mouth/\n"]
)
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    line = refusal(write_wheel(tmp_path, {**FILES, name: b"x"}), tmp_path)
    assert line == (f"{NAME} is damaged or no wheel: {name!a} is a link, or a name that leads outside. Fetch it again.")
    assert not (tmp_path / "site").exists()


def test_a_link_is_refused(tmp_path: Path) -> None:
    path = write_wheel(tmp_path)
    link = zipfile.ZipInfo("mouth/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "'mouth/link' is a link, or a name that leads outside" in refusal(path, tmp_path)


def test_a_file_that_differs_from_record_is_refused(tmp_path: Path) -> None:
    path = write_wheel(tmp_path)
    with zipfile.ZipFile(path) as archive:
        record = archive.read(f"{INFO}/RECORD").decode()
    changed = write_wheel(tmp_path, {**FILES, "mouth/__init__.py": b"open = Fals\n"}, record=record)
    assert "mouth/__init__.py has sha256 " in (line := refusal(changed, tmp_path))
    assert ".., RECORD says " in line


def test_a_file_that_record_does_not_list_is_refused(tmp_path: Path) -> None:
    path = write_wheel(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("mouth/more.py", "x = 1\n")
    assert "'mouth/more.py' is not listed in RECORD" in refusal(path, tmp_path)


def test_a_file_that_record_lists_and_is_not_there(tmp_path: Path) -> None:
    path = write_wheel(tmp_path)
    with zipfile.ZipFile(path) as archive:
        record = archive.read(f"{INFO}/RECORD").decode()
    fewer = {name: content for name, content in FILES.items() if name != "mouth/__init__.py"}
    assert "RECORD lists 'mouth/__init__.py', which is not there" in refusal(
        write_wheel(tmp_path, fewer, record=record), tmp_path
    )


@pytest.mark.parametrize("hash_", ["md5=abc", "sha256=!", "abc"])
def test_another_kind_of_hash_is_refused(tmp_path: Path, hash_: str) -> None:
    record = "".join(f"{name},{hash_},1\n" for name in FILES)
    assert f"{NAME} is damaged or no wheel: " in refusal(write_wheel(tmp_path, record=record), tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"mouth.py": b""}, "it has no mouth-1.2.dist-info/WHEEL of at most"),
        ({**FILES, "other-1.dist-info/WHEEL": TAGS}, "it has 2 folders NAME-VERSION.dist-info; expected one"),
        ({f"{INFO}/WHEEL": b"Wheel-Version: 1.0\n"}, "mouth-1.2.dist-info/WHEEL names no Tag"),
    ],
)
def test_a_wheel_without_its_lists_is_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    assert message in refusal(write_wheel(tmp_path, files), tmp_path)


def test_a_bomb_is_refused_before_anything_is_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_wheel(tmp_path, {**FILES, "mouth/zeros": bytes(100_000)})
    monkeypatch.setattr(wheels_module, "_LIMIT_BYTES", 50_000)
    assert "it claims 100" in (line := refusal(path, tmp_path))
    assert "limits 50000 and 50000" in line
    assert not (tmp_path / "site").exists()


def test_two_wheels_with_one_file_are_refused(tmp_path: Path) -> None:
    unpack_wheel(write_wheel(tmp_path), tmp_path / "site")
    assert refusal(tmp_path / NAME, tmp_path) == (
        f"{NAME} brings mouth/__init__.py, which another wheel brought. Give each package once."
    )


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_never_ends_in_anything_but_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    path = write_wheel(folder)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        unpack_wheel(path, folder / "site")
    except UsageError:
        return
    assert (folder / "site" / "mouth" / "__init__.py").read_bytes() == FILES["mouth/__init__.py"]
