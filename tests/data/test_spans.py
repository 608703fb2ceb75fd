from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgelip.data import spans as spans_module
from edgelip.data.spans import Span, group_by_video, load_span_clips, read_spans, select
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


def test_rows_become_spans_in_file_order(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a_0,bin,command,s1,23,29,roi/a.mp4,train", "a_1,blue,colour,s1,30,30,roi/a.mp4,test")
    assert read_spans(path) == [
        Span("bin", "roi/a.mp4", 23, 29, "train", "a_0", "s1", "command"),
        Span("blue", "roi/a.mp4", 30, 30, "test", "a_1", "s1", "colour"),
    ]
    assert [span.num_frames for span in read_spans(path)] == [7, 1]


def test_the_optional_columns_may_be_absent(tmp_path: Path) -> None:
    path = _csv(tmp_path, "lay,a.mp4,0,3,val", header="word,video,first,last,split")
    assert read_spans(path) == [Span("lay", "a.mp4", 0, 3, "val")]


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
        Span("two", "a", 0, 1, "train", category="digit"),
        Span("bin", "a", 2, 3, "train", category="command"),
        Span("two", "b", 0, 1, "test", category="digit"),
        Span("nine", "b", 2, 3, "test", category="digit"),
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

    def fake_read(path: Path) -> Video:
        decoded.append(path)
        level = {"a.mp4": 0, "b.mp4": 100}[path.name]
        return Video(np.broadcast_to(np.arange(level, level + 9, dtype=np.uint8)[:, None, None], (9, 8, 8)), 25.0)

    monkeypatch.setattr(spans_module, "read_gray_frames", fake_read)
    mixed = [Span("u", "a.mp4", 0, 0, "train"), Span("v", "b.mp4", 3, 3, "test"), Span("w", "a.mp4", 8, 8, "val")]
    grouped = group_by_video(mixed)
    assert grouped == [mixed[0], mixed[2], mixed[1]]
    spec = ClipSpec(timing="span", frames=2, roi_px=8, pool=2, crop_px=8)
    loaded = list(load_span_clips(grouped, tmp_path, spec))
    assert [span for span, _ in loaded] == grouped
    assert [clip.tolist()[0][0][0] for _, clip in loaded] == [0, 8, 103]
    assert {clip.shape for _, clip in loaded} == {(2, 4, 4)}
    assert decoded == [tmp_path / "a.mp4", tmp_path / "b.mp4"]


def test_a_video_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=rf"{tmp_path}/gone\.mp4 does not exist"):
        next(load_span_clips([Span("u", "gone.mp4", 0, 0, "train")], tmp_path, ClipSpec()))


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
    assert not {span.video for span in select(spans, split="test")} & {
        span.video for span in select(spans, split="train")
    }


@needs_grid
def test_grid_clips_load_in_both_timings() -> None:
    pytest.importorskip("av", reason="PyAV decodes the GRID videos")
    spans = read_spans(GRID / "words.csv")[:12]
    for spec in (ClipSpec(timing="span", frames=16, pool=2), ClipSpec()):
        clips = [clip for _, clip in load_span_clips(spans, GRID, spec)]
        assert len(clips) == 12
        assert {clip.shape for clip in clips} == {(spec.frames, spec.stored_px, spec.stored_px)}
        assert all(20 < clip.mean() < 235 and clip.std() > 10 for clip in clips)


@needs_grid
def test_an_original_video_is_refused_as_a_mouth_crop() -> None:
    pytest.importorskip("av", reason="PyAV decodes the GRID videos")
    span = Span("lay", "raw/s22_lbbc2a.mpg", 10, 14, "test")
    with pytest.raises(
        ClipError, match=r"s22_lbbc2a\.mpg is 360x288 px; expected mouth crops of 96x96 px\. Crop the mouth"
    ):
        next(load_span_clips([span], GRID, ClipSpec()))
