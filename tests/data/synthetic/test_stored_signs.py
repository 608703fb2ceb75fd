from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelip.data.synthetic.stored_signs import made_signs, prepare_signing, signing_spec
from edgelip.errors import RecipeError
from edgelip.progress import Progress
from edgelip.recipe import load_recipe
from edgelip.recipe_sections import SigningData

RECIPE = """
name = "signs"
[data]
kind = "synthetic_signs"
num_words = 6
train_signers = 3
val_signers = 2
test_signers = 2
train_clips = 10
val_clips = 6
test_clips = 6
[clip]
kind = "landmarks"
frames = 5
points = "holistic130"
[train]
epochs = 1
[[variant]]
name = "dense"
"""


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    path = tmp_path / "signs.toml"
    path.write_text(RECIPE)
    return path


def test_a_store_of_procedural_signs_holds_what_the_generator_makes(tmp_path: Path, recipe_path: Path) -> None:
    recipe = load_recipe(recipe_path)
    assert isinstance(recipe.data, SigningData)
    spec = recipe.clip.spec()
    store = prepare_signing(tmp_path / "store", recipe.data, "val", spec, Progress(quiet=True))
    made = made_signs(signing_spec(recipe.data), "val", range(6), spec)
    np.testing.assert_array_equal(np.asarray(store.frames[:]), made.clips)
    assert made.clips.shape == (6, 5, 130, 2)
    assert store.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert store.speakers.tolist() == made.speakers_B.tolist()
    assert store.words[0] == "flat-chin-vertical-out"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("clip.kind=smell", r"\[clip\] needs kind = \"video\" or \"landmarks\"; got 'smell'\."),
        ("clip.fps=30", r"unknown key 'fps' in \[clip\]\. Known: kind, frames, points, axes, normalise\."),
        ("clip.points=hands", r"clip points is 'hands'; expected one of lips40, holistic118, holistic130, all543\.$"),
        ("clip.points=all543", r"points 'all543' have no mirror pairs\. Set train\.flip = false\."),
        ("clip.axes=4", r"clip\.axes: Input should be 2 or 3 \(got 4\)\."),
        ("data.num_word=4", r"unknown key 'num_word' in \[data\]\. Did you mean 'num_words'\?"),
        ("train.brightness=0.1", r"train\.brightness has no effect on clips of landmarks; see \[train\.landmarks\]\."),
        ("train.landmarks={nois=0.1}", r"unknown key 'nois' in \[train\.landmarks\]\. Did you mean 'noise'\?"),
        ("train.landmarks={time_warp=1.0}", r"train\.landmarks\.time_warp: Input should be less than 1 \(got 1\.0\)\."),
        ('train.landmarks={affine_on="parts"}', r'affine_on = "parts" has no effect without scale, rotate_deg, shear'),
    ],
)
def test_a_recipe_that_asks_for_what_there_is_not_is_refused(recipe_path: Path, override: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe(recipe_path, overrides=[override])


def test_procedural_signs_need_a_contract_of_landmarks(recipe_path: Path) -> None:
    head, _, tail = RECIPE.partition("[clip]")
    recipe_path.write_text(head + tail[tail.index("[train]") :])
    with pytest.raises(
        RecipeError, match=r'"synthetic_signs" gives clips of landmarks; \[clip\] has kind = "video"\. Set'
    ):
        load_recipe(recipe_path)


def test_landmarks_vary_clips_of_landmarks_alone(tmp_path: Path, recipe_path: Path) -> None:
    kept = load_recipe(recipe_path, overrides=["train.landmarks={noise=0.1}", "train.flip=false"]).train
    assert kept.landmarks is not None
    assert kept.landmarks.noise == 0.1
    video = tmp_path / "video.toml"
    video.write_text(
        'name = "lips"\n[data]\nkind = "spans"\n[train]\nepochs = 1\nlandmarks = {noise = 0.1}\n'
        '[[variant]]\nname = "a"\n'
    )
    with pytest.raises(
        RecipeError, match=r'\[train\.landmarks\] has no effect on clips of kind "video"; leave it out\.'
    ):
        load_recipe(video)
