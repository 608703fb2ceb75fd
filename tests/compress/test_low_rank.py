from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import QAT, TOOLS, classifier, clips, dense_checkpoint
from torch import nn

from edgelip.compress.pipeline import apply_stage, model_from_checkpoint, rehearse, stage_from_config
from edgelip.deploy.export import export_model
from edgelip.errors import StageError
from edgelip.models.blocks import ConvNorm, fold_norms
from edgelip.models.census import count_macs
from edgelip.models.low_rank import (
    LowRank,
    largest_paying_rank,
    low_rank_from_dense,
    low_rank_parameters,
    shares_of_ranks,
)

HEAD = {"stage": "low_rank", "layers": ["head"], "rank": 3}
TEMPORAL = {"stage": "low_rank", "layers": ["temporal.*.conv2.conv", "head"], "rank": 4}


def prepared(fields: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return stage_from_config(fields).prepare(classifier(), TOOLS)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "dense",
    [nn.Linear(7, 9), nn.Conv1d(6, 8, 3, padding=2, dilation=2), nn.Conv2d(6, 8, (3, 1), stride=2, bias=False),
     nn.Conv3d(4, 6, 1)],
)  # fmt: skip
@torch.no_grad()
def test_full_rank_is_the_layer_and_a_small_one_the_nearest(dense: Any) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, dense.weight.shape[1], *[7] * (dense.weight.ndim - 2))
    flat = dense.weight.flatten(1)
    torch.testing.assert_close(low_rank_from_dense(dense, min(flat.shape))(x), dense(x), rtol=1e-4, atol=1e-5)
    made: Any = low_rank_from_dense(dense, 2)
    product = made.second.weight.flatten(1) @ made.first.weight.flatten(1)
    strengths = np.linalg.svd(flat.numpy(), compute_uv=False)
    error = float((product - flat).square().sum())
    assert error == pytest.approx(float((strengths[2:] ** 2).sum()), rel=1e-4)
    assert 1 - error / float(flat.square().sum()) == pytest.approx(float(shares_of_ranks(dense.weight)[1]), abs=1e-5)


@given(out=st.integers(1, 30), into=st.integers(1, 30), taps=st.integers(1, 9))
def test_the_largest_paying_rank_is_the_last_that_is_smaller(out: int, into: int, taps: int) -> None:
    rank, size = largest_paying_rank((out, into, taps)), out * into * taps
    assert not rank or low_rank_parameters((out, into, taps), rank) < size
    assert low_rank_parameters((out, into, taps), rank + 1) >= size


def test_layers_become_smaller_and_cheaper() -> None:
    model, record = prepared(TEMPORAL)
    assert list(record["ranks"].values()) == [4, 4, 4]
    assert all(isinstance(model.get_submodule(name), LowRank) for name in record["ranks"])
    for key in ("weight", "bias"):
        assert model.head.second.state_dict().get(key) is not None
    size = [sum(parameter.numel() for parameter in network.parameters()) for network in (model, classifier())]
    assert size[0] < 0.85 * size[1]
    assert count_macs(model.eval(), clips(1)) < count_macs(classifier(), clips(1))


def test_energy_takes_the_least_rank_that_keeps_it() -> None:
    _, record = prepared({"stage": "low_rank", "layers": ["head"], "energy": 0.7})
    shares = shares_of_ranks(classifier().head.weight)
    rank = record["ranks"]["head"]
    assert shares[rank - 2] < 0.7 <= shares[rank - 1]
    assert record["energy"]["head"] == pytest.approx(float(shares[rank - 1]), abs=1e-4)


@torch.no_grad()
def test_a_norm_is_folded_into_the_second_layer() -> None:
    model = classifier()
    block = next(module for module in model.modules() if isinstance(module, ConvNorm))
    block.conv = low_rank_from_dense(block.conv, 3)
    before = model(clips())
    fold_norms(model)
    assert isinstance(block.norm, nn.Identity)
    torch.testing.assert_close(model(clips()), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stages", [[TEMPORAL], pytest.param([TEMPORAL, QAT], marks=pytest.mark.slow)])
@torch.no_grad()
def test_a_checkpoint_rebuilds_it_and_exports(stages: list[dict[str, Any]]) -> None:
    checkpoint = dense_checkpoint()
    for fields in stages:
        checkpoint = apply_stage(checkpoint, stage_from_config(fields), TOOLS)
    model = model_from_checkpoint(checkpoint)
    assert torch.equal(model(clips()), model_from_checkpoint(checkpoint)(clips()))
    export_model(model, clips(4), metadata={})  # compares with torch


def test_a_rehearsal_takes_energy_as_it_comes() -> None:
    """An untrained weight needs a rank that would not pay; a trained one may not."""
    wanted = {"stage": "low_rank", "layers": ["head"], "energy": 0.99}
    with pytest.raises(StageError):
        prepared(wanted)
    rehearse(classifier(), [stage_from_config(wanted)], clips(1))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {**HEAD, "rank": 6},
            "head with rank 6 takes 228 numbers, no fewer than its weight 6x32. The largest rank that pays is 5, which "
            "holds 0.904 of the energy.",
        ),
        (
            {"stage": "low_rank", "layers": ["heat"], "rank": 2},
            "No convolution or linear layer is called 'heat'. Did you mean 'head'?",
        ),
        ({"stage": "low_rank", "layers": ["head"]}, "Stage 'low_rank': low_rank needs one of rank and energy."),
        (
            {**HEAD, "energy": 0.5},
            "Stage 'low_rank': low_rank needs one of rank and energy.",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(StageError) as caught:
        prepared(fields)
    assert str(caught.value) == text


def test_a_second_time_is_refused() -> None:
    once, _ = prepared(HEAD)
    with pytest.raises(StageError, match=r"Layers are of low rank already; stage 'low_rank' applies once\."):
        stage_from_config(TEMPORAL).prepare(once, TOOLS)


def test_a_layer_that_no_rank_makes_smaller_is_refused() -> None:
    model = classifier()
    model.head = nn.Linear(32, 1)
    with pytest.raises(StageError, match=r"head has a weight 1x32, which no rank makes smaller\. Leave it out\."):
        stage_from_config({**HEAD, "rank": 1}).prepare(model, TOOLS)


@pytest.mark.parametrize(
    ("ranks", "text"),
    [({"x": 2}, "names a layer 'x' that"), ({"head": 0}, "gives head rank 0, which"), ({"head": 99}, "rank 99"),
     ({"head": 2.5}, "rank 2.5"), ({"head": True}, "rank True")],
)  # fmt: skip
def test_a_record_that_cannot_be_is_refused(ranks: dict[str, Any], text: str) -> None:
    with pytest.raises(StageError) as caught:
        stage_from_config(HEAD).restore(classifier(), {"ranks": ranks})
    assert text in str(caught.value)
