"""`edgelip blame` on bundles with one planted fault each, and on what cannot be compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import Edgelip
from tiny_bundles import file_entry, write_bundle
from tiny_models import WORDS
from tiny_suspects import BAD_LAYER, CONFUSED, Suspects

from edgelip.bench.statistics import Estimate


@pytest.fixture(autouse=True)
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency takes a second a layer, and tests assert none."""
    monkeypatch.setattr("edgelip.cli.blame_layers.interleaved_ratio", lambda *_, **__: Estimate(1.5, 1.25, 1.75))


def changed(bundle: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    shutil.copytree(bundle, to)
    manifest = json.loads((to / "manifest.json").read_text())
    change(manifest)
    (to / "manifest.json").write_text(json.dumps(manifest))
    return to


def test_a_planted_bad_layer_is_found_and_its_exclusion_given(
    edgelip: Edgelip, suspects: Suspects, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("blame", suspects["dense"], suspects["bad"], "--clips", suspects.clips, "-o", out)
    done = edgelip(*command, "--json")
    assert done.code == 0, done.line
    told = json.loads(done.out)
    assert told == json.loads((out / "blame.json").read_text())
    first, *others = told["layers"]["rows"]
    assert first["layers"] == [BAD_LAYER]
    assert first["exclusions"] == [{"stage": "qat", "toml": f'float_layers = ["{BAD_LAYER}"]'}]
    assert first["alone_db"] < min(row["alone_db"] for row in others)
    assert first["regained_db"] > 5 > max(row["regained_db"] for row in others)
    lost = told["words"]["total"]["lost"] - told["words"]["total"]["gained"]
    assert told["words"]["total"]["reference_top1_pct"] == 100
    assert first["regained_clips"] > lost / 2
    assert first["p"] < 0.01
    assert first["latency_ratio"] == [1.5, 1.25, 1.75]
    advice = told["layers"]["advice"]
    assert advice["layers"][0] == BAD_LAYER
    assert len(told["words"]["flips"]) >= lost
    sheet = cv2.imread(str(out / "flipped.png"), cv2.IMREAD_GRAYSCALE)
    assert sheet is not None
    assert sheet.shape[0] == 2 + 26 * min(40, len(told["words"]["flips"]))  # a row of 24 pixels a clip

    again = edgelip(*command)
    assert again.code == 0
    (paste,) = [each["toml"] for each in advice["exclusions"]]
    assert f"    {paste}" in again.out.splitlines()
    assert again.out.strip().endswith(str(out))
    assert paste in (out / "blame.md").read_text()


def test_a_planted_confusion_of_words_is_found(edgelip: Edgelip, suspects: Suspects, tmp_path: Path) -> None:
    done = edgelip(
        "blame", suspects["dense"], suspects["confused"], "--clips", suspects.clips, "-o", tmp_path / "out",
        "--minutes", "0", "--json",
    )  # fmt: skip
    assert done.code == 0, done.line
    told = json.loads(done.out)
    names = {WORDS[index] for index in CONFUSED}
    found = {each["name"]: each for each in told["words"]["words"]}
    assert {name for name, each in found.items() if each["p_holm"] is not None and each["p_holm"] < 0.05} == names
    assert all(found[name]["right_after"] == 0 for name in names)
    sure = [each for each in told["words"]["confusions"] if each["p_holm"] is not None and each["p_holm"] < 0.05]
    assert {(each["word"], each["said"]) for each in sure} == {tuple(names), tuple(reversed([*names]))}
    assert told["words"]["without_pronunciation"] == ["BELOW", "CHEESE"]
    assert "EARLY" in next(each for each in told["words"]["visemes"] if each["name"] == "ER")["words"]
    assert told["layers"]["undone"][0]["layer"] == "head"  # no time for any
    assert told["layers"]["rows"] == []


def test_bundles_without_layer_names_still_say_which_words(
    edgelip: Edgelip, suspects: Suspects, tmp_path: Path
) -> None:
    older = changed(suspects["confused"], tmp_path / "older", lambda manifest: manifest["ledger"].pop("layers"))
    done = edgelip("blame", suspects["dense"], older, "--clips", suspects.clips, "-o", tmp_path / "out")
    assert done.code == 0, done.line
    reason = "confused does not say which node is which layer: it is older. Export it again."
    assert f"Layers were not looked at: {reason}" in done.out
    assert "BELOW       EARLY     0    15" in done.out


def test_a_reference_that_is_not_float_has_nothing_to_put_back(
    edgelip: Edgelip, suspects: Suspects, tmp_path: Path
) -> None:
    done = edgelip("blame", suspects["bad"], suspects["confused"], "--clips", suspects.clips, "-o", tmp_path, "--json")
    assert done.code == 0, done.line
    reason = json.loads(done.out)["layers"]["reason"]
    assert reason == "bad has no fp32 file for ONNX Runtime: there is nothing to put back."


def test_the_clips_of_the_export_are_found_by_their_hash(edgelip: Edgelip, suspects: Suspects, tmp_path: Path) -> None:
    for name in ("dense", "confused"):
        shutil.copytree(suspects[name], tmp_path / name)
    told = ("blame", tmp_path / "dense", tmp_path / "confused", "--minutes", "0")
    done = edgelip(*told)
    assert done.code == 2
    assert "No accuracy.json in dense or confused says which test clips are theirs. Give them: --clips" in done.line
    sha = file_entry(suspects.clips)["sha256"]
    (tmp_path / "confused" / "accuracy.json").write_text(json.dumps({"clips_sha256": sha}))
    done = edgelip(*told)
    assert (done.code, f"test clips of confused (sha256 {sha[:12]}..) are not beside it" in done.line) == (2, True)
    (tmp_path / ".cache" / "data-test-0").mkdir(parents=True)
    shutil.copy(suspects.clips, tmp_path / ".cache" / "data-test-0" / "clips.npz")
    assert edgelip(*told).code == 0
    assert (tmp_path / "blame-dense-confused" / "blame.json").is_file()
    (tmp_path / "dense" / "accuracy.json").write_text(json.dumps({"clips_sha256": "0" * 64}))
    done = edgelip(*told)
    assert (done.code, "were measured on different test clips" in done.line) == (2, True)


def test_a_bundle_is_not_blamed_against_itself(edgelip: Edgelip, suspects: Suspects) -> None:
    done = edgelip("blame", suspects["bad"], suspects["bad"], "--clips", suspects.clips)
    assert done.code == 2
    assert done.line == (
        "edgelip: bad is the same network as bad: model.int8-u8.onnx has the same content. Give the bundle before "
        "compression and the one after it."
    )


def test_bundles_of_other_words_or_clips_are_refused(edgelip: Edgelip, suspects: Suspects, tmp_path: Path) -> None:
    words = changed(suspects["bad"], tmp_path / "words", lambda m: m.update(vocabulary=[*WORDS[:-1], "ZEBRA"]))
    done = edgelip("blame", suspects["dense"], words, "--clips", suspects.clips)
    assert done.code == 2
    assert "dense knows 6 words and bad 6, 'ZEBRA' is not among the former's; expected the same words." in done.line
    order = changed(suspects["bad"], tmp_path / "order", lambda m: m.update(vocabulary=[*reversed(WORDS)]))
    done = edgelip("blame", suspects["dense"], order, "--clips", suspects.clips)
    assert "in another order or number; expected the same words" in done.line
    spec = changed(suspects["bad"], tmp_path / "spec", lambda m: m["clip"].update(fps=30.0, mean=0.5))
    done = edgelip("blame", suspects["dense"], spec, "--clips", suspects.clips)
    assert (done.code, "dense and bad take different clips (fps, mean); expected the same." in done.line) == (2, True)


@pytest.mark.parametrize(
    ("frames", "labels", "message"),
    [
        (np.zeros((2, 6, 24, 24), np.uint8), [0, 6], "labels reach from 0 to 6; dense has 6 words."),
        (np.zeros((2, 6, 24, 24), np.uint8), [0, -1], "labels reach from -1 to 0; dense has 6 words."),
        (np.zeros((2, 5, 24, 24), np.uint8), [0, 1], "They are not clips of dense."),
        (np.zeros((2, 6, 32, 32), np.uint8), [0, 1], "expected uint8 (B, 6, 24, 24)."),
        (
            np.zeros((2, 6, 24, 24), np.float32),
            [0, 1],
            "clips are float32 (1, 6, 24, 24); expected uint8 (B, 6, 24, 24).",
        ),
        (
            np.zeros((2, 6, 24, 24)),
            [0, 1],
            "expected uint8 (N > 0, T, H, W) or float32 landmarks (N > 0, T, P, A). Write",
        ),
        (np.zeros((0, 6, 24, 24), np.uint8), [], "Write the test clips again."),
        (np.zeros((2, 6, 24, 24), np.uint8), [0], "labels have shape (1,); expected (2,)."),
    ],
)
def test_clips_that_do_not_fit_are_refused(
    edgelip: Edgelip, suspects: Suspects, tmp_path: Path, frames: np.ndarray, labels: list[int], message: str
) -> None:
    path = tmp_path / "clips.npz"
    np.savez(path, frames=frames, labels=np.array(labels, int))
    done = edgelip("blame", suspects["dense"], suspects["bad"], "--clips", path, "-o", tmp_path / "out")
    assert done.code == 2
    assert message in done.line
    assert not (tmp_path / "out").exists()


def test_what_is_not_there_is_said(
    edgelip: Edgelip, suspects: Suspects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = edgelip("blame", suspects["dense"], tmp_path / "none", "--clips", suspects.clips)
    assert (done.code, "none does not exist; expected a bundle" in done.line) == (2, True)
    done = edgelip("blame", suspects["dense"], suspects["bad"], "--clips", tmp_path / "none.npz")
    assert (done.code, "none.npz" in done.line) == (2, True)
    done = edgelip("blame", suspects["dense"], suspects["bad"], "--clips", suspects.clips, "--precision", "fp16")
    assert (done.code, "bad has no fp16 model for engine 'ort'" in done.line) == (2, True)
    done = edgelip("blame", suspects["dense"], write_bundle(tmp_path / "tiny"), "--clips", suspects.clips)
    assert (done.code, "dense knows 6 words and tiny 3" in done.line) == (2, True)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    done = edgelip("blame", suspects["dense"], suspects["bad"], "--clips", suspects.clips)
    assert (done.code, "onnxruntime" in done.line) == (4, True)
