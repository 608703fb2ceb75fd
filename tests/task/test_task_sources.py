"""`ClipData` from trees, manifests and arrays: the same clips give the same stores."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_clips import SPEC, WORDS, frames, write_npz
from written_videos import write_video

from edgelip.data.clip_maker import CropMaker
from edgelip.errors import ClipError, UsageError
from edgelip.progress import Progress
from edgelip.task.clips import ClipData
from edgelip.words import read_words

QUIET: dict[str, Any] = {"clip": SPEC, "progress": Progress(quiet=True)}


class Recording(Progress):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def lrw(tmp_path: Path) -> Path:
    """Two words, two training clips a word and one in val and test, annotated."""
    for word in WORDS:
        for split, numbers in (("train", (1, 2)), ("val", (3,)), ("test", (4,))):
            for number in numbers:
                stem = tmp_path / "lrw" / word / split / f"{word}_{number:05d}"
                write_npz(stem.with_suffix(".npz"), frames(word, number), name="data")
                stem.with_suffix(".txt").write_text("a\nb\nc\nd\nDuration: 0.08 seconds\n")
    return tmp_path / "lrw"


def test_an_lrw_tree_becomes_three_stores(lrw: Path) -> None:
    clips = ClipData.from_lrw(lrw, batch_size=4, **QUIET)
    assert (clips.words, clips.batch_size, sorted(clips.stores)) == (WORDS, 4, ["test", "train", "val"])
    train = clips.store("train")
    assert train.labels.tolist() == [0, 0, 1, 1]
    # half = int(0.08 / 2 * 25) = 1 frame, middle (6 - 1) // 2 = 2: from 2 - 1 - 1 to 2 + 1
    assert train.boundaries.tolist() == [[0, 3]] * 4
    np.testing.assert_allclose(train.durations_s, 0.08)
    np.testing.assert_array_equal(train.frames[2], frames("BELOW", 1))
    assert train.folder.parent == lrw.parent / ".edgelip"
    one = ClipData.from_lrw(lrw, words=["BELOW"], annotations="none", **QUIET)
    assert one.words == ("BELOW",)
    assert one.store("train").labels.tolist() == [0, 0]
    assert one.store("train").boundaries.tolist() == [[0, 5]] * 2


def test_broken_clips_are_refused_by_name_or_left_out_on_request(lrw: Path) -> None:
    (lrw / "ABOUT/train/ABOUT_00001.npz").write_bytes(b"PK")
    with pytest.raises(ClipError, match=r"^1 of 4 clips cannot be used: .*/train/ABOUT_00001\.npz cannot be read"):
        ClipData.from_lrw(lrw, **QUIET)
    progress = Recording()
    clips = ClipData.from_lrw(lrw, unusable="skip", clip=SPEC, progress=progress)
    assert len(clips.store("train")) == 3
    assert [failure.name for failure in clips.failures["train"]] == ["ABOUT/train/ABOUT_00001.npz"]
    assert progress.said[0].startswith("train: 1 of 4 clips are left out, such as ABOUT/train/ABOUT_00001.npz: ")
    (lrw / "BELOW/train/BELOW_00001.txt").unlink()
    with pytest.raises(ClipError, match=r"^1 of 8 clips cannot be used, the first: .*BELOW_00001\.txt does not"):
        ClipData.from_lrw(lrw, **QUIET)
    assert len(ClipData.from_lrw(lrw, unusable="skip", **QUIET).store("train")) == 2
    with pytest.raises(UsageError, match=r"unusable is 'ignore'; expected 'refuse' or 'skip'\."):
        ClipData.from_lrw(lrw, unusable="ignore", **QUIET)  # type: ignore[arg-type]


def test_a_manifest_becomes_stores_of_its_splits(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.mp4", frames("ABOUT", 0, num_frames=9))
    (tmp_path / "words.csv").write_text(
        "word,video,first,last,split,speaker\nABOUT,a.mp4,0,3,train,ann\nBELOW,a.mp4,2,5,train,ann\n"
        "ABOUT,a.mp4,4,8,val,bob\n"
    )
    clips = ClipData.from_csv(tmp_path / "words.csv", root=tmp_path / "videos", **QUIET)
    assert clips.words == WORDS
    assert clips.store("train").speaker_names == ("ann",)
    assert clips.store("val").boundaries.tolist() == [[1, 5]]  # of frames 3..8
    with pytest.raises(UsageError, match=r"have no test split, only train, val\. Add clips of it, or test_folder\.$"):
        clips.store("test")
    with pytest.raises(UsageError, match=r"clip and maker disagree on what a clip is\. Give maker alone\."):
        ClipData.from_csv(tmp_path / "words.csv", clip=SPEC, maker=CropMaker(QUIET["clip"].__class__()))


def test_arrays_in_memory_become_stores(tmp_path: Path) -> None:
    train = np.stack([frames(word, number) for word in WORDS for number in range(2)])
    clips = ClipData.from_tensors(
        words=WORDS, train=(train, ["ABOUT", "ABOUT", "BELOW", "BELOW"]), val=([train[0][:3]], [0]), clip=SPEC
    )
    store = clips.store("train")
    assert store.labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(np.asarray(store.frames), train)
    assert clips.store("val").frames[0].shape == (6, 24, 24)
    folder = store.folder
    del clips
    gc.collect()
    assert folder.is_dir()  # the store is still in use
    del store
    gc.collect()
    assert not folder.parent.exists()
    kept = ClipData.from_tensors(words=WORDS, train=(train, [0, 0, 1, 1]), clip=SPEC, cache=tmp_path / "kept")
    assert kept.store("train").folder == tmp_path / "kept" / "train"


def test_arrays_that_do_not_fit_are_refused() -> None:
    one = (frames("ABOUT", 0)[None], [0])
    for arguments, message in (
        ({}, r"no clips are given; expected train, val or test as \(frames, labels\)\."),
        ({"train": one[0]}, r"train is ndarray; expected the pair \(frames, labels\)\."),
        ({"train": one, "words": ["A", "A"]}, r"words is \['A', 'A'\]; expected a list of different words\."),
        ({"train": one, "batch_size": 0}, r"batch_size is 0; expected a whole number from 1\."),
    ):
        with pytest.raises(UsageError, match=message):
            ClipData.from_tensors(**{"words": WORDS, "clip": SPEC, **arguments})


def test_whole_speakers_are_held_out_of_folders(tmp_path: Path) -> None:
    for word in WORDS:
        for number in range(8):
            write_npz(tmp_path / "train" / word / f"s{number % 4}_{number}.npz", frames(word, number))
    clips = ClipData.from_folders(
        train_folder=tmp_path / "train", val_split=0.25, speaker_pattern="/(s[0-9])_", **QUIET
    )
    train, val = clips.store("train"), clips.store("val")
    assert (len(train), len(val)) == (12, 4)
    assert set(train.speaker_names) | set(val.speaker_names) == {"s0", "s1", "s2", "s3"}
    assert not set(train.speaker_names) & set(val.speaker_names)


def test_a_clip_of_one_frame_is_refused(tmp_path: Path) -> None:
    only = frames("ABOUT", 0)[:1]
    for word in WORDS:
        write_video(tmp_path / "test" / word / "1.mp4", only)
        np.save(tmp_path / "test" / word / "2.npy", only)
    with pytest.raises(ClipError) as refused:
        ClipData.from_folders(test_folder=tmp_path / "test", words=WORDS, **QUIET)
    assert str(refused.value).startswith(
        f"4 of 4 clips cannot be used: {tmp_path}/test/ABOUT/1.mp4 has 1 frame; expected 2 or more, since words are "
        f"read from movement. Give the whole video. | {tmp_path}/test/ABOUT/2.npy has 1 frame; "
    )


def test_words_stand_beside_saved_weights(tmp_path: Path) -> None:
    from tiny_clips import OPTIONS

    from edgelip.task.classifier import WordClassifier

    model = WordClassifier("small", words=("zwei", "eins"), options=OPTIONS, clip=SPEC)
    model.save(tmp_path / "lips.safetensors")
    assert read_words(tmp_path / "lips.words.txt") == ("zwei", "eins")
