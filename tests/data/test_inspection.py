"""What an inspection finds in raw data sets and in prepared ones."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from tiny_clips import SPEC, WORDS, frames, write_npz, write_split
from written_videos import write_video

from edgelip.data.clip_maker import CropMaker
from edgelip.data.inspection import Lengths, SharedSpeakers, inspect_listing, spread
from edgelip.data.probe import probe
from edgelip.data.readers.duplicates import duplicates
from edgelip.data.readers.folders import read_folders
from edgelip.data.readers.samples import SPLITS, Listing, Sample
from edgelip.data.readers.spans import read_csv
from edgelip.data.sheets import frames_of_samples, frames_of_store
from edgelip.data.stores.building import build_store
from edgelip.data.stores.store_inspection import find_stores, inspect_stores
from edgelip.errors import ClipError
from edgelip.progress import Progress

QUIET = Progress(quiet=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """train: 3 clips a word, val and test: 1; the first of each is an mp4."""
    for split, number, start in (("train", 3, 0), ("val", 1, 10), ("test", 1, 20)):
        write_split(tmp_path / "words" / split, number, start=start)
    return tmp_path / "words"


def test_a_healthy_tree_is_counted(tree: Path) -> None:
    found = inspect_listing(read_folders(tree, speaker_pattern="/(0)"), "folders")
    assert found.num_clips == 10
    assert found.split_counts() == {"train": 6, "val": 2, "test": 2}
    assert found.counts == {word: {"train": 3, "val": 1, "test": 1} for word in WORDS}
    assert found.speakers == {"train": 1, "val": 1, "test": 1}
    assert found.shared_speakers[0] == SharedSpeakers(("train", "val"), ("0",))
    assert len(found.shared_speakers) == 3
    assert (found.num_files, found.num_decoded, found.num_without_speaker) == (10, 10, 0)
    assert found.frames == Lengths(10, 6, 6, 6, 6, 6)
    assert found.seconds == Lengths(6, 0.24, 0.24, 0.24, 0.24, 0.24)  # of the videos: arrays have no rate
    assert (found.sizes, found.rates) == ({"24x24": 10}, {"25": 6})
    assert (found.unusable, found.flat, found.shared_files) == ({}, (), 0)
    assert asdict(found)["doubles"] == {"across_splits": (), "across_words": (), "within": ()}


def test_what_cannot_be_used_is_counted_by_reason(tree: Path) -> None:
    (tree / "train" / "ABOUT" / "000.mp4").write_bytes(b"")
    whole = (tree / "train" / "BELOW" / "000.mp4").read_bytes()
    (tree / "train" / "BELOW" / "000.mp4").write_bytes(whole[: len(whole) // 2])
    write_npz(tree / "val" / "ABOUT" / "float.npz", frames("ABOUT", 0).astype(np.float32))
    write_npz(tree / "val" / "ABOUT" / "grey.npz", np.full((6, 24, 24), 7, np.uint8))
    found = inspect_listing(read_folders(tree), "folders")
    assert {name: reason for name, (reason, _) in found.unusable.items()} == {
        "train/ABOUT/000.mp4": "damaged",
        "train/BELOW/000.mp4": found.unusable["train/BELOW/000.mp4"][0],
        "val/ABOUT/float.npz": "size",
    }
    assert "ABOUT/000.mp4 is empty (0 bytes); expected a video" in found.unusable["train/ABOUT/000.mp4"][1]
    assert "float.npz holds float32 (6, 24, 24); expected uint8" in found.unusable["val/ABOUT/float.npz"][1]
    assert sum(found.reasons().values()) == 3
    assert found.flat == ("val/ABOUT/grey.npz",)
    assert found.frames == Lengths(9, 6, 6, 6, 6, 6)


def test_a_sample_of_the_files_is_decoded_and_nothing_compared(tree: Path) -> None:
    found = inspect_listing(read_folders(tree), "folders", sample=3, compare=False)
    assert (found.num_files, found.num_decoded, found.doubles) == (10, 3, None)
    assert found.frames is not None
    assert found.frames.num_known == 3


def test_spans_are_compared_with_the_frames_of_their_file(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames("ABOUT", 0, num_frames=9))
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    (tmp_path / "words.csv").write_text(
        "word,video,first,last,split\nABOUT,a.mp4,0,3,train\nBELOW,a.mp4,4,9,test\nBELOW,a.mp4,4,8,test\n"
        "ABOUT,b.mp4,0,3,test\nABOUT,gone.mp4,0,3,test\n"
    )
    found = inspect_listing(read_csv(tmp_path / "words.csv"), "csv")
    assert {name: reason for name, (reason, _) in found.unusable.items()} == {
        "a.mp4:4:9": "span",
        "gone.mp4:0:3": "missing",
    }
    assert found.unusable["a.mp4:4:9"][1].endswith(
        "a.mp4 has frames 0..8; the word is given as 4..9. Correct its span."
    )
    assert found.shared_files == 1
    assert found.doubles is not None
    assert found.doubles.across_splits == (("a.mp4:0:3", "b.mp4:0:3"),)


def test_the_same_file_is_found_across_splits_and_words(tree: Path) -> None:
    shutil.copy(tree / "train/ABOUT/001.npz", tree / "test/ABOUT/twin.npz")
    shutil.copy(tree / "train/ABOUT/002.npz", tree / "train/BELOW/wrong.npz")
    shutil.copy(tree / "train/BELOW/001.npz", tree / "train/BELOW/again.npz")
    doubles = inspect_listing(read_folders(tree), "folders").doubles
    assert doubles is not None
    assert doubles.across_splits == (("test/ABOUT/twin.npz", "train/ABOUT/001.npz"),)
    assert doubles.across_words == (("train/ABOUT/002.npz", "train/BELOW/wrong.npz"),)
    assert doubles.within == (("train/BELOW/001.npz", "train/BELOW/again.npz"),)


def test_samples_without_contents_have_no_twins() -> None:
    samples = [Sample("A", Path("a"), name, "train") for name in ("a", "b", "c")]
    assert duplicates(samples, {"a": 1, "b": 2}).within == ()
    assert duplicates(samples, {"a": 1, "c": 1}).within == (("a", "c"),)


def test_stores_are_inspected_too(tree: Path, tmp_path: Path) -> None:
    shutil.copy(tree / "train/ABOUT/001.npz", tree / "val/ABOUT/twin.npz")
    write_npz(tree / "test/BELOW/grey.npz", np.full((6, 24, 24), 7, np.uint8))
    listing = read_folders(tree, speaker_pattern="/(0)")
    for split in SPLITS:
        folder = tmp_path / "made" / split
        build_store(folder, listing.of(split), CropMaker(SPEC), words=WORDS, progress=QUIET, name=split)
    stores = find_stores(tmp_path / "made")
    assert stores == {split: tmp_path / "made" / split for split in SPLITS}
    assert find_stores(tmp_path / "made" / "val") == {"val": tmp_path / "made" / "val"}
    found = inspect_stores(stores, tmp_path / "made", verify=True, progress=QUIET)
    assert found.split_counts() == {"train": 6, "val": 3, "test": 3}
    assert (found.sizes, found.rates) == ({"24x24": 12}, {"25": 12})
    assert found.frames == Lengths(12, 6, 6, 6, 6, 6)
    assert found.flat == ("test: test/BELOW/grey.npz",)
    assert [shared.speakers for shared in found.shared_speakers] == [("0",)] * 2 + [("0",)]
    assert found.doubles is not None
    assert found.doubles.across_splits == (("train: train/ABOUT/001.npz", "val: val/ABOUT/twin.npz"),)
    shard = tmp_path / "made" / "val" / "shard-00000.npy"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    damaged = inspect_stores(stores, tmp_path / "made", verify=True, progress=QUIET).unusable
    assert [reason for reason, _ in damaged.values()] == ["damaged"]
    build_store(tmp_path / "made2", listing.of("val"), CropMaker(SPEC), words=WORDS[::-1], progress=QUIET, name="val")
    with pytest.raises(ClipError, match=r"made2 has 2 words, .* has 2, or in another order\. Prepare them together\."):
        inspect_stores({"train": stores["train"], "val": tmp_path / "made2"}, tmp_path, verify=False, progress=QUIET)


def test_a_sheet_shows_clips_of_any_size_and_passes_over_what_cannot_be_read(tree: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "wide.mp4", np.full((4, 32, 64), 255, np.uint8))
    (tmp_path / "bad.mp4").write_bytes(b"")
    good = [Sample("W", tmp_path / "wide.mp4", "wide.mp4", "train"), *read_folders(tree).of("val")]
    bad = Sample("X", tmp_path / "bad.mp4", "bad.mp4", "train")
    pictures, labels = frames_of_samples([*good, bad], 9)
    assert (pictures.shape, pictures.dtype) == ((3, 10, 96, 96), np.dtype(np.uint8))
    assert labels == ["W", "ABOUT", "BELOW"]
    rows = np.flatnonzero(pictures[0, 0].max(axis=1) > 200)
    assert (rows[0], rows[-1]) == (24, 71)  # twice as wide as high, so half of the cell is black
    with pytest.raises(ClipError, match=r"^none of the clips .*bad\.mp4 is empty"):
        frames_of_samples([bad], 1)
    built = build_store(
        tmp_path / "store", read_folders(tree).of("val"), CropMaker(SPEC), words=WORDS, progress=QUIET, name="val"
    )
    pictures, labels = frames_of_store(built.usable(), 1)
    assert pictures.shape == (1, 6, 24, 24)
    assert labels == ["ABOUT"]


def test_a_file_that_is_no_clip_is_told_not_raised(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert probe(tmp_path / "a.txt").reason == "unreadable"
    assert probe(tmp_path / "gone.npz").reason == "missing"
    assert probe(tmp_path / "gone.mp4").reason == "missing"


def test_a_file_that_may_not_be_read_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def refuse(path: Path, *arguments: object, **more: object) -> object:
        if path.name == "001.npz":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)  # the tests run as root, which may read everything
    fact = probe(tree / "train" / "ABOUT" / "001.npz")
    assert fact.reason == "unreadable"
    assert "001.npz cannot be read: Permission denied. Expected uint8" in fact.message
    assert probe(tree / "train" / "ABOUT" / "002.npz").reason is None


def test_places_are_spread_evenly_and_once() -> None:
    assert spread(10, 3) == [0, 4, 9]
    assert spread(3, 10) == [0, 1, 2]
    assert spread(0, 3) == []
    assert spread(5, 1) == [0]


def test_a_listing_knows_its_splits() -> None:
    sample = Sample("A", Path("a"), "a", "val")
    assert Listing(Path(), (sample,), ("A",)).of("val") == (sample,)
    assert Listing(Path(), (sample,), ("A",)).of("train") == ()
