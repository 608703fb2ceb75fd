"""One training of a recipe: the dense network, frozen parts and cached features included, or the tuning of a stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from edgelip.cache import Cache
from edgelip.cli.clip_source import ClipSource
from edgelip.cli.runs import HISTORY
from edgelip.compress.stage import FineTuning
from edgelip.errors import RecipeError, UsageError
from edgelip.files import write_atomic
from edgelip.models.checkpoint import OptimiserState
from edgelip.progress import Progress
from edgelip.recipe_sections import TrainSection


class Training:
    """Trains on the clips of a recipe with the settings of its [train]."""

    def __init__(self, section: TrainSection, clips: ClipSource, steps: Cache, progress: Progress) -> None:
        self._section, self._clips, self._steps, self._progress = section, clips, steps, progress

    def dense(
        self, model: nn.Module, work: Path, *, name: str, train_norms: bool, optimiser: OptimiserState | None
    ) -> nn.Module:
        """The trained network, in eval mode; `train.freeze` and `train.feature_cache` belong here alone."""
        from edgelip.cli.schedule import schedule_from  # imports Lightning: only where something is trained
        from edgelip.train.feature_cache import FeatureCaching, fit_on_features
        from edgelip.train.fit import fit
        from edgelip.train.freezing import Freezing

        section, clips = self._section, self._clips
        schedule = schedule_from(
            section, kind=clips.spec.kind, epochs=section.epochs, rate=section.learning_rate, train_norms=train_norms
        )
        freezing = Freezing(section.freeze) if section.freeze else None
        if freezing is not None and section.start is None:
            self._progress.say(
                f"{' and '.join(section.freeze)} are frozen with fresh weights: nothing has trained them"
            )
        shared: dict[str, Any] = {
            "train": clips.store("train"), "val": clips.store("val"), "spec": clips.spec, "schedule": schedule,
            "workspace": work, "progress": self._progress, "name": name, "optimiser": optimiser,
        }  # fmt: skip
        if section.feature_cache is None:
            result = fit(model, freezing=freezing, **shared)
        else:
            assert freezing is not None
            caching = FeatureCaching(self._steps, section.feature_cache, section.feature_views)
            result = fit_on_features(model, caching=caching, freezing=freezing, **shared)
        write_atomic(work / HISTORY, json.dumps(result.history, indent=1) + "\n")
        return result.model

    def refuse_freezing(self, model: nn.Module) -> None:
        """Raises RecipeError, before anything is made, if `train.freeze` or `train.feature_cache` cannot be obeyed."""
        section = self._section
        if not section.freeze:
            return
        from edgelip.cli.schedule import schedule_from
        from edgelip.train.feature_cache import check_caching
        from edgelip.train.freezing import FreezeParts, Freezing

        freezing = Freezing(section.freeze)
        try:
            FreezeParts(model, freezing, epochs=section.epochs).release()
            if section.feature_cache is not None:
                kind, epochs, rate = self._clips.spec.kind, section.epochs, section.learning_rate
                check_caching(
                    model, freezing, schedule_from(section, kind=kind, epochs=epochs, rate=rate), section.feature_views
                )
        except UsageError as error:
            raise RecipeError(f"[train]: {error}") from error

    def tuned(
        self,
        model: nn.Module,
        work: Path,
        *,
        name: str,
        epochs: int,
        rate: float,
        teacher: nn.Module,
        tuning: FineTuning,
        train_norms: bool,
    ) -> nn.Module:
        """The network of a stage, tuned after its teacher, in eval mode."""
        from edgelip.cli.schedule import schedule_from
        from edgelip.train.fit import fit
        from edgelip.train.losses import Distillation

        clips = self._clips
        result = fit(
            model,
            train=clips.store("train"),
            val=clips.store("val"),
            spec=clips.spec,
            schedule=schedule_from(
                self._section,
                kind=clips.spec.kind,
                epochs=epochs,
                rate=rate,
                train_norms=train_norms,
                clips_per_epoch=tuning.clips_per_epoch,
            ),
            workspace=work,
            progress=self._progress,
            name=name,
            teacher=teacher,
            distillation=Distillation(tuning.distil_weight, tuning.temperature),
        )
        write_atomic(work / HISTORY, json.dumps(result.history, indent=1) + "\n")
        return result.model
