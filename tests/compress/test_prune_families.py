"""Pruning every family: a set of channels leaves exactly, PHM layers or not, and a target in multiply-adds is met."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from tiny_families import FAMILIES
from tiny_models import lively, tools_of
from torch import nn

from edgelip.compress.channel_cuts import Kept, column_grid, cut, dense_columns, model_widths, row_grid, silence
from edgelip.compress.channel_graph import channel_spaces, kept_channels, network_inputs
from edgelip.compress.pipeline import stage_from_config
from edgelip.models.census import count_macs
from edgelip.models.hypercomplex import PHMLayer, densified, phm_from_dense
from edgelip.models.zoo import build_classifier

HALF = {"stage": "prune", "macs_ratio": 0.5, "round_to": 1}
FIXED = ("temporal.attention.", "temporal.feedforward2", "trunk.last")


def fresh(name: str) -> Any:
    family, tiny = FAMILIES[name]
    return lively(build_classifier(family, num_words=6, options=tiny))


def inputs(name: str) -> torch.Tensor:
    shape = (2, 1, 3200) if name.startswith("audio") else (2, 1, 5, 24, 24)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def some_of_every_space(model: nn.Module, clips: torch.Tensor) -> dict[str, Kept]:
    """Every second set of all spaces, important or not."""
    return kept_channels(model, [s for space in channel_spaces(model, clips[:1]) for s in space.sets[:-1:2]])


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_pruned_network_computes_what_the_dense_one_does_without_those_channels(name: str) -> None:
    model, clips = fresh(name), inputs(name)
    kept = some_of_every_space(model, clips)
    calls = network_inputs(model, clips)
    silent, pruned, dense = deepcopy(model), deepcopy(model), densified(model)
    silence(silent, kept)
    cut(pruned, kept)
    cut(dense, kept)  # its dense weights lose rows and columns; the PHM layers above lose rows of their blocks
    logits = silent(*calls)
    torch.testing.assert_close(pruned(*calls), logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(dense(*calls), logits, atol=1e-5, rtol=1e-4)
    assert (logits - model(*calls)).abs().max() > 0.02
    before, after = model_widths(model), model_widths(pruned)
    inner = [layer for layer in before if layer != "head" and not layer.startswith("frontend")]
    changed = [layer for layer in inner if after[layer] != before[layer]]
    assert len(changed) > 0.7 * len(inner)


@pytest.mark.parametrize("name", [name for name in FAMILIES if "phm" in name])
def test_pruning_leaves_the_terms_and_factors_of_phm_layers(name: str) -> None:
    model = fresh(name)
    pruned, _ = stage_from_config({"stage": "prune", "pruning_ratio": 0.5, "round_to": 2}).prepare(
        deepcopy(model), tools_of(inputs(name))
    )
    cuts = 0
    for layer_name, layer in pruned.named_modules():
        if isinstance(layer, PHMLayer):
            whole = model.get_submodule(layer_name)
            assert torch.equal(layer.A, whole.A)
            rows, columns = row_grid(layer), column_grid(layer)
            assert layer.dense_weight().shape[:2] == (layer.out_channels, layer.in_channels)
            assert rows.num_blocks == layer.A.shape[1]
            assert columns.num_blocks * columns.size + dense_columns(layer) == layer.in_channels
            cuts += layer.F.numel() < whole.F.numel()
    assert cuts > 10


@torch.no_grad()
def test_a_sum_of_fewer_terms_is_cut_alike() -> None:
    layer = phm_from_dense(nn.Conv1d(12, 18, 3), n=3, terms=2)
    weight = layer.dense_weight()
    rows = row_grid(layer).expand(torch.tensor([0, 2, 3, 5]))
    columns = column_grid(layer).expand(torch.tensor([1, 3]))
    holder = nn.ModuleDict({"layer": layer})
    cut(holder, {"layer": Kept(rows, columns)})
    assert layer.F.shape == (2, 4, 2, 3)
    torch.testing.assert_close(layer.dense_weight(), weight[rows][:, columns])
    assert layer(torch.zeros(1, 6, 5)).shape == (1, 12, 3)


@pytest.mark.parametrize("name", ["dctcn", "snv_tcn_phm2", "mstcn_prelu", "snv_tcn_prelu", "snv_dsmstcn", "eflip_time"])
@torch.no_grad()
def test_half_of_the_multiply_adds_of_a_family_can_go(name: str) -> None:
    model, clips = fresh(name), inputs(name)
    stage = stage_from_config(HALF)
    pruned, record = stage.prepare(deepcopy(model), tools_of(clips))
    assert count_macs(pruned, clips) / count_macs(model, clips) == pytest.approx(0.5, abs=0.02)
    restored = stage.restore(fresh(name), record)
    restored.load_state_dict(pruned.state_dict())
    assert torch.equal(restored(clips), pruned(clips))


def test_the_channel_shuffle_and_what_passes_it_stay() -> None:
    _, record = stage_from_config(HALF).prepare(fresh("snv_tcn_prelu"), tools_of(inputs("snv_tcn_prelu")))
    for layer, (out, _) in record["widths"].items():
        if layer.endswith(("right_expand.conv", "left_pointwise.conv")):
            assert out == model_widths(fresh("snv_tcn_prelu"))[layer][0]
    assert record["widths"]["frontend.stem.conv"][0] < 24
    assert any(layer.endswith("right_depthwise.conv") for layer in record["widths"])


def test_the_widths_of_attention_and_gates_stay() -> None:
    _, record = stage_from_config(HALF).prepare(fresh("eflip_time"), tools_of(inputs("eflip_time")))
    whole = model_widths(fresh("eflip_time"))
    changed = [name for name, (out, _) in record["widths"].items() if out != whole[name][0]]
    assert not [name for name in changed if name.startswith(FIXED)]
    assert record["widths"]["temporal.blocks.0.conv1.conv"][1] == 8  # half of the 16 that the gate halves
    assert "temporal.feedforward1" in record["widths"]
