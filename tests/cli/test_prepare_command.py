"""`edgelip data prepare`: from a data set to what trains, what cannot be used, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command_line import Edgelip
from lrw_tree import H264, SIDE_PX, WORDS, write_lrw_tree
from written_videos import write_video

from edgelip.compress.pipeline import model_from_checkpoint
from edgelip.data import preparation
from edgelip.data.stores import store_folder
from edgelip.data.stores.store import Store
from edgelip.models.checkpoint import load_checkpoint
from edgelip.runtime.clip import network_input

CLIPS = (f"--roi-px={SIDE_PX}", f"--crop-px={SIDE_PX - 8}")
RECIPE = f"""
name = "tree"
[data]
kind = "prepared"
[clip]
roi_px = {SIDE_PX}
crop_px = {SIDE_PX - 8}
pool = 1
[model]
backbone = "small"
options = {{ stem_width = 8, trunk_widths = [16], temporal_width = 16, temporal_blocks = 1 }}
[train]
epochs = 1
batch_size = 4
precision = "32-true"
[bench]
launches = 2
seconds = 0.05
check_clips = 2
[[variant]]
name = "dense"
"""


@pytest.fixture(scope="module")
def whole_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lrw_tree(tmp_path_factory.mktemp("lrw") / "tree")


@pytest.fixture
def tree(whole_tree: Path, tmp_path: Path) -> Path:
    """A tree of one's own to damage."""
    return Path(shutil.copytree(whole_tree, tmp_path / "tree"))


def test_a_tree_as_lrw_goes_from_videos_to_a_tested_classifier(
    whole_tree: Path, tmp_path: Path, edgelip: Edgelip
) -> None:
    out = tmp_path / "prepared"
    done = edgelip("data", "prepare", whole_tree, "--out", out, "--reader", "lrw", *CLIPS, "--json", "--jobs", 1)
    assert done.code == 0, done.line
    result = json.loads(done.out)
    assert {split: each["usable"] for split, each in result["splits"].items()} == {"train": 20, "val": 10, "test": 10}
    assert (result["num_words"], result["reasons"]) == (5, {})
    assert (out / "words.txt").read_text() == "".join(f"{word}\n" for word in WORDS)

    store = Store.open(out / "train")
    store.verify()
    assert store.frames.shape == (20, 29, SIDE_PX, SIDE_PX)
    assert store.names[0] == "ABOUT/train/ABOUT_00001.mp4"
    assert store.labels.tolist() == [label for label in range(5) for _ in range(4)]
    # 0.2 s: half a word is int(2.5) frames; mid - half - 1 .. mid + half around frame 14.
    assert store.boundaries[0].tolist() == [11, 16]
    np.testing.assert_allclose(store.durations_s[::4], [0.2, 0.3, 0.4, 0.5, 0.6], rtol=1e-6)
    error = np.abs(store.frames[0, :, :, 5].astype(int)[3] - 61)
    assert (error > 100).sum() == 6  # the bar came through the codec

    (tmp_path / "tree.toml").write_text(RECIPE)
    settings = ("--set", f"data.root={out}", "--out", tmp_path / "dist", "--json")
    trained = edgelip("train", tmp_path / "tree.toml", *settings)
    assert trained.code == 0, trained.line
    assert 0 <= json.loads(trained.out)["val_top1_pct"] <= 100
    model = model_from_checkpoint(load_checkpoint(Path(json.loads(trained.out)["checkpoint"]))).eval()
    test = Store.open(out / "test")
    with torch.inference_mode():
        logits_NV = model(torch.from_numpy(network_input(test.frames[:], test.spec)))
    right = (logits_NV.argmax(dim=1).numpy() == test.labels).mean()
    assert logits_NV.shape == (10, 5)
    assert 0 <= right <= 1


