"""The recipes of the ladder: one test set, the same kinds of variants, and every stage fits its network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import DENSE, EFFICIENT, MULTI
from tiny_models import keep, lively

from edgelip.cli.bundling import bundle_from_checkpoint
from edgelip.cli.workshop import Workshop
from edgelip.compress.pipeline import apply_stage
from edgelip.compress.stage import LabelledClips, Tools
from edgelip.models.checkpoint import Architecture, checkpoint_from_model
from edgelip.models.zoo import build_classifier
from edgelip.progress import Progress
from edgelip.recipe import Recipe, load_recipe
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.check import check
from edgelip.runtime.clip import network_input

RECIPES = Path(__file__).parents[2] / "export" / "recipes"
LADDER = ("dctcn", "mstcn", "shufflenet", "eflip", "small")
FEW_PIXELS = ["clip.pool=4", "clip.crop_px=80"]
# The same networks, narrow: every stage still fits. ShuffleNet comes in one width; it is rehearsed in full, slowly.
TOY: dict[str, dict[str, Any]] = {
    "dctcn": DENSE | {"trunk_widths": (16, 16, 16, 32)},
    "mstcn": MULTI | {"trunk_widths": (16, 16, 16, 32)},
    "eflip": EFFICIENT,
}
SMALL = {"stem_width": 16, "trunk_widths": [32, 32], "temporal_width": 32, "temporal_blocks": 1}


def workshop(name: str, folder: Path) -> Workshop:
    return Workshop(load_recipe(RECIPES / f"{name}.toml"), folder, Progress(quiet=True))


def toy_workshop(name: str, options: dict[str, Any], folder: Path) -> Workshop:
    """With a narrow network, and with the multiples of channels that fit it."""
    recipe = load_recipe(RECIPES / f"{name}.toml", overrides=FEW_PIXELS)
    narrow = {"prune": {"round_to": 4}, "phm": {"n": 4}}
    variants = [
        variant.model_copy(update={"stages": tuple(stage | narrow.get(stage["stage"], {}) for stage in variant.stages)})
        for variant in recipe.variant
    ]
    model = recipe.model.model_copy(update={"options": options})
    return Workshop(
        recipe.model_copy(update={"model": model, "variant": tuple(variants)}), folder, Progress(quiet=True)
    )


def kinds(recipe: Recipe) -> list[list[Any]]:
    return [[stage["stage"] for stage in variant.stages] for variant in recipe.variant]


@pytest.mark.parametrize("name", TOY)
def test_every_stage_fits_the_network_of_its_recipe(name: str, tmp_path: Path) -> None:
    toy_workshop(name, TOY[name], tmp_path).rehearse()


def test_every_stage_fits_the_small_network_at_full_size(tmp_path: Path) -> None:
    workshop("small", tmp_path).rehearse()


@pytest.mark.slow
@pytest.mark.parametrize("name", LADDER[:-1])
def test_every_stage_fits_the_others_at_full_size(name: str, tmp_path: Path) -> None:
    workshop(name, tmp_path).rehearse()


@pytest.mark.parametrize("name", LADDER)
def test_the_ladder_reads_the_test_clips_of_the_quickstart(name: str, tmp_path: Path) -> None:
    ours, theirs = (load_recipe(RECIPES / f"{each}.toml") for each in (name, "quickstart"))
    assert ours.data.model_dump(exclude={"train_clips"}) == theirs.data.model_dump(exclude={"train_clips"})
    assert ours.clip.spec().input_px == 88
    Workshop(ours, tmp_path, Progress(quiet=True))  # reads every stage
    assert kinds(ours) == [[], ["phm"], ["qat"], ["prune"], ["prune", "phm", "store", "qat"]]


def test_what_a_recipe_puts_together_is_exported(tmp_path: Path) -> None:
    """All stages of the small recipe on an untrained network, to a bundle that answers as torch does."""
    shop = toy_workshop("small", SMALL, tmp_path)
    recipe, spec, words = shop.recipe, shop.spec, shop.clips.words
    frames = np.random.default_rng(0).integers(0, 256, (8, spec.frames, spec.stored_px, spec.stored_px), np.uint8)
    clips = LabelledClips(torch.from_numpy(network_input(frames, spec)), torch.arange(8), "0" * 64)
    tools = Tools(finetune=keep, calibration=lambda: clips, probe=lambda: clips)
    entry = {"stage": "train", "config": {}, "record": {}}
    options = recipe.model.options
    made = lively(build_classifier("small", num_words=len(words), options=options))
    checkpoint = checkpoint_from_model(made, Architecture("small", options, words, spec.to_json(), (entry,)))
    for stage in shop.variants["all-together"]:
        checkpoint = apply_stage(checkpoint, stage, tools)
    bundle_from_checkpoint(tmp_path / "bundle", checkpoint, frames[:2], name="all-together", data="noise")
    bundle = Bundle.open(tmp_path / "bundle")
    assert [parity.precision for parity in check(bundle.path, engine="ort")] == ["int8"]
    whole = sum(parameter.numel() for parameter in made.parameters())
    assert bundle.manifest.ledger["parameters"] < whole / 2
