"""Unpacking a zip application: what is written when, and what is refused."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundles import write_bundle

from edgelip.deploy.pack import write_pack
from edgelip.errors import BundleError, MissingError
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.packed import unpack as unpack_module
from edgelip.runtime.packed.unpack import unpack

BUILD = Path("engines/sm86-rtx1.7.1/model.fp32")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny")


@pytest.fixture
def archive(bundle: Path, tmp_path: Path) -> Path:
    return write_pack(bundle, tmp_path / "tiny.pyz")


def built(bundle: Path, content: bytes) -> Path:
    (bundle / BUILD).mkdir(parents=True, exist_ok=True)
    (bundle / BUILD / "engine.plan").write_bytes(content)
    (bundle / BUILD / "artefact.json").write_bytes(b"{}")
    return bundle


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_unpacked_folder_is_the_bundle(archive: Path, bundle: Path, tmp_path: Path) -> None:
    folder = unpack(archive, tmp_path / "cache")
    assert folder == tmp_path / "cache" / Bundle.open(bundle).sha256
    assert names(folder) == names(bundle)
    assert Bundle.open(folder).sha256 == Bundle.open(bundle).sha256
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_a_second_start_writes_nothing(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unpack(archive, tmp_path / "cache")
    monkeypatch.setattr(unpack_module, "_write", None)
    assert unpack(archive, tmp_path / "cache") == folder


def test_what_was_built_there_survives_every_pack_of_the_bundle(bundle: Path, archive: Path, tmp_path: Path) -> None:
    folder = unpack(archive, tmp_path / "cache")
    built(folder, b"made here")
    (bundle / "manifest.sig").write_bytes(b"signature")
    with_engines = write_pack(built(bundle, b"made elsewhere"), tmp_path / "more.pyz", with_engines=True)
    assert unpack(with_engines, tmp_path / "cache") == folder
    assert (folder / BUILD / "engine.plan").read_bytes() == b"made here"
    assert (folder / "manifest.sig").read_bytes() == b"signature"


def test_builds_of_the_pack_come_along_whole(
    bundle: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unpack(archive, tmp_path / "cache")
    more = write_pack(built(bundle, b"plan"), tmp_path / "more.pyz", with_engines=True)
    unpack(more, tmp_path / "cache")
    assert names(folder / BUILD) == ["artefact.json", "engine.plan"]
    fresh = unpack(more, tmp_path / "other")
    assert names(fresh) == names(folder) == names(bundle)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    monkeypatch.setattr(unpack_module, "_write", None)  # nothing is left to do
    assert unpack(more, tmp_path / "cache") == folder


def test_a_newer_signature_replaces_the_older(bundle: Path, tmp_path: Path) -> None:
    for signature in (b"old", b"new"):
        (bundle / "manifest.sig").write_bytes(signature)
        folder = unpack(write_pack(bundle, tmp_path / "tiny.pyz"), tmp_path / "cache")
        assert (folder / "manifest.sig").read_bytes() == signature


def test_what_a_killed_process_left_is_removed(archive: Path, bundle: Path, tmp_path: Path) -> None:
    left = tmp_path / "cache" / f".{Bundle.open(bundle).sha256}.abc" / "bundle"
    left.mkdir(parents=True)
    folder = unpack(archive, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_a_quicker_process_wins(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without locks: the folder appears between looking and renaming."""
    original = unpack_module._rename

    def rename(source: Path, target: Path) -> None:
        if not target.exists():
            shutil.copytree(source, target)
            target.chmod(0o700)
        original(source, target)

    monkeypatch.setattr(unpack_module, "_rename", rename)
    folder = unpack(archive, tmp_path / "cache")
    assert Bundle.open(folder)
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_a_file_system_without_locks_will_do(
    archive: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(unpack_module.fcntl, "flock", no_locks)
    other = tmp_path / "cache" / f".{Bundle.open(bundle).sha256}.abc"
    other.mkdir(parents=True)
    assert Bundle.open(unpack(archive, tmp_path / "cache"))
    assert other.is_dir()  # perhaps a live process is writing it


def test_a_full_disk_leaves_nothing(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(unpack_module.shutil, "copyfileobj", full)
    with pytest.raises(MissingError) as caught:
        unpack(archive, tmp_path / "cache")
    assert str(caught.value) == (
        f"the bundle of tiny.pyz cannot be unpacked to {tmp_path / 'cache'} (No space left on device). "
        "Choose another folder: --unpack-to FOLDER."
    )
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("whose", ["cache", "folder"])
def test_another_users_folder_is_not_used(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    foreign = unpack(archive, tmp_path / "cache") if whose == "folder" else tmp_path / "cache"
    foreign.mkdir(exist_ok=True)
    stranger = os.stat_result([12345 if index == 4 else value for index, value in enumerate(foreign.stat())])
    method = "lstat" if whose == "folder" else "stat"
    original = getattr(Path, method)
    monkeypatch.setattr(Path, method, lambda path, **kw: stranger if path == foreign else original(path, **kw))
    end = "what lies there is not used" if whose == "folder" else "nothing is unpacked there"
    with pytest.raises(MissingError) as caught:
        unpack(archive, tmp_path / "cache")
    assert str(caught.value) == (
        f"{foreign} belongs to user 12345, so {end}. Choose another folder: --unpack-to FOLDER."
    )


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_a_folder_that_others_may_write_is_not_used(archive: Path, tmp_path: Path, mode: int) -> None:
    folder = unpack(archive, tmp_path / "cache")
    folder.chmod(mode)
    with pytest.raises(MissingError) as caught:
        unpack(archive, tmp_path / "cache")
    assert str(caught.value) == (
        f"{folder} may be written by other users, so it is not used. Mend it: chmod go-w {folder}"
    )


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_stands_in_its_place_is_not_used(archive: Path, bundle: Path, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "cache" / Bundle.open(bundle).sha256
    place.parent.mkdir()
    place.symlink_to(bundle) if kind == "link" else place.touch()
    with pytest.raises(MissingError, match=r"is not a folder, so the bundle cannot be unpacked there. Remove it."):
        unpack(archive, tmp_path / "cache")


def test_a_place_where_everybody_may_rename_is_not_used(archive: Path, tmp_path: Path) -> None:
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(MissingError) as caught:
        unpack(archive, place)
    assert str(caught.value) == (
        f"{place} may be written by everybody, so nothing is unpacked there. Choose another folder: --unpack-to FOLDER."
    )
    assert list(place.iterdir()) == []
    place.chmod(0o1777)  # as /tmp is
    assert Bundle.open(unpack(archive, place))


def test_the_cache_follows_xdg(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert unpack(archive).parent == tmp_path / "xdg" / "edgelip"
    for value in ("relative", ""):  # the standard says: ignore them
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert unpack(archive).parent == tmp_path / "home" / ".cache" / "edgelip"


def test_a_user_without_a_home_is_told_what_to_do(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(MissingError, match=r"this user has no home folder to unpack the bundle to. Choose another"):
        unpack(archive)


@pytest.mark.parametrize(
    "name",
    [
        "bundle/../outside",
        "bundle//etc/passwd",
        "bundle/.hidden",
        "bundle/",
        "bundle/engines/a/../b",
        "bundle/x\n",
    ],
)
def test_a_name_that_is_no_file_of_a_bundle_is_refused(archive: Path, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(archive, "a") as pack:
        pack.writestr(name, b"x")
    with pytest.raises(BundleError, match=r"holds 'bundle/.*, which is no file of a bundle or there twice. Copy"):
        unpack(archive, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_member_that_inflates_is_refused(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as pack:
        pack.writestr("bundle/bomb", bytes(1 << 20))
    with pytest.raises(BundleError, match=r"tiny.pyz: 'bundle/bomb' is not stored plainly. Copy the pack anew."):
        unpack(archive, tmp_path / "cache")


@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, zipfile.ZIP_LZMA)])
def test_a_member_that_is_encrypted_or_packed_is_refused(
    archive: Path, tmp_path: Path, offset: int, value: int
) -> None:
    """Flags and method of a member stand 8 and 10 bytes into its entry in the central directory."""
    content = bytearray(archive.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"bundle/expected.npz"))
    content[entry + offset] = value
    archive.write_bytes(content)
    with pytest.raises(BundleError, match=r"'bundle/expected.npz' is not stored plainly"):
        unpack(archive, tmp_path / "cache")


def test_a_member_that_is_there_twice_is_refused(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive, "a") as pack, pytest.warns(UserWarning, match=r"Duplicate name"):
        pack.writestr("bundle/manifest.json", b"{}")
    with pytest.raises(BundleError, match=r"holds 'bundle/manifest.json', which is no file of a bundle or there twice"):
        unpack(archive, tmp_path / "cache")


def test_members_that_claim_more_than_there_is_are_refused(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as pack:
        member = pack.getinfo("bundle/expected.npz")
    content = archive.read_bytes()
    sizes = member.file_size.to_bytes(4, "little") * 2
    archive.write_bytes(content.replace(sizes, (1 << 30).to_bytes(4, "little") * 2))
    with pytest.raises(BundleError, match=r"tiny.pyz: claims \d+ bytes in \d+ files. Copy the pack anew."):
        unpack(archive, tmp_path / "cache")


def test_too_many_members_are_refused(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive, "a") as pack:
        for number in range(4096):
            pack.writestr(f"x{number}", b"")
    with pytest.raises(BundleError, match=r"tiny.pyz: claims \d+ bytes in 41\d\d files"):
        unpack(archive, tmp_path / "cache")


def test_an_archive_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pyz", "w") as pack:
        pack.writestr("bundle/other.json", b"{}")
    with pytest.raises(BundleError, match=r"x.pyz: has no bundle/manifest.json of at most 4194304 bytes."):
        unpack(tmp_path / "x.pyz", tmp_path / "cache")


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    bundle = write_bundle(folder / "tiny")
    archive = write_pack(bundle, folder / "tiny.pyz")
    content = bytearray(archive.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    archive.write_bytes(content)
    try:
        unpacked = unpack(archive, folder / "cache")
    except (BundleError, MissingError):
        left = list((folder / "cache").iterdir()) if (folder / "cache").exists() else []
        assert left == []
    else:
        assert Bundle.open(unpacked).sha256 == Bundle.open(bundle).sha256
