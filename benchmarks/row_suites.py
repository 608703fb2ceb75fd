"""What compression_rows.py measures: a TOML of variants on a recipe's data and training, and the limits they must keep.

recipe = "../../export/recipes/quickstart.toml"   # beside this file: data, clip, training
set = ['model.backbone="snv05x_tcn1x"']           # overrides of it
[[variant]]                                       # as in a recipe; the first is what rows are compared with
[[limit]]                                         # of one variant against another, means over seeds
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from edgelip.errors import RecipeError
from edgelip.recipe import Recipe, load_recipe
from edgelip.recipe_sections import Strict, VariantSection, explain
from edgelip.registry import nearest


class Limit(Strict):
    """What one variant must keep against another: at least one of the three."""

    variant: str
    against: str
    drop_points: float | None = Field(None, ge=0)  # of top-1, at most
    smaller: float | None = Field(None, gt=0)  # times in the file, at least
    faster: float | None = Field(None, gt=0)  # times in latency p50, at least

    @model_validator(mode="after")
    def _says_something(self) -> Limit:
        if (self.drop_points, self.smaller, self.faster) == (None, None, None):
            raise ValueError(f"the limit of {self.variant!r} limits nothing; give drop_points, smaller or faster")
        return self


class _SuiteFile(Strict):
    recipe: Path
    set: tuple[str, ...] = ()
    variant: tuple[VariantSection, ...] = Field(min_length=2)
    limit: tuple[Limit, ...] = ()


@dataclass(frozen=True)
class Suite:
    """A recipe without its seed, and the limits of its variants."""

    name: str
    recipe: Recipe
    limits: tuple[Limit, ...]

    @property
    def variants(self) -> list[str]:
        return [variant.name for variant in self.recipe.variant]

    def recipe_of(self, seed: int) -> Recipe:
        """The recipe with one seed of training; the data stay the same."""
        return self.recipe.model_copy(update={"train": self.recipe.train.model_copy(update={"seed": seed})})


def load_suite(path: Path, *, overrides: Sequence[str] = (), only: Sequence[str] = ()) -> Suite:
    """Read a suite. overrides: of its recipe, after its own; only: variants to keep beside the first, all if none.

    Raises RecipeError for what load_recipe raises it for, and for variants that are not there.
    """
    try:
        found = _SuiteFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} cannot be read as TOML: {error}") from error
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain(error, _SuiteFile)}") from error
    names = [variant.name for variant in found.variant]
    for name in [*only, *(end for limit in found.limit for end in (limit.variant, limit.against))]:
        if name not in names:
            raise RecipeError(f"{path} has no variant {name!r}. {nearest(name, names)}")
    kept = [name for name in names if not only or name in (names[0], *only)]
    base = load_recipe((path.parent / found.recipe).resolve(), overrides=[*found.set, *overrides])
    variants = [variant.model_dump() for variant in found.variant if variant.name in kept]
    fields = base.model_dump() | {"name": path.stem.replace("_", "-"), "variant": variants, "build": ()}
    try:
        recipe = Recipe.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain(error, Recipe)}") from error
    limits = tuple(limit for limit in found.limit if {limit.variant, limit.against} <= {*kept})
    return Suite(path.stem, recipe, limits)
