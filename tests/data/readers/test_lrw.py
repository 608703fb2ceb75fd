"""The tree of Lip Reading in the Wild, as its users have it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.data.readers.lrw import duration_from_annotation, read_lrw
from edgelip.errors import ClipError, UsageError

ANNOTATION = (
    "Disk reference: 6086674907519303783\nChannel: 3\nProgram start: 2013/09/09 18:55 - 2013/09/09 19:30\n"
    "Clip start: 121.86 seconds\nDuration: {} seconds\n"
)


def clip(root: Path, name: str, duration: str | None = "0.52", *, annotations: Path | None = None) -> Path:
    """An empty file in place of a video: readers open none."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    if duration is not None:
        text = ((annotations or root) / name).with_suffix(".txt")
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(ANNOTATION.format(duration))
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "lrw"
    for word in ("BELOW", "ABOUT"):
        for split in ("train", "val", "test"):
            for number in (1, 2):
                clip(root, f"{word}/{split}/{word}_{number:05d}.mp4", f"0.{number}1")
    return root


def test_clips_come_with_word_split_and_duration_in_alphabetical_label_order(tree: Path) -> None:
    listing = read_lrw(tree)
    assert listing.words == ("ABOUT", "BELOW")
    assert len(listing.samples) == 12
    first = listing.samples[0]
    assert (first.word, first.split, first.name) == ("ABOUT", "test", "ABOUT/test/ABOUT_00001.mp4")
    assert first.path == tree / first.name
    assert (first.first, first.last, first.duration_s) == (None, None, 0.11)
    assert [sample.name for sample in listing.samples] == sorted(sample.name for sample in listing.samples)
    assert {sample.duration_s for sample in listing.samples} == {0.11, 0.21}
    assert [len(listing.of(split)) for split in ("train", "val", "test")] == [4, 4, 4]
    assert (dict(listing.unusable), listing.notes) == ({}, ())


def test_given_words_are_a_subset_in_their_own_label_order(tree: Path) -> None:
    clip(tree, "CHEESE/train/CHEESE_00001.mp4")
    listing = read_lrw(tree, words=("CHEESE", "ABOUT"), splits=("train",))
    assert listing.words == ("CHEESE", "ABOUT")
    assert [sample.word for sample in listing.samples] == ["ABOUT", "ABOUT", "CHEESE"]
    with pytest.raises(UsageError, match=r"no folder 'about', one of the words asked for\. Did you mean 'ABOUT'"):
        read_lrw(tree, words=("CHEESE", "about", "ABOUT"))
    with pytest.raises(UsageError, match=r"words is \['ABOUT', 'ABOUT'\]; expected a list of different words\."):
        read_lrw(tree, words=["ABOUT", "ABOUT"])


def test_prepared_crops_take_their_annotations_from_the_original_tree(tree: Path, tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    clip(crops, "ABOUT/train/ABOUT_00001.npz", None)
    clip(crops, "ABOUT/val/ABOUT_00002.NPY", None)
    assert [sample.duration_s for sample in read_lrw(crops, annotations=tree).samples] == [0.11, 0.21]
    assert [sample.duration_s for sample in read_lrw(crops, annotations="none").samples] == [None, None]
    with pytest.raises(UsageError, match=r"crops has no annotation \(\.txt\) beside its clips\. Name the folder that"):
        read_lrw(crops)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"ABOUT_00001\.txt does not exist: no annotation of ABOUT/train/ABOUT_00001\.mp4\. Copy it, or go with"),
        ("", r"ABOUT_00001\.txt has 1 lines; expected five lines, the fifth as 'Duration: 0\.42 seconds'\."),
        (ANNOTATION.format("-1"), r"gives -1 s in line 5; expected five lines"),
        (ANNOTATION.format("nan"), r"gives nan s in line 5"),
        (ANNOTATION.format("9e9"), r"gives 9e\+09 s in line 5"),
        (ANNOTATION.format("half"), r"has 'Duration: half seconds' in line 5"),
        ("a\nb\nc\nd\n\n", r"has '' in line 5"),
    ],
)
def test_a_clip_without_a_good_annotation_is_counted_and_the_rest_goes_on(
    tree: Path, text: str | None, message: str
) -> None:
    path = tree / "ABOUT/train/ABOUT_00001.txt"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    listing = read_lrw(tree)
    assert len(listing.samples) == 11
    assert list(listing.unusable) == ["ABOUT/train/ABOUT_00001.mp4"]
    error = listing.unusable["ABOUT/train/ABOUT_00001.mp4"]
    assert error.reason == "annotation"
    with pytest.raises(ClipError, match=message):
        raise error


