"""The steps of one recipe, each kept in the cache and made when asked for: training, stages, bundles.

This is where training and measuring are handed to the floors below that may not import them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgelip.cache import Cache, step_key
from edgelip.cli.clip_source import ClipSource
from edgelip.compress import STAGES
from edgelip.compress.pipeline import apply_stage, model_from_checkpoint, rehearse, stages_from_configs
from edgelip.compress.stage import FineTuning, Stage, Tools
from edgelip.errors import RecipeError
from edgelip.files import write_atomic
from edgelip.models.checkpoint import (
    Architecture,
    Checkpoint,
    checkpoint_from_model,
    load_checkpoint,
    save_checkpoint,
)
from edgelip.models.zoo import build_classifier
from edgelip.progress import Progress
from edgelip.recipe import Recipe, TrainSection
from edgelip.runtime.clip import network_input
from edgelip.runtime.engines.engine import engine_class

CHECKPOINT = "model.safetensors"
NUMERIC_PACKAGES = ("torch", "numpy")
CALIBRATION_CLIPS = 512


class Workshop:
    """Makes what a recipe asks for in `folder`/.cache; every result is made once."""

    def __init__(self, recipe: Recipe, folder: Path, progress: Progress) -> None:
        self.recipe, self.folder, self.progress = recipe, folder, progress
        self.cache = Cache(folder / ".cache")
        self.clips = ClipSource(recipe, self.cache, progress)
        self.spec = self.clips.spec
        self.variants: dict[str, tuple[Stage, ...]] = {
            variant.name: stages_from_configs(variant.stages) for variant in recipe.variant
        }

    @cached_property
    def trained_key(self) -> str:
        config = {
            "train": self.recipe.train.model_dump(mode="json"),
            "model": self.recipe.model.model_dump(mode="json"),
            "words": self.clips.words,
        }
        return step_key(
            "train",
            config,
            sources=["train", "models"],
            inputs=[self.clips.key("train"), self.clips.key("val")],
            packages=(*NUMERIC_PACKAGES, "lightning"),
        )

    def stage_key(self, stages: Sequence[Stage]) -> str:
        """Key of the checkpoint after `stages`."""
        if not stages:
            return self.trained_key
        stage = stages[-1]
        module = STAGES[stage.name].partition(":")[0].rpartition(".")[2]
        sources = [f"compress/{module}.py", "compress/stage.py", "compress/pipeline.py", "train", "models"]
        if stage.name == "qat":
            sources += ["compress/fake_quant.py", "compress/toolkit_quantise.py"]
        return step_key(
            stage.name,
            {"stage": stage.config.model_dump(mode="json"), "train": self.recipe.train.model_dump(mode="json")},
            sources=sources,
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
                save_checkpoint(made, work / CHECKPOINT)
                (work / "training.ckpt").unlink(missing_ok=True)
            done = self.cache.folder / key
        return load_checkpoint(done / CHECKPOINT)

    def _train(self, work: Path) -> Checkpoint:
        section, model = self.recipe.train, self.recipe.model
        fresh = build_classifier(
            model.backbone, num_words=len(self.clips.words), options=model.options, seed=section.seed
        )
        trained = self._fit(fresh, work, name="train dense", epochs=section.epochs, rate=section.learning_rate)
        entry = {"stage": "train", "config": section.model_dump(mode="json"), "record": {}}
        architecture = Architecture(model.backbone, model.options, self.clips.words, self.spec.to_json(), (entry,))
        return checkpoint_from_model(trained, architecture)

    def _compress(self, stages: Sequence[Stage], work: Path) -> Checkpoint:
        parent = self.checkpoint(stages[:-1])
        name = " + ".join(stage.name for stage in stages)

        def finetune(student: nn.Module, *, teacher: nn.Module, tuning: FineTuning, train_norms: bool) -> nn.Module:
            return self._fit(
                student,
                work,
                name=f"tune {name}",
                epochs=tuning.epochs,
                rate=tuning.learning_rate,
                teacher=teacher,
                tuning=tuning,
                train_norms=train_norms,
            )

        return apply_stage(parent, stages[-1], Tools(finetune=finetune, calibration_clips=self.calibration_clips))

    def calibration_clips(self) -> Tensor:
        """Network inputs of evenly spread training clips: never of the test split."""
        store = self.clips.store("train")
        chosen = np.unique(np.linspace(0, len(store) - 1, CALIBRATION_CLIPS).astype(int))
        return torch.from_numpy(network_input(np.asarray(store.frames[chosen]), self.spec))

    def _fit(
        self,
        model: nn.Module,
        work: Path,
        *,
        name: str,
        epochs: int,
        rate: float,
        teacher: nn.Module | None = None,
        tuning: FineTuning | None = None,
        train_norms: bool = True,
    ) -> nn.Module:
        from edgelip.train.fit import fit
        from edgelip.train.losses import Distillation

        result = fit(
            model,
            train=self.clips.store("train"),
            val=self.clips.store("val"),
            spec=self.spec,
            schedule=schedule_from(
                self.recipe.train,
                epochs=epochs,
                rate=rate,
                train_norms=train_norms,
                clips_per_epoch=tuning.clips_per_epoch if tuning else None,
            ),
            workspace=work,
            progress=self.progress,
            name=name,
            teacher=teacher,
            distillation=Distillation(tuning.distil_weight, tuning.temperature) if tuning else None,
        )
        write_atomic(work / "history.json", json.dumps(result.history, indent=1) + "\n")
        return result.model

    def rehearse(self) -> None:
        """Check every variant on an untrained model before hours are spent: unfit stages and engines fail here."""
        engine = self.recipe.bench.engine
        engine_class(engine)
        for name, stages in self.variants.items():
            if engine not in _engines_for(stages):
                raise RecipeError(
                    f"bench.engine {engine!r} does not take the int8 file of variant {name!r}; "
                    f"it takes {', '.join(_engines_for(stages))}. Choose that, or leave the variant out."
                )
            if stages and self.cache.finished(self.stage_key(stages)) is None:
                model = self.recipe.model
                untrained = build_classifier(
                    model.backbone, num_words=len(self.clips.words), options=model.options
                ).eval()
                side, frames = self.spec.input_px, self.spec.frames
                rehearse(untrained, stages, torch.zeros(1, 1, frames, side, side))

    def bundle_key(self, variant: str) -> str:
        config = {"variant": variant, "check_clips": self.recipe.bench.check_clips, "engine": self.recipe.bench.engine}
        return step_key(
            "bundle",
            config,
            sources=["deploy", "compress", "models"],
            inputs=[self.stage_key(self.variants[variant]), self.clips.key("val")],
            packages=("torch", "onnx", "onnxscript"),
        )

    def bundle(self, variant: str) -> Path:
        """Folder of the bundle of one variant, in the cache."""
        key = self.bundle_key(variant)
        done = self.cache.finished(key)
        if done is None:
            checkpoint = self.checkpoint(self.variants[variant])
            with self.cache.making(key) as work:
                self.progress.say(f"export {variant}")
                self._write_bundle(variant, checkpoint, work / variant)
            done = self.cache.folder / key
        return done / variant

    def _write_bundle(self, variant: str, checkpoint: Checkpoint, folder: Path) -> None:
        from edgelip.deploy.bundle_writer import write_bundle
        from edgelip.deploy.export import export_model
        from edgelip.models.census import count_macs, count_parameters

        store = self.clips.store("val")
        chosen = np.unique(np.linspace(0, len(store) - 1, self.recipe.bench.check_clips).astype(int))
        frames = np.asarray(store.frames[chosen])
        clips = torch.from_numpy(network_input(frames, self.spec))
        model = model_from_checkpoint(checkpoint)
        exported = export_model(model, clips, metadata=self._metadata(variant, checkpoint))
        ledger = {
            "parameters": count_parameters(model),
            "macs": count_macs(model, clips),
            "method": method_of(self.variants[variant]),
            "phm_n": next((stage.config.n for stage in self.variants[variant] if stage.name == "phm"), None),
            "data": self.clips.train_line(),
        }
        write_bundle(
            folder,
            name=variant,
            exported=exported,
            engines=_engines_for(self.variants[variant]),
            checkpoint=checkpoint,
            frames_BTHW=frames,
            ledger=ledger,
        )

    def _metadata(self, variant: str, checkpoint: Checkpoint) -> Mapping[str, str]:
        return {
            "schema_version": "1",
            "variant": variant,
            "recipe": self.recipe.name,
            "words": "\n".join(self.clips.words),
            "clip": json.dumps(self.spec.to_json(), sort_keys=True),
            "weights_sha256": checkpoint.sha256,
        }


def _engines_for(stages: Sequence[Stage]) -> list[str]:
    """Engines that run a variant as it is meant: OpenVINO would run stored int8 factors in float."""
    return ["ort"] if any(stage.phase == "numerics" for stage in stages) else ["ort", "openvino"]


def method_of(stages: Sequence[Stage]) -> str:
    """A variant's stages in words, as the table shows them."""
    words = []
    for stage in stages:
        if stage.name == "prune":
            words.append(f"pruned {stage.config.pruning_ratio:.0%}")
        elif stage.name == "phm":
            words.append(f"PHM n={stage.config.n}")
        elif stage.name == "qat":
            words.append("int8 QAT" + (" (NNCF)" if stage.config.backend == "nncf" else ""))
        else:
            words.append(stage.name)
    return " + ".join(words) or "dense fp32"


def schedule_from(
    section: TrainSection, *, epochs: int, rate: float, train_norms: bool = True, clips_per_epoch: int | None = None
) -> Any:
    """The training schedule of a recipe, with the length and rate of one step."""
    from edgelip.train.augment import Augmentation
    from edgelip.train.fit import fast_precision
    from edgelip.train.module import Schedule

    precision = fast_precision() if section.precision == "auto" else section.precision
    return Schedule(
        epochs=epochs,
        clips_per_epoch=clips_per_epoch,
        batch_size=section.batch_size,
        learning_rate=rate,
        weight_decay=section.weight_decay,
        warmup_fraction=section.warmup_fraction,
        label_smoothing=section.label_smoothing,
        mixup_alpha=section.mixup_alpha,
        boundary_weight=section.boundary_weight,
        seed=section.seed,
        precision=precision if train_norms else "32-true",  # int8 rounding is trained in full precision
        train_norms=train_norms,
        augmentation=Augmentation(
            flip=section.flip,
            shift_frames=section.shift_frames,
            time_mask_frames=section.time_mask_frames,
            brightness=section.brightness,
            random_crop=True,
        ),
    )
