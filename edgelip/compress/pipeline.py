"""Stages in sequence: read from a recipe, checked for order, applied, and rebuilt from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from edgelip.compress import STAGES
from edgelip.compress.stage import LabelledClips, Stage, Tools
from edgelip.errors import CheckpointError, StageError, UsageError
from edgelip.models.checkpoint import Architecture, Checkpoint, checkpoint_from_model
from edgelip.models.zoo import Network, build_classifier
from edgelip.recipe_sections import explain
from edgelip.registry import lookup


def stage_from_config(fields: Mapping[str, Any]) -> Stage:
    """A stage from one table of a recipe. Raises StageError on an unknown stage, key or value."""
    if "stage" not in fields:
        raise StageError(f"A stage needs a name: stage = one of {', '.join(STAGES)}; got {dict(fields)}.")
    try:
        kind: type[Stage] = lookup(STAGES, str(fields["stage"]), kind="compression stage")
    except UsageError as error:
        raise StageError(str(error)) from error
    try:
        return kind(kind.config_model.model_validate(dict(fields)))
    except ValidationError as error:
        raise StageError(f"Stage {fields['stage']!r}: {explain(error, kind.config_model)}") from error


def stages_from_configs(tables: Sequence[Mapping[str, Any]]) -> tuple[Stage, ...]:
    """The stages of one variant. Raises StageError, with the right order, if they are out of order or repeated."""
    stages = tuple(stage_from_config(table) for table in tables)
    ordered = sorted(stages, key=lambda stage: stage.rank)
    names = [stage.name for stage in stages]
    for name in names:
        if names.count(name) > 1:
            raise StageError(f"Stage {name!r} applies once; the variant names it {names.count(name)} times. Keep one.")
    integer = [name for stage, name in zip(stages, names, strict=True) if stage.integer]
    if len(integer) > 1:
        raise StageError(f"{integer[0]!r} and {integer[1]!r} both quantise; a model is quantised once. Keep one.")
    for before, after in pairwise(stages):
        if before.rank > after.rank:
            raise StageError(
                f"Stage {after.name!r} ({after.phase}) comes after {before.name!r} ({before.phase}). "
                f"Order them: {', '.join(stage.name for stage in ordered)}."
            )
    return stages


def rehearse(model: nn.Module, stages: Sequence[Stage], clip_B1THW: Tensor) -> None:
    """Put an untrained model through `stages`, without fine-tuning. Raises StageError where one does not fit."""

    def keep(student: nn.Module, **_: Any) -> nn.Module:
        return student

    clips = LabelledClips(clip_B1THW.repeat(2, *[1] * (clip_B1THW.ndim - 1)), torch.tensor([0, 1]))
    tools = Tools(finetune=keep, calibration=lambda: clips, probe=lambda: clips)
    for stage in stages:
        model, _ = stage.prepare(model, tools)


def apply_stage(parent: Checkpoint, stage: Stage, tools: Tools) -> Checkpoint:
    """The checkpoint one stage later."""
    model, record = stage.apply(model_from_checkpoint(parent), tools)
    entry = {"stage": stage.name, "config": stage.config.model_dump(mode="json"), "record": record}
    old = parent.architecture
    grown = Architecture(old.backbone, old.options, old.words, old.clip, (*old.stages, entry))
    return checkpoint_from_model(model, grown)


def model_from_checkpoint(checkpoint: Checkpoint) -> Network:
    """The model of a checkpoint, in eval mode. Raises CheckpointError if its weights do not fit its description."""
    architecture = checkpoint.architecture
    try:
        model = build_classifier(
            architecture.backbone, num_words=len(architecture.words), options=architecture.options
        ).eval()
        for entry in architecture.stages:
            if entry["stage"] not in ("import", "train"):
                model = stage_from_config(entry["config"]).restore(model, entry["record"])  # type: ignore[assignment]
    except (UsageError, LookupError, TypeError, AttributeError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise CheckpointError(f"The checkpoint describes a model that cannot be built: {detail:.300}") from error
    try:
        with torch.no_grad():
            model.load_state_dict(dict(checkpoint.tensors))
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise CheckpointError(f"The weights do not fit the architecture of the checkpoint: {detail:.300}") from error
    return model.eval()
