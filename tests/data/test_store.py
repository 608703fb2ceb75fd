from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgelip import files
from edgelip.data import store as store_module
from edgelip.data.store import Store, StoreWriter
from edgelip.runtime.clip import ClipSpec
from edgelip.runtime.errors import ClipError, MissingError, ShapeError, UsageError

SPEC = ClipSpec(frames=4, roi_px=16, pool=2, crop_px=8)
WORDS = ("bin", "lay", "place")


def _writer(folder: Path, num_clips: int = 6, spec: ClipSpec = SPEC, source: str = "0" * 64) -> StoreWriter:
    return StoreWriter(folder, num_clips, spec, words=WORDS, source_sha256=source)


def _clips(num_clips: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (num_clips, 4, 8, 8), dtype=np.uint8)


def _fill(writer: StoreWriter, start: int, stop: int) -> None:
    index = np.arange(start, stop)
    boundaries = np.stack([index % 2, 2 + index % 2], 1)
    clips = _clips(6)[start:stop]
    writer.write(start, clips, labels_B=index % 3, speakers_B=index // 2, boundaries_B2=boundaries)


def test_store_gives_back_what_was_written(tmp_path: Path) -> None:
    with _writer(tmp_path / "s") as writer:
        _fill(writer, 0, 4)
        _fill(writer, 4, 6)
        store = writer.finish()
    assert isinstance(store.frames, np.memmap)
    np.testing.assert_array_equal(store.frames, _clips(6))
    np.testing.assert_array_equal(store.frames, np.load(tmp_path / "s" / "clips.npy"))
    np.testing.assert_array_equal(store.labels, [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(store.speakers, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(store.boundaries, [[0, 2], [1, 3]] * 3)
    assert (len(store), store.spec, store.words, store.source_sha256) == (6, SPEC, WORDS, "0" * 64)
    store.verify()
    assert sorted(entry.name for entry in (tmp_path / "s").iterdir()) == ["clips.npy", "index.json", "labels.npy"]


def test_boundaries_default_to_the_whole_clip(tmp_path: Path) -> None:
    with _writer(tmp_path, 2) as writer:
        writer.write(0, _clips(2), labels_B=np.zeros(2), speakers_B=np.zeros(2))
        np.testing.assert_array_equal(writer.finish().boundaries, [[0, 3], [0, 3]])


def test_a_killed_writer_goes_on_where_it_stood_to_the_same_bytes(tmp_path: Path) -> None:
    code = f"""
import os, sys; from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store import _fill, _writer
from edgelip.data import store as module
writer = _writer(Path(sys.argv[1]))
_fill(writer, 0, 2)
module.os.fsync = lambda descriptor: os.kill(os.getpid(), 9)
_fill(writer, 2, 4)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "killed")], check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(ClipError, match=r"killed is not finished: 2 of 6 clips\. Prepare it again to go on\."):
        Store.open(tmp_path / "killed")
    with _writer(tmp_path / "killed") as writer, _writer(tmp_path / "whole") as whole:
        assert writer.num_done == 2
        _fill(writer, 2, 6)
        _fill(whole, 0, 6)
        writer.finish()
        whole.finish()
    for name in ("clips.npy", "labels.npy", "index.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_an_unfinished_store_of_other_clips_begins_anew_and_a_finished_one_is_refused(tmp_path: Path) -> None:
    with _writer(tmp_path / "s") as writer:
        _fill(writer, 0, 4)
    with _writer(tmp_path / "s", source="1" * 64) as writer:
        assert writer.num_done == 0
        _fill(writer, 0, 6)
        writer.finish()
    with _writer(tmp_path / "s", source="1" * 64) as writer:
        assert (writer.num_done, writer.is_finished) == (6, True)
        assert len(writer.finish()) == 6
    with pytest.raises(
        UsageError, match=r"holds a finished store of other clips\. Delete it or choose another folder\."
    ):
        _writer(tmp_path / "s")


def test_a_foreign_folder_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds 'notes.txt', not a clip store\. Choose an empty folder\."):
        _writer(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_writer_refuses_wrong_order_shape_dtype_and_labels(tmp_path: Path) -> None:
    ok = {"labels_B": np.zeros(2), "speakers_B": np.zeros(2)}
    with _writer(tmp_path) as writer:
        with pytest.raises(UsageError, match=r"clip 2 written to .*; expected clip 0\. Write in order, once\."):
            writer.write(2, _clips(2), **ok)
        shape = r"clips are uint8 \(2, 4, 7, 8\); expected uint8 \(B, 4, 8, 8\) with B from 1 to 6\."
        with pytest.raises(ShapeError, match=shape):
            writer.write(0, _clips(2)[:, :, 1:], **ok)
        with pytest.raises(ShapeError, match=r"clips are float32 \(2, 4, 8, 8\); expected uint8"):
            writer.write(0, _clips(2).astype(np.float32), **ok)
        with pytest.raises(ShapeError, match=r"clips are uint8 \(7, 4, 8, 8\).* B from 1 to 6"):
            writer.write(0, _clips(7), labels_B=np.zeros(7), speakers_B=np.zeros(7))
        label = r"clip 1 has label 3 and word frames 0\.\.3; expected a label below 3 and frames"
        with pytest.raises(ClipError, match=label):
            writer.write(0, _clips(2), labels_B=np.array([0, 3]), speakers_B=np.zeros(2))
        with pytest.raises(ClipError, match=r"word frames 2\.\.4"):
            writer.write(0, _clips(2), boundaries_B2=np.array([[0, 3], [2, 4]]), **ok)
        assert writer.num_done == 0
        with pytest.raises(UsageError, match=r"has 0 of 6 clips; write the rest, then finish\."):
            writer.finish()
    with pytest.raises(UsageError, match=r"a store of 0 clips; expected at least 1\."):
        _writer(tmp_path, 0)


def test_a_second_writer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_LOCK_WAIT_S", 0.0)
    with _writer(tmp_path), pytest.raises(MissingError, match=r"another process is writing it"):
        _writer(tmp_path)


def test_a_full_disk_is_found_before_the_first_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module.os, "posix_fallocate", full)
    with pytest.raises(MissingError, match=r"cannot write .*: no space left on device \(needs 272 kB, \d+ MB free\)"):
        _writer(tmp_path / "s", 1000)  # 1000 x (4 x 8 x 8 + 16) bytes
    assert list((tmp_path / "s").iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "index.json").unlink(), r"holds no clip store \(index.json is missing\)"),
        (lambda folder: (folder / "index.json").write_text("{"), r"index.json cannot be read \(Expecting"),
        (lambda folder: (folder / "index.json").write_text("{}"), r"index.json is no clip store index of version 1\."),
        (lambda folder: (folder / "clips.npy").unlink(), r"clips.npy has 0 bytes; expected 1664\. Delete the store"),
        (lambda folder: os.truncate(folder / "clips.npy", 900), r"clips.npy has 900 bytes; expected 1664\."),
    ],
)
def test_open_refuses_a_damaged_store(tmp_path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    with _writer(tmp_path / "s") as writer:
        _fill(writer, 0, 6)
        writer.finish()
    damage(tmp_path / "s")
    with pytest.raises(ClipError, match=message):
        Store.open(tmp_path / "s")


def test_open_refuses_a_header_that_differs_and_a_label_out_of_range(tmp_path: Path) -> None:
    with _writer(tmp_path) as writer:
        _fill(writer, 0, 6)
        store = writer.finish()
    clips = np.load(tmp_path / "clips.npy")
    np.save(tmp_path / "clips.npy", clips.astype(np.int8))
    with pytest.raises(ClipError, match=r"does not hold \|u1 \(6, 4, 8, 8\) as the index says"):
        Store.open(tmp_path)
    clips[3, 2, 1, 0] ^= 1
    np.save(tmp_path / "clips.npy", clips)
    with pytest.raises(ClipError, match=r"clips.npy has sha256 [0-9a-f]{12}; expected [0-9a-f]{12}\. Delete the store"):
        Store.open(tmp_path).verify()
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**index, "words": ["bin", "lay"]}))
    with pytest.raises(ClipError, match=r"clip 2 has label 2"):
        Store.open(tmp_path)
    assert store.labels.flags.writeable is False