@pytest.mark.slow
def test_a_prepared_tree_is_exported_and_tested_on_its_test_clips(
    whole_tree: Path, tmp_path: Path, edgelip: Edgelip
) -> None:
    edgelip("data", "prepare", whole_tree, "--out", tmp_path / "p", *CLIPS, "--jobs", 1)
    (tmp_path / "tree.toml").write_text(RECIPE)
    settings = ("--set", f"data.root={tmp_path / 'p'}", "--set", "export.precisions=[]", "--out", tmp_path / "dist")
    exported = edgelip("export", tmp_path / "tree.toml", *settings, "--json")
    assert exported.code == 0, exported.line
    (row,) = json.loads(exported.out)["rows"]
    assert (row["num_clips"], 0 <= row["top1_pct"] <= 100) == (10, True)


def test_a_recipe_without_the_folder_or_with_an_unknown_word_is_refused(
    whole_tree: Path, tmp_path: Path, edgelip: Edgelip
) -> None:
    (tmp_path / "tree.toml").write_text(RECIPE)
    unset = edgelip("train", tmp_path / "tree.toml", "--out", tmp_path / "dist")
    assert unset.line.startswith(
        "edgelip: data.root is not set: the folder that `edgelip data prepare` made. Add --set"
    )
    edgelip("data", "prepare", whole_tree, "--out", tmp_path / "p", *CLIPS, "--jobs", 1)
    settings = ("--out", tmp_path / "dist", "--set", f"data.root={tmp_path / 'p'}", "--set")
    unknown = edgelip("train", tmp_path / "tree.toml", *settings, 'data.words=["ABOUT","EVRY"]')
    assert unknown.line.endswith("/p/train has no word 'EVRY'. Did you mean 'EVERY'?")
    shutil.rmtree(tmp_path / "p" / "val")
    missing = edgelip("train", tmp_path / "tree.toml", *settings, "train.epochs=1")
    assert "/p has clips prepared for train and test, none for val. Prepare all three at once: " in missing.line


