"""The Lightning module that trains a word classifier, alone or after a teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from edgelip.runtime.clip import ClipSpec
from edgelip.train.augment import Augmentation, network_batch
from edgelip.train.feed import Batch
from edgelip.train.losses import Distillation, mixed_pairs, word_loss


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    epochs: int
    clips_per_epoch: int | None = None  # drawn anew each epoch; None takes all
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    warmup_fraction: float = 0.1
    label_smoothing: float = 0.0
    mixup_alpha: float = 0.0
    boundary_weight: float = 0.0  # share of the loss on the word's own frames alone; not while distilling
    seed: int = 0
    precision: str = "32-true"  # as Lightning names it: "32-true" or "bf16-mixed"
    train_norms: bool = True  # False keeps batch-normalisation statistics as they are
    augmentation: Augmentation = field(default_factory=Augmentation)


class WordTask(pl.LightningModule):
    """Trains `model` on stored clips. With a teacher, distils from it on the same augmented clips."""

    def __init__(
        self,
        model: nn.Module,
        *,
        spec: ClipSpec,
        schedule: Schedule,
        num_steps: int,
        teacher: nn.Module | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.spec, self.schedule, self.num_steps = spec, schedule, num_steps
        self.distillation = distillation
        self._teacher = (teacher,)  # in a tuple: not a sub-module, so neither saved nor trained
        self._correct = self._seen = 0

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
        clips = network_batch(frames, self.spec, self.schedule.augmentation, draws)
        if self._teacher[0] is not None:
            with torch.no_grad():
                teacher_logits = self._teacher[0](clips)
            return self._loss(self.model(clips), labels, teacher_logits)
        partner, share = None, 1.0
        if self.schedule.mixup_alpha > 0:
            share, partner = mixed_pairs(len(clips), self.schedule.mixup_alpha, draws)
            clips = share * clips + (1 - share) * clips[partner]
        weight = self.schedule.boundary_weight
        if not weight:
            return self._mixed_loss(self.model(clips), labels, partner, share)
        logits, word_logits = self.model.word_logits(clips, boundaries)  # type: ignore[operator]
        whole = self._mixed_loss(logits, labels, partner, share)
        return (1 - weight) * whole + weight * self._mixed_loss(word_logits, labels, partner, share)

    def _mixed_loss(self, logits: Tensor, labels: Tensor, partner: Tensor | None, share: float) -> Tensor:
        loss = self._loss(logits, labels, None)
        return loss if partner is None else share * loss + (1 - share) * self._loss(logits, labels[partner], None)

    def _loss(self, logits: Tensor, labels: Tensor, teacher_logits: Tensor | None) -> Tensor:
        return word_loss(
            logits,
            labels,
            label_smoothing=self.schedule.label_smoothing,
            teacher_BV=teacher_logits,
            distillation=self.distillation,
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        frames, labels, _ = batch
        clips = network_batch(frames, self.spec, Augmentation(), torch.Generator())
        self._correct += int((self.model(clips).argmax(dim=1) == labels).sum())
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
        warmup = max(1, round(self.schedule.warmup_fraction * self.num_steps))

        def share(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, self.num_steps - warmup))))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
