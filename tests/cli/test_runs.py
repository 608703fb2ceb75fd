"""Run folders: named by what decides the weights, links to one copy, found again; frozen parts and cached features."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelip.cli.predict import ClipOptions, Output, predict_clip
from edgelip.cli.runs import run_of
from edgelip.cli.train import train_recipe
from edgelip.errors import CheckpointError, RecipeError
from edgelip.models.checkpoint import load_checkpoint
from edgelip.recipe import Recipe, load_recipe
from edgelip.toml_text import toml_from_tree
from edgelip.words import read_words

DEBUG = Path(__file__).parent.parent / "recipes" / "debug.toml"
TINY = (
    "data.train_clips=16", "data.val_clips=8", "data.train_speakers=2", "train.epochs=2", "train.precision=32-true",
    "model.options={ stem_width = 8, trunk_widths = [16], temporal_width = 16, temporal_blocks = 1 }",
    'variant=[{name="dense"}]', "train.flip=false", "train.random_crop=false",
)  # fmt: skip
FROZEN = ('train.freeze=["frontend","trunk"]', "train.learning_rate=1e-3")
RECIPE: dict[str, Any] = {
    "name": "words",
    "data": {"kind": "synthetic", "words": ["A", "B"], "train_clips": 4, "val_clips": 4, "test_clips": 4},
    "model": {"backbone": "small", "options": {"stem_width": 8}},
    "train": {"epochs": 2, "learning_rate": 0.001},
    "variant": [{"name": "dense"}],
}


def train(folder: Path, *overrides: str, recipe: Path = DEBUG, **more: Any) -> dict[str, Any]:
    overrides = (*TINY, *overrides) if recipe == DEBUG else overrides
    result: dict[str, Any] = json.loads(train_recipe(recipe, overrides=overrides, out=folder, as_json=True, **more))
    return result


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "dist"


@pytest.fixture(scope="module")
def run(dist: Path) -> Path:
    """The folder of a finished training."""
    return Path(train(dist)["checkpoint"]).parent


def hash_of(tree: dict[str, Any], folder: Path, *, start: str | None = None) -> str:
    path = folder / "recipe.toml"
    path.write_text(toml_from_tree(tree))
    return run_of(load_recipe(path), start=start).config_sha256


def test_a_training_is_found_in_a_readable_place(run: Path, dist: Path) -> None:
    assert run.parent == dist / "runs" / "training" / "debug"
    digest, _, seed = run.name.partition("--")
    assert (len(digest), seed) == (16, "0")
    assert sorted(path.name for path in run.iterdir()) == [
        "config.toml", "history.json", "model.safetensors", "run.json", "words.txt"
    ]  # fmt: skip
    record = json.loads((run / "run.json").read_text())
    checkpoint = load_checkpoint(run)
    assert record["config_sha256"].startswith(digest)
    assert (record["kind"], record["label"], record["seed"], record["epochs"]) == ("training", "debug", 0, 2)
    assert record["weights_sha256"] == checkpoint.sha256
    assert read_words(run / "words.txt") == checkpoint.architecture.words
    assert 0 <= record["val_top1_pct"] <= 100
    assert len(json.loads((run / "history.json").read_text())) == 2


def test_weights_are_stored_once(run: Path, dist: Path) -> None:
    found = (run / "model.safetensors").stat()
    assert found.st_nlink == 3  # run, cache, blob
    copies = [path for path in dist.rglob("*") if path.is_file() and path.stat().st_ino == found.st_ino]
    assert len(copies) == 3
    assert found.st_mode & 0o222 == 0


def test_no_optimiser_state_is_left(run: Path, dist: Path) -> None:
    assert not list(dist.rglob("training.ckpt"))
    assert load_checkpoint(run).optimiser is None


def test_the_recipe_in_the_folder_finds_the_run_again(run: Path, dist: Path) -> None:
    again = train(dist, recipe=run / "config.toml")
    assert Path(again["checkpoint"]).parent == run
    assert (run / "model.safetensors").stat().st_nlink == 3


def test_another_seed_shares_the_hash(run: Path, dist: Path) -> None:
    other = Path(train(dist, "train.seed=5")["checkpoint"]).parent
    assert other.parent == run.parent
    assert other.name == run.name.replace("--0", "--5")
    assert load_checkpoint(other).sha256 != load_checkpoint(run).sha256


def test_weights_that_changed_in_place_are_found(tmp_path: Path) -> None:
    run = Path(train(tmp_path / "dist")["checkpoint"])
    run.chmod(0o644)
    with run.open("r+b") as file:  # into the one copy, as nothing here does
        file.seek(-1, os.SEEK_END)
        file.write(b"\x77")
    with pytest.raises(CheckpointError, match=r"model\.safetensors has changed since it was made\. Delete .*train-"):
        train(tmp_path / "dist")


def test_trainings_above_one_trunk_store_it_once(run: Path, dist: Path, tmp_path: Path) -> None:
    made = [Path(train(dist, *FROZEN, f"train.seed={seed}", start=run)["checkpoint"]) for seed in (1, 2)]
    assert {path.name for path in made} == {"checkpoint.json"}
    first, second = (path.parent for path in made)
    for part, links in {"frontend": 5, "trunk": 5, "temporal": 3, "head": 3}.items():
        found = [(folder / f"{part}.safetensors").stat() for folder in (first, second)]
        assert {each.st_nlink for each in found} == {links}  # two in each run, cache and folder; one is the blob
        assert (found[0].st_ino == found[1].st_ino) is (links == 5)
    base, top = load_checkpoint(run), load_checkpoint(first)
    for name, tensor in top.tensors.items():
        assert torch.equal(tensor, base.tensors[name]) is name.startswith(("frontend", "trunk")) or name.endswith(
            "num_batches_tracked"
        )
    clips = tmp_path / "clips.npy"
    np.save(clips, np.zeros((1, 29, 96, 96), np.uint8))
    read = [predict_clip(model, clips, ClipOptions(), Output(), engine=None) for model in (first, made[0])]
    assert read[0] == read[1]
    single = tmp_path / "single.safetensors"
    train(dist, *FROZEN, "train.seed=1", start=run, save=single)
    assert load_checkpoint(single).sha256 == top.sha256
    assert predict_clip(single, clips, ClipOptions(), Output(), engine=None) == read[0]
    assert single.stat().st_nlink == 1
    onwards = train(dist, "train.epochs=1", start=made[0])  # a checkpoint in parts is one to go on from
    assert Path(onwards["checkpoint"]).name == "model.safetensors"


def test_cached_features_give_the_same_weights(run: Path, dist: Path) -> None:
    pixels = load_checkpoint(Path(train(dist, *FROZEN, start=run)["checkpoint"]))
    made = train(dist, *FROZEN, "train.feature_cache=fp32", start=run)
    features = load_checkpoint(Path(made["checkpoint"]))
    assert max(float((t - features.tensors[name]).abs().max()) for name, t in pixels.tensors.items()) < 1e-6
    assert len(list((dist / ".cache").glob("features-*"))) == 2
    (entry,) = features.architecture.stages[1:]
    assert entry["config"]["feature_cache"] == "fp32"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ['train.freeze=["stem"]'],
            "[train]: the model has no part 'stem' to freeze; it has frontend, trunk, temporal",
        ),
        ([*FROZEN, "train.feature_cache=fp16", "train.flip=true"], "[train]: flip vary pixels and cached features"),
        (['train.freeze=["trunk"]', "train.feature_cache=fp16"], 'set freeze = ["frontend", "trunk"] too'),
        (["train.feature_views=2"], "feature_views has no effect without feature_cache"),
        (['train.freeze=["trunk", "trunk"]'], "freeze names a part twice; parts must differ"),
    ],
)
def test_freezing_that_cannot_be_is_refused_at_once(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        train(tmp_path / "dist", *overrides)
    assert message in str(caught.value)
    assert not list((tmp_path / "dist").rglob("*.npy"))  # nothing was prepared


def test_what_is_written_differently_has_one_hash(tmp_path: Path) -> None:
    base = hash_of(RECIPE, tmp_path)
    spelt_out = load_recipe(tmp_path / "recipe.toml").model_dump(mode="json", exclude_none=True)
    assert hash_of(spelt_out, tmp_path) == base
    small = {"backbone": "small", "options": {"stem_width": 8, "dropout": 0.1, "trunk_widths": [32, 64, 128]}}
    for same in (
        {**RECIPE, "name": "other", "bench": {"launches": 9}, "variant": [{"name": "x"}]},
        {**RECIPE, "train": {"learning_rate": 1e-3, "epochs": 2, "seed": 7}},
        {**RECIPE, "model": small},
        {**RECIPE, "clip": {"std": 0.165}},
    ):
        assert hash_of(same, tmp_path) == base
    for other in (
        {**RECIPE, "train": {"epochs": 3, "learning_rate": 0.001}},
        {**RECIPE, "model": {"backbone": "small"}},
        {**RECIPE, "clip": {"pool": 1}},
        {**RECIPE, "data": {**RECIPE["data"], "words": ["B", "A"]}},
    ):
        assert hash_of(other, tmp_path) != base
    assert len({hash_of(RECIPE, tmp_path, start=start) for start in (None, "a", "b")}) == 3


def _reordered(tree: Any, draw: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _reordered(tree[key], draw) for key in draw(st.permutations(list(tree)))}
    return tree


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_order_defaults_and_comments_do_not_count(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("recipes")
    base = hash_of(RECIPE, folder)
    full = load_recipe(folder / "recipe.toml").model_dump(mode="json", exclude_none=True)
    shuffled = _reordered(full, data.draw)
    for section in ("data", "clip", "train"):  # of the values that are defaults any may be left out
        must = RECIPE.get(section, {})
        for key in [key for key in shuffled[section] if key not in must and data.draw(st.booleans())]:
            del shuffled[section][key]
    path = folder / "recipe.toml"
    lines = toml_from_tree(shuffled).splitlines()
    path.write_text("\n".join(f"{line}  # {data.draw(st.integers())}" if line else line for line in lines) + "\n")
    assert run_of(load_recipe(path), start=None).config_sha256 == base


_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(tree=st.dictionaries(st.text(max_size=8), _VALUES, max_size=4))
def test_toml_is_read_back_as_it_was(tree: dict[str, Any]) -> None:
    import tomllib

    assert tomllib.loads(toml_from_tree(tree)) == tree


def test_an_export_shows_what_its_variants_were_distilled_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny_models import nudge

    from edgelip.cli.workshop import Workshop
    from edgelip.progress import Progress

    phm = 'variant=[{name="dense"},{name="phm4",stages=[{stage="phm",n=4,tune={epochs=1}}]}]'
    recipe = load_recipe(DEBUG, overrides=[*TINY, phm])

    def fit(model: Any, work: Path, **_: Any) -> Any:
        (work / "history.json").write_text(json.dumps([{"loss": 1.0, "val_top1": 0.25, "seconds": 1.0}]))
        return nudge(model)

    workshop = Workshop(recipe, tmp_path, Progress(quiet=True))
    for part in ("dense", "tuned"):
        monkeypatch.setattr(workshop.training, part, fit)
    stages = workshop.variants["phm4"]
    shown = workshop.publish(stages, label="phm4")
    assert shown.parents[3] == tmp_path / "runs"
    assert shown.parent.parent == tmp_path / "runs" / "distillation" / "phm4"
    record = json.loads((shown.parent / "run.json").read_text())
    assert (record["kind"], record["label"], record["val_top1_pct"]) == ("distillation", "phm4", 25.0)
    assert [entry["stage"] for entry in load_checkpoint(shown).architecture.stages] == ["train", "phm"]
    before = (shown.parent / "run.json").stat().st_mtime_ns
    assert workshop.publish(stages, label="phm4") == shown
    assert (shown.parent / "run.json").stat().st_mtime_ns == before  # left alone
    (shown.parent / "run.json").write_text("{")  # damaged: written anew
    shown.unlink()
    assert workshop.publish(stages, label="phm4").stat().st_nlink == 3


def test_distillation_is_named_by_its_variant(tmp_path: Path) -> None:
    from edgelip.compress.pipeline import stages_from_configs

    recipe = Recipe.model_validate(RECIPE)
    named = run_of(recipe, start=None, label="phm4", stages=stages_from_configs([{"stage": "phm", "n": 4}]))
    assert named.folder(tmp_path).parent == tmp_path / "runs" / "distillation" / "phm4"
    assert named.config_sha256 != run_of(recipe, start=None).config_sha256
