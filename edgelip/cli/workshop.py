"""The steps of one recipe, each kept in the cache and made when asked for: training, stages, bundles.

This is where training and measuring are handed to the floors below that may not import them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgelip.cache import Cache, step_key
from edgelip.cli.bundling import bundle_from_checkpoint, engines_for, is_quantised, refuse_unbundled
from edgelip.cli.chosen_clips import calibration_clips, probe_clips, refuse_calibration_on_test, spread
from edgelip.cli.clip_source import ClipSource
from edgelip.cli.coverage_gate import check_coverage
from edgelip.cli.engines import check_build
from edgelip.cli.runs import history_of, publish, run_of
from edgelip.cli.start import Start, read_start
from edgelip.cli.training import Training
from edgelip.cli.tunings import Tunings, drop_states
from edgelip.compress import STAGES
from edgelip.compress.pipeline import apply_stage, rehearse, stages_from_configs
from edgelip.compress.stage import LabelledClips, Stage, Tools
from edgelip.errors import RecipeError, ShapeError, StageError
from edgelip.linked import Blobs
from edgelip.models.checkpoint import Architecture, Checkpoint, checkpoint_from_model
from edgelip.models.inputs import options_for
from edgelip.models.kept import BLOBS, keep_checkpoint, read_kept
from edgelip.models.phm_parts import refuse_grown
from edgelip.models.zoo import build_classifier
from edgelip.progress import Progress
from edgelip.recipe import Recipe
from edgelip.runtime.engines.engine import engine_class
from edgelip.train.batch import refuse_variable_length

NUMERIC_PACKAGES = ("torch", "numpy")
_TRAINING_SOURCES = ("train", "models", "cli/training.py", "cli/schedule.py")  # the clips bring their own


class Workshop:
    """Makes what a recipe asks for in `folder`/.cache; every result is made once."""

    def __init__(self, recipe: Recipe, folder: Path, progress: Progress) -> None:
        self.recipe, self.folder, self.progress = recipe, folder, progress
        self.cache = Cache(folder / ".cache")
        self.blobs = Blobs(self.cache.folder / BLOBS)
        self.clips = ClipSource(recipe, self.cache, progress)
        self.spec = self.clips.spec
        self.training = Training(recipe.train, self.clips, self.cache, progress)
        if recipe.train.start is None:
            self._options  # noqa: B018  (a backbone that these clips do not fit is said before anything is made)
        self.variants: dict[str, tuple[Stage, ...]] = {}
        for variant in recipe.variant:
            with _naming(variant.name):
                self.variants[variant.name] = stages_from_configs(variant.stages)

    @cached_property
    def _options(self) -> dict[str, Any]:
        """Of the backbone. Raises RecipeError if it reads another kind of clip."""
        return options_for(self.recipe.model.backbone, self.recipe.model.options, self.spec)

    @cached_property
    def start(self) -> Start | None:
        """What training goes on from. Raises CheckpointError or RecipeError if that cannot be."""
        return read_start(self.recipe, self.clips.words, self.spec)

    def lineage(self, stages: Sequence[Stage]) -> tuple[Stage, ...]:
        """All that leads to a variant: the stages of the start, then its own."""
        return (*(self.start.stages if self.start else ()), *stages)

    @cached_property
    def _train_config(self) -> dict[str, Any]:
        """The section without the path of the start: what counts is what lies there."""
        return self.recipe.train.model_dump(mode="json", exclude={"start"})

    @cached_property
    def trained_key(self) -> str:
        sources, packages = [*_TRAINING_SOURCES], [*NUMERIC_PACKAGES, "lightning"]
        inputs = [self.clips.key("train"), self.clips.key("val")]
        config = {"train": self._train_config, "words": self.clips.words}
        if self.start is None:
            config["model"] = self.recipe.model.model_dump(mode="json")
        else:
            sources.append("compress")
            packages += ["torch-pruning", "nncf"]
            inputs.append(self.start.key)
        return step_key("train", config, sources=sources, inputs=inputs, packages=packages)

    def stage_key(self, stages: Sequence[Stage]) -> str:
        """Key of the checkpoint after `stages`."""
        if not stages:
            return self.trained_key
        stage = stages[-1]
        module = STAGES[stage.name].partition(":")[0].rpartition(".")[2]
        always = ["compress/stage.py", "compress/pipeline.py", "cli/chosen_clips.py", *_TRAINING_SOURCES]
        return step_key(
            stage.name,
            {"stage": stage.config.model_dump(mode="json"), "train": self._train_config},
            sources=[f"compress/{module}.py", *always, *stage.sources],
            inputs=[self.stage_key(stages[:-1])],
            packages=(*NUMERIC_PACKAGES, "lightning", "torch-pruning", "nncf"),
        )

    def checkpoint(self, stages: Sequence[Stage]) -> Checkpoint:
        """The trained classifier after `stages`, none for the dense one."""
        key = self.stage_key(stages)
        done = self.cache.finished(key)
        if done is None:
            with self.cache.making(key) as work:
                made = self._compress(stages, work) if stages else self._train(work)
                by_parts = not stages and bool(self.recipe.train.freeze)  # others share what stayed as it was
                keep_checkpoint(made, work, self.blobs, by_parts=by_parts)
                drop_states(work)
            done = self.cache.folder / key
        return read_kept(done)

    def publish(self, stages: Sequence[Stage] = (), *, label: str | None = None) -> Path:
        """Show the finished training, or the variant `label` after `stages`, in its folder; the checkpoint there."""
        checkpoint, step = self.checkpoint(stages), self.cache.folder / self.stage_key(stages)
        run = run_of(self.recipe, start=self.start.key if self.start else None, label=label, stages=stages)
        record: dict[str, Any] = {"weights_sha256": checkpoint.sha256}
        if (path := history_of(step)) is not None:
            history = json.loads(path.read_bytes())
            best = max(epoch["val_top1"] for epoch in history)
            record |= {"epochs": len(history), "val_top1_pct": round(100 * best, 2)}
        return publish(run, self.folder, step, recipe=self.recipe, words=self.clips.words, record=record)

    def _train(self, work: Path) -> Checkpoint:
        """The trained classifier. It keeps no optimiser state: that of the last epoch is not of the best weights."""
        start, backbone = self.start, self.recipe.model.backbone
        if start is not None:
            self.progress.say(start.line())
        trained = self.training.dense(
            self._untrained(),
            work,
            name="train dense" if start is None else "train on",
            train_norms=all(stage.trains_norms for stage in self.lineage(())),
            optimiser=start.checkpoint.optimiser if start else None,
        )
        entry = {"stage": "train", "config": self._train_config, "record": start.record() if start else {}}
        clip = self.spec.to_json()
        parent = start.checkpoint.architecture if start else None
        if parent is None:
            parent = Architecture(backbone, self._options, self.clips.words, clip)
        grown = replace(parent, clip=clip, stages=(*parent.stages, entry))
        return checkpoint_from_model(trained, grown)

    def _untrained(self) -> nn.Module:
        """The classifier that training begins with. Raises UsageError if it cannot take what [train] makes of clips."""
        network = self._fresh() if self.start is None else self.start.model()
        if self.recipe.train.variable_length:
            refuse_variable_length(network)
        return network

    def _fresh(self) -> nn.Module:
        model = self.recipe.model
        network = build_classifier(
            model.backbone, num_words=len(self.clips.words), options=self._options, seed=self.recipe.train.seed
        )
        try:
            refuse_grown(network)
        except ShapeError as error:
            raise RecipeError(f"model.options of backbone {model.backbone!r}: {error}") from error
        return network

    def _compress(self, stages: Sequence[Stage], work: Path) -> Checkpoint:
        parent = self.checkpoint(stages[:-1])
        name = " + ".join(stage.name for stage in stages)

        def calibration() -> LabelledClips:
            if stages[-1].integer:  # an export makes the test split in any case
                refuse_calibration_on_test(self.clips)
            return calibration_clips(self.clips)

        tools = Tools(
            finetune=Tunings(self.training.tuned, work, name=name),
            calibration=calibration,
            probe=lambda: probe_clips(self.clips),
            say=self.progress.say,
        )
        return apply_stage(parent, stages[-1], tools)

    def rehearse(self) -> None:
        """Check every variant on an untrained model before hours are spent: unfit stages and engines fail here."""
        if self.recipe.train.variable_length:
            self._untrained()  # is asked whether it takes lengths
        engine = self.recipe.bench.engine
        engine_class(engine)
        if self.recipe.train.freeze:
            self.training.refuse_freezing(self._untrained())
        for section in self.recipe.build:
            check_build(section)
        for name, stages in self.variants.items():
            engines = engines_for(self.lineage(stages))
            for key, wanted in [("bench", engine), *(("build", section.engine) for section in self.recipe.build)]:
                if wanted not in engines:
                    raise RecipeError(
                        f"{key}.engine {wanted!r} takes no file of variant {name!r}; those that do are "
                        f"{', '.join(engines)}. Choose one of them, or leave the variant out."
                    )
            if self.start is not None:
                self.start.check_follows(name, stages)
            if stages and self.cache.finished(self.stage_key(stages)) is None:
                with _naming(name):
                    rehearse(self._untrained().eval(), stages, torch.zeros(1, *self.spec.input_shape))

    def refuse_unbundled(self) -> None:
        """Raises UsageError, before anything is trained, for a network that no bundle can hold."""
        refuse_unbundled(self._untrained(), self.spec, name=f"model {self.recipe.model.backbone!r}")

    def bundle_key(self, variant: str) -> str:
        config: dict[str, Any] = {
            "variant": variant,
            "check_clips": self.recipe.bench.check_clips,
            "precisions": self.recipe.export.precisions,
        }
        sources = ["deploy", "compress", "models"]
        if is_quantised(self.lineage(self.variants[variant])):
            config["min_int8_pct"] = self.recipe.export.min_int8_pct
            sources += ["bench/graph.py", "cli/coverage_gate.py"]
        return step_key(
            "bundle",
            config,
            sources=sources,
            inputs=[self.stage_key(self.variants[variant]), self.clips.key("val")],
            packages=("torch", "onnx", "onnxscript", "onnxruntime"),
        )

    def bundle(self, variant: str) -> Path:
        """Folder of the bundle of one variant, in the cache."""
        key = self.bundle_key(variant)
        done = self.cache.finished(key)
        if done is None:
            with _naming(variant):
                checkpoint = self.checkpoint(self.variants[variant])
            with self.cache.making(key) as work:
                self.progress.say(f"export {variant}")
                self._write_bundle(variant, checkpoint, work / variant)
            done = self.cache.folder / key
        return done / variant

    def _write_bundle(self, variant: str, checkpoint: Checkpoint, folder: Path) -> None:
        store = self.clips.store("val")
        chosen = spread(store, self.recipe.bench.check_clips)
        frames, data = np.asarray(store.frames[chosen]), self.clips.train_line()
        bundle_from_checkpoint(
            folder,
            checkpoint,
            frames,
            name=variant,
            data=data,
            recipe=self.recipe.name,
            precisions=self.recipe.export.precisions,
        )
        if is_quantised(self.lineage(self.variants[variant])):
            coverage = check_coverage(folder, min_int8_pct=self.recipe.export.min_int8_pct)
            self.progress.say(f"{variant}: {coverage.int8_pct:.1f} % of the multiply-adds run in int8 on ONNX Runtime")


@contextmanager
def _naming(variant: str) -> Iterator[None]:
    """Whatever a stage refuses, the message says in which variant."""
    try:
        yield
    except StageError as error:
        raise type(error)(f"Variant {variant!r}: {error}") from error
