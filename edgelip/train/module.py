"""The Lightning module that trains a word classifier, alone or after a teacher."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from edgelip.errors import CheckpointError
from edgelip.models.checkpoint import OptimiserState
from edgelip.models.zero_masks import apply_masks
from edgelip.runtime.clip import ClipSpec
from edgelip.train.augment import Augmentation, Variation, training_batch
from edgelip.train.batch import NetworkBatch, refuse_variable_length
from edgelip.train.feed import Batch
from edgelip.train.losses import Distillation, mixed_word_loss, word_loss
from edgelip.train.mixing import Cut, drawn_mixing, mixed
from edgelip.train.pixels import Room
from edgelip.train.rates import RateSchedule, rate_share


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train, and on what. Neither mixing nor boundary_weight is for distillation: the teacher
    says what the varied clip is.
    """

    epochs: int
    clips_per_epoch: int | None = None  # drawn anew each epoch; None takes all
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    rate_schedule: RateSchedule = "warmup_cosine"
    warmup_fraction: float = 0.1  # of the steps; "epoch_cosine" has none
    label_smoothing: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    cutmix_cut: Cut = "tube"
    boundary_weight: float = 0.0  # share of the loss on the word's own frames alone
    seed: int = 0
    precision: str = "32-true"  # as Lightning names it: "32-true" or "bf16-mixed"
    train_norms: bool = True  # False keeps batch-normalisation statistics as they are
    augmentation: Variation = field(default_factory=Augmentation)


class WordTask(pl.LightningModule):
    """Trains `model` on stored clips. With a teacher, distils from it on the same augmented clips.

    optimiser: state that AdamW goes on from, with its beta1, beta2 and eps; rate and decay are the schedule's.
    A network whose `boundary` is true is told which frames are the word's. Of two mixed clips it is told the first's,
    as in Ma et al. 2022.
    Raises UsageError where clips are to vary in length and a network cannot be told the length.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        spec: ClipSpec,
        schedule: Schedule,
        num_steps: int,
        teacher: nn.Module | None = None,
        distillation: Distillation | None = None,
        optimiser: OptimiserState | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.spec, self.schedule, self.num_steps = spec, schedule, num_steps
        self.distillation = distillation
        self._teacher = (teacher,)  # in a tuple: not a sub-module, so neither saved nor trained
        self._optimiser = optimiser
        self._room, self._mixing_room = Room(), Room()
        if getattr(schedule.augmentation, "variable_length", False):
            for network in (model, teacher):
                if network is not None:
                    refuse_variable_length(network)
        self._correct = self._seen = 0

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        apply_masks(self.model)

    def on_train_epoch_start(self) -> None:
        if self._teacher[0] is not None:
            self._teacher[0].to(self.device).eval()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        frames, labels, boundaries = batch
        seed = hash((self.schedule.seed, self.current_epoch, batch_idx)) & (2**62 - 1)
        draws = torch.Generator().manual_seed(seed)
        # Dropout draws from the global generator. A seed an epoch would not do: Lightning's loader draws from it too,
        # before the epoch starts in a resumed run and after it in an unbroken one.
        torch.manual_seed(seed + 1)
        schedule = self.schedule
        seen = training_batch(frames, boundaries, self.spec, schedule.augmentation, draws, room=self._room)
        if self._teacher[0] is not None:
            with torch.no_grad():
                teacher_logits = seen.logits(self._teacher[0])
            return self._loss(seen.logits(self.model), labels, teacher_logits)
        mixing = drawn_mixing(
            len(labels),
            seen.clips.shape[2:],
            draws,
            mixup_alpha=schedule.mixup_alpha,
            cutmix_alpha=schedule.cutmix_alpha,
            cut=schedule.cutmix_cut,
        )
        shares, partner_labels = None, labels
        if mixing is not None:
            seen, shares = mixed(seen, mixing, room=self._mixing_room)
            partner_labels = labels[mixing.partner_B.to(labels.device)]
        return self._mixed_loss(seen, labels, partner_labels, shares)

    def _mixed_loss(self, seen: NetworkBatch, labels: Tensor, partners: Tensor, shares: Tensor | None) -> Tensor:
        def loss(logits: Tensor) -> Tensor:
            if shares is None:
                return self._loss(logits, labels, None)
            smoothing = self.schedule.label_smoothing
            return mixed_word_loss(logits, labels, partners, shares, label_smoothing=smoothing)

        weight = self.schedule.boundary_weight
        if not weight:
            return loss(seen.logits(self.model))
        logits, word_logits = seen.word_logits(self.model)
        return (1 - weight) * loss(logits) + weight * loss(word_logits)

    def _loss(self, logits: Tensor, labels: Tensor, teacher_logits: Tensor | None) -> Tensor:
        return word_loss(
            logits,
            labels,
            label_smoothing=self.schedule.label_smoothing,
            teacher_BV=teacher_logits,
            distillation=self.distillation,
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        frames, labels, boundaries = batch
        as_stored = type(self.schedule.augmentation)()
        seen = training_batch(frames, boundaries, self.spec, as_stored, torch.Generator(), room=self._room)
        self._correct += int((seen.logits(self.model).argmax(dim=1) == labels).sum())
        self._seen += len(labels)

    def on_validation_epoch_end(self) -> None:
        self.log("val_top1", self._correct / max(1, self._seen))
        self._correct = self._seen = 0

    def configure_optimizers(self) -> Any:
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.schedule.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=self.schedule.learning_rate)
        if self._optimiser is not None:
            _go_on_from(self._optimiser, optimiser, self.model)

        def share(step: int) -> float:
            return rate_share(
                self.schedule.rate_schedule,
                step,
                num_steps=self.num_steps,
                epochs=self.schedule.epochs,
                warmup_fraction=self.schedule.warmup_fraction,
            )

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _go_on_from(state: OptimiserState, optimiser: torch.optim.AdamW, model: nn.Module) -> None:
    """Give AdamW, in place, the state of every parameter. Raises CheckpointError if it is that of another model."""
    parameters = dict(model.named_parameters())
    strange = sorted(state.first_moments.keys() ^ parameters.keys())
    if strange:
        raise CheckpointError(
            f"The optimiser state is of {len(state.first_moments)} parameters and the model has {len(parameters)}; "
            f"{strange[0]!r} is in one alone. Start from a checkpoint without optimiser state."
        )
    for name, parameter in parameters.items():
        moments = {"exp_avg": state.first_moments[name], "exp_avg_sq": state.second_moments[name]}
        if moments["exp_avg"].shape != parameter.shape:
            raise CheckpointError(
                f"The optimiser state of {name!r} has shape {tuple(moments['exp_avg'].shape)}; the parameter has "
                f"{tuple(parameter.shape)}. Start from a checkpoint without optimiser state."
            )
        # Moments in the memory layout of the parameter: AdamW's kernels are fastest so.
        optimiser.state[parameter] = {key: torch.empty_like(parameter).copy_(m) for key, m in moments.items()}
        optimiser.state[parameter]["step"] = torch.tensor(float(state.step), dtype=torch.float32)
    for group in optimiser.param_groups:
        group["betas"] = (float(state.settings["beta1"]), float(state.settings["beta2"]))
        group["eps"] = float(state.settings["eps"])
