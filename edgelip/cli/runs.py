"""Where trainings lie to be found by a reader: `runs/training/<label>/<hash of the configuration>--<seed>/`.

A folder shows a finished step of the cache under a name that its configuration decides; weights are links to the blobs
that the cache holds too. Work goes on in the cache: a killed training is resumed there, and its folder appears when it
is done. `config.toml` in it is the recipe with every default written out: given to `edgelip train` again it is found.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from edgelip.compress.stage import Stage
from edgelip.errors import RecipeError
from edgelip.files import replace_folder, write_atomic
from edgelip.linked import link
from edgelip.models.catalogue import BACKBONES, FAMILIES, Backbone
from edgelip.models.checkpoint_files import checkpoint_file
from edgelip.models.kept import kept_files
from edgelip.recipe import Recipe
from edgelip.registry import lookup
from edgelip.toml_text import toml_from_tree
from edgelip.words import WORDS_FILE, write_words

Kind = Literal["training", "distillation"]
RECORD, CONFIG, HISTORY = "run.json", "config.toml", "history.json"
_NUM_DIGITS = 16


@dataclass(frozen=True)
class Run:
    """What names a run: a training of a recipe, or with stages what comes of it by distillation."""

    kind: Kind
    label: str
    config_sha256: str
    seed: int

    def folder(self, output: Path) -> Path:
        return output / "runs" / self.kind / self.label / f"{self.config_sha256[:_NUM_DIGITS]}--{self.seed}"


def run_of(recipe: Recipe, *, start: str | None, label: str | None = None, stages: Sequence[Stage] = ()) -> Run:
    """The name of a training, or of the variant `label` after `stages`. start: hash of what a training goes on from."""
    config = normalised_config(recipe, start=start)
    if stages:
        config["stages"] = [stage.config.model_dump(mode="json") for stage in stages]
    text = json.dumps(config, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    kind: Kind = "distillation" if stages else "training"
    return Run(kind, label or recipe.name, hashlib.sha256(text.encode()).hexdigest(), recipe.train.seed)


def normalised_config(recipe: Recipe, *, start: str | None) -> dict[str, Any]:
    """All of a recipe that decides the trained weights but the seed, defaults written out.

    Comments, the order of keys, `--set`, defaults spelt out, a backbone by its name or by its options: all the same.
    Paths are absolute; a start counts by its content, whatever its path.
    """
    train = _plain(recipe.train, without=("seed", "start"))
    model = {"start": start} if start is not None else normalised_model(recipe)
    return {"data": _plain(recipe.data), "clip": recipe.clip.spec().to_json(), "model": model, "train": train}


def normalised_model(recipe: Recipe) -> dict[str, Any]:
    """Family and all its options. Raises RecipeError for options that the family does not take."""
    named = BACKBONES.get(recipe.model.backbone) or Backbone(recipe.model.backbone)
    family = lookup(FAMILIES, named.family, kind="backbone", others=BACKBONES)
    try:
        options = family.model_validate({**named.options, **recipe.model.options}).model_dump(mode="json")
    except ValueError as error:  # the network that is built of them says it at length
        raise RecipeError(f"model.options of backbone {recipe.model.backbone!r} do not fit it.") from error
    return {"family": named.family, "options": options}


def publish(
    run: Run,
    output: Path,
    step: Path,
    *,
    recipe: Recipe,
    words: Sequence[str],
    record: Mapping[str, Any],
) -> Path:
    """Show the finished step of the cache as the run's folder; returns the checkpoint in it.

    A folder of this name that shows another step (made by other sources or package versions) is replaced.
    """
    folder = run.folder(output)
    if _step_of(folder) != step.name:
        with replace_folder(folder, only_if_holds=RECORD) as work:
            for name in kept_files(step):
                link(step / name, work / name)
            if (history := history_of(step)) is not None:
                shutil.copyfile(history, work / HISTORY)
            write_words(work / WORDS_FILE, words)
            write_atomic(work / CONFIG, toml_from_tree(_plain(recipe)))
            about = {"kind": run.kind, "label": run.label, "config_sha256": run.config_sha256, "seed": run.seed}
            write_atomic(work / RECORD, json.dumps({**about, "step": step.name, **record}, indent=1) + "\n")
    return checkpoint_file(folder)


def history_of(step: Path) -> Path | None:
    """The epochs of a training, or of the last tuning of a stage; None where nothing was trained."""
    tunings = sorted(step.glob(f"tune*/{HISTORY}"), key=lambda path: (len(path.parent.name), path.parent.name))
    return next((path for path in (step / HISTORY, *reversed(tunings)) if path.is_file()), None)


def _step_of(folder: Path) -> str | None:
    try:
        found: str | None = json.loads((folder / RECORD).read_bytes()).get("step")
        return found if checkpoint_file(folder).is_file() else None
    except (OSError, ValueError, AttributeError):
        return None


def _plain(section: BaseModel, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """The section as JSON holds it, nothing left out but what is None; paths made absolute."""

    def plain(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return _plain(value)
        if isinstance(value, Path):
            return str(value.absolute())
        if isinstance(value, (tuple, list)):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return value

    fields = {name: getattr(section, name) for name in type(section).model_fields if name not in without}
    return {name: plain(value) for name, value in fields.items() if value is not None}
