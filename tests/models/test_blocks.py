from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from tiny_models import PHM, QAT, TOOLS, classifier, clips, lively
from torch import nn

from edgelip.compress.pipeline import stage_from_config
from edgelip.models.blocks import fold_norms, initialise
from edgelip.models.census import count_macs, count_parameters


def phm_classifier() -> nn.Module:
    model, _ = stage_from_config(PHM).prepare(classifier(), TOOLS)
    return lively(model)  # type: ignore[no-any-return]


@pytest.mark.parametrize("build", [classifier, phm_classifier])
@torch.no_grad()
def test_folding_normalisation_keeps_the_logits(build: object) -> None:
    model: nn.Module = build()  # type: ignore[operator]
    folded = deepcopy(model)
    fold_norms(folded)
    assert any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in folded.modules())
    torch.testing.assert_close(folded(clips()), model(clips()), rtol=1e-5, atol=1e-5)
    once = {name: tensor.clone() for name, tensor in folded.state_dict().items()}
    fold_norms(folded)  # nothing left to fold
    assert all(torch.equal(once[name], tensor) for name, tensor in folded.state_dict().items())


def test_initialisation_has_the_variance_of_its_rule() -> None:
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(32, 64, 3), nn.Linear(400, 300)
    initialise(nn.Sequential(conv, linear).requires_grad_(False))
    assert float(conv.weight.std()) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.05)
    assert float(linear.weight.std()) == pytest.approx(math.sqrt(1 / 400), rel=0.05)
    assert float(linear.bias.abs().max()) == 0


def hand_counted_macs() -> int:
    """MACs of the tiny classifier on 6 frames of 20 x 20, from the layer sizes."""
    stem = 10 * 10 * 16 * (5 * 5 * 5)  # 20 -> 10 by stride 2
    # pooled to 5 x 5; a block of stride 2: 5 -> 3, then 3 -> 2
    first = 3 * 3 * (16 * 16 * 9 + 16 * 16 * 9 + 16 * 16)
    second = 2 * 2 * (32 * 16 * 9 + 32 * 32 * 9 + 32 * 16)
    temporal = 2 * (2 * 32 * 32 * 3)  # two blocks, each two convolutions; widths equal: no projection
    return 6 * (stem + first + second + temporal) + 32 * 6


def test_macs_follow_the_layer_sizes() -> None:
    assert count_macs(classifier(), clips(3)) == hand_counted_macs()  # of one clip, however many are given
    assert count_macs(phm_classifier(), clips(1)) == hand_counted_macs()  # PHM shrinks what is stored, not what runs


def test_parameters_of_a_phm_model_are_those_of_its_factors() -> None:
    dense, phm = classifier(), phm_classifier()
    replaced = [name for name, module in phm.named_modules() if type(module).__name__ == "PHMConv"]
    saved = 0
    for name in replaced:
        size = dense.get_submodule(name).weight.numel()  # type: ignore[operator, union-attr]
        saved += size - (64 + size // 4)
    assert count_parameters(phm) == count_parameters(dense) - saved


def test_macs_of_a_quantised_model_are_those_of_its_layers() -> None:
    quantised, _ = stage_from_config(QAT).prepare(phm_classifier(), TOOLS)
    assert count_macs(quantised, clips(1)) == hand_counted_macs()
