"""What [train] says reaches the training, and what cannot be trained is refused before a clip is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgelip.cli.schedule import schedule_from
from edgelip.cli.train import train_recipe
from edgelip.errors import UsageError
from edgelip.models.checkpoint import load_checkpoint
from edgelip.recipe import load_recipe
from edgelip.train.augment import Augmentation
from edgelip.train.landmark_augment import LandmarkAugmentation

DEBUG = Path(__file__).parent.parent / "recipes" / "debug.toml"
DENSE = 'variant=[{name="dense"}]'
PUBLISHED = (
    "train.rate_schedule=epoch_cosine", "train.mixup_alpha=0.4", "train.cutmix_alpha=1", "train.cutmix_cut=span",
    "train.time_mask_frames=15", "train.time_mask_draw=published", "train.variable_length=true",
)  # fmt: skip


def test_the_schedule_of_a_recipe_says_all_that_varies_clips() -> None:
    section = load_recipe(DEBUG, overrides=PUBLISHED).train
    schedule = schedule_from(section, kind="video", epochs=3, rate=0.1)
    assert schedule.augmentation == Augmentation(
        flip=True, random_crop=True, time_mask_frames=15, time_mask_draw="published", variable_length=True
    )
    assert (schedule.mixup_alpha, schedule.cutmix_alpha, schedule.cutmix_cut) == (0.4, 1.0, "span")
    assert schedule.rate_schedule == "epoch_cosine"


def test_recipes_that_say_nothing_vary_clips_as_before() -> None:
    section = load_recipe(DEBUG).train
    schedule = schedule_from(section, kind="video", epochs=3, rate=0.1)
    assert schedule.augmentation == Augmentation(flip=True, random_crop=True)
    assert (schedule.mixup_alpha, schedule.cutmix_alpha, schedule.rate_schedule) == (0, 0, "warmup_cosine")
    assert isinstance(schedule_from(section, kind="landmarks", epochs=3, rate=0.1).augmentation, LandmarkAugmentation)


def test_a_network_that_takes_no_lengths_is_refused_before_a_clip_is_made(tmp_path: Path) -> None:
    overrides = [DENSE, "train.variable_length=true", "model.backbone=dctcn_boundary", "model.options={}"]
    with pytest.raises(UsageError) as caught:
        train_recipe(DEBUG, overrides=overrides, out=tmp_path / "dist", as_json=True)
    assert str(caught.value).startswith("variable_length is on and the network takes word boundaries, ")
    assert not list((tmp_path / "dist").rglob("*.npy"))
    assert not list((tmp_path / "dist").rglob("index.json"))


@pytest.mark.slow
def test_a_recipe_with_everything_on_trains_and_tunes_to_int8(tmp_path: Path) -> None:
    from edgelip.cli.workshop import Workshop
    from edgelip.progress import Progress

    small = ("data.train_clips=32", "data.val_clips=8", "train.epochs=2")
    overrides = [*PUBLISHED, *small]
    text = train_recipe(DEBUG, overrides=overrides, out=tmp_path / "dist", as_json=True)
    checkpoint = load_checkpoint(Path(json.loads(text)["checkpoint"]))
    assert checkpoint.architecture.stages[-1]["config"]["variable_length"] is True
    workshop = Workshop(load_recipe(DEBUG, overrides=overrides), tmp_path / "dist", Progress(quiet=True))
    for stages in workshop.variants.values():
        names = [entry["stage"] for entry in workshop.checkpoint(stages).architecture.stages]
        assert names == ["train", *(stage.name for stage in stages)]
