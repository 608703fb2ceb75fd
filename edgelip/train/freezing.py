"""Parts of a model that training leaves as they are, for all of a run or for its first epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import lightning.pytorch as pl
from torch import nn

from edgelip.errors import UsageError


@final
@dataclass(frozen=True)
class Freezing:
    """Names of sub-modules that stay bit for bit as they are, parameters and normalisation statistics alike.

    until_epoch: they join in from this epoch on, counted from 0; None keeps them frozen to the end.
    """

    parts: tuple[str, ...]
    until_epoch: int | None = None

    def holds(self, epoch: int) -> bool:
        return self.until_epoch is None or epoch < self.until_epoch


@final
class FreezeParts(pl.Callback):
    """Sets the state of the parts at the start of each epoch, from its number alone: a resumed run freezes the same.

    A frozen part runs as in evaluation (no dropout, stored normalisation statistics) and gets no gradients, so the
    optimiser passes it over, weight decay included.
    Raises UsageError at once for a part that the model has not, or that is never thawed within `epochs`.
    """

    def __init__(self, model: nn.Module, freezing: Freezing, *, epochs: int) -> None:
        children = dict(model.named_children())
        for part in freezing.parts:
            if part not in children:
                raise UsageError(f"the model has no part {part!r} to freeze; it has {', '.join(children)}.")
        if freezing.until_epoch is not None and not 1 <= freezing.until_epoch < epochs:
            raise UsageError(
                f"frozen until epoch {freezing.until_epoch} (counted from 0) in a run of {epochs} epochs: "
                f"expected from 1 to {epochs - 1}. Train longer or thaw earlier."
            )
        self._freezing = freezing
        self._modules = [children[part] for part in freezing.parts]
        # What the caller had frozen itself stays frozen.
        self._trainable = [p for module in self._modules for p in module.parameters() if p.requires_grad]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        frozen = self._freezing.holds(trainer.current_epoch)
        for module in self._modules:
            module.train(not frozen)
        for parameter in self._trainable:
            parameter.requires_grad_(not frozen)

    def release(self) -> None:
        """Let gradients reach the parts again, as before the run."""
        for parameter in self._trainable:
            parameter.requires_grad_(True)
