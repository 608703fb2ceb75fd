"""Training that goes on from a checkpoint: what is taken from it, and whether the recipe agrees with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from torch import nn

from edgelip.compress import STAGES
from edgelip.compress.pipeline import model_from_checkpoint, stages_from_configs
from edgelip.compress.stage import Stage
from edgelip.errors import RecipeError, StageError
from edgelip.models.audio import AudioNetwork
from edgelip.models.checkpoint import Checkpoint, load_checkpoint
from edgelip.models.inputs import options_for
from edgelip.recipe import Recipe
from edgelip.recipe_sections import ModelSection
from edgelip.runtime.clip import ClipSpec

# Of the clip contract, what a network depends on; how a clip was cut may change.
SHARED_FIELDS = {
    "video": ("kind", "frames", "input_px", "mean", "std"),
    "landmarks": ("kind", "frames", "points", "axes", "normalise"),
}


@dataclass(frozen=True)
class Start:
    """A checkpoint to go on from and the compression stages in its lineage."""

    path: Path
    checkpoint: Checkpoint
    stages: tuple[Stage, ...]

    @property
    def key(self) -> str:
        """Hash of all that training takes from the checkpoint: description, weights and optimiser state."""
        optimiser = self.checkpoint.optimiser
        parts = [self.checkpoint.architecture.to_json(), self.checkpoint.sha256, optimiser and optimiser.sha256]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def model(self) -> nn.Module:
        """The classifier of the checkpoint, in eval mode."""
        return model_from_checkpoint(self.checkpoint)

    def record(self) -> dict[str, Any]:
        """What the lineage of the trained checkpoint says of its start."""
        optimiser = self.checkpoint.optimiser
        return {
            "start_sha256": self.checkpoint.sha256,
            "start_optimiser_sha256": None if optimiser is None else optimiser.sha256,
        }

    def line(self) -> str:
        """What is taken from the checkpoint, in words."""
        optimiser = self.checkpoint.optimiser
        state = "AdamW afresh" if optimiser is None else f"AdamW's state of step {optimiser.step}"
        return f"training goes on from {self.path}: weights {self.checkpoint.sha256[:12]}, {state}"

    def check_follows(self, variant: str, stages: Sequence[Stage]) -> None:
        """Raises RecipeError if the stages of a variant cannot come after those of the checkpoint."""
        try:
            stages_from_configs([stage.config.model_dump() for stage in (*self.stages, *stages)])
        except StageError as error:
            there = ", ".join(stage.name for stage in self.stages)
            raise RecipeError(
                f"variant {variant!r} cannot follow train.start, which went through {there}: {error}"
            ) from error


def read_start(recipe: Recipe, words: Sequence[str], spec: ClipSpec) -> Start | None:
    """The checkpoint that `train.start` names, if it names one. words, spec: those of the training clips.

    Raises CheckpointError if it cannot be read or built, RecipeError if it disagrees with the recipe.
    """
    path = recipe.train.start
    if path is None:
        return None
    checkpoint = load_checkpoint(path)
    theirs = ClipSpec.from_json(checkpoint.architecture.clip)
    if theirs.kind == "audio" or isinstance(model_from_checkpoint(checkpoint), AudioNetwork):
        raise RecipeError(f"train.start {path} is a classifier of audio; training takes clips. Choose another.")
    _check_model(path, checkpoint, recipe.model, spec)
    _check_words(path, checkpoint.architecture.words, words)
    _check_clip(path, theirs, spec)
    lineage = [entry["config"] for entry in checkpoint.architecture.stages if entry["stage"] in STAGES]
    return Start(path, checkpoint, stages_from_configs(lineage))


def _check_model(path: Path, checkpoint: Checkpoint, section: ModelSection, spec: ClipSpec) -> None:
    if section == ModelSection():
        return
    found = checkpoint.architecture
    wanted = options_for(section.backbone, section.options, spec)
    asked, held = (json.dumps(dict(options), sort_keys=True) for options in (wanted, found.options))
    if (section.backbone, asked) != (found.backbone, held):
        raise RecipeError(
            f"[model] asks for backbone {section.backbone!r} with options {asked}; train.start {path} holds "
            f"{found.backbone!r} with options {held}. Leave [model] out: the checkpoint says both."
        )


def _check_words(path: Path, theirs: Sequence[str], ours: Sequence[str]) -> None:
    if tuple(theirs) == tuple(ours):
        return
    pairs = enumerate(zip_longest(map(repr, theirs), map(repr, ours), fillvalue="nothing"))
    index, (held, given) = next((index, pair) for index, pair in pairs if pair[0] != pair[1])
    raise RecipeError(
        f"train.start {path} reads {len(theirs)} words and the data have {len(ours)}; the first to differ is number "
        f"{index} (from 0): {held} and {given}. Give data.words the words of the checkpoint in its order."
    )


def _check_clip(path: Path, theirs: ClipSpec, ours: ClipSpec) -> None:
    differing = [name for name in SHARED_FIELDS[ours.kind] if getattr(theirs, name) != getattr(ours, name)]
    if theirs.kind != ours.kind:
        differing = ["kind"]
    if differing:
        held, given = (", ".join(f"{name} {getattr(spec, name)}" for name in differing) for spec in (theirs, ours))
        remedy = " (input_px is crop_px / pool)" if ours.kind == "video" else ""
        raise RecipeError(f"train.start {path} takes clips of {held}; [clip] gives {given}. Correct [clip]{remedy}.")
