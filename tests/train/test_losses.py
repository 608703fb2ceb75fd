from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from edgelip.train.losses import Distillation, mixed_word_loss, word_loss


def arrays(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3, (4, 5)), rng.integers(0, 5, 4), rng.normal(0, 3, (4, 5))


@given(seed=st.integers(0, 99), smoothing=st.floats(0, 0.5))
def test_the_word_loss_is_smoothed_cross_entropy(seed: int, smoothing: float) -> None:
    logits, labels, _ = arrays(seed)
    target = np.full((4, 5), smoothing / 5)
    target[np.arange(4), labels] += 1 - smoothing
    expected = -(target * log_softmax(logits, axis=1)).sum(axis=1).mean()
    got = word_loss(torch.from_numpy(logits), torch.from_numpy(labels), label_smoothing=smoothing)
    assert float(got) == pytest.approx(expected, rel=1e-9)


@given(seed=st.integers(0, 99), weight=st.floats(0, 1), temperature=st.floats(0.5, 8))
def test_distillation_is_hintons_formula(seed: int, weight: float, temperature: float) -> None:
    logits, labels, teacher = arrays(seed)
    student_log, teacher_log = (log_softmax(x / temperature, axis=1) for x in (logits, teacher))
    divergence = (np.exp(teacher_log) * (teacher_log - student_log)).sum(axis=1).mean()
    hard = -log_softmax(logits, axis=1)[np.arange(4), labels].mean()
    got = word_loss(
        torch.from_numpy(logits),
        torch.from_numpy(labels),
        label_smoothing=0.0,
        teacher_BV=torch.from_numpy(teacher),
        distillation=Distillation(weight, temperature),
    )
    assert float(got) == pytest.approx((1 - weight) * hard + weight * temperature**2 * divergence, rel=1e-8, abs=1e-10)


def test_a_teacher_who_agrees_costs_nothing() -> None:
    logits, labels, _ = map(torch.from_numpy, arrays(0))
    loss = word_loss(logits, labels, label_smoothing=0, teacher_BV=logits, distillation=Distillation(1.0, 2.0))
    assert float(loss) == pytest.approx(0, abs=1e-12)


@given(seed=st.integers(0, 99), smoothing=st.floats(0, 0.5))
def test_the_loss_of_mixed_clips_is_cross_entropy_with_mixed_labels(seed: int, smoothing: float) -> None:
    logits, labels, _ = arrays(seed)
    rng = np.random.default_rng(seed)
    partners, shares = rng.integers(0, 5, 4), rng.random(4)
    target = np.full((4, 5), smoothing / 5)
    target[np.arange(4), labels] += (1 - smoothing) * shares
    target[np.arange(4), partners] += (1 - smoothing) * (1 - shares)
    np.testing.assert_allclose(target.sum(axis=1), 1)
    expected = -(target * log_softmax(logits, axis=1)).sum(axis=1).mean()
    given = [torch.from_numpy(array) for array in (logits, labels, partners, shares)]
    assert float(mixed_word_loss(*given, label_smoothing=smoothing)) == pytest.approx(expected, rel=1e-9)
