"""`edgelip data inspect` and `edgelip data preview`, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import Edgelip
from tiny_clips import SPEC, WORDS, frames, write_npz, write_split

from edgelip.data.clip_maker import CropMaker
from edgelip.data.readers.folders import read_folders
from edgelip.data.stores.building import build_store
from edgelip.progress import Progress

ROOT = Path(__file__).parent.parent.parent
DEBUG = ROOT / "tests" / "recipes" / "debug.toml"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for split, number in (("train", 2), ("val", 1)):
        write_split(tmp_path / "words" / split, number, start=10 * number)
    return tmp_path / "words"


def test_a_tree_is_told_in_lines(tree: Path, edgelip: Edgelip) -> None:
    (tree / "train" / "ABOUT" / "020.mp4").write_bytes(b"")
    write_npz(tree / "val" / "BELOW" / "twin.npz", frames("BELOW", 21))
    write_npz(tree / "val" / "BELOW" / "grey.npz", np.full((6, 24, 24), 7, np.uint8))
    done = edgelip("data", "inspect", tree, "--jobs", 1, "--sheet", tree.parent / "sheet.png")
    assert (done.code, done.out.splitlines()) == (
        0,
        [
            f"{tree} (folders): 8 clips of 2 words",
            "split       clips   words  speakers  clips a word: least, median, most",
            "train           4       2         -  2 ABOUT, 2, 2 BELOW",
            "val             4       2         -  1 ABOUT, 3, 3 BELOW",
            "frames a word: least 6, 5 % 6, median 6, 95 % 6, most 6 (7 known)",
            "seconds a word: least 0.24 s, 5 % 0.24 s, median 0.24 s, 95 % 0.24 s, most 0.24 s (3 known)",
            "size: 24x24 px",
            "frames/s: 25",
            "speakers: not known, so nothing tells whether one is in training and test",
            "unusable: 1 clip",
            f"      1 damaged: {tree}/train/ABOUT/020.mp4 is empty (0 bytes); expected a video file. "
            "Copy or download it again.",
            "nothing to see in 1 clip (all of one grey), such as val/BELOW/grey.npz",
            "the same clip: 1 in more than one split, such as train/BELOW/021.npz = val/BELOW/twin.npz",
            f"contact sheet: {tree.parent / 'sheet.png'}",
        ],
    )
    sheet = cv2.imread(str(tree.parent / "sheet.png"), cv2.IMREAD_GRAYSCALE)
    assert sheet.shape[0] == 7 * 98 + 2


def test_a_tree_is_told_in_json(tree: Path, edgelip: Edgelip) -> None:
    done = edgelip("data", "inspect", tree, "--jobs", 1, "--json", "--sample", 2, "--words", "BELOW")
    found = json.loads(done.out)
    assert (found["num_clips"], found["words"], found["num_decoded"]) == (3, ["BELOW"], 2)
    assert (found["doubles"], found["reasons"]) == (None, {})
    assert found["notes"] == ["1 word is not in the word list, so 3 clips are left out: ABOUT (3)"]


def test_word_lists_give_the_order_of_labels(tree: Path, edgelip: Edgelip) -> None:
    (tree.parent / "words.txt").write_text("BELOW\nABOUT\n")
    for more, expected in (
        (["--words", tree.parent / "words.txt"], ["BELOW", "ABOUT"]),
        (["--words", "BELOW,ABOUT", "--word-order", "alphabetical"], ["ABOUT", "BELOW"]),
        (["--words", tree.parent / "words.txt", "--first-words", 1], ["BELOW"]),
    ):
        assert json.loads(edgelip("data", "inspect", tree, "--jobs", 1, "--json", *more).out)["words"] == expected


def test_prepared_clips_are_told_and_shown(tree: Path, edgelip: Edgelip) -> None:
    listing = read_folders(tree)
    made = tree.parent / "made"
    for split in ("train", "val"):
        build_store(
            made / split, listing.of(split), CropMaker(SPEC), words=WORDS, progress=Progress(quiet=True), name=split
        )
    done = edgelip("data", "inspect", made, "--sheet", made.parent / "sheet.png", "--clips", 2)
    assert done.out.splitlines()[0] == f"{made} (store): 6 clips of 2 words"
    assert "unusable: none" in done.out
    assert (made.parent / "sheet.png").is_file()
    assert edgelip("data", "preview", made, "--split", "val", "--out", made.parent / "val.png").code == 0
    assert cv2.imread(str(made.parent / "val.png")).shape[0] == 2 * 26 + 2
    for arguments, message in (
        (
            ["inspect", made, "--words", "ABOUT"],
            "made is prepared already: options of readers and words have no",
        ),
        (
            ["inspect", made, "--sample", 2],
            "made is prepared: --sample, --jobs and --no-duplicates have no effect on it.",
        ),
        (["preview", made, "--split", "test"], "made has no store 'test', only train, val. Choose another --split."),
        (["preview", made, "--set", "x=1"], "--set belongs to a recipe; what is shown here has none."),
    ):
        done = edgelip("data", *arguments)
        assert done.code == 2
        assert message in done.line


def test_raw_clips_and_recipes_are_shown(tree: Path, edgelip: Edgelip) -> None:
    out = tree.parent / "sheet.png"
    assert edgelip("data", "preview", tree, "--out", out, "--clips", 3).out == f"{out}\n"
    assert cv2.imread(str(out)).shape[0] == 3 * 98 + 2
    assert edgelip("data", "preview", DEBUG, "--out", out, "--clips", 2).code == 0
    assert cv2.imread(str(out)).shape[0] == 2 * 98 + 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "{tree}", "--category", "digit"], "category has no effect on"),
        (["inspect", "{tree}", "--word-order", "eflip"], "--word-order and --first-words belong to --words FILE."),
        (
            ["inspect", "{tree}", "--words", "BELLOW"],
            "'BELLOW', one of the words asked for. Did you mean 'BELOW'?",
        ),
        (
            ["inspect", "{tree}", "--words", "{tree}/gone.txt"],
            "gone.txt; expected a UTF-8 text file with one",
        ),
        (["inspect", "{tree}", "--reader", "folder"], "There is no reader 'folder'. Did you mean 'folders'?"),
        (["inspect", "{tree}/gone"], "gone does not exist; expected a folder of clips, or a CSV of spans."),
        (
            ["preview", "{tree}/no"],
            "no does not exist; expected a recipe (.toml), prepared clips, a folder of clips",
        ),
        (["preview", "{tree}", "--split", "dev"], "--split is 'dev'; expected one of train, val, test."),
        (["preview", "{tree}", "--split", "test"], "has no clip of split 'test', only of train, val. Choose another"),
        (["preview", str(DEBUG), "--words", "A"], "is a recipe, which names its data: leave out --reader,"),
    ],
)
def test_mistakes_are_told_in_a_line(tree: Path, edgelip: Edgelip, arguments: list[str], message: str) -> None:
    done = edgelip("data", *(argument.format(tree=tree) for argument in arguments))
    assert done.code == 2
    assert message in done.line
