from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgelip import files
from edgelip.data.stores import store_folder
from edgelip.data.stores.shards import clips_per_shard
from edgelip.data.stores.store import Store, StoreWriter
from edgelip.runtime.clip import ClipSpec
from edgelip.runtime.errors import ClipError, MissingError, ShapeError, UsageError

SPEC = ClipSpec(frames=4, roi_px=16, pool=2, crop_px=8)
WORDS = ("bin", "lay", "place")


def _writer(folder: Path, num_clips: int = 6, spec: ClipSpec = SPEC, source: str = "0" * 64) -> StoreWriter:
    return StoreWriter(folder, num_clips, spec, words=WORDS, source_sha256=source, clips_per_shard=4)


def _clips(num_clips: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (num_clips, 4, 8, 8), dtype=np.uint8)


def _fill(writer: StoreWriter, start: int, stop: int) -> None:
    index = np.arange(start, stop)
    boundaries = np.stack([index % 2, 2 + index % 2], 1)
    clips = _clips(6)[start:stop]
    writer.write(start, clips, labels_B=index % 3, speakers_B=index // 2, boundaries_B2=boundaries)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six clips in two shards."""
    with _writer(tmp_path / "s") as writer:
        _fill(writer, 0, 3)
        _fill(writer, 3, 6)
        writer.finish()
    return tmp_path / "s"


def test_store_gives_back_what_was_written(folder: Path) -> None:
    store = Store.open(folder)
    np.testing.assert_array_equal(store.frames, _clips(6))
    np.testing.assert_array_equal(np.load(folder / "shard-00001.npy"), _clips(6)[4:])
    np.testing.assert_array_equal(store.labels, [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(store.speakers, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(store.boundaries, [[0, 2], [1, 3]] * 3)
    assert np.isnan(store.durations_s).all()
    assert (len(store), store.spec, store.words, store.source_sha256) == (6, SPEC, WORDS, "0" * 64)
    assert store.names == tuple(f"{number:07d}" for number in range(6))
    assert store.labels.flags.writeable is False
    store.verify()
    expected = {"index.json", "made_from.json", "names.txt", "rows.npy"}
    expected |= {f"shard-0000{number}.{ending}" for number in (0, 1) for ending in ("npy", "json")}
    assert {entry.name for entry in folder.iterdir()} == expected


def test_durations_and_names_are_kept(tmp_path: Path) -> None:
    with _writer(tmp_path, 2) as writer:
        zeros = np.zeros(2)
        seconds = np.array([0.25, np.nan])
        named = ("ABOUT/ü.mp4", "b")
        writer.write(0, _clips(2), labels_B=zeros, speakers_B=zeros, durations_s_B=seconds, names=named)
        store = writer.finish()
    np.testing.assert_array_equal(store.durations_s, np.array([0.25, np.nan], np.float32))
    np.testing.assert_array_equal(store.boundaries, [[0, 3], [0, 3]])  # the whole clip where nothing is said
    assert store.names == named


def test_landmarks_are_stored_as_floats_with_what_was_lost(tmp_path: Path) -> None:
    spec = ClipSpec(kind="landmarks", timing="span", frames=4, points="lips40", axes=2)
    clips = np.random.default_rng(0).random((3, 4, 40, 2), dtype=np.float32)
    clips[1, 2] = np.nan
    with _writer(tmp_path, 3, spec) as writer:
        with pytest.raises(ShapeError, match=r"clips are float64 \(3, 4, 40, 2\); expected float32 \(B, 4, 40, 2\)"):
            writer.write(0, clips.astype(np.float64), labels_B=np.zeros(3), speakers_B=np.zeros(3))
        writer.write(0, clips, labels_B=np.zeros(3), speakers_B=np.zeros(3))
        np.testing.assert_array_equal(writer.finish().frames, clips)


def test_a_killed_writer_goes_on_after_the_last_whole_shard_to_the_same_bytes(tmp_path: Path) -> None:
    code = f"""
import os, sys; from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store import _fill, _writer
from edgelip import files
writer = _writer(Path(sys.argv[1]))
_fill(writer, 0, 5)
files.os.fsync = lambda descriptor: os.kill(os.getpid(), 9)
_fill(writer, 5, 6)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "killed")], check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(ClipError, match=r"killed is not finished: 1 shards are made\. Prepare it again to go on\."):
        Store.open(tmp_path / "killed")
    with _writer(tmp_path / "killed") as writer, _writer(tmp_path / "whole") as whole:
        assert writer.num_done == 4
        _fill(writer, 4, 6)
        _fill(whole, 0, 6)
        assert writer.finish().sha256 == whole.finish().sha256
    names = {entry.name for entry in (tmp_path / "whole").iterdir()}
    assert {entry.name for entry in (tmp_path / "killed").iterdir()} == names
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_store_of_other_clips_is_refused_finished_or_not(tmp_path: Path) -> None:
    with _writer(tmp_path / "s") as writer:
        _fill(writer, 0, 4)
    other = r"holds an unfinished store of other clips \(other samples, words, settings or version\)\. Delete it or"
    with pytest.raises(UsageError, match=other):
        _writer(tmp_path / "s", source="1" * 64)
    with _writer(tmp_path / "s") as writer:
        _fill(writer, 4, 6)
        writer.finish()
    with _writer(tmp_path / "s") as writer:
        assert (writer.num_done, writer.is_finished) == (6, True)
        assert len(writer.finish()) == 6
    with pytest.raises(UsageError, match=r"holds a finished store of other clips"):
        _writer(tmp_path / "s", source="1" * 64)


def test_a_foreign_folder_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds 'notes.txt', not a clip store\. Choose an empty folder\."):
        _writer(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "notes.txt").rename(tmp_path / "index.json")
    with pytest.raises(UsageError, match=r"holds a store of another version, not a clip store"):
        _writer(tmp_path)


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
        label = r"clip 1 has label 3, speaker 0 and word frames 0\.\.3; expected a label below 3, a speaker from 0 and"
        with pytest.raises(ClipError, match=label):
            writer.write(0, _clips(2), labels_B=np.array([0, 3]), speakers_B=np.zeros(2))
        with pytest.raises(ClipError, match=r"word frames 2\.\.4"):
            writer.write(0, _clips(2), boundaries_B2=np.array([[0, 3], [2, 4]]), **ok)
        with pytest.raises(UsageError, match=r"a clip is named 'a\\nb'; expected text on one line, in UTF-8"):
            writer.write(0, _clips(2), names=("a\nb", "c"), **ok)
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
    monkeypatch.setattr(store_folder.shutil, "disk_usage", lambda _: SimpleNamespace(free=400_000))
    message = r"cannot write .*: no space left on device \(needs 456 kB, 400 kB free\)\. Free space or choose another"
    with pytest.raises(MissingError, match=message):
        _writer(tmp_path / "s", 1000)  # 1000 x (4 x 8 x 8 + 200) bytes
    with _writer(tmp_path / "t", 800):
        pass


def _truncate_index(folder: Path, **changes: object) -> None:
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, **changes}))


def _link_outside(folder: Path) -> None:
    (folder / "shard-00000.npy").rename(folder.parent / "outside.npy")
    (folder / "shard-00000.npy").symlink_to(folder.parent / "outside.npy")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "index.json").write_text("{"), r"index.json cannot be read \(Expecting"),
        (lambda folder: (folder / "index.json").write_text("{}"), r"index.json is no clip store index of version 2\."),
        (lambda folder: (folder / "index.json").write_text("[" * 100000), r"index.json cannot be read \("),
        (
            lambda folder: (folder / "shard-00000.npy").unlink(),
            r"shard-00000.npy is missing or no regular file; expected 1152 bytes\.",
        ),
        (
            lambda folder: os.truncate(folder / "shard-00001.npy", 90),
            r"shard-00001.npy has 90 bytes; expected 640 bytes",
        ),
        (lambda folder: os.truncate(folder / "rows.npy", 90), r"rows.npy has 90 bytes; expected "),
        (_link_outside, r"shard-00000.npy is missing or no regular file; expected 1152"),
        (lambda folder: _truncate_index(folder, words=["bin", "lay"]), r"is damaged: its fields do not fit each other"),
        (lambda folder: _truncate_index(folder, num_clips=7), r"is damaged: its fields do not fit each other"),
        (lambda folder: _truncate_index(folder, num_clips="6"), r"is damaged: its fields do not fit each other"),
        (lambda folder: _truncate_index(folder, shards=[[0, -4, "a"]]), r"is damaged: its fields do not fit"),
        (lambda folder: _truncate_index(folder, shards=[["../x", 6, "a"]]), r"is damaged: its fields do not fit"),
        (lambda folder: _truncate_index(folder, version=3), r"is no clip store index of version 2\."),
    ],
)
def test_open_refuses_a_damaged_store(folder: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    damage(folder)
    with pytest.raises(ClipError, match=message) as refused:
        Store.open(folder)
    assert "\n" not in str(refused.value)


def test_open_says_where_there_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"holds no clip store \(index.json is missing\)\. Prepare it first\."):
        Store.open(tmp_path)


def test_rows_that_point_nowhere_are_refused(folder: Path) -> None:
    rows = np.load(folder / "rows.npy")
    rows["label"][2] = 3
    np.save(folder / "rows.npy", rows)
    with pytest.raises(ClipError, match=r"clip 2 has label 3, speaker 1 and word frames 0\.\.2; expected a label"):
        Store.open(folder)


def test_an_array_of_another_kind_is_refused_when_it_is_read(folder: Path) -> None:
    np.save(folder / "shard-00000.npy", np.load(folder / "shard-00000.npy").astype(np.int8))
    store = Store.open(folder)
    assert (store.frames[4] == _clips(6)[4]).all()
    with pytest.raises(ClipError, match=r"shard-00000.npy does not hold uint8 \(4, 4, 8, 8\) as the index says"):
        store.frames[0]


@pytest.mark.parametrize("name", ["shard-00001.npy", "rows.npy", "names.txt"])
def test_verify_finds_a_changed_bit(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    message = rf"{name} has sha256 [0-9a-f]{{12}}; expected [0-9a-f]{{12}}\. Delete the store"
    with pytest.raises(ClipError, match=message):
        Store.open(folder).verify()


def test_names_of_another_number_are_refused(folder: Path) -> None:
    (folder / "names.txt").write_text("a\nb\n")
    with pytest.raises(ClipError, match=r"names.txt has 2 names; expected 6\."):
        _ = Store.open(folder).names


def test_words_are_taken_and_labelled_in_the_order_asked_for(folder: Path) -> None:
    store = Store.open(folder).relabelled(("place", "bin"))
    assert store.words == ("place", "bin")
    assert store.labels.tolist() == [1, 0, 1, 0]
    np.testing.assert_array_equal(store.frames, _clips(6)[[0, 2, 3, 5]])
    assert store.names == tuple(f"{number:07d}" for number in (0, 2, 3, 5))
    assert store.boundaries.tolist() == [[0, 2], [0, 2], [1, 3], [1, 3]]
    again = store.relabelled(("bin",))
    np.testing.assert_array_equal(again.frames[[1, 0]], _clips(6)[[3, 0]])
    assert again.names == ("0000000", "0000003")
    assert len({store.sha256, again.sha256, Store.open(folder).sha256}) == 3
    store.verify()
    with pytest.raises(UsageError, match=r"has no word 'plaice'\. Did you mean 'place'\?"):
        store.relabelled(("plaice",))


def test_shards_are_bounded_by_clips_and_by_bytes() -> None:
    assert clips_per_shard(ClipSpec()) == (32 << 20) // (29 * 96 * 96)
    assert clips_per_shard(SPEC) == 128
    assert clips_per_shard(ClipSpec(frames=1000, roi_px=1024, crop_px=1024)) == 1
