from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgelip.data.readers import spans as spans_module
from edgelip.data.readers.samples import Sample, Split, group_by_file, select
from edgelip.data.readers.spans import load_span_clips, read_csv, read_spans, span_of
from edgelip.data.unusable import UnusableClip
from edgelip.data.video import Video
from edgelip.errors import ClipError, UsageError
from edgelip.runtime.clip import ClipSpec

GRID = Path(__file__).parents[3] / "shared" / "data" / "grid"
needs_grid = pytest.mark.skipif(not GRID.is_dir(), reason="the GRID clips are not at ../shared/data/grid")
HEADER = "clip_id,word,category,speaker,first,last,video,split"


def _csv(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "words.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def _span(word: str, video: str, first: int, last: int, split: Split, root: Path = Path(), **more: str) -> Sample:
    return Sample(word, root / video, f"{video}:{first}:{last}", split, first, last, **more)  # type: ignore[arg-type]


def test_rows_become_spans_in_file_order(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a_0,bin,command,s1,23,29,roi/a.mp4,train", "a_1,blue,colour,s1,30,30,roi/a.mp4,test")
    assert read_spans(path) == [
        _span("bin", "roi/a.mp4", 23, 29, "train", tmp_path, speaker="s1", category="command", clip_id="a_0"),
        _span("blue", "roi/a.mp4", 30, 30, "test", tmp_path, speaker="s1", category="colour", clip_id="a_1"),
    ]
    assert [sample.path for sample in read_spans(path, tmp_path / "x")] == [tmp_path / "x" / "roi" / "a.mp4"] * 2
    assert [span.num_frames for span in read_spans(path)] == [7, 1]


def test_the_optional_columns_may_be_absent(tmp_path: Path) -> None:
    path = _csv(tmp_path, "lay,a.mp4,0,3,val", header="word,video,first,last,split")
    assert read_spans(path) == [_span("lay", "a.mp4", 0, 3, "val", tmp_path)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("b,bin,c,s1,x,9,a.mp4,train", r"has first 'x'; expected a frame number, a whole number from 0\."),
        ("b,bin,c,s1,1,9.5,a.mp4,train", r"has last '9\.5'; expected a frame number"),
        ("b,bin,c,s1,-1,9,a.mp4,train", r"has first '-1'; expected a frame number"),
        ("b,bin,c,s1,9,8,a.mp4,train", r"has first 9 after last 8; expected first <= last\."),
        ("b,bin,c,s1,1,2,a.mp4,dev", r"has split 'dev'; expected train, val or test\."),
        (
            "b,bin,c,s1,1,2,../a.mp4,train",
            r"has video '\.\./a\.mp4'; expected a path below the data root, without '\.\.'\.",
        ),
        ("b,bin,c,s1,1,2,x/../../a.mp4,train", r"has video .*; expected a path below the data root"),
        ("b,bin,c,s1,1,2,..\\a.mp4,train", r"has video .*; expected a path below the data root"),
        ("b,bin,c,s1,1,2,/etc/a.mp4,train", r"has video '/etc/a\.mp4'; expected a path below the data root"),
        ("b,bin,c,s1,1,2,C:\\a.mp4,train", r"has video .*; expected a path below the data root"),
        ("b,,c,s1,1,2,a.mp4,train", r"has an empty word\. Fill it in or remove the row\."),
        ("b,bin,c,s1,1,2,a.mp4", r"has another number of fields than the header\. Quote fields that hold a comma\."),
        ("b,bin,c,s1,1,2,a.mp4,train,more", r"has another number of fields than the header"),
        ("a,bin,c,s1,1,2,a.mp4,train", r"repeats clip_id 'a' of line 2\. Remove one\."),
        ("b,lay,c,s1,3,4,z.mp4,test", r"repeats the span z\.mp4 3\.\.4 of line 2\. Remove one\."),
    ],
)
def test_a_bad_row_is_refused_by_its_line(tmp_path: Path, row: str, message: str) -> None:
    path = _csv(tmp_path, "a,bin,c,s1,3,4,z.mp4,train", row)
    with pytest.raises(ClipError, match=r"words\.csv line 3 " + message):
        read_spans(path)


def test_a_bad_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "words.csv"
    for content, message in (
        (
            b"word,video,frist,last,split\n",
            r"line 1 has no column 'first'; expected word, video, .* Did you mean 'frist'\?",
        ),
        (b"", r"line 1 has no column 'word'; .* The file is empty\."),
        (b"word,video,first,last,split,word\n", r"line 1 has column 'word' twice\. Remove one\."),
        (b"word,video,first,last,split\n", r"has no rows below its header; expected one a word\."),
        (b"word,video,first,last,split\n\xff\xfe,a,1,2,test\n", r"cannot be read as CSV \('utf-8' codec can't decode"),
        (b'word,video,first,last,split\n"bin,a,1,2,test\n', r"cannot be read as CSV \(unexpected end of data\)"),
    ):
        path.write_bytes(content)
        with pytest.raises(ClipError, match=message):
            read_spans(path)
    path.unlink()
    with pytest.raises(ClipError, match=r"cannot be read as CSV \(No such file or directory\)\. Check the data root"):
        read_spans(path)


def test_select_keeps_what_meets_every_condition() -> None:
    spans = [
        _span("two", "a", 0, 1, "train", category="digit"),
        _span("bin", "a", 2, 3, "train", category="command"),
        _span("two", "b", 0, 1, "test", category="digit"),
        _span("nine", "b", 2, 3, "test", category="digit"),
    ]
    assert select(spans) == spans
    assert select(spans, category="digit", split="test") == spans[2:]
    assert select(spans, words=["nine", "bin"]) == [spans[1], spans[3]]
    with pytest.raises(UsageError, match=r"no span has category 'digits'\. Did you mean 'digit'\?"):
        select(spans, category="digits")
    with pytest.raises(UsageError, match=r"no span has word 'nina'\. Did you mean 'nine'\?"):
        select(spans, category="digit", words=["two", "nina"])


def test_each_video_is_decoded_once_and_the_order_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    decoded = []

    def fake_read(path: Path, spec: ClipSpec) -> Video:
        decoded.append(path)
        level = {"a.mp4": 0, "b.mp4": 100}[path.name]
        return Video(np.broadcast_to(np.arange(level, level + 9, dtype=np.uint8)[:, None, None], (9, 8, 8)), 25.0)

    monkeypatch.setattr(spans_module, "read_frames", fake_read)
    mixed = [
        _span("u", "a.mp4", 0, 0, "train", tmp_path),
        _span("v", "b.mp4", 3, 3, "test", tmp_path),
        _span("w", "a.mp4", 8, 8, "val", tmp_path),
    ]
    grouped = group_by_file(mixed)
    assert grouped == [mixed[0], mixed[2], mixed[1]]
    spec = ClipSpec(timing="span", frames=2, roi_px=8, pool=2, crop_px=8)
    loaded = list(load_span_clips(grouped, spec))
    assert [span for span, _ in loaded] == grouped
    assert [clip.tolist()[0][0][0] for _, clip in loaded] == [0, 8, 103]
    assert {clip.shape for _, clip in loaded} == {(2, 4, 4)}
    assert decoded == [tmp_path / "a.mp4", tmp_path / "b.mp4"]


def test_a_video_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=rf"{tmp_path}/gone\.mp4 does not exist"):
        next(load_span_clips([_span("u", "gone.mp4", 0, 0, "train", tmp_path)], ClipSpec()))


