from __future__ import annotations

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
