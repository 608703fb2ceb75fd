from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_clips import SPEC, WORDS, frames, write_mp4, write_npz, write_split

from edgelip.errors import ClipError, UsageError
from edgelip.runtime.clip import ClipSpec, fit_span, pool_frames
from edgelip.task.folders import WordClip, find_clips, find_word_clips, find_words, hold_out, other_files, read_clip


def named(*names: str) -> list[WordClip]:
    return [WordClip(name.split("/")[0], Path(name), name) for name in names]


def test_words_are_the_folder_names_sorted_and_hidden_files_are_none(tmp_path: Path) -> None:
    for name in ("B10", "A", "B9", ".cache"):
        write_npz(tmp_path / name / "1.npz", frames("ABOUT", 0))
    (tmp_path / "notes.txt").write_text("x")
    assert find_words(tmp_path) == ("A", "B10", "B9")


def test_clips_are_found_in_nested_folders_with_any_case_of_ending(tmp_path: Path) -> None:
    for name in ("A/2.NPZ", "A/speaker 1/1.Mp4", "A/speaker 1/3.txt", "B/1.avi", "A/._1.mp4", "A/.old/4.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    clips = find_word_clips(tmp_path, ("B", "A"))
    assert [(clip.word, clip.name) for clip in clips] == [
        ("A", "A/2.NPZ"),
        ("A", "A/speaker 1/1.Mp4"),
        ("B", "B/1.avi"),
    ]
    assert [clip.path for clip in clips] == list(find_clips(tmp_path))
    assert other_files(tmp_path) == {".txt": 1}


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train is no folder; expected one with clips\. Check the path\.$"):
        find_words(tmp_path / "train")
    with pytest.raises(UsageError, match=r"has no folders; expected one a word, as in .*/ABOUT/0001\.mp4\.$"):
        find_words(tmp_path)
    with pytest.raises(UsageError, match=r"has no clip \(\.avi, .*, \.npz\)\. Check the folder\.$"):
        find_clips(tmp_path)
    (tmp_path / "ABOUTS").mkdir()
    with pytest.raises(UsageError, match=r"'ABOUTS' is no word of the training clips\. Did you mean 'ABOUT'\?$"):
        find_word_clips(tmp_path, WORDS)
    (tmp_path / "ABOUTS").rename(tmp_path / "ABOUT")
    (tmp_path / "ABOUT" / "readme.txt").write_text("x")
    with pytest.raises(UsageError, match=r"ABOUT has no clip \(.*\)\. Add clips or remove the folder\.$"):
        find_word_clips(tmp_path, WORDS)
    write_npz(tmp_path / "stray.npz", frames("ABOUT", 0))
    write_npz(tmp_path / "ABOUT" / "1.npz", frames("ABOUT", 0))
    with pytest.raises(UsageError, match=r"stray\.npz lies in no word's folder; expected .*/WORD/stray\.npz\. Move it"):
        find_word_clips(tmp_path, WORDS)


def test_an_mp4_and_an_npz_give_the_same_clip(tmp_path: Path) -> None:
    original = frames("BELOW", 1)
    for name in ("frames", "data"):
        from_array, num_frames = read_clip(write_npz(tmp_path / f"{name}.npz", original, name=name), SPEC)
        assert num_frames == 6
        np.testing.assert_array_equal(from_array, original)
    from_video, num_frames = read_clip(write_mp4(tmp_path / "a.mp4", original), SPEC)
    assert num_frames == 6
    assert np.abs(from_video.astype(int) - original).mean() < 4  # the codec loses a little


def test_a_clip_of_another_length_is_cut_or_padded_around_its_middle(tmp_path: Path) -> None:
    def times(num_frames: int, spec: ClipSpec) -> list[int]:
        counting = np.broadcast_to(np.arange(num_frames, dtype=np.uint8)[:, None, None], (num_frames, 24, 24))
        clip_TSS, _ = read_clip(write_npz(tmp_path / "a.npz", counting), spec)
        return clip_TSS[:, 0, 0].tolist()

    assert times(10, SPEC) == [2, 3, 4, 5, 6, 7]
    assert times(2, SPEC) == [0, 0, 0, 1, 1, 1]
    span = ClipSpec(timing="span", frames=6, roi_px=24, crop_px=20)
    assert times(11, span) == [0, 2, 4, 6, 8, 10]


def test_pooling_follows_the_contract(tmp_path: Path) -> None:
    original = frames("BELOW", 1, num_frames=4)
    spec = ClipSpec(timing="span", frames=6, roi_px=24, pool=2, crop_px=20)
    clip_TSS, _ = read_clip(write_npz(tmp_path / "a.npz", original), spec)
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
        read_clip(write_mp4(tmp_path / "a.mp4", frames("ABOUT", 0), fps=30), SPEC)
    with pytest.raises(ClipError, match=r"a\.gif ends in '\.gif'; expected \.avi, .*\.npz\. Convert it\."):
        read_clip(tmp_path / "a.gif", SPEC)
    with pytest.raises(ClipError, match=r"b\.mp4 does not exist"):
        read_clip(tmp_path / "b.mp4", SPEC)


def test_held_out_clips_depend_on_their_names_alone() -> None:
    clips = named(*(f"A/{i}.mp4" for i in range(20)), *(f"B/{i}.mp4" for i in range(3)), "C/0.mp4")
    kept, held = hold_out(clips, 0.1)
    assert hold_out(reversed(clips), 0.1) == (kept, held)
    assert sorted({*kept, *held}, key=lambda clip: clip.name) == sorted(clips, key=lambda clip: clip.name)
    assert [sum(clip.word == word for clip in held) for word in "ABC"] == [2, 1, 0]
    alone = hold_out([clip for clip in clips if clip.word == "A"], 0.1)[1]
    assert list(alone) == [clip for clip in held if clip.word == "A"]  # other words do not matter
    moved = hold_out([WordClip(clip.word, Path("/elsewhere") / clip.name, clip.name) for clip in clips], 0.1)[1]
    assert [clip.name for clip in moved] == [clip.name for clip in held]  # nor where the folder lies
    assert {clip.name for clip in held} <= {clip.name for clip in hold_out(clips, 0.5)[1]}


def test_a_word_keeps_a_training_clip_at_any_share() -> None:
    kept, held = hold_out(named("A/0.mp4", "A/1.mp4"), 0.99)
    assert len(kept) == len(held) == 1


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_a_share_outside_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match=r"val_split is .*; expected a share between 0 and 1, such as 0\.1\."):
        hold_out(named("A/0.mp4", "A/1.mp4"), share)


def test_single_clips_cannot_be_held_out() -> None:
    with pytest.raises(UsageError, match=r"no word has two clips.* Add clips, or a val_folder\."):
        hold_out(named("A/0.mp4", "B/0.mp4"), 0.5)


def test_a_written_split_is_found(tmp_path: Path) -> None:
    clips = find_word_clips(write_split(tmp_path / "train", 2), WORDS)
    assert [clip.name for clip in clips] == ["ABOUT/000.mp4", "ABOUT/001.npz", "BELOW/000.mp4", "BELOW/001.npz"]
