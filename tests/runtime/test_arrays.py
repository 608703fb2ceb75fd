from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelip.runtime.arrays import open_array

CLIPS = np.arange(5 * 3 * 2 * 2, dtype=np.uint8).reshape(5, 3, 2, 2)


@pytest.fixture(params=["plain.npy", "stored.npz", "deflated.npz"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    if path.suffix == ".npy":
        np.save(path, CLIPS)
    else:
        (np.savez if path.stem == "stored" else np.savez_compressed)(path, frames=CLIPS, labels=np.arange(5))
    return path


def test_array_is_read_whole(file: Path) -> None:
    with open_array(file, ["data", "frames"]) as stream:
        assert (stream.shape, stream.dtype, stream.num_bytes) == ((5, 3, 2, 2), np.uint8, 60)
        np.testing.assert_array_equal(stream.read(limit_bytes=60), CLIPS)


def test_array_is_read_in_batches(file: Path) -> None:
    with open_array(file, ["frames"]) as stream:
        batches = list(stream.batches(2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(batches), CLIPS)


def test_array_above_the_limit_is_refused(file: Path) -> None:
    with open_array(file, ["frames"]) as stream, pytest.raises(ValueError, match="to 60 bytes; the limit is 59"):
        stream.read(limit_bytes=59)


def test_truncated_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", CLIPS)
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:-7])
    with (
        open_array(tmp_path / "a.npy", ["frames"]) as stream,
        pytest.raises(ValueError, match="is cut short: 7 of 60 bytes are missing"),
    ):
        stream.read(limit_bytes=60)


def test_array_with_something_behind_it_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", CLIPS)
    with (tmp_path / "a.npy").open("ab") as file:
        file.write(b"x")
    with (
        open_array(tmp_path / "a.npy", ["frames"]) as stream,
        pytest.raises(ValueError, match="goes on after the end of its array"),
    ):
        list(stream.batches(2))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([{}], object), "holds Python objects; expected plain numbers"),
        (np.asfortranarray(CLIPS), "is stored column by column"),
    ],
)
def test_array_of_another_kind_is_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=message), open_array(tmp_path / "a.npy", ["frames"]):
        pass


def test_archive_without_the_array_names_those_it_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", logits=CLIPS)
    with pytest.raises(ValueError, match=r"has no array 'frames' or 'data'; it holds logits\.npy"):
        open_array(tmp_path / "a.npz", ["frames", "data"]).__enter__()


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"is neither \.npy nor \.npz"):
        open_array(tmp_path / "a.txt", ["frames"]).__enter__()
    with pytest.raises(ValueError, match="No such file or directory"):
        open_array(tmp_path / "absent.npz", ["frames"]).__enter__()


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 10_000), new=st.binary(min_size=1, max_size=4))
def test_damaged_archive_is_read_or_a_value_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, new: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    np.savez_compressed(path, frames=CLIPS)
    content = bytearray(path.read_bytes())
    position %= len(content)
    content[position : position + len(new)] = new
    try:
        with open_array(bytes(content), ["frames"]) as stream:
            stream.read(limit_bytes=1 << 16)
    except ValueError:
        pass


def npy(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode("latin-1") + b"\n"
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + size + text + body


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2**99,), }"),
            r"the header \"\{'descr'.* is not one of",
        ),
        (npy("(" * 2000 + ")" * 2000), r"not a readable array \(the header '\(\(\(.* is not one of plain numbers\)"),
        (npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }"), r"is not one of plain numbers"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"), r"is not one of plain numbers"),
        (npy("{'descr': '<z9', 'fortran_order': False, 'shape': (1,), }"), r"there is no dtype <z9"),
        (npy(" " * 5000), r"a header of 5001 bytes; the limit is 4096"),
        (npy(" " * 70_000, version=b"\x02\x00"), r"a header of 70001 bytes; the limit is 4096"),
        (b"\x93NUMPY\x01\x00\x09", r"not a readable array"),
    ],
)
def test_a_header_that_numpy_does_not_write_is_never_evaluated(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message), open_array(content, ["frames"]) as stream:
        stream.read(limit_bytes=100)


@pytest.mark.parametrize(
    "array", [np.float32(3), np.zeros(5, np.int64), np.zeros((2, 3), ">f8"), np.zeros((1, 0), bool)]
)
def test_every_plain_header_of_numpy_is_read(array: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, array)
    with open_array(content.getvalue(), ["frames"]) as stream:
        assert (stream.shape, stream.dtype) == (np.shape(array), np.asarray(array).dtype)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_deflate_is_unpacked(method: int) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        archive.writestr("frames.npy", b"")
    with (
        pytest.raises(ValueError, match="is packed by another method than deflate"),
        open_array(content.getvalue(), ["frames"]),
    ):
        pass


def test_a_long_list_of_members_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for number in range(1500):
            archive.writestr(f"{number}.npy", b"")
    monkeypatch.setattr(zipfile, "ZipFile", None)
    message = r"lists its members in \d+ bytes; the limit is 65536"
    with pytest.raises(ValueError, match=message), open_array(content.getvalue(), ["frames"]):
        pass


def test_an_archive_with_the_records_of_large_ones_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """zipfile writes zip64 records beyond 65,535 members or 4 GiB; here the limit is lowered instead."""
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 0)
    content = io.BytesIO()
    np.savez(content, frames=CLIPS)
    assert b"PK\6\6" in content.getvalue()
    with open_array(content.getvalue(), ["frames"]) as stream:
        np.testing.assert_array_equal(stream.read(limit_bytes=60), CLIPS)
    moved = content.getvalue().replace(b"PK\6\6", b"PK\6\0")
    with pytest.raises(ValueError, match="has a zip64 record that is out of place"), open_array(moved, ["frames"]):
        pass
