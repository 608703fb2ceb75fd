from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import TOOLS, classifier, clips

from edgelip.compress.phm_budget import least_harm, stored_bytes, weight_bytes
from edgelip.compress.pipeline import rehearse, stage_from_config
from edgelip.compress.sensitivity import harm, logits_of, swapped
from edgelip.compress.stage import Record
from edgelip.compress.stored_layer import Bits, StoredLayer
from edgelip.errors import StageError
from edgelip.models.census import count_parameters
from edgelip.models.hypercomplex import PHMLayer, phm_from_dense

LAYERS = ["trunk.blocks.1.conv*", "temporal.*"]


def prepared(**fields: Any) -> tuple[Any, Record]:
    return stage_from_config({"stage": "phm", "layers": LAYERS, **fields}).prepare(classifier(), TOOLS)


@given(
    table=st.lists(
        st.lists(st.tuples(st.integers(1, 60), st.floats(0, 2)), min_size=1, max_size=4), min_size=1, max_size=4
    ),
    share=st.floats(0, 1),
)
def test_the_choice_is_the_best_there_is(table: list[list[tuple[int, float]]], share: float) -> None:
    options = {f"layer {i}": {n: size for n, (size, _) in enumerate(row)} for i, row in enumerate(table)}
    harms = {(f"layer {i}", n): cost for i, row in enumerate(table) for n, (_, cost) in enumerate(row)}
    least = sum(min(size for size, _ in row) for row in table)
    most = sum(max(size for size, _ in row) for row in table)
    budget = least + round(share * (most - least))
    chosen = least_harm(options, harms, budget)
    assert sum(options[name][n] for name, n in chosen.items()) <= budget
    every = itertools.product(*(range(len(row)) for row in table))
    fitting = [way for way in every if sum(table[i][n][0] for i, n in enumerate(way)) <= budget]
    best = min(sum(table[i][n][1] for i, n in enumerate(way)) for way in fitting)
    assert sum(harms[place] for place in chosen.items()) == pytest.approx(best, abs=1e-5)


def test_a_budget_is_met_with_the_bytes_that_the_network_takes() -> None:
    model, record = prepared(budget_kb=80, choices=[0, 2, 4, 8])
    assert record["budget"]["bytes"] == 4 * count_parameters(model) <= 80_000
    assert {entry["n"] for entry in record["layers"].values()} > {4}
    assert all(isinstance(model.get_submodule(name), PHMLayer) for name in record["layers"])
    tight, _ = prepared(budget_kb=60, choices=[0, 2, 4, 8])
    assert count_parameters(tight) < count_parameters(model)


@torch.no_grad()
def test_harm_is_measured_on_the_probe_clips() -> None:
    model, record = prepared(budget_kb=80, choices=[4], probe_clips=8)
    inputs = TOOLS.probe().clips_B1THW[:8]
    for name, divergence in record["budget"]["divergence"].items():
        with swapped(dense := classifier(), name, model.get_submodule(name)):
            expected = harm(logits_of(dense, inputs), logits_of(classifier(), inputs)).divergence
        assert divergence == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"budget_kb": 20},
            "budget_kb = 20 cannot be met: with n of [2, 4, 8, 16] and 32 bits a weight, the network takes 57.0 kB at "
            "least. Set budget_kb = 57.0, or allow more layers, other choices or fewer stored_bits.",
        ),
        (
            {"budget_kb": 200},
            "budget_kb = 200 asks for nothing: the dense network takes 137.0 kB. Lower it, or leave stage 'phm' out.",
        ),
        (
            {"budget_kb": 60, "layers": None, "choices": [7]},
            "No layer is smaller as PHM with n of [7]. Give other choices.",
        ),
        (
            {"budget_kb": 60, "layers": ["trunk.blocks.0.*"], "choices": [16]},
            "PHM n=16 gives trunk.blocks.0.conv1.conv 4240 numbers for the 2304 of its weight 16x16x3x3. The largest n "
            "that pays is 8.",
        ),
    ],
)  # fmt: skip
def test_a_budget_that_does_not_fit_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(StageError) as caught:
        prepared(**fields)
    assert str(caught.value) == text


def test_the_nearest_reachable_budget_is_reachable() -> None:
    prepared(budget_kb=57.0)
    with pytest.raises(StageError):
        prepared(budget_kb=56.9)


def test_a_rehearsal_scores_nothing_and_keeps_the_budget() -> None:
    stage = stage_from_config({"stage": "phm", "budget_kb": 70, "permute": True})
    rehearse(classifier(), [stage], clips(1))
    with pytest.raises(StageError, match="cannot be met"):
        rehearse(classifier(), [stage_from_config({"stage": "phm", "budget_kb": 10})], clips(1))


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_bytes_are_those_of_the_stored_layer(bits: Any) -> None:
    layer = phm_from_dense(torch.nn.Conv1d(32, 16, 3, bias=False), n=4)
    stored = StoredLayer(layer, Bits(factors=max(bits, 8), blocks=bits))
    numbers = layer.F.numel() * bits // 8 + layer.A.numel() * max(bits, 8) // 8
    scales = 2 * (layer.F.shape[0] * layer.F.shape[1] + layer.A.shape[0]) if bits <= 8 else 0
    assert weight_bytes((16, 32, 3), 4, bits) == numbers + scales
    assert stored.weight_bits == bits
    assert weight_bytes((16, 32, 3), None, bits) == 16 * 32 * 3 * bits // 8 + (32 if bits <= 8 else 0)


def test_fewer_stored_bits_fit_a_smaller_budget() -> None:
    dense = classifier()
    assert stored_bytes(dense, 32) == 4 * count_parameters(dense)
    _, record = prepared(budget_kb=20, stored_bits=8)
    assert record["budget"]["bytes"] <= 20_000