def test_rows_without_frames_mean_the_whole_file(tmp_path: Path) -> None:
    path = _csv(
        tmp_path, "lay,a.mp4,,,val", "bin,a.mp4,1,2,val", "bin,a.mp4,3,,val", header="word,video,first,last,split"
    )
    listing = read_csv(path)
    assert [(sample.name, sample.num_frames) for sample in listing.samples] == [("a.mp4", None), ("a.mp4:1:2", 2)]
    assert str(listing.unusable["words.csv line 4"]).endswith(
        "words.csv line 4 has last ''; expected a frame number, a whole number from 0."
    )
    with pytest.raises(UsageError, match=r"^a\.mp4 is a whole file; expected a span, first and last frame of its"):
        span_of(listing.samples[0])
    whole = _csv(tmp_path, "lay,a.mp4,val", "lay,a.mp4,test", header="word,video,split")
    listing = read_csv(whole)
    assert [sample.name for sample in listing.samples] == ["a.mp4"]
    assert str(listing.unusable["words.csv line 3"]).endswith("words.csv line 3 repeats a.mp4 of line 2. Remove one.")


def test_a_whole_file_comes_back_with_its_frames(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    frames = np.zeros((9, 8, 8), np.uint8)
    monkeypatch.setattr(spans_module, "read_frames", lambda path, spec: Video(frames, 25.0))
    sample = Sample("u", tmp_path / "a.mp4", "a.mp4", "train")
    spec = ClipSpec(timing="span", frames=2, roi_px=8, pool=2, crop_px=8)
    [(loaded, _)] = load_span_clips([sample], spec)
    assert span_of(loaded) == (0, 8)


def test_bad_rows_are_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(outside)
    (tmp_path / "root" / "inside").symlink_to(tmp_path / "root")
    path = _csv(
        tmp_path / "root",
        "a,bin,c,s1,3,4,z.mp4,train",
        "b,bin,c,s1,3,4,../z.mp4,train",
        "c,bin,c,s1,3,4,link/z.mp4,train",
        "d,bin,c,s1,9,4,z.mp4,train",
        "e,lay,c,s1,5,6,inside/z.mp4,test",
        "f,b\tn,c,s1,5,6,z.mp4,test",
    )
    listing = read_csv(path)
    assert [sample.word for sample in listing.samples] == ["lay", "bin"]
    assert {name: error.reason for name, error in listing.unusable.items()} == {
        "words.csv line 3": "outside",
        "words.csv line 4": "outside",
        "words.csv line 5": "span",
        "words.csv line 7": "row",
    }
    assert str(listing.unusable["words.csv line 4"]).endswith(
        f"has video 'link/z.mp4', a link that leaves the data root for {outside}/z.mp4. Copy the file, or give the "
        "folder that it leads to as root."
    )
    assert str(listing.unusable["words.csv line 7"]).endswith(
        "has word 'b\\tn' with a character that cannot be printed. Correct it."
    )
    with pytest.raises(UnusableClip, match=r"words\.csv line 3 has video '\.\./z\.mp4'"):
        read_spans(path)


def test_words_that_are_not_in_the_list_are_left_out_and_told(tmp_path: Path) -> None:
    rows = [f"{i},{word},c,s1,{i},{i + 1},a.mp4,train" for i, word in enumerate(["bin", "lay", "bin", "set"])]
    listing = read_csv(_csv(tmp_path, *rows), words=("set", "lay"))
    assert listing.words == ("set", "lay")
    assert [sample.word for sample in listing.samples] == ["lay", "set"]
    assert listing.notes == ("1 word is not in the word list, so 2 clips are left out: bin (2)",)
    with pytest.raises(UsageError, match=r"no clip of 'sett', one of the words asked for\. Did you mean 'set'\?"):
        read_csv(tmp_path / "words.csv", words=("sett",))
    with pytest.raises(UsageError, match=r"no span has category 'd'"):
        read_csv(tmp_path / "words.csv", category="d")


field = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["train", "1", "7", "a.mp4", "..", "/", ""])


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.lists(field, min_size=4, max_size=6), min_size=1, max_size=6))
def test_any_csv_is_samples_below_the_root_or_an_error_of_ours(rows: list[list[str]], tmp_path: Path) -> None:
    path = tmp_path / "words.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["word", "video", "first", "last", "split"], *rows])
    try:
        listing = read_csv(path)
    except (ClipError, UsageError):
        return
    for sample in listing.samples:
        assert sample.path.resolve().is_relative_to(tmp_path.resolve())
        assert sample.name.isprintable()
        assert sample.num_frames is None or sample.num_frames >= 1
    assert len({sample.name for sample in listing.samples}) == len(listing.samples)


