from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_clips import SPEC, WORDS, frames, write_npz, write_split
from written_videos import write_video

from edgelip.data.clip_maker import CropMaker
from edgelip.errors import ClipError, MissingError, UsageError
from edgelip.progress import Progress
from edgelip.task.clips import ClipData


class Recording(Progress):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def load(**more: Any) -> ClipData:
    return ClipData.from_folders(**{"clip": SPEC, "progress": Progress(quiet=True), **more})


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A folder with train (3 clips a word) and val (2)."""
    write_split(tmp_path / "words" / "train", 3)
    write_split(tmp_path / "words" / "val", 2, start=10)
    return tmp_path / "words"


def test_folders_become_stores_with_words_labels_and_frames(words: Path) -> None:
    clips = load(train_folder=words / "train", val_folder=str(words / "val"), batch_size=4)
    assert (clips.words, clips.spec, clips.batch_size, clips.predict_paths) == (WORDS, SPEC, 4, ())
    train = clips.store("train")
    assert train.words == WORDS
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.boundaries.tolist() == [[0, 5]] * 6
    np.testing.assert_array_equal(train.frames[4], frames("BELOW", 1))
    assert len(clips.store("val")) == 4
    with pytest.raises(UsageError, match=r"have no test split, only train, val\. Add clips of it, or test_folder\."):
        clips.store("test")


def test_a_second_call_decodes_nothing_and_a_changed_clip_is_decoded(
    words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = CropMaker.make
    monkeypatch.setattr(CropMaker, "make", lambda maker, sample: read.append(sample.name) or real(maker, sample))
    first = load(train_folder=words / "train", val_folder=words / "val")
    assert len(read) == 10
    assert first.store("train").folder.parent == words / ".edgelip"
    load(train_folder=words / "train", val_folder=words / "val")
    assert len(read) == 10
    moved = words.parent / "moved"
    shutil.move(words, moved)
    load(train_folder=moved / "train", val_folder=moved / "val")
    assert len(read) == 10  # what counts is the content, not the place
    write_npz(moved / "val" / "ABOUT" / "011.npz", frames("ABOUT", 99))
    again = load(train_folder=moved / "train", val_folder=moved / "val")
    assert len(read) == 14  # the val split only
    assert 99 in [int(np.array_equal(clip, frames("ABOUT", 99))) * 99 for clip in again.store("val").frames]


def test_the_cache_can_lie_elsewhere(words: Path, tmp_path: Path) -> None:
    load(train_folder=words / "train", cache=tmp_path / "elsewhere")
    assert not (words / ".edgelip").exists()
    assert len(list((tmp_path / "elsewhere").iterdir())) == 2
    (tmp_path / "file").write_text("x")
    with pytest.raises(MissingError, match=r"the cache .*file cannot be written\. Give cache= another folder\.$"):
        load(train_folder=words / "train", cache=tmp_path / "file")


def test_without_a_val_folder_a_share_of_the_training_clips_is_held_out(words: Path) -> None:
    clips = load(train_folder=words / "train", val_split=0.34)
    assert sorted(clips.store("train").labels.tolist()) == [0, 0, 1, 1]
    assert sorted(clips.store("val").labels.tolist()) == [0, 1]
    again = load(train_folder=words / "train", val_split=0.34)
    np.testing.assert_array_equal(again.store("val").frames, clips.store("val").frames)


def test_given_words_set_the_labels(words: Path) -> None:
    clips = load(train_folder=words / "train", words=["BELOW", "ABOUT"])
    assert clips.words == ("BELOW", "ABOUT")
    assert clips.store("train").labels.tolist() == [1, 1, 0, 0]
    tested = load(test_folder=words / "val", words=WORDS)
    assert tested.store("test").labels.tolist() == [0, 0, 1, 1]


def test_a_predict_folder_needs_no_words(words: Path) -> None:
    flat = [write_npz(words / "new" / f"{i}.npz", frames("ABOUT", i)) for i in range(3)]
    clips = load(predict_folder=words / "new")
    assert clips.predict_paths == tuple(flat)
    assert clips.words == ()
    assert not (words / ".edgelip").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"no folder is given; expected train_folder, val_folder, test_folder or predict_folder\."),
        ({"train_folder": "train", "batch_size": 0}, r"batch_size is 0; expected a whole number from 1\."),
        ({"train_folder": "train", "val_folder": "val", "val_split": 0.1}, r"val_split divides .* Leave one out\."),
        ({"test_folder": "val"}, r"without a train_folder the words are not known\. Give words=, such as model\.words"),
        ({"train_folder": "train", "words": "ABOUT"}, r"words is 'ABOUT'; expected a list of different words\."),
        ({"train_folder": "train", "words": ["A", "A"]}, r"words is \['A', 'A'\]; expected a list of different words"),
        (
            {"train_folder": "train", "words": ["ABOUT", "BELOW", "CHEESE"]},
            r"train has no folder 'CHEESE', one of the words asked for\. Add it\.",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(words: Path, arguments: dict[str, Any], message: str) -> None:
    placed = {key: words / value if key.endswith("folder") else value for key, value in arguments.items()}
    with pytest.raises(UsageError, match=message):
        load(**placed)


def test_a_word_that_training_does_not_know_is_refused(words: Path) -> None:
    write_npz(words / "val" / "CHEESE" / "1.npz", frames("ABOUT", 0))
    with pytest.raises(UsageError, match=r"val/CHEESE: 'CHEESE' is no word of the training clips\."):
        load(train_folder=words / "train", val_folder=words / "val")


def test_all_clips_that_cannot_be_used_are_counted_and_the_first_named(words: Path) -> None:
    (words / "train" / "ABOUT" / "000.mp4").write_bytes(b"no video")
    write_npz(words / "train" / "ABOUT" / "001.npz", frames("ABOUT", 0, side_px=32))
    with pytest.raises(
        ClipError,
        match=r"^2 of 6 clips cannot be used: .*ABOUT/000\.mp4 is not a whole, readable video .* \| .*001\.npz is "
        r"32x32 px; expected mouth crops of 24x24 px\. [^|]*$",
    ):
        load(train_folder=words / "train", val_folder=words / "val")
    for word in WORDS:
        for path in (words / "train" / word).iterdir():
            path.write_bytes(b"PK")
    with pytest.raises(ClipError, match=r"^6 of 6 clips cannot be used: [^|]*\|[^|]*\|[^|]* \(and 3 more\)$"):
        load(train_folder=words / "train", val_folder=words / "val")


def test_a_repaired_clip_is_taken(words: Path) -> None:
    (words / "train" / "ABOUT" / "000.mp4").write_bytes(b"no video")
    with pytest.raises(ClipError):
        load(train_folder=words / "train")
    write_video(words / "train" / "ABOUT" / "000.mp4", frames("ABOUT", 0))
    assert len(load(train_folder=words / "train").store("train")) == 4


def test_files_left_out_and_clips_on_both_sides_are_told(words: Path) -> None:
    (words / "train" / "ABOUT" / "000.gif").write_bytes(b"")
    shutil.copy(words / "train" / "ABOUT" / "001.npz", words / "val" / "ABOUT" / "twin.npz")
    progress = Recording()
    load(train_folder=words / "train", val_folder=words / "val", progress=progress)
    assert progress.said == [
        f"{words / 'train'}: files that are no clips are left out (1 .gif)",
        f"val: 1 of 5 clips are training clips too, such as {words / 'val' / 'ABOUT' / 'twin.npz'}",
    ]
