"""Files kept once by content: links, copies where there are none, damage, what nobody uses."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelip.errors import MissingError
from edgelip.files import write_atomic
from edgelip.linked import Blobs, Usage, link

CONTENT = bytes(range(256)) * 512  # 128 KiB: whole blocks


def disk_bytes(folder: Path) -> int:
    """As `du` counts: each file once, in the blocks that it takes."""
    found = {
        stat.st_ino: stat.st_blocks * 512 for path in folder.rglob("*") if (stat := path.stat()) and path.is_file()
    }
    return sum(found.values())


def test_runs_that_share_weights_store_them_once(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    runs = [tmp_path / f"run{number}" / "trunk.safetensors" for number in range(5)]
    sums = {blobs.write(run, CONTENT) for run in runs}
    assert sums == {hashlib.sha256(CONTENT).hexdigest()}
    assert {run.stat().st_nlink for run in runs} == {6}
    assert len(CONTENT) <= disk_bytes(tmp_path) < 2 * len(CONTENT)
    assert blobs.usage() == Usage(1, 5 * len(CONTENT), len(CONTENT))
    assert all(run.read_bytes() == CONTENT for run in runs)
    assert {run.stat().st_mode & 0o777 for run in runs} == {0o444}


def test_a_new_file_in_one_run_leaves_the_others_alone(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    one, other = tmp_path / "a" / "w", tmp_path / "b" / "w"
    sha256 = blobs.write(one, CONTENT)
    blobs.link(sha256, other)
    write_atomic(one, b"new")
    assert other.read_bytes() == CONTENT
    assert blobs.damaged() == ()
    assert other.stat().st_nlink == 2


def test_a_file_is_adopted(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(CONTENT)
    second.write_bytes(CONTENT)
    assert blobs.adopt(first) == blobs.adopt(second) == blobs.adopt(second)
    assert first.samefile(second)
    assert first.stat().st_nlink == 3
    assert not list(tmp_path.rglob(".*"))


def test_what_nobody_uses_goes(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    kept, gone = tmp_path / "kept", tmp_path / "gone"
    blobs.write(kept, b"kept")
    blobs.write(gone, CONTENT)
    gone.unlink()
    assert blobs.sweep() == len(CONTENT)
    assert blobs.usage() == Usage(1, 4, 4)
    assert kept.read_bytes() == b"kept"


@pytest.mark.parametrize("damage", [b"half", CONTENT[:-1] + b"x"])
def test_a_damaged_blob_is_not_handed_out(tmp_path: Path, damage: bytes) -> None:
    blobs = Blobs(tmp_path / "blobs")
    sha256 = blobs.write(tmp_path / "a", CONTENT)
    blob = blobs.path(sha256)
    blob.chmod(0o644)
    blob.write_bytes(damage)  # into the file, as nothing here does
    assert blobs.damaged() == (blob,)
    with pytest.raises(MissingError) as caught:
        blobs.link(sha256, tmp_path / "b")
    assert str(caught.value) == f"{blob} has changed; expected the content of that sha256. Make it again."
    assert not (tmp_path / "b").exists()
    blobs.write(tmp_path / "c", CONTENT)  # a good one takes its place
    assert blobs.damaged() == ()
    assert (tmp_path / "c").read_bytes() == CONTENT


def test_a_missing_blob_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=rf"{'0' * 64} is missing; expected the content of that sha256\. Make it "):
        Blobs(tmp_path).link("0" * 64, tmp_path / "b")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV, errno.EMLINK])
def test_without_hard_links_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    blobs = Blobs(tmp_path / "blobs")
    for name in ("a", "b"):
        blobs.write(tmp_path / name, CONTENT)
        assert (tmp_path / name).read_bytes() == CONTENT
        assert (tmp_path / name).stat().st_nlink == 1


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(MissingError, match=r"^cannot write .*target: no space left on device"):
        link(source, tmp_path / "target")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@settings(max_examples=30, deadline=None)
@given(contents=st.lists(st.binary(max_size=64), min_size=1, max_size=8))
def test_every_user_reads_what_it_wrote(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("blobs")
    blobs = Blobs(folder / "blobs")
    for number, content in enumerate(contents):
        blobs.write(folder / str(number), content)
    assert [(folder / str(number)).read_bytes() for number in range(len(contents))] == contents
    assert blobs.usage().num_blobs == len(set(contents))
    assert blobs.sweep() == 0