@needs_grid
def test_grid_has_the_words_and_splits_of_its_readme() -> None:
    spans = read_spans(GRID / "words.csv")
    assert len(spans) == 6000
    assert len({span.word for span in spans}) == 51
    assert Counter(span.split for span in spans) == {"train": 4200, "val": 900, "test": 900}
    digits = select(spans, category="digit")
    assert len({span.word for span in digits}) == 10
    assert len(select(digits, split="test")) == 150
    assert np.median([span.num_frames for span in spans]) == 7
    assert not {span.path for span in select(spans, split="test")} & {
        span.path for span in select(spans, split="train")
    }


@needs_grid
def test_grid_clips_load_in_both_timings() -> None:
    pytest.importorskip("av", reason="PyAV decodes the GRID videos")
    spans = read_spans(GRID / "words.csv")[:12]
    for spec in (ClipSpec(timing="span", frames=16, pool=2), ClipSpec()):
        clips = [clip for _, clip in load_span_clips(spans, spec)]
        assert len(clips) == 12
        assert {clip.shape for clip in clips} == {(spec.frames, spec.stored_px, spec.stored_px)}
        assert all(20 < clip.mean() < 235 and clip.std() > 10 for clip in clips)


@needs_grid
def test_an_original_video_is_refused_as_a_mouth_crop() -> None:
    pytest.importorskip("av", reason="PyAV decodes the GRID videos")
    span = _span("lay", "raw/s22_lbbc2a.mpg", 10, 14, "test", GRID)
    with pytest.raises(
        ClipError, match=r"s22_lbbc2a\.mpg is 360x288 px; expected mouth crops of 96x96 px\. Crop the mouth"
    ):
        next(load_span_clips([span], ClipSpec()))
