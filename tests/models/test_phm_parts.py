from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from edgelip.errors import RecipeError, ShapeError
from edgelip.models.catalogue import BACKBONES
from edgelip.models.hypercomplex import PHMLayer, phm_from_dense
from edgelip.models.phm_parts import refuse_grown
from edgelip.models.zoo import build_classifier

SMALL: dict[str, Any] = {"stem_width": 16, "trunk_widths": [16, 32], "temporal_width": 32, "temporal_blocks": 1}


def built(phm: dict[str, Any], **options: Any) -> nn.Module:
    return build_classifier("small", num_words=6, options={**SMALL, **options, "phm": phm})


def sizes(network: nn.Module) -> dict[str, tuple[int, int]]:
    return {name: (m.n, m.terms) for name, m in network.named_modules() if isinstance(m, PHMLayer)}


def test_groups_have_an_n_of_their_own_and_the_first_decides() -> None:
    groups = [{"layers": ["trunk.blocks.1.conv?.conv"], "n": 8, "terms": 2}, {"layers": ["trunk.*"], "n": 2}]
    found = sizes(built({"n": 4, "groups": groups}))
    assert found["trunk.blocks.1.conv1.conv"] == (8, 2)
    assert found["trunk.blocks.1.shortcut.conv"] == found["trunk.blocks.0.conv1.conv"] == (2, 2)
    assert found["temporal.blocks.0.conv2.conv"] == (4, 4)
    assert "frontend.stem.conv" not in found
    assert "head" not in found


def test_without_n_layers_outside_the_groups_stay_dense() -> None:
    assert set(sizes(built({"groups": [{"layers": ["temporal.blocks.0.conv1.conv"], "n": 4}]}))) == {
        "temporal.blocks.0.conv1.conv"
    }


def test_a_network_with_groups_learns_and_answers() -> None:
    network = built({"n": 4, "groups": [{"layers": ["temporal.*"], "n": 8, "terms": 1}]}).train()
    network(torch.randn(2, 1, 4, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("phm", "text"),
    [
        ({}, "phm: phm needs n, groups, or both (got {})."),
        (
            {"groups": [{"layers": ["trunk.*"], "n": 16}]},
            "PHM n=16 gives trunk.blocks.0.conv1.conv 4240 numbers for the 2304 of its weight 16x16x3x3. The largest n "
            "that pays is 8.",
        ),
        (
            {"groups": [{"layers": ["trunk.*"], "n": 2}, {"layers": ["trunk.blocks.0.*"], "n": 4}]},
            "Groups before it name all layers of the PHM group ['trunk.blocks.0.*']. Remove it.",
        ),
        ({"groups": [{"layers": ["head"], "n": 2}]}, "PHM group ['head']: No layer is called 'head'. Known: "),
    ],
)
def test_groups_that_do_not_fit_are_refused(phm: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        built(phm)
    assert text.removesuffix(" (got {}).") in str(caught.value)


def test_factors_larger_than_the_weight_are_refused_with_what_pays() -> None:
    def refused(dense: nn.Module, n: int) -> str:
        with pytest.raises(ShapeError) as caught:
            refuse_grown(nn.Sequential(phm_from_dense(dense, n=n)))
        return str(caught.value)

    text = refused(nn.Conv2d(64, 64, 1), 32)
    assert text == "PHM n=32 gives 0 32896 numbers for the 4096 of its weight 64x64x1x1. The largest n that pays is 8."
    text = refused(nn.Linear(2, 2), 2)
    assert (
        text == "PHM n=2 gives 0 10 numbers for the 4 of its weight 2x2. No n makes this layer smaller: leave it dense."
    )
    refuse_grown(nn.Sequential(phm_from_dense(nn.Conv2d(64, 64, 1), n=8)))


@pytest.mark.parametrize("name", sorted(name for name in BACKBONES if "phm" in name))
def test_no_published_network_is_refused(name: str) -> None:
    with torch.device("meta"):
        refuse_grown(build_classifier(name, num_words=500))
