"""compression_rows.py trains, exports and judges variants over seeds, goes on after a kill, refuses what misleads."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelip.errors import RecipeError, UsageError
from edgelip.models.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]
SUITE = """
recipe = "{recipe}"
set = ["train.epochs=1", "data.train_clips=16", "data.val_clips=8", "data.test_clips=12", "bench.check_clips=2"]
[[variant]]
name = "dense"
[[variant]]
name = "phm4"
stages = [{{ stage = "phm", n = 4, tune = {{ epochs = 0 }} }}]
[[limit]]
variant = "phm4"
against = "dense"
drop_points = 100
smaller = 2
faster = 1000
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of benchmarks/ by name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(SUITE.format(recipe=ROOT / "tests/recipes/debug.toml"))
    return path


def test_rows_of_two_seeds_are_made_once_and_judged(
    script: Any, suite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = script("compression_rows")
    out = tmp_path / "out"
    make = rows.make_outcome
    made: list[tuple[int, str]] = []

    def killed_at_the_third(shop: Any, name: str) -> Any:
        made.append((shop.recipe.train.seed, name))
        if len(made) == 3:
            raise KeyboardInterrupt
        return make(shop, name)

    monkeypatch.setattr(rows, "make_outcome", killed_at_the_third)
    command = [str(suite_file), "--seeds", "0", "1", "--out", str(out)]
    with pytest.raises(KeyboardInterrupt):
        rows.run(command)
    assert rows.main([*command, "--check", "--latency", "1", "--launches", "1", "--seconds", "0.1"]) == 3
    assert made == [(0, "dense"), (0, "phm4"), (1, "dense"), (1, "dense"), (1, "phm4")]
    result = json.loads((out / "toy-seeds-0-1.json").read_text())
    dense, phm = result["rows"]
    assert [row["variant"] for row in result["rows"]] == ["dense", "phm4"]
    assert dense["top1_drop_points"] == [0, 0, 0]
    for seed in ("0", "1"):
        assert len(phm["right"][seed]) == 12
        assert phm["top1_pct"][seed] == pytest.approx(100 * phm["right"][seed].count("1") / 12)
    lost = [dense["top1_pct"][seed] - phm["top1_pct"][seed] for seed in ("0", "1")]
    assert phm["top1_drop_points"][0] == pytest.approx(np.mean(lost))
    assert phm["method"] == "PHM n=4"
    assert dense["file_bytes"][0] > 2 * phm["file_bytes"][0]
    verdicts = [limit["verdict"] for limit in result["limits"]]
    assert verdicts == ["pass", "pass", "MISS"]
    assert result["latency"][0]["variants"]["dense"]["num_launches"] == 1
    text = (out / "toy-seeds-0-1.md").read_text()
    assert "phm4 against dense: times faster, 1 thread" in text
    assert "1 limits are missed or not measured" in capsys.readouterr().err


def test_a_failed_row_is_reported_and_the_others_go_on(
    script: Any, suite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, outcomes = script("compression_rows"), script("row_outcomes")
    make = rows.make_outcome
    monkeypatch.setattr(outcomes, "deployed_logits", lambda subject, clips: np.eye(12, 4))

    def failing(shop: Any, name: str) -> Any:
        if name == "dense":
            raise UsageError("no such thing")
        return make(shop, name)

    monkeypatch.setattr(rows, "make_outcome", failing)
    assert rows.main([str(suite_file), "--seeds", "3", "--out", str(tmp_path / "out")]) == 1
    assert "1 rows failed: dense, seed 3: no such thing" in capsys.readouterr().err
    result = json.loads((tmp_path / "out/toy-seeds-3.json").read_text())
    assert [row["variant"] for row in result["rows"]] == ["phm4"]
    assert result["rows"][0]["top1_drop_points"] is None
    assert [limit["verdict"] for limit in result["limits"]] == ["not measured"] * 3
    assert result["failed"] == {"dense, seed 3": "no such thing"}


def test_a_given_checkpoint_stands_for_the_trained_one(script: Any, suite_file: Path, tmp_path: Path) -> None:
    outcomes, workshop = script("row_outcomes"), importlib.import_module("edgelip.cli.workshop")
    suite = script("row_suites").load_suite(suite_file)
    progress = importlib.import_module("edgelip.progress").Progress(quiet=True)
    trained = workshop.Workshop(suite.recipe_of(0), tmp_path / "trained", progress).checkpoint(())
    given = tmp_path / "given.safetensors"
    save_checkpoint(trained, given)
    shop = workshop.Workshop(suite.recipe_of(0), tmp_path / "taking", progress)
    outcomes.take_dense(shop, given)
    assert shop.cache.finished(shop.trained_key) is not None
    assert shop.checkpoint(()).sha256 == trained.sha256
    outcomes.take_dense(shop, given)  # again: the same

    other_seed = workshop.Workshop(suite.recipe_of(1), tmp_path / "taking", progress)
    with pytest.raises(UsageError, match=r"has train.seed 0; the suite asks for 1. Give another checkpoint"):
        outcomes.take_dense(other_seed, given)
    halved = {name: tensor / 2 for name, tensor in trained.tensors.items()}
    save_checkpoint(type(trained)(trained.architecture, halved), given)
    with pytest.raises(UsageError, match=r"holds weights .*which rows hang on. Choose another --out"):
        outcomes.take_dense(shop, given)
    bare = type(trained.architecture)("small", {}, trained.architecture.words, trained.architecture.clip)
    save_checkpoint(type(trained)(bare, trained.tensors), given)
    with pytest.raises(UsageError, match="keeps no record of its training"):
        outcomes.take_dense(shop, given)
    assert load_checkpoint(given).sha256 == trained.sha256


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('against = "dense"', 'against = "dens"', "has no variant 'dens'. Did you mean 'dense'"),
        ("faster = 1000", "fastr = 1000", "unknown key 'fastr'"),
        ("drop_points = 100\nsmaller = 2\nfaster = 1000", "", "the limit of 'phm4' limits nothing"),
        ('name = "phm4"', 'name = "PHM 4"', "variant"),
        ("[[limit]]", "[[limit", "cannot be read as TOML"),
    ],
)
def test_suites_are_read_strictly(script: Any, suite_file: Path, old: str, new: str, message: str) -> None:
    suite_file.write_text(suite_file.read_text().replace(old, new))
    with pytest.raises(RecipeError, match=message):
        script("row_suites").load_suite(suite_file)


# Beside them lie the suites of devices, which name exports in the place of a recipe (edgelip bench SUITE.toml).
OF_RECIPES = [path for path in sorted((ROOT / "benchmarks/suites").glob("*.toml")) if "\nrecipe = " in path.read_text()]


@pytest.mark.parametrize("path", OF_RECIPES, ids=lambda path: path.stem)
def test_the_suites_of_the_repository_can_be_read(script: Any, path: Path) -> None:
    suite = script("row_suites").load_suite(path)
    assert suite.variants[0] == "dense"
    assert suite.recipe.data.test_clips >= 2500
    assert suite.recipe_of(2).train.seed == 2
    kept = script("row_suites").load_suite(path, only=[suite.variants[1]])
    assert kept.variants == suite.variants[:2]


def test_seeds_named_twice_are_refused(script: Any, suite_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("compression_rows").main([str(suite_file), "--seeds", "1", "1"]) == 2
    assert "name a seed twice" in capsys.readouterr().err