def test_what_cannot_be_used_is_counted_listed_and_left_out(tree: Path, tmp_path: Path, edgelip: Edgelip) -> None:
    about = tree / "ABOUT" / "train"
    (about / "ABOUT_00001.mp4").write_bytes(b"")
    (about / "ABOUT_00002.mp4").write_bytes((about / "ABOUT_00003.mp4").read_bytes()[:700])
    (about / "ABOUT_00003.txt").write_text("nothing")
    write_video(about / "ABOUT_00004.mp4", np.zeros((29, 40, 40), np.uint8), **H264)
    out = tmp_path / "prepared"
    done = edgelip("data", "prepare", tree, "--out", out, *CLIPS, "--mouth", "none", "--jobs", 1)
    assert done.code == 0, done.line
    table = done.out.splitlines()
    assert table[1].split()[:4] == ["train", "19", "16", "3"]
    assert table[4].split() == ["none", "1", "0", "1", "left", "out", "when", "listed"]
    for reason in ("damaged", "annotation", "size"):
        assert any(line.startswith(f"unusable, {reason} ") for line in table), done.out
    with (out / "failures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["split"], row["name"].rpartition("/")[2], row["reason"]) for row in rows}
    assert {name for _, name, _ in found} == {f"ABOUT_0000{n}.mp4" for n in (1, 2, 3, 4)}
    assert ("", "ABOUT_00003.mp4", "annotation") in found
    assert ("train", "ABOUT_00004.mp4", "size") in found
    assert Store.open(out / "train").words == WORDS  # no clip of the first word is left: its label stays


def test_a_data_set_without_splits_is_prepared_and_told_what_training_needs(
    tree: Path, tmp_path: Path, edgelip: Edgelip
) -> None:
    for word in WORDS:
        (tree / word / "train").rename(tmp_path / "moved")
        shutil.rmtree(tree / word)
        (tmp_path / "moved").rename(tree / word)
    arguments = ("data", "prepare", tree, *CLIPS, "--jobs", 1)
    done = edgelip(*arguments, "--out", tmp_path / "p")
    line = "no clips for val and test, which `edgelip train` needs: --val-share 0.1 --test-share 0.1 holds clips out"
    assert (done.code, f"\n{line} (folders, signs)\n" in done.out) == (0, True), done.out
    held = edgelip(*arguments, "--out", tmp_path / "q", "--val-share", "0.3", "--test-share", "0.3")
    assert (held.code, "no clips for" in held.out) == (0, False), held.out


def test_a_picture_among_videos_is_counted(tree: Path, tmp_path: Path, edgelip: Edgelip) -> None:
    one = write_video(tree / "ABOUT" / "train" / "ABOUT_00001.mp4", np.zeros((1, SIDE_PX, SIDE_PX), np.uint8), **H264)
    message = f"{one} has 1 frame; expected 2 or more, since words are read from movement. Give the whole video."
    done = edgelip("data", "prepare", tree, "--out", tmp_path / "p", *CLIPS, "--jobs", 1)
    assert any(line.split()[:3] == ["unusable,", "too", "short"] for line in done.out.splitlines()), done.out
    assert message in (tmp_path / "p" / "failures.csv").read_text()
    assert f"1 too short: {message}" in edgelip("data", "inspect", tree, "--jobs", 1).out


def test_a_split_of_which_nothing_can_be_used_is_an_error_after_the_rest(
    tree: Path, tmp_path: Path, edgelip: Edgelip
) -> None:
    for path in tree.glob("*/val/*.mp4"):
        path.write_bytes(b"")
    done = edgelip("data", "prepare", tree, "--out", tmp_path / "p", *CLIPS, "--jobs", 1)
    assert done.code == 2
    assert done.line.startswith("edgelip: val: none of 10 clips can be used (damaged 10): ")
    assert done.line.endswith(f"The list is in {tmp_path / 'p'}/failures.csv.")
    assert len(Store.open(tmp_path / "p" / "test")) == 10
    assert done.out.splitlines()[2].split()[:3] == ["val", "10", "0"]


def test_a_dry_run_plans_and_writes_nothing(whole_tree: Path, tmp_path: Path, edgelip: Edgelip) -> None:
    arguments = ("data", "prepare", whole_tree, "--out", tmp_path / "p", *CLIPS, "--dry-run", "--clips", 538_766)
    done = edgelip(*arguments, "--jobs", 4)
    assert done.code == 0, done.line
    lines = done.out.splitlines()
    assert lines[1].split()[:5] == ["train", "20", "0", "598", "kB"]
    assert lines[4].split()[:3] == ["all", "40", "0"]
    assert " clips/s a worker (18 clips timed here, not written), 4 worker(s)" in lines[5]
    assert lines[-1].startswith("538,766 clips of this kind: 16 GB, ")
    plan = json.loads(edgelip(*arguments, "--json").out)
    assert plan["clip_bytes"] == 29 * SIDE_PX**2 + 200
    assert plan["scaled"]["bytes"] == 538_766 * plan["clip_bytes"]
    assert plan["scaled"]["seconds"] == pytest.approx(
        538_766 / plan["clips_per_s_per_worker"] / plan["workers"], rel=1e-6
    )
    assert not (tmp_path / "p").exists()


def test_a_disk_that_is_too_small_is_found_before_the_start(
    whole_tree: Path, tmp_path: Path, edgelip: Edgelip, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=100_000))
    monkeypatch.setattr(store_folder, "shutil", small)
    monkeypatch.setattr(preparation, "shutil", small)
    arguments = ("data", "prepare", whole_tree, "--out", tmp_path / "p", *CLIPS, "--jobs", 1)
    done = edgelip(*arguments)
    assert (done.code, done.line.endswith("(needs 1.2 MB, 100 kB free). Free space or choose another --out.")) == (
        4,
        True,
    )
    assert not (tmp_path / "p").exists()
    assert "100 kB free: too small, the preparation would not start" in edgelip(*arguments, "--dry-run").out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clips", "5"], "--clips scales the plan of --dry-run. Add --dry-run or leave it out."),
        (["--mouth", "har"], "--mouth is 'har'; expected auto, none, haar, landmarks,"),
        (["--mouth", "landmarks"], "--mouth landmarks needs --landmarks FILE or FOLDER, 68 points of each frame."),
        (["--mouth", "haar", "--landmarks", "x"], "--landmarks belongs to --mouth landmarks, not to --mouth haar."),
        (["--landmarks", "none.pkl"], "--landmarks none.pkl is no folder; expected one of a file for each clip."),
        (["--mean-face", "x"], "--mean-face belongs to --landmarks. Leave it out."),
        (["--mouth", "mediapipe"], "--mouth mediapipe and --mouth-model FILE belong together"),
        (["--persons", "x"], "--persons belongs to --landmarks. Leave it out."),
        (["--axes", "3"], "--axes belongs to signs: --points holistic118, for example. Leave it out."),
        (["--frames", "0"], "clip frames is 0; expected a whole number from 1 to 1000."),
        (["--points", "holistic118"], "--points belongs to signs; "),
    ],
)
def test_options_that_do_not_fit_are_refused(
    whole_tree: Path, tmp_path: Path, edgelip: Edgelip, options: list[str], message: str
) -> None:
    done = edgelip("data", "prepare", whole_tree, "--out", tmp_path / "p", *options)
    assert (done.code, done.line.removeprefix("edgelip: ")[: len(message)]) == (2, message)
    assert not (tmp_path / "p").exists()


