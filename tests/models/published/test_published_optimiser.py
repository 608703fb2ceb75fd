"""The state of a published Adam: moments by name, in our shapes, or a reason why there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from published_files import GROUP, LRW, adam, tiny_dctcn, write

from edgelip.errors import CheckpointError
from edgelip.models.published.importer import Imported, import_published


def imported(tmp_path: Path, optimiser: Any, **options: Any) -> Imported:
    return import_published(write(tmp_path / "a.pth", tiny_dctcn(n=2), optimiser=optimiser), lrw_words=LRW, **options)


def test_moments_land_on_the_parameters_they_belong_to(tmp_path: Path) -> None:
    state = imported(tmp_path, adam(tiny_dctcn(n=2))).checkpoint.optimiser
    assert state is not None
    assert state.step == 7
    tensors = tiny_dctcn(n=2)
    pairs = {  # `adam` gives each parameter its own values as moments
        "frontend.stem.conv.weight": tensors["frontend3D.0.weight"].squeeze(1),
        "trunk.blocks.6.shortcut.conv.F": tensors["trunk.layer4.0.downsample.0.F"],
        "temporal.blocks.0.layers.1.first.1.excite.expand.F": tensors[
            "tcn.tcn_trunk.features.denseblock1.denselayer2.cbcr0_se_1.fc.2.S"
        ],
        "temporal.blocks.1.layers.0.second.0.conv.norm.bias": tensors[
            "tcn.tcn_trunk.features.denseblock2.denselayer1.cbcr1_0.net.1.bias"
        ],
        "head.bias": tensors["tcn.tcn_output.bias"],
    }
    for name, moment in pairs.items():
        assert torch.equal(state.first_moments[name], moment), name
        assert torch.equal(state.second_moments[name], moment.abs()), name
    assert "frontend.stem.norm.running_mean" not in state.first_moments


def test_the_numbers_are_those_of_the_parameter_group(tmp_path: Path) -> None:
    stored = adam(tiny_dctcn(n=2))
    last = len(stored["state"]) - 1
    stored["state"] = {last - number: entry for number, entry in stored["state"].items()}
    stored["param_groups"][0]["params"].reverse()
    state = imported(tmp_path, stored).checkpoint.optimiser
    assert state is not None
    assert torch.equal(state.first_moments["head.bias"], tiny_dctcn(n=2)["tcn.tcn_output.bias"])


def test_steps_may_be_numbers_and_moments_half(tmp_path: Path) -> None:
    stored = adam(tiny_dctcn(n=2))
    for entry in stored["state"].values():
        entry |= {"step": 9, "exp_avg": entry["exp_avg"].half()}
    made = imported(tmp_path, stored)
    assert made.optimiser == "carried over after 9 steps"
    assert made.checkpoint.optimiser is not None
    assert made.checkpoint.optimiser.first_moments["head.bias"].dtype == torch.float32


SGD = {"state": {0: {"momentum_buffer": torch.ones(1)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (None, "none stored"),
        ({"state": {}, "param_groups": [{**GROUP, "params": [0]}]}, "none stored"),
        (SGD, "not carried over: the stored state is of no Adam-type optimiser"),
    ],
)
def test_no_state_is_said_and_no_error(stored: Any, text: str, tmp_path: Path) -> None:
    made = imported(tmp_path, stored)
    assert made.checkpoint.optimiser is None
    assert made.optimiser == text


def test_amsgrad_maxima_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    stored = adam(tiny_dctcn(n=2))
    for entry in stored["state"].values():
        entry["max_exp_avg_sq"] = entry["exp_avg_sq"]
    assert imported(tmp_path, stored).optimiser == "carried over after 7 steps, without the maxima of amsgrad"


def broken(what: str) -> Any:
    stored = adam(tiny_dctcn(n=2))
    entries, group = stored["state"], stored["param_groups"][0]
    if what == "layout":
        return {"state": entries}
    if what == "no dict":
        return [1]
    if what == "groups":
        stored["param_groups"].append({**GROUP, "params": [3]})
    if what == "fewer":
        group["params"].pop()
    if what == "params":
        group["params"] = None
    if what == "entry":
        del entries[4]
    if what == "second":
        del entries[4]["exp_avg_sq"]
    if what == "shape":
        entries[4]["exp_avg"] = torch.ones(3, 5)
    if what == "tensor":
        entries[4]["exp_avg"] = 1.5
    if what == "type":
        entries[4]["exp_avg"] = torch.ones(4, dtype=torch.int64)
    if what == "nan":
        entries[4]["exp_avg"] = torch.full_like(entries[4]["exp_avg"], float("nan"))
    if what == "negative":
        entries[4]["exp_avg_sq"] = -torch.ones_like(entries[4]["exp_avg_sq"])
    if what == "steps":
        entries[4]["step"] = torch.tensor(8.0)
    if what == "step":
        entries[4]["step"] = torch.tensor(float("nan"))
    if what == "settings":
        del group["eps"]
    if what == "betas":
        group["betas"] = (0.9,)
    return stored


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("layout", "has no state and param_groups"),
        ("no dict", "has no state and param_groups"),
        ("groups", "has 2 parameter groups; with one, its numbers follow the order of the model"),
        ("fewer", r"numbers \d+ parameters; the model has \d+"),
        ("params", "have no list of params"),
        ("entry", "has no step, exp_avg and exp_avg_sq for parameter 4, trunk.layer1.0.relu1.weight"),
        ("second", "has no step, exp_avg and exp_avg_sq for parameter 4"),
        ("shape", r"exp_avg of trunk\.layer1\.0\.relu1\.weight has shape \(3, 5\); expected \(4,\)"),
        ("tensor", "is no tensor"),
        ("type", "is no dense float tensor"),
        ("nan", "exp_avg of 'trunk.blocks.0.act1.weight'"),
        ("negative", "exp_avg_sq of 'trunk.blocks.0.act1.weight'"),
        ("steps", "took 7 to 8 steps; expected one number"),
        ("step", "step of trunk.layer1.0.relu1.weight is nan; expected a number"),
        ("settings", "lack a number among lr, weight_decay, betas and eps"),
        ("betas", "lack a number among lr, weight_decay, betas and eps"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_with_the_way_around(what: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        imported(tmp_path, broken(what))
    assert str(caught.value).endswith("Import without it: --without-optimiser.")
    made = imported(tmp_path, broken(what), keep_optimiser=False)
    assert made.checkpoint.optimiser is None
    assert made.optimiser == "left out, as asked"
