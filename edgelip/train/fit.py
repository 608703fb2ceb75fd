"""Train a classifier, keep its best weights, survive being killed."""

from __future__ import annotations

import logging
import os
import signal
import time
import warnings
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from edgelip.data.stores.store import Store
from edgelip.files import writing
from edgelip.models.checkpoint import OptimiserState
from edgelip.progress import Progress, Task
from edgelip.runtime.clip import ClipSpec
from edgelip.train.batch import refuse_whole_words
from edgelip.train.feature_store import FeatureStore
from edgelip.train.feed import loader
from edgelip.train.freezing import FreezeParts, Freezing
from edgelip.train.losses import Distillation
from edgelip.train.module import Schedule, WordTask

STATE_FILE = "training.ckpt"


@dataclass(frozen=True)
class FitResult:
    """The trained model in eval mode, its validation accuracy (0..1) and one entry an epoch."""

    model: nn.Module
    val_top1: float
    history: tuple[dict[str, float], ...]


def fit(
    model: nn.Module,
    *,
    train: Store | FeatureStore,
    val: Store | FeatureStore,
    spec: ClipSpec,
    schedule: Schedule,
    workspace: Path,
    progress: Progress,
    name: str,
    teacher: nn.Module | None = None,
    distillation: Distillation | None = None,
    freezing: Freezing | None = None,
    optimiser: OptimiserState | None = None,
) -> FitResult:
    """Train a copy of `model` and return it with the weights of its best epoch on `val`.

    After each epoch the whole state is written to `workspace`; called again after a kill, the run goes on from there
    and ends with the same weights as an unbroken one. Raises MissingError if the state cannot be written.
    freezing: parts that stay as they are, for good or for the first epochs; UsageError if they do not fit the model.
    optimiser: state that AdamW goes on from; none starts it afresh. CheckpointError if it is that of another model.
    Raises UsageError where clips are to vary in length and their words fill them, or a network takes no lengths.
    """
    if getattr(schedule.augmentation, "variable_length", False):
        refuse_whole_words(train.boundaries, spec.frames)
    batches = loader(
        train, batch_size=schedule.batch_size, seed=schedule.seed, clips_per_epoch=schedule.clips_per_epoch
    )
    model = channels_last(deepcopy(model)).train()  # Lightning leaves modules in the mode they come in
    freezer = None if freezing is None else FreezeParts(model, freezing, epochs=schedule.epochs)
    teacher = None if teacher is None else channels_last(deepcopy(teacher))
    state = workspace / STATE_FILE
    resumed = str(state) if state.is_file() else None
    task = WordTask(
        model,
        spec=spec,
        schedule=schedule,
        num_steps=len(batches) * schedule.epochs,
        teacher=teacher,
        distillation=distillation,
        optimiser=optimiser if resumed is None else None,  # the state of the killed run holds what became of it
    )
    total = schedule.epochs * len(batches) * schedule.batch_size
    with _quiet(), progress.task(name, total=total, unit="clips") as bar:
        keeper = _Keeper(state, bar, freeze_norms=not schedule.train_norms)
        trainer = pl.Trainer(
            max_epochs=schedule.epochs,
            accelerator="auto",
            devices=1,
            precision=schedule.precision,
            callbacks=[keeper] if freezer is None else [freezer, keeper],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            gradient_clip_val=5.0,
            default_root_dir=workspace,
        )
        try:
            trainer.fit(
                task,
                batches,
                loader(val, batch_size=2 * schedule.batch_size, seed=None),
                ckpt_path=resumed,
                weights_only=True,
            )
        except SystemExit as error:  # Lightning turns Ctrl-C into exit code 1 and ignores the next
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from error
    if freezer is not None:
        freezer.release()
    model.load_state_dict(keeper.best_weights)
    return FitResult(model.cpu().eval(), keeper.best_top1, tuple(keeper.history))


def channels_last(model: nn.Module) -> nn.Module:
    """Give the 2-D convolutions, in place, the layout that CPU and GPU kernels train fastest in."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def fast_precision() -> str:
    """bf16 autocast where the processor multiplies in it, else fp32: 1.4 times the clips/s on a Zen 4 core pair."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"


class _Keeper(pl.Callback):
    """Keeps the best weights and, each epoch, the whole training state in one file that is replaced atomically."""

    def __init__(self, path: Path, bar: Task, *, freeze_norms: bool) -> None:
        self.path, self.bar, self.freeze_norms = path, bar, freeze_norms
        self.best_top1 = -1.0
        self.best_weights: dict[str, torch.Tensor] = {}
        self.history: list[dict[str, float]] = []
        self._started = time.perf_counter()
        self._loss = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"best_top1": self.best_top1, "best_weights": self.best_weights, "history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_top1, self.best_weights = state_dict["best_top1"], state_dict["best_weights"]
        self.history = list(state_dict["history"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        done = trainer.current_epoch * trainer.num_training_batches * _batch_size(pl_module)
        self.bar.done = self.bar._first = done

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.perf_counter()
        if self.freeze_norms:
            for module in pl_module.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = float(outputs["loss"])
        self._loss = loss if batch_idx == 0 else 0.95 * self._loss + 0.05 * loss
        self.bar.advance(len(batch[1]), note=f"epoch {trainer.current_epoch + 1}, loss {self._loss:.2f}{self._best()}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        top1 = float(trainer.callback_metrics["val_top1"])
        if top1 > self.best_top1:
            self.best_top1 = top1
            weights = pl_module.model.state_dict()
            self.best_weights = {key: value.detach().cpu().clone() for key, value in weights.items()}
        self.history.append({"loss": self._loss, "val_top1": top1, "seconds": time.perf_counter() - self._started})
        self.bar.advance(0, note=f"epoch {trainer.current_epoch + 1}, loss {self._loss:.2f}{self._best()}")
        self._save(trainer)

    def _best(self) -> str:
        return f", best val {100 * self.best_top1:.1f} %" if self.best_top1 >= 0 else ""

    def _save(self, trainer: pl.Trainer) -> None:
        beside = self.path.with_suffix(".tmp")
        with writing(self.path):
            try:
                trainer.save_checkpoint(beside)
                with beside.open("rb") as file:
                    os.fsync(file.fileno())
                beside.replace(self.path)
            finally:
                beside.unlink(missing_ok=True)


def _batch_size(module: pl.LightningModule) -> int:
    schedule: Schedule = module.schedule
    return schedule.batch_size


class _quiet:
    """Silences Lightning's start-up lines and its advice on worker counts."""

    def __enter__(self) -> None:
        self._caught = warnings.catch_warnings()
        self._caught.__enter__()
        warnings.filterwarnings("ignore", module="lightning.*")
        self._logger = logging.getLogger("lightning.pytorch")
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)

    def __exit__(self, *error: object) -> None:
        self._logger.setLevel(self._level)
        self._caught.__exit__(None, None, None)
