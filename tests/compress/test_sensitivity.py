"""Scores of one change at a time, against figures by hand."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import classifier, clips
from torch import nn

from edgelip.compress.sensitivity import harm, layer_harms, logits_of


def test_harm_of_two_clips_is_as_by_hand() -> None:
    before = torch.tensor([[0.0, math.log(3)], [2.0, 0.0]])
    after = torch.tensor([[math.log(3), 0.0], [2.0, 0.0]])
    found = harm(after, before)
    # p = (1/4, 3/4), q = (3/4, 1/4): KL = 1/4 ln(1/3) + 3/4 ln 3 = ln 3 / 2 on one clip, 0 on the other.
    assert found.divergence == pytest.approx(math.log(3) / 4, rel=1e-6)
    noise, power = 2 * math.log(3) ** 2 / 4, (math.log(3) ** 2 + 4) / 4
    assert found.sqnr_db == pytest.approx(10 * math.log10(power / noise), rel=1e-6)
    assert found.flipped == 0.5


def test_no_change_does_no_harm() -> None:
    logits = torch.randn(4, 3)
    assert harm(logits, logits.clone()) == harm(logits, logits)
    assert harm(logits, logits).sqnr_db == math.inf
    assert harm(logits, logits).divergence == 0


def test_each_layer_is_changed_alone_and_put_back() -> None:
    model, inputs = classifier(), clips(4)
    before = logits_of(model, inputs)
    silent = nn.Linear(model.head.in_features, model.head.out_features)  # type: ignore[attr-defined]
    nn.init.zeros_(silent.weight)
    nn.init.zeros_(silent.bias)
    found = dict(layer_harms(model, [("head", silent), ("head", model.head)], inputs))  # type: ignore[attr-defined]
    assert found["head"].divergence == 0  # the second: itself
    (first, *_) = layer_harms(model, [("head", silent)], inputs)
    uniform = harm(torch.zeros_like(before), before)
    assert first == ("head", uniform)
    assert torch.equal(logits_of(model, inputs), before)
