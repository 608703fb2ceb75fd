"""One training step of an imported checkpoint is the step of the published code (golden train_step_dctcn_phm16)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_files import LRW
from torch import nn

from edgelip.models.checkpoint import Checkpoint
from edgelip.models.published.importer import import_published
from edgelip.models.published.names import renamed
from edgelip.models.zoo import build_classifier

NOISE = 1e-4  # smaller gradient norms are rounding: biases before a normalisation have a true gradient of zero


@pytest.fixture(scope="module")
def trained(golden: Path) -> tuple[nn.Module, dict[str, Any], np.ndarray, float]:
    """The model after the step, what is expected of it, its logits before, and its loss."""
    imported = import_published(
        golden / "dctcn_phm16" / "ckpt.best.pth", lrw_words=LRW, config=golden / "dctcn_phm16" / "config.json"
    )
    model = without_dropout(imported.checkpoint).train()
    step = golden / "train_step_dctcn_phm16"
    expected = json.loads((step / "expect.json").read_text())
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=1e-2)
    clips = torch.from_numpy(np.load(step / "input.npy"))
    logits = model(clips, torch.tensor(expected["lengths"]))
    loss = nn.functional.cross_entropy(logits, torch.tensor(expected["labels"]))
    loss.backward()
    optimiser.step()
    return model, expected, np.abs(logits.detach().numpy() - np.load(step / "train_logits.npy")), float(loss.detach())


def without_dropout(checkpoint: Checkpoint) -> nn.Module:
    found = checkpoint.architecture
    model = build_classifier(found.backbone, num_words=500, options={**found.options, "dropout": 0.0})
    model.load_state_dict(dict(checkpoint.tensors))
    return model


def ours(published: str) -> str:
    found = renamed(published)
    assert found is not None
    return found.ours


def test_loss_and_logits(trained: Any) -> None:
    _, expected, differences, loss = trained
    assert loss == pytest.approx(expected["loss"], abs=1e-4)
    assert differences.max() <= 1e-4


def test_every_gradient(trained: Any) -> None:
    model, expected, _, _ = trained
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    norms = expected["grad_norm_and_sum"]
    assert {ours(name) for name in norms} == set(gradients)
    checked = {name: norm for name, (norm, _) in norms.items() if norm >= NOISE}
    assert len(norms) - len(checked) == 72  # the biases before a normalisation
    for name, norm in checked.items():
        assert float(gradients[ours(name)].norm()) == pytest.approx(norm, rel=1e-4), name
    for name, values in expected["grad_first8"].items():
        gradient = gradients[ours(name)]
        np.testing.assert_allclose(gradient.flatten()[:8].numpy(), values, rtol=1e-3, atol=1e-4 * gradient.abs().max())


def test_every_parameter_after_the_step(trained: Any) -> None:
    model, expected, _, _ = trained
    parameters = dict(model.named_parameters())
    for name, norm in expected["param_norm_after_step"].items():
        noisy = expected["grad_norm_and_sum"][name][0] < NOISE  # Adam turns rounding noise into steps of full size
        assert float(parameters[ours(name)].detach().norm()) == pytest.approx(norm, rel=3e-3 if noisy else 1e-5), name


def test_running_statistics_see_the_positions_beyond_the_ends(trained: Any) -> None:
    model, expected, _, _ = trained
    buffers = dict(model.named_buffers())
    for name, norm in expected["bn_running_mean_norm_after"].items():
        assert float(buffers[ours(name)].norm()) == pytest.approx(norm, rel=1e-5), name
    for name, total in expected["bn_running_var_sum_after"].items():
        assert float(buffers[ours(name)].sum()) == pytest.approx(total, rel=1e-5), name
