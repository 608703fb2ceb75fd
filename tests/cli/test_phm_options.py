from __future__ import annotations

from pathlib import Path

import pytest

from edgelip.cli.workshop import Workshop
from edgelip.errors import RecipeError
from edgelip.progress import Progress
from edgelip.recipe import load_recipe

QUICKSTART = Path(__file__).parents[2] / "export" / "recipes" / "quickstart.toml"


def untrained(phm: str) -> None:
    recipe = load_recipe(QUICKSTART, overrides=[f"model.options.phm={phm}"])
    Workshop(recipe, Path("unused"), Progress(quiet=True)).refuse_unbundled()


def test_a_recipe_whose_factors_outgrow_the_weights_is_refused_before_training() -> None:
    with pytest.raises(RecipeError) as caught:
        untrained("{ n = 16 }")
    assert str(caught.value) == (
        "model.options of backbone 'small': PHM n=16 gives trunk.blocks.0.shortcut.conv 4128 numbers for the 512 of "
        "its weight 32x16x1x1. The largest n that pays is 4."
    )


def test_a_recipe_with_an_n_for_each_group_is_taken() -> None:
    untrained('{ n = 4, groups = [{ layers = ["temporal.*"], n = 16, terms = 4 }] }')
