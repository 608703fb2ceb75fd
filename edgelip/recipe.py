"""The TOML recipe: what to train on, which model, which variants to deploy, how to measure.

One file, strict: an unknown key is an error that names the nearest. `--set train.epochs=3` overrides one value.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from edgelip.errors import ClipError, RecipeError
from edgelip.recipe_sections import (
    BenchSection,
    BuildSection,
    Clip,
    ClipSection,
    ExportSection,
    ModelSection,
    PreparedData,
    SigningData,
    SpanData,
    Strict,
    SyntheticData,
    TrainSection,
    VariantSection,
    explain,
)
from edgelip.runtime.landmarks import point_set


class Recipe(Strict):
    """Everything that one `edgelip export` does."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    output: Path | None = None  # folder of the bundles; default export/dist/<name>
    data: Annotated[SyntheticData | SpanData | PreparedData | SigningData, Field(discriminator="kind")]
    clip: Clip = ClipSection()
    model: ModelSection = ModelSection()
    train: TrainSection
    variant: tuple[VariantSection, ...] = Field(min_length=1)
    export: ExportSection = ExportSection()
    build: tuple[BuildSection, ...] = ()
    bench: BenchSection = BenchSection()

    @model_validator(mode="after")
    def _clips_fit_data(self) -> Recipe:
        wanted = {"synthetic": "video", "spans": "video", "synthetic_signs": "landmarks"}.get(self.data.kind)
        if wanted not in (None, self.clip.kind):
            raise ValueError(
                f'data of kind "{self.data.kind}" gives clips of {wanted}; [clip] has kind = "{self.clip.kind}". '
                f'Set clip.kind = "{wanted}"'
            )
        return self

    @model_validator(mode="after")
    def _varies_what_there_is(self) -> Recipe:
        if isinstance(self.clip, ClipSection):
            if self.train.landmarks is not None:
                raise ValueError('[train.landmarks] has no effect on clips of kind "video"; leave it out')
            return self
        for key in ("random_crop", "brightness", "shift_frames", "time_mask_draw", "variable_length"):
            if key in self.train.model_fields_set:
                raise ValueError(f"train.{key} has no effect on clips of landmarks; see [train.landmarks]")
        if self.train.flip and point_set(self.clip.points).mirror is None:
            raise ValueError(f"points {self.clip.points!r} have no mirror pairs. Set train.flip = false")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> Recipe:
        names = [variant.name for variant in self.variant]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(f"two variants are called {sorted(repeated)[0]!r}; names must differ")
        return self

    @model_validator(mode="after")
    def _cuts_what_can_be_cut(self) -> Recipe:
        if self.train.variable_length and self.model.options.get("boundary"):
            raise ValueError(
                "train.variable_length crops clips, and with model.options.boundary the network is told where the word "
                "lies in the uncropped clip; set one of them to false"
            )
        if self.train.variable_length and getattr(self.clip, "timing", "window") == "span":
            raise ValueError(
                'train.variable_length has no effect on clip.timing = "span": the word fills its clip; take "window"'
            )
        if self.train.cutmix_alpha and self.train.cutmix_cut != "span" and not isinstance(self.clip, ClipSection):
            raise ValueError('train.cutmix_alpha cuts landmarks in time only; set train.cutmix_cut = "span" beside it')
        return self


def load_recipe(path: Path, *, overrides: Iterable[str] = ()) -> Recipe:
    """Read and check a recipe. Raises RecipeError (file, syntax, unknown key with the nearest one, bad value)."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        found = sorted(str(other) for other in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        there = f" Recipes there: {', '.join(found)}." if found else ""
        raise RecipeError(f"There is no recipe {path}.{there}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} cannot be read as TOML: {error}") from error
    for override in overrides:
        _override(tree, override)
    try:
        recipe = Recipe.model_validate(tree)
        recipe.clip.spec()
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain(error, Recipe)}") from error
    except ClipError as error:
        raise RecipeError(f"{path}: {error}") from error
    return recipe


def _override(tree: dict[str, Any], override: str) -> None:
    """Set one dotted key in the raw tree; the value is TOML, or a plain string where it is not."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override!r} is not KEY=VALUE, as in --set train.epochs=3.")
    try:
        (value,) = tomllib.loads(f"value = {text}").values()
    except ValueError:  # no TOML, or more than one value
        value = text
    *folders, last = key.strip().split(".")
    for folder in folders:
        tree = tree.setdefault(folder, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"--set {override!r}: {folder!r} is not a section of the recipe.")
    tree[last] = value
