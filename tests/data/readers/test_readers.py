from __future__ import annotations

from pathlib import Path

import pytest

from edgelip.data.readers.source import READERS, detect_reader, read_source
from edgelip.errors import UsageError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_the_layout_says_who_reads_it(tmp_path: Path) -> None:
    assert detect_reader(touch(tmp_path / "a", "ABOUT/1.mp4")) == "folders"
    assert detect_reader(touch(tmp_path / "b", "train/ABOUT/1.mp4")) == "folders"
    assert detect_reader(touch(tmp_path / "c", "ABOUT/train/ABOUT_00001.mp4")) == "lrw"
    assert detect_reader(touch(tmp_path / "d", "lipread_mp4/ABOUT/train/ABOUT_00001.mp4")) == "lrw"
    assert detect_reader(touch(tmp_path / "e", "roi/1.mp4", "words.csv")) == "csv"
    assert detect_reader(touch(tmp_path, "Some.CSV") / "Some.CSV") == "csv"
    with pytest.raises(UsageError, match=r"gone does not exist; expected a folder of clips, or a CSV of spans"):
        detect_reader(tmp_path / "gone")
    with pytest.raises(UsageError, match=r"1\.mp4 is a file; expected a folder of clips, or a CSV of spans"):
        detect_reader(tmp_path / "a" / "ABOUT" / "1.mp4")


def test_the_tree_above_lrw_names_the_right_one(tmp_path: Path) -> None:
    touch(tmp_path, "lipread_mp4/ABOUT/train/ABOUT_00001.mp4")
    with pytest.raises(UsageError, match=r"has no clip at WORD/SPLIT/.* Did you mean .*lipread_mp4\?$"):
        read_source(tmp_path)


def test_a_folder_with_a_manifest_is_read_by_it(tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text("word,video,first,last,split\nbin,a.mp4,0,3,val\nlay,a.mp4,4,9,val\n")
    listing = read_source(tmp_path, words=("lay",))
    assert [(sample.name, sample.path) for sample in listing.samples] == [("a.mp4:4:9", tmp_path / "a.mp4")]


def test_options_go_to_the_reader_that_takes_them(tmp_path: Path) -> None:
    touch(tmp_path, "ABOUT/train/ABOUT_00001.mp4")
    assert len(read_source(tmp_path, annotations="none", category=None).samples) == 1
    with pytest.raises(
        UsageError,
        match=r"category has no effect on .*, read as 'lrw'; it belongs to csv\. Leave it out, or name another",
    ):
        read_source(tmp_path, category="digit")
    with pytest.raises(UsageError, match=r"speakers has no effect on .*; it belongs to lrw and folders\."):
        read_source(tmp_path, reader="csv", speakers=tmp_path)
    with pytest.raises(UsageError, match=r"There is no reader 'lwr'\. Did you mean 'lrw'\?"):
        read_source(tmp_path, reader="lwr")
    assert {"lrw", "folders", "csv"} <= set(READERS)
