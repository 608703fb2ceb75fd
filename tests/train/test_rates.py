from __future__ import annotations

import pytest
import torch
from tiny_models import SPEC, classifier

from edgelip.train.module import Schedule, WordTask
from edgelip.train.rates import rate_share


def rates(schedule: Schedule, num_steps: int) -> list[float]:
    """The rate that the optimiser has at each step."""
    task = WordTask(classifier(), spec=SPEC, schedule=schedule, num_steps=num_steps)
    setup = task.configure_optimizers()
    seen = []
    for _ in range(num_steps):
        seen.append(setup["optimizer"].param_groups[0]["lr"])
        setup["optimizer"].step()
        setup["lr_scheduler"]["scheduler"].step()
    return seen


def test_the_published_cosine_changes_each_epoch_and_starts_one_late() -> None:
    schedule = Schedule(epochs=4, learning_rate=0.1, rate_schedule="epoch_cosine", warmup_fraction=0.5)
    root_half = 2**-0.5
    per_epoch = [0.1, 0.1, 0.05 * (1 + root_half), 0.05]  # cos of 0, 0, pi / 4, pi / 2
    assert rates(schedule, 12) == pytest.approx([rate for rate in per_epoch for _ in range(3)])


@pytest.mark.parametrize("num_steps", [1, 7, 100])
def test_the_warm_cosine_rises_and_falls_to_nearly_nothing(num_steps: int) -> None:
    shares = [
        rate_share("warmup_cosine", step, num_steps=num_steps, epochs=1, warmup_fraction=0.1)
        for step in range(num_steps)
    ]
    assert max(shares) == 1
    assert all(0 <= share <= 1 for share in shares)
    peak = shares.index(1)
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert torch.tensor(shares)[-1] < 0.1 or num_steps == 1
