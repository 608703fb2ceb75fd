"""What training minimises."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Distillation:
    """Share of the loss that follows the teacher, and the temperature of both (Hinton et al. 2015)."""

    weight: float = 0.7
    temperature: float = 3.0


def word_loss(
    logits_BV: Tensor,
    labels_B: Tensor,
    *,
    label_smoothing: float,
    teacher_BV: Tensor | None = None,
    distillation: Distillation | None = None,
) -> Tensor:
    """Cross-entropy, mixed with the teacher's KL divergence x temperature^2 where there is a teacher."""
    hard = functional.cross_entropy(logits_BV, labels_B, label_smoothing=label_smoothing)
    if teacher_BV is None or distillation is None:
        return hard
    t = distillation.temperature
    soft = functional.kl_div(
        functional.log_softmax(logits_BV / t, dim=1),
        functional.log_softmax(teacher_BV / t, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - distillation.weight) * hard + distillation.weight * t * t * soft


def mixed_word_loss(
    logits_BV: Tensor, labels_B: Tensor, partner_labels_B: Tensor, shares_B: Tensor, *, label_smoothing: float
) -> Tensor:
    """Cross-entropy of mixed clips: share x that of the clip's own word + (1 - share) x that of its partner's."""
    own_B, partner_B = (
        functional.cross_entropy(logits_BV, labels, label_smoothing=label_smoothing, reduction="none")
        for labels in (labels_B, partner_labels_B)
    )
    return (shares_B * own_B + (1 - shares_B) * partner_B).mean()
