from __future__ import annotations

import tomllib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.errors import RecipeError
from edgelip.recipe import load_recipe
from edgelip.recipe_sections import SpanData, SyntheticData

DEBUG = Path(__file__).parent / "recipes/debug.toml"
REPOSITORY = Path(__file__).parent.parent


def refusal(*overrides: str, path: Path = DEBUG) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides=overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("export/recipes/*.toml")), ids=lambda path: path.stem)
def test_every_recipe_that_we_ship_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.output is None or not recipe.output.is_absolute()
    assert getattr(recipe.data, "root", None) is None  # set on the command line


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["train.epocs=3"], "unknown key 'epocs' in [train]. Did you mean 'epochs'?"),
        (["data.wrds=3"], "unknown key 'wrds' in [data]. Did you mean 'words'?"),
        (["bench.engin=1"], "unknown key 'engin' in [bench]. Did you mean 'engine'?"),
        (["trian.epochs=3"], "unknown key 'trian'. Did you mean 'train'?"),
        (["variant=[{nam='a'}]"], "unknown key 'nam' in [variant.0]. Did you mean 'name'?"),
        (["data.kind='spans'"], "unknown key 'generator' in [data]. Known: kind, root, manifest, category, words."),
        (["variant=[{}]"], "key 'variant.0.name' is missing; it has no default."),
        (["train={}"], "key 'train.epochs' is missing; it has no default."),
        (["data={}"], '[data] needs kind = "synthetic", "spans", "prepared" or "synthetic_signs"; got None.'),
        (["data.kind=x"], '[data] needs kind = "synthetic", "spans", "prepared" or "synthetic_signs"; got \'x\'.'),
        (["data=3"], "data: Input should be a valid dictionary or object to extract fields from (got 3)."),
        (["train=1"], "train: Input should be a valid dictionary or instance of TrainSection (got 1)."),
        (["clip.frames=a"], "clip.frames: Input should be a valid integer, unable to parse"),
        (["bench.threads=1.5"], "bench.threads: Input should be a valid integer, got a number"),
        (["train.epochs=0"], "train.epochs: Input should be greater than or equal to 1 (got 0)."),
        (["train.time_mask_draw=published"],
         'train: time_mask_draw = "published" masks nothing below time_mask_frames = 2; 15 is published.'),
        (["train.cutmix_cut=box"], "train: cutmix_cut has no effect without cutmix_alpha, such as 1.0."),
        (["train.rate_schedule=epoch_cosine", "train.warmup_fraction=0.2"],
         'train: warmup_fraction has no effect on rate_schedule = "epoch_cosine"; leave it out.'),
        (["train.variable_length=true", "model.options.boundary=true"],
         "train.variable_length crops clips, and with model.options.boundary the network is told where the word lies "
         "in the uncropped clip; set one of them to false."),
        (["train.variable_length=true", "clip.timing=span"],
         'train.variable_length has no effect on clip.timing = "span": the word fills its clip; take "window".'),
        (["data={kind='synthetic_signs', train_clips=4, val_clips=4, test_clips=4}", "clip={kind='landmarks'}",
          "train.cutmix_alpha=1"],
         'train.cutmix_alpha cuts landmarks in time only; set train.cutmix_cut = "span" beside it.'),
        (["train.learning_rate=inf"], "train.learning_rate: Input should be a finite number (got inf)."),
        (["train.learning_rate=nan"], "train.learning_rate: Input should be "),
        (["variant=[]"], "variant: Tuple should have at least 1 item after validation, not 0 (got [])."),
        (["variant=[{name='a'},{name='a'}]"], "two variants are called 'a'; names must differ."),
        (["data.words=['A','B','A']"], "data: the word 'A' is listed twice; words must differ."),
        (["name='../x'"], "name: String should match pattern"),
        (["clip.roi_px=95"], "clip roi_px 95, crop_px 88, pool 2 do not fit: pool must divide both"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_refused_in_one_line(overrides: Sequence[str], text: str) -> None:
    assert refusal(*overrides).startswith(text)


def test_files_that_are_no_recipe_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("name = ")
    assert "cannot be read as TOML: " in refusal(path=tmp_path / "bad.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    assert "cannot be read as TOML: " in refusal(path=tmp_path / "binary.toml")
    assert "cannot be read as TOML: " in refusal(path=tmp_path)
    (tmp_path / "empty.toml").write_text("")
    assert refusal(path=tmp_path / "empty.toml") == "key 'name' is missing; it has no default."
    missing = refusal(path=tmp_path / "x.toml")
    assert missing.startswith(f"There is no recipe {tmp_path}/x.toml. Recipes there: {tmp_path}/bad.toml, ")


@pytest.mark.parametrize("override", ["train.epochs", "=3", " =3", ""])
def test_an_override_without_key_or_value_is_refused(override: str) -> None:
    assert refusal(override) == f"--set {override!r} is not KEY=VALUE, as in --set train.epochs=3."


def test_an_override_below_a_value_is_refused() -> None:
    assert refusal("name.x=3") == "--set 'name.x=3': 'name' is not a section of the recipe."
    assert refusal("variant.0.name=x") == "--set 'variant.0.name=x': 'variant' is not a section of the recipe."


def test_overrides_take_numbers_words_lists_and_tables() -> None:
    recipe = load_recipe(
        DEBUG,
        overrides=[
            "train.epochs=7", "train.epochs=8", " train.learning_rate =5e-4", "train.flip=false",
            "bench.engine=openvino",
            "data.words=['A', 'B']", "model.options.stem_width=8", "output=runs/x=y", "clip.mean=0.5",
        ],
    )  # fmt: skip
    assert (recipe.train.epochs, recipe.train.learning_rate, recipe.train.flip) == (8, 5e-4, False)
    assert (recipe.bench.engine, recipe.output, recipe.clip.mean) == ("openvino", Path("runs/x=y"), 0.5)
    assert isinstance(recipe.data, SyntheticData)
    assert recipe.data.words == ("A", "B")
    assert recipe.model.options["stem_width"] == 8
    assert recipe.model.options["trunk_widths"] == [32, 32]
    assert "stem_width = 16" in DEBUG.read_text()  # the file stays


def test_a_value_of_two_lines_sets_one_key() -> None:
    assert "unable to parse" in refusal("train.epochs=3\nname='x'")


def test_a_word_list_may_be_left_to_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("name='r'\n[data]\nkind='spans'\n[train]\nepochs=1\n[[variant]]\nname='dense'\n")
    recipe = load_recipe(tmp_path / "r.toml", overrides=["data.root=videos"])
    assert isinstance(recipe.data, SpanData)
    assert (recipe.data.root, recipe.data.words) == (Path("videos"), None)


@given(
    value=st.one_of(
        st.integers(-(2**40), 2**40), st.booleans(), st.text(st.characters(codec="utf-8"), max_size=20),
        st.lists(st.integers(0, 9), max_size=4),
    )
)  # fmt: skip
def test_an_override_carries_any_toml_value(value: Any) -> None:
    import json

    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    try:
        tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return  # JSON that is no TOML
    assert load_recipe(DEBUG, overrides=[f"model.options.x={text}"]).model.options["x"] == value


@given(key=st.text(max_size=12), value=st.text(max_size=12))
def test_any_override_is_obeyed_or_refused(key: str, value: str) -> None:
    with suppress(RecipeError):
        load_recipe(DEBUG, overrides=[f"{key}={value}"])
