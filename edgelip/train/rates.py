"""How the learning rate moves through a training."""

from __future__ import annotations

import math
from typing import Literal

RateSchedule = Literal["warmup_cosine", "epoch_cosine"]


def rate_share(schedule: RateSchedule, step: int, *, num_steps: int, epochs: int, warmup_fraction: float) -> float:
    """The share of the learning rate that optimiser step `step` (from 0) of `num_steps` takes.

    warmup_cosine: rises over the first steps, then falls as half a cosine to 0, anew each step.
    epoch_cosine: the published LRW recipe, anew each epoch: all of it in epochs 0 and 1, then half a cosine one epoch
    late, 0.5 (1 + cos(pi (e - 1) / epochs)), which ends above 0. Over steps that fall by tenths it was worth 1.3 points
    there (Ma et al. 2021); warm-up is not part of it.
    """
    if schedule == "epoch_cosine":
        epoch = step * epochs // num_steps
        return 0.5 * (1 + math.cos(math.pi * max(0, epoch - 1) / epochs))
    warmup = max(1, round(warmup_fraction * num_steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, num_steps - warmup))))
