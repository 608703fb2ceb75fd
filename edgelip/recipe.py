"""The TOML recipe: what to train on, which model, which variants to deploy, how to measure.

One file, strict: an unknown key is an error that names the nearest. `--set train.epochs=3` overrides one value.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgelip.errors import ClipError, RecipeError
from edgelip.registry import nearest
from edgelip.runtime.clip import ClipSpec


class Strict(BaseModel):
    """Base of every recipe section: unknown keys, infinite numbers and nan refused, values frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SyntheticData(Strict):
    """Procedural mouths (edgelip.data.synthetic)."""

    kind: Literal["synthetic"]
    words: tuple[str, ...] = Field(min_length=2)
    generator: int = 1  # version of the generator that this recipe pins
    seed: int = 0
    severity: float = Field(1.0, ge=0, le=3)  # scales every variation of speakers and clips
    train_speakers: int = Field(200, ge=1)
    val_speakers: int = Field(40, ge=1)
    test_speakers: int = Field(100, ge=1)
    train_clips: int = Field(ge=1)
    val_clips: int = Field(ge=1)
    test_clips: int = Field(ge=1)

    @model_validator(mode="after")
    def _words_differ(self) -> SyntheticData:
        repeated = sorted({word for word in self.words if self.words.count(word) > 1})
        if repeated:
            raise ValueError(f"the word {repeated[0]!r} is listed twice; words must differ")
        return self


class SpanData(Strict):
    """Words cut from mouth videos by a CSV of frame spans (edgelip.data.spans)."""

    kind: Literal["spans"]
    root: Path | None = None  # folder of the videos; set it on the command line
    manifest: str = "words.csv"  # relative to root
    category: str | None = None  # keep the rows of one category; none keeps all
    words: tuple[str, ...] | None = None  # keep these words; none keeps all


class ClipSection(Strict):
    """The input contract; see edgelip.runtime.clip.ClipSpec."""

    timing: Literal["window", "span"] = "window"
    frames: int = 29
    fps: float = 25.0
    roi_px: int = 96
    pool: int = 2
    crop_px: int = 88
    mean: float = 0.421
    std: float = 0.165

    def spec(self) -> ClipSpec:
        return ClipSpec(**self.model_dump())


class ModelSection(Strict):
    """A backbone of edgelip.models.zoo and its options."""

    backbone: str = "small"
    options: dict[str, Any] = {}


class TrainSection(Strict):
    """Training of the dense classifier. Distances are in pixels and frames of the network's input."""

    start: Path | None = None  # checkpoint to go on from, with its model, words and optimiser state; none starts afresh
    seed: int = 0
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"  # auto: bf16 where the processor multiplies in it
    epochs: int = Field(ge=1)
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    mixup_alpha: float = Field(0.0, ge=0)  # 0 mixes nothing
    boundary_weight: float = Field(0.0, ge=0, lt=1)  # share of the loss on the word's own frames alone
    time_mask_frames: int = Field(0, ge=0)  # longest masked stretch
    shift_frames: int = Field(0, ge=0)  # random shift in time
    flip: bool = True
    brightness: float = Field(0.0, ge=0, le=1)  # random gain and offset of the grey level


class VariantSection(Strict):
    """One thing to deploy: a name and the stages that lead to it, in order."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    stages: tuple[dict[str, Any], ...] = ()


class ExportSection(Strict):
    """Which files the bundles hold beside fp32, for float variants; one with stage ptq or qat holds int8 alone."""

    precisions: tuple[Literal["fp16", "fp8"], ...] = ("fp16",)
    min_int8_pct: float = Field(80.0, ge=0, le=100)  # least share of an int8 variant's multiply-adds that run in int8


class BuildSection(Strict):
    """An engine to build of every variant on this machine: engines that run it are elsewhere, or load faster so."""

    engine: str
    options: dict[str, str] = {}


class BenchSection(Strict):
    """How each bundle is measured."""

    engine: str = "ort"
    threads: int = Field(1, ge=1)
    launches: int = Field(5, ge=1)  # fresh processes a bundle
    seconds: float = Field(1.5, gt=0)  # of steady running in each launch
    check_clips: int = Field(8, ge=1)  # clips in expected.npz


class Recipe(Strict):
    """Everything that one `edgelip export` does."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    output: Path | None = None  # folder of the bundles; default export/dist/<name>
    data: Annotated[SyntheticData | SpanData, Field(discriminator="kind")]
    clip: ClipSection = ClipSection()
    model: ModelSection = ModelSection()
    train: TrainSection
    variant: tuple[VariantSection, ...] = Field(min_length=1)
    export: ExportSection = ExportSection()
    build: tuple[BuildSection, ...] = ()
    bench: BenchSection = BenchSection()

    @model_validator(mode="after")
    def _names_differ(self) -> Recipe:
        names = [variant.name for variant in self.variant]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(f"two variants are called {sorted(repeated)[0]!r}; names must differ")
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


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for the first thing that is wrong: where, what, and the remedy."""
    # A mistyped key is the cause of the missing one beside it.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"] if part not in ("synthetic", "spans"))
    if first["type"] == "extra_forbidden":
        section, _, key = where.rpartition(".")
        return (
            f"unknown key {key!r}{f' in [{section}]' if section else ''}. {nearest(key, _keys_at(model, first['loc']))}"
        )
    if first["type"] == "missing":
        return f"key {where!r} is missing; it has no default."
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return f'[{where}] needs kind = "synthetic" or "spans"; got {first["input"].get("kind")!r}.'
    value = f" (got {first['input']!r})" if not isinstance(first["input"], dict) else ""
    said = first["msg"].removeprefix("Value error, ")
    for python_word, word in (("valid tuple", "list"), ("valid dictionary", "table {key = value}")):
        if said.endswith(python_word):
            said = said.removesuffix(python_word) + word
    return f"{where + ': ' if where else ''}{said}{value}."


def _keys_at(model: Any, location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields beside the one at `location`."""
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        options = _models_in(model.model_fields[part].annotation) if part in model.model_fields else []
        if part in ("synthetic", "spans"):
            options = [SyntheticData] if part == "synthetic" else [SpanData]
        if not options:
            return list(model.model_fields)
        model = options[0]
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]
