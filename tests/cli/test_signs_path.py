"""Signs through a recipe: trained, compressed, exported, checked and read; the wrong kind of clips is refused first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Edgelip

from edgelip.cli.workshop import Workshop
from edgelip.compress.pipeline import model_from_checkpoint
from edgelip.errors import RecipeError
from edgelip.models.checkpoint import save_checkpoint
from edgelip.models.inputs import kind_of
from edgelip.progress import Progress
from edgelip.recipe import load_recipe
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.check import check
from edgelip.runtime.clip import network_input
from edgelip.runtime.recogniser import Recogniser

ROOT = Path(__file__).parents[2]
RECIPE, DEBUG = ROOT / "export" / "recipes" / "signs.toml", ROOT / "tests" / "recipes" / "signs.toml"
NARROW = "model.options={width=16, stages=1, blocks=1, kernel=5, num_heads=2}"
TINY = (
    "data.train_clips=16", "data.val_clips=8", "data.test_clips=8", "train.epochs=1", "train.precision=32-true",
    'variant=[{name="int8", stages=[{stage="ptq", calibration_clips=16}]}]',
)  # fmt: skip


def workshop(folder: Path, *overrides: str, recipe: Path = DEBUG) -> Workshop:
    return Workshop(load_recipe(recipe, overrides=overrides), folder, Progress(quiet=True))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return workshop(tmp_path_factory.mktemp("signs"), *TINY)


def test_every_variant_of_the_recipe_fits_its_network(tmp_path: Path) -> None:
    made = workshop(tmp_path, NARROW, recipe=RECIPE)
    made.refuse_unbundled()
    made.rehearse()
    assert list(made.variants) == ["dense", "int8", "phm4", "phm4-int8"]


def test_the_network_takes_the_landmarks_of_the_clips(shop: Workshop) -> None:
    architecture = shop.checkpoint(()).architecture
    assert (architecture.options["points"], architecture.options["axes"]) == (130, 2)
    assert architecture.clip["kind"] == kind_of(architecture.backbone, {}) == "landmarks"


@torch.no_grad()
def test_a_bundle_of_signs_reads_what_torch_reads(shop: Workshop) -> None:
    bundle = shop.bundle("int8")
    (parity,) = check(bundle, engine="ort")
    assert parity.max_difference <= parity.limit
    stored = np.asarray(shop.clips.store("test").frames)
    opened = Bundle.open(bundle)
    network = model_from_checkpoint(shop.checkpoint(shop.variants["int8"]))
    logits_BV = network(torch.from_numpy(network_input(stored, opened.manifest.clip)))
    with Recogniser(opened) as recogniser:
        words = [prediction.word for prediction in recogniser.predict(stored)]
    assert words == [shop.clips.words[best] for best in logits_BV.argmax(dim=1)]


def test_training_goes_on_from_signs(shop: Workshop, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    save_checkpoint(shop.checkpoint(()), start)
    further = workshop(tmp_path, *TINY, f'train.start="{start}"')
    assert further.start is not None  # [model] leaves out what the clips decide
    with pytest.raises(RecipeError, match=r"^\[model\] asks for backbone 'simple_islr' with options "):
        _ = workshop(tmp_path, *TINY, f'train.start="{start}"', 'model={backbone="simple_islr"}').start


REFUSALS: dict[str, tuple[Path, str, str]] = {
    "video": (
        ROOT / "tests/recipes/debug.toml",
        'model={backbone="simple_islr"}',
        "edgelip: model.backbone 'simple_islr' reads landmarks; the clips are video. Choose a backbone for video, such "
        "as 'small' (`edgelip list backbones` names all), or other data.",
    ),
    "signs": (
        DEBUG,
        'model={backbone="dctcn_dense"}',
        "edgelip: model.backbone 'dctcn_dense' reads video; the clips are landmarks. Choose a backbone for landmarks, "
        "such as 'sign_conv_transformer' (`edgelip list backbones` names all), or other data.",
    ),
}


@pytest.mark.parametrize("verb", ["train", "export"])
@pytest.mark.parametrize("clips", REFUSALS)
def test_a_backbone_for_other_clips_is_refused_before_any_are_made(
    edgelip: Edgelip, tmp_path: Path, clips: str, verb: str
) -> None:
    recipe, setting, message = REFUSALS[clips]
    done = edgelip(verb, recipe, "--set", setting, "--out", tmp_path / "dist")
    assert (done.code, done.line) == (2, message)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith("data-")]


@pytest.mark.slow
def test_the_whole_path_of_signs(edgelip: Edgelip, tmp_path: Path) -> None:
    out = tmp_path / "dist"
    done = edgelip("export", DEBUG, "--out", out)
    assert done.code == 0
    rows: Any = edgelip("report", out, "--json")
    assert "phm4-int8" in rows.out
    clip = tmp_path / "clip.npy"
    np.save(clip, Bundle.open(out / "dense").expected().frames_NTHW[:1])
    for bundle in ("dense", "phm4-int8"):
        assert edgelip("predict", out / bundle, clip).code == 0
    assert edgelip("bench", out / "phm4-int8", "--layers").code == 0