def test_a_folder_inside_the_data_set_or_of_other_words_is_refused(
    tree: Path, tmp_path: Path, edgelip: Edgelip
) -> None:
    inside = edgelip("data", "prepare", tree, "--out", tree / "p", *CLIPS)
    assert (inside.code, "lies in the data set" in inside.line) == (2, True)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "words.txt").write_text("OTHER\n")
    other = edgelip("data", "prepare", tree, "--out", tmp_path / "p", *CLIPS, "--jobs", 1)
    assert (other.code, "lists other words than are prepared now. Delete" in other.line) == (2, True)


def test_files_of_two_sizes_need_a_word_on_who_finds_the_mouth(tree: Path, tmp_path: Path, edgelip: Edgelip) -> None:
    write_video(tree / "ABOUT" / "test" / "ABOUT_00001.mp4", np.zeros((29, 40, 40), np.uint8), **H264)
    done = edgelip("data", "prepare", tree, "--out", tmp_path / "p", *CLIPS)
    assert (done.code, done.line) == (
        2,
        "edgelip: some files are mouth ROIs of 32 px and some are not. Say --mouth none, or who finds the mouth.",
    )


@pytest.mark.slow
def test_a_cluster_prepares_the_same_from_relative_paths(
    tree: Path, tmp_path: Path, edgelip: Edgelip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = []
    for options in (["--jobs", 1], ["--cluster", "local", "--jobs", 2]):
        done = edgelip("data", "prepare", tree.name, "--out", f"p{len(results)}", *CLIPS, *options, "--json")
        assert done.code == 0, done.line
        results.append({split: each["sha256"] for split, each in json.loads(done.out)["splits"].items()})
    assert results[0] == results[1]


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(tree: Path, tmp_path: Path, edgelip: Edgelip) -> None:
    for word in WORDS:  # enough to be interrupted in
        first = tree / word / "train" / f"{word}_00001"
        for number in range(5, 160):
            for ending in (".mp4", ".txt"):
                os.link(first.with_suffix(ending), first.with_name(f"{word}_{number:05d}{ending}"))
    arguments = ["data", "prepare", str(tree), "--out", str(tmp_path / "p"), *CLIPS, "--jobs", "2"]
    running = subprocess.Popen(
        [sys.executable, "-m", "edgelip", *arguments], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "p" / "train" / "made_from.json").exists() and running.poll() is None:
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)  # what a terminal sends: to the workers too
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert said.splitlines()[-1] == "edgelip: interrupted; the same command goes on from here.", said
    assert "Traceback" not in said
    done = edgelip(*arguments)
    assert done.code == 0, done.line
    assert len(Store.open(tmp_path / "p" / "train")) == 5 * 159
