from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_clips import SPEC, WORDS, frames, write_npz, write_split
from written_videos import write_video

from edgelip.data.clip_files import read_clip
from edgelip.data.readers.folders import find_clips, find_split, find_words, read_folders
from edgelip.data.readers.held_out import hold_out
from edgelip.data.readers.samples import Sample
from edgelip.errors import ClipError, UsageError
from edgelip.runtime.clip import ClipSpec, fit_span, pool_frames


def named(*names: str, speaker: str = "") -> list[Sample]:
    return [Sample(name.split("/")[0], Path(name), name, "train", speaker=speaker) for name in names]


def touch(root: Path, *names: str) -> Path:
    """Empty files: readers open none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_words_are_the_folder_names_sorted_and_hidden_files_are_none(tmp_path: Path) -> None:
    for name in ("B10", "A", "B9", ".cache"):
        write_npz(tmp_path / name / "1.npz", frames("ABOUT", 0))
    (tmp_path / "notes.txt").write_text("x")
    assert find_words(tmp_path) == ("A", "B10", "B9")


def test_clips_are_found_in_nested_folders_with_any_case_of_ending(tmp_path: Path) -> None:
    touch(tmp_path, "A/2.NPZ", "A/speaker 1/1.Mp4", "A/speaker 1/3.txt", "B/1.avi", "A/._1.mp4", "A/.old/4.mp4")
    listing = find_split(tmp_path, "train", ("B", "A"), subset=False)
    assert [(clip.word, clip.name) for clip in listing.samples] == [
        ("A", "A/2.NPZ"),
        ("A", "A/speaker 1/1.Mp4"),
        ("B", "B/1.avi"),
    ]
    assert [clip.path for clip in listing.samples] == list(find_clips(tmp_path))
    assert listing.notes == ("files that are no clips are left out (1 .txt)",)


def test_a_split_can_be_read_for_some_words_alone(tmp_path: Path) -> None:
    touch(tmp_path, "A/1.mp4", "B/1.mp4", "C/1.txt")
    listing = find_split(tmp_path, "val", ("B",), subset=True)
    assert [(clip.name, clip.split) for clip in listing.samples] == [("B/1.mp4", "val")]
    assert listing.notes == ("words that are not in the word list are left out: A, C",)


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train is no folder; expected one with clips\. Check the path\.$"):
        find_words(tmp_path / "train")
    with pytest.raises(UsageError, match=r"has no folders; expected one a word, as in .*/ABOUT/0001\.mp4\.$"):
        find_words(tmp_path)
    with pytest.raises(UsageError, match=r"has no clip \(\.avi, .*, \.npz\)\. Check the folder\.$"):
        find_clips(tmp_path)
    (tmp_path / "ABOUTS").mkdir()
    with pytest.raises(UsageError, match=r"'ABOUTS' is no word of the training clips\. Did you mean 'ABOUT'\?$"):
        find_split(tmp_path, "val", WORDS, subset=False)
    (tmp_path / "ABOUTS").rename(tmp_path / "ABOUT")
    (tmp_path / "ABOUT" / "readme.txt").write_text("x")
    with pytest.raises(UsageError, match=r"ABOUT has no clip \(.*\)\. Add clips or remove the folder\.$"):
        find_split(tmp_path, "val", WORDS, subset=False)
    touch(tmp_path, "stray.npz", "ABOUT/1.npz")
    with pytest.raises(UsageError, match=r"stray\.npz lies in no word's folder; expected .*/WORD/stray\.npz\. Move it"):
        find_split(tmp_path, "val", WORDS, subset=False)


def test_a_folder_a_word_is_read_whole(tmp_path: Path) -> None:
    touch(tmp_path, "B/1.mp4", "A/x/1.npy", "A/x/2.gif", "stray.mkv", "notes")
    listing = read_folders(tmp_path)
    assert listing.words == ("A", "B")
    assert [(clip.name, clip.word, clip.split) for clip in listing.samples] == [
        ("A/x/1.npy", "A", "train"),
        ("B/1.mp4", "B", "train"),
    ]
    assert listing.notes == (
        "files that are no clips are left out (1 .gif, 1 notes)",
        "1 clips lie in no word's folder and are left out, such as stray.mkv; expected WORD/...",
    )
    assert read_folders(tmp_path, words=["B"]).notes[-1] == (
        "1 word is not in the word list, so 1 clips are left out: A (1)"
    )
    with pytest.raises(UsageError, match=r"no clip of 'b', one of the words asked for\. Did you mean 'B'\?$"):
        read_folders(tmp_path, words=["A", "b"])


def test_a_folder_a_split_is_recognised(tmp_path: Path) -> None:
    touch(tmp_path, "train/B/1.mp4", "test/A/1.mp4", "train/A/1.mp4", "train/2.mp4")
    listing = read_folders(tmp_path)
    assert [(clip.name, clip.word, clip.split) for clip in listing.samples] == [
        ("test/A/1.mp4", "A", "test"),
        ("train/A/1.mp4", "A", "train"),
        ("train/B/1.mp4", "B", "train"),
    ]
    assert listing.notes == (
        "1 clips lie in no word's folder and are left out, such as train/2.mp4; expected SPLIT/WORD/...",
    )
    as_words = read_folders(tmp_path, layout="words")
    assert as_words.words == ("test", "train")


def test_layouts_that_are_both_or_neither_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train/B/1.mp4", "valid/A/1.mp4")
    with pytest.raises(
        UsageError,
        match=r"holds 'valid' beside train; expected train, val and test alone, or words alone \(layout 'words'\)\. "
        r"Rename it to 'val', 'train' or 'test'\.$",
    ):
        read_folders(tmp_path)
    with pytest.raises(UsageError, match=r"holds 'B' beside no split; expected train, val and test alone"):
        read_folders(tmp_path / "train", layout="splits")
    with pytest.raises(UsageError, match=r"layout is 'flat'; expected auto, words or splits\."):
        read_folders(tmp_path, layout="flat")  # type: ignore[arg-type]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty has no folders; expected one a word"):
        read_folders(tmp_path / "empty")
    (tmp_path / "empty" / "A").mkdir()
    with pytest.raises(UsageError, match=r"empty has no clip that can be used \(\.avi, .*\)\. Check it\.$"):
        read_folders(tmp_path / "empty")


def test_shares_are_held_out_of_training_clips_and_by_speaker_where_known(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{word}/s{speaker}_{i}.mp4" for word in "AB" for speaker in range(5) for i in range(4)))
    plain = read_folders(tmp_path, val_share=0.2, test_share=0.2)
    assert [len(plain.of(split)) for split in ("train", "val", "test")] == [26, 6, 8]
    assert plain.notes[0].startswith("test: 8 clips held out by whole clips; speakers are not known, so one may be on")
    apart = read_folders(tmp_path, val_share=0.2, test_share=0.2, speaker_pattern="/(s[0-9]+)_")
    sides = [{sample.speaker for sample in apart.of(split)} for split in ("train", "val", "test")]
    assert [len(side) for side in sides] == [3, 1, 1]
    assert len(set().union(*sides)) == 5
    assert apart.notes[0] == "test: 8 clips held out by whole speakers"
    touch(tmp_path / "more", "train/A/1.mp4", "val/A/1.mp4")
    with pytest.raises(UsageError, match=r"val_share holds clips out of the training clips, but .* has a folder 'val'"):
        read_folders(tmp_path / "more", val_share=0.5)


def test_speakers_come_from_one_place(tmp_path: Path) -> None:
    touch(tmp_path, "A/1.mp4", "A/2.mp4")
    (tmp_path / "who.csv").write_text("path,speaker\nA/1,ann\nA/3,bob\n")
    listing = read_folders(tmp_path, speakers=tmp_path / "who.csv")
    assert [sample.speaker for sample in listing.samples] == ["ann", ""]
    assert listing.notes[1:] == (
        f"{tmp_path / 'who.csv'}: 1 of 2 lines name no clip that was found",
        f"{tmp_path / 'who.csv'}: 1 of 2 clips are not in it",
    )
    with pytest.raises(UsageError, match=r"speakers and speaker_pattern both say who speaks\. Give one\."):
        read_folders(tmp_path, speakers=tmp_path / "who.csv", speaker_pattern="(.)")
    with pytest.raises(UsageError, match=r"speaker_pattern '\(' is no regular expression: missing \), .*Correct it\."):
        read_folders(tmp_path, speaker_pattern="(")
    with pytest.raises(UsageError, match=r"speaker_pattern 's' has no group; put the speaker in brackets"):
        read_folders(tmp_path, speaker_pattern="s")


def test_links_are_followed_but_never_round_in_circles(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "1.mp4")
    touch(tmp_path / "root", "A/1.mp4")
    (tmp_path / "root" / "B").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "A" / "again").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "A" / "gone.mp4").symlink_to(tmp_path / "gone.mp4")
    listing = read_folders(tmp_path / "root")
    assert [sample.name for sample in listing.samples] == ["A/1.mp4", "B/1.mp4"]
    assert [(name, error.reason) for name, error in listing.unusable.items()] == [("A/gone.mp4", "missing")]
    assert "gone.mp4 is a link to a file that is not there. Mend the link." in str(listing.unusable["A/gone.mp4"])


def test_what_is_no_file_and_names_that_cannot_be_printed_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "A/1.mp4", "A/2\n.mp4", "B\udc80/1.mp4")
    os.mkfifo(tmp_path / "A" / "pipe.mp4")
    unusable = read_folders(tmp_path).unusable
    assert {name: error.reason for name, error in unusable.items()} == dict.fromkeys(
        ["A/2\\n.mp4", "A/pipe.mp4", "B\\udc80"], "unreadable"
    )
    assert "pipe.mp4 is neither file nor folder; expected a clip. Remove it." in str(unusable["A/pipe.mp4"])
    assert "has a character in its name that cannot be printed. Rename it." in str(unusable["B\\udc80"])


def test_a_folder_that_may_not_be_listed_is_told_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "A/1.mp4", "B/1.mp4")
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("/B"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # the tests run as root, which may list everything
    listing = read_folders(tmp_path)
    assert [sample.name for sample in listing.samples] == ["A/1.mp4"]
    assert str(listing.unusable["B"]).endswith(
        "/B cannot be listed (Permission denied): its clips are left out. Make it readable."
    )
    monkeypatch.setattr(os, "scandir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(UsageError, match=r"cannot be listed \(Permission denied\)\. Make it readable\.$"):
        read_folders(tmp_path)


def test_an_mp4_and_an_npz_give_the_same_clip(tmp_path: Path) -> None:
    original = frames("BELOW", 1)
    for name in ("frames", "data"):
        from_array = read_clip(write_npz(tmp_path / f"{name}.npz", original, name=name), SPEC)
        np.testing.assert_array_equal(from_array, original)
    from_video = read_clip(write_video(tmp_path / "a.mp4", original), SPEC)
    assert from_video.shape == original.shape
    assert np.abs(from_video.astype(int) - original).mean() < 4  # the codec loses a little


def test_a_clip_of_another_length_is_cut_or_padded_around_its_middle(tmp_path: Path) -> None:
    def times(num_frames: int, spec: ClipSpec) -> list[int]:
        counting = np.broadcast_to(np.arange(num_frames, dtype=np.uint8)[:, None, None], (num_frames, 24, 24))
        clip_TSS = read_clip(write_npz(tmp_path / "a.npz", counting), spec)
        return clip_TSS[:, 0, 0].tolist()

    assert times(10, SPEC) == [2, 3, 4, 5, 6, 7]
    assert times(2, SPEC) == [0, 0, 0, 1, 1, 1]
    span = ClipSpec(timing="span", frames=6, roi_px=24, crop_px=20)
    assert times(11, span) == [0, 2, 4, 6, 8, 10]


def test_pooling_follows_the_contract(tmp_path: Path) -> None:
    original = frames("BELOW", 1, num_frames=4)
    spec = ClipSpec(timing="span", frames=6, roi_px=24, pool=2, crop_px=20)
    clip_TSS = read_clip(write_npz(tmp_path / "a.npz", original), spec)
    np.testing.assert_array_equal(clip_TSS, pool_frames(fit_span(original, 6)[None], 2)[0])


def test_arrays_that_are_no_clip_are_refused(tmp_path: Path) -> None:
    def refused(array: np.ndarray, message: str, name: str = "frames") -> None:
        with pytest.raises(ClipError, match=message):
            read_clip(write_npz(tmp_path / "a.npz", array, name=name), SPEC)

    right = r"expected uint8 \(T, 24, 24\) as 'frames' or 'data', T up to 3000\.$"
    refused(frames("ABOUT", 0).astype(np.float32), r"a\.npz holds float32 \(6, 24, 24\); " + right)
    refused(frames("ABOUT", 0)[None], r"a\.npz holds uint8 \(1, 6, 24, 24\); " + right)
    refused(np.zeros((0, 24, 24), np.uint8), r"a\.npz holds uint8 \(0, 24, 24\); " + right)
    refused(np.zeros((3001, 1, 1), np.uint8), r"a\.npz holds uint8 \(3001, 1, 1\); " + right)
    refused(np.zeros((3000, 300, 300), np.uint8), r"a\.npz cannot be read: unpacks to 270000000 bytes; the limit is")
    refused(frames("ABOUT", 0), r"a\.npz cannot be read: has no array 'frames' or 'data'; it holds x\.npy\.", "x")
    refused(frames("ABOUT", 0, side_px=32), r"a\.npz is 32x32 px; expected mouth crops of 24x24 px\.")
    (tmp_path / "a.npz").write_bytes(b"PK no zip")
    with pytest.raises(ClipError, match=r"a\.npz cannot be read: .*zip.*Expected uint8 \(T, 24, 24\)"):
        read_clip(tmp_path / "a.npz", SPEC)


def test_videos_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"a\.mp4 has 30 frames/s; expected 25\. Convert it first\."):
        read_clip(write_video(tmp_path / "a.mp4", frames("ABOUT", 0), fps=30), SPEC)
    with pytest.raises(ClipError, match=r"a\.gif ends in '\.gif'; expected \.avi, .*\.npz\. Convert it\."):
        read_clip(tmp_path / "a.gif", SPEC)
    with pytest.raises(ClipError, match=r"b\.mp4 does not exist"):
        read_clip(tmp_path / "b.mp4", SPEC)


def test_held_out_clips_depend_on_their_names_alone() -> None:
    clips = named(*(f"A/{i}.mp4" for i in range(20)), *(f"B/{i}.mp4" for i in range(3)), "C/0.mp4")
    kept, held = hold_out(clips, 0.1)
    assert hold_out(reversed(clips), 0.1) == (kept, held)
    assert {clip.split for clip in held} == {"val"}
    assert sorted([clip.name for clip in (*kept, *held)]) == sorted([clip.name for clip in clips])
    assert [sum(clip.word == word for clip in held) for word in "ABC"] == [2, 1, 0]
    alone = hold_out([clip for clip in clips if clip.word == "A"], 0.1)[1]
    assert list(alone) == [clip for clip in held if clip.word == "A"]  # other words do not matter
    moved = hold_out([replace(clip, path=Path("/elsewhere") / clip.name) for clip in clips], 0.1)[1]
    assert [clip.name for clip in moved] == [clip.name for clip in held]  # nor where the folder lies
    assert {clip.name for clip in held} <= {clip.name for clip in hold_out(clips, 0.5)[1]}


def test_a_word_keeps_a_training_clip_at_any_share() -> None:
    kept, held = hold_out(named("A/0.mp4", "A/1.mp4"), 0.99)
    assert len(kept) == len(held) == 1


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_a_share_outside_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match=r"held out for validation is .*; expected more than 0, less than 1\."):
        hold_out(named("A/0.mp4", "A/1.mp4"), share)


def test_single_clips_cannot_be_held_out() -> None:
    with pytest.raises(UsageError, match=r"no word has two clips.* Add clips, or a val_folder\."):
        hold_out(named("A/0.mp4", "B/0.mp4"), 0.5)


def test_whole_speakers_are_held_out_and_every_word_is_still_trained() -> None:
    clips = [
        Sample(word, Path("x"), f"{word}/{who}_{i}.mp4", "train", speaker=who)
        for who, words in {"ann": "A", "bob": "AB", "cid": "AB", "dot": "AB", "eve": "AB"}.items()
        for word in words
        for i in range(5)
    ]
    kept, held = hold_out(clips, 0.25)
    assert {clip.speaker for clip in kept} & {clip.speaker for clip in held} == set()
    assert {clip.word for clip in kept} == {"A", "B"}
    assert 5 <= len(held) <= 15
    assert hold_out(reversed(clips), 0.25) == (kept, held)
    alone = [replace(clip, speaker=f"only {clip.word}") for clip in clips]
    with pytest.raises(UsageError, match=r"none of 2 speakers can be held out: each alone says some word\. Add clips"):
        hold_out(alone, 0.25)


def test_a_written_split_is_found(tmp_path: Path) -> None:
    clips = find_split(write_split(tmp_path / "train", 2), "train", WORDS, subset=False).samples
    assert [clip.name for clip in clips] == ["ABOUT/000.mp4", "ABOUT/001.npz", "BELOW/000.mp4", "BELOW/001.npz"]