def test_a_pipe_in_place_of_an_annotation_does_not_block(tree: Path) -> None:
    (tree / "ABOUT/train/ABOUT_00001.txt").unlink()
    os.mkfifo(tree / "ABOUT/train/ABOUT_00001.txt")
    assert list(read_lrw(tree).unusable) == ["ABOUT/train/ABOUT_00001.mp4"]


def test_speakers_come_from_a_table_with_or_without_a_header(tree: Path, tmp_path: Path) -> None:
    clips = "ABOUT/train/ABOUT_00001.mp4,ann\n./ABOUT/val/ABOUT_00001,b\nGONE/val/GONE_1,c\n"
    for header in ("", "path,speaker\n"):
        (tmp_path / "speakers.csv").write_text(header + clips)
        listing = read_lrw(tree, speakers=tmp_path / "speakers.csv")
        known = {sample.name: sample.speaker for sample in listing.samples if sample.speaker}
        assert known == {"ABOUT/train/ABOUT_00001.mp4": "ann", "ABOUT/val/ABOUT_00001.mp4": "b"}
        assert listing.notes == (
            f"{tmp_path / 'speakers.csv'}: 1 of 3 lines name no clip that was found",
            f"{tmp_path / 'speakers.csv'}: 10 of 12 clips are not in it",
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is empty; expected lines path,speaker\."),
        ("a,1\nb\n", r"line 2 is 'b'; expected path,speaker\. Correct it\."),
        ("a,1\n,2\n", r"line 2 is ',2'; expected path,speaker"),
        ("a,1\na.mp4,2\n", r"line 2 gives a the speaker '2'; it had '1'\. Remove one\."),
        ('"a,1\n', r"cannot be read as CSV \(unexpected end of data\)"),
    ],
)
def test_a_table_that_is_broken_is_refused(tree: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "speakers.csv").write_text(text)
    with pytest.raises(ClipError, match=r"speakers\.csv " + message):
        read_lrw(tree, speakers=tmp_path / "speakers.csv")


def test_trees_of_another_form_are_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone is no folder; expected one with clips\. Check the path\."):
        read_lrw(tmp_path / "gone")
    with pytest.raises(UsageError, match=r"has no clip at WORD/SPLIT/; expected such as .*Did you mean .*lrw\?$"):
        read_lrw(tmp_path)
    with pytest.raises(UsageError, match=r"has no clip at WORD/SPLIT/ among \.npz; expected such as"):
        read_lrw(tree, endings=(".npz",))
    clip(tree, "ABOUT/train/ABOUT_00001.npz", None)
    with pytest.raises(UsageError, match=r"ABOUT_00001\.mp4 and ABOUT/.*00001\.npz: one clip twice\. Say which"):
        read_lrw(tree)
    assert len(read_lrw(tree, endings=(".mp4",)).samples) == 12


def test_clips_out_of_place_and_of_several_kinds_are_noted(tree: Path) -> None:
    clip(tree, "ABOUT/ABOUT_00009.mp4", None)
    clip(tree, "ABOUT/dev/ABOUT_00009.mp4", None)
    clip(tree, "ABOUT/val/ABOUT_00003.npz")
    assert read_lrw(tree).notes == (
        "2 clips do not lie at WORD/train, val or test and are left out",
        "clips of several kinds: 12 .mp4, 1 .npz",
    )


OTHER_TEXT = st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=9)


@given(st.floats(0.01, 60, allow_nan=False), st.sampled_from(["\n", "\r\n"]), OTHER_TEXT)
def test_the_second_token_of_the_fifth_line_is_the_duration(seconds: float, end: str, rest: str) -> None:
    text = end.join(["a", "b", "c d e", "", f" Duration: {seconds!r} {rest}", "more"])
    assert duration_from_annotation(text) == seconds


@given(st.text(max_size=120))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        duration_s = duration_from_annotation(text)
    except ValueError:
        return
    assert 0 < duration_s <= 60
