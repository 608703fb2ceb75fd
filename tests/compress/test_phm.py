from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import PHM, TOOLS, classifier, clips
from torch import nn

from edgelip.compress.phm_choice import pays
from edgelip.compress.pipeline import stage_from_config
from edgelip.errors import StageError
from edgelip.models.hypercomplex import PHMConv
from edgelip.models.kronecker import fold


def apply(**fields: Any) -> tuple[nn.Module, dict[str, Any]]:
    return stage_from_config({"stage": "phm", **fields}).prepare(classifier(), TOOLS)


@given(out=st.integers(1, 40), into=st.integers(1, 40), kernel=st.integers(1, 3), n=st.integers(2, 9))
def test_the_rule_is_that_factors_are_below_half_of_the_weight(out: int, into: int, kernel: int, n: int) -> None:
    size = out * into * kernel
    fits = out % n == 0 and into % n == 0
    # In whole numbers: n^3 + size/n < size/2, times 2n.
    assert pays(nn.Conv1d(into, out, kernel), n) == (fits and 2 * n**4 + 2 * size < n * size)


def test_the_rule_takes_every_layer_that_pays_and_leaves_the_rest() -> None:
    model, record = apply(n=4)
    dense = classifier()
    for name, module in dense.named_modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d)):
            chosen = isinstance(model.get_submodule(name), PHMConv)
            assert chosen == (name in record["layers"])
            assert chosen == (module.in_channels % 4 == 0 and module.weight.numel() > 256), name
    assert "frontend.stem.conv" not in record["layers"]  # five stacked frames
    assert isinstance(model.get_submodule("trunk.blocks.0.shortcut.conv"), nn.Conv2d)  # 256 weights: 128 stay
    assert isinstance(model.get_submodule("head"), nn.Linear)


def test_an_n_that_fits_nothing_is_refused() -> None:
    with pytest.raises(StageError) as caught:
        apply(n=7)
    assert str(caught.value) == (
        "PHM n=7 fits none of the 11 convolutions: it must divide their channels and n^3 + |W|/n must be below |W|/2. "
        "Choose another n, or name layers."
    )


def test_a_named_layer_that_n_does_not_divide_is_refused_with_divisors() -> None:
    with pytest.raises(StageError) as caught:
        apply(n=3, layers=["trunk.*"])
    assert str(caught.value) == (
        "PHM n=3 does not divide the 16 output and 16 input channels of trunk.blocks.0.conv1.conv. "
        "Choose n from [2, 4, 8, 16]."
    )


def test_a_pattern_that_names_no_convolution_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        StageError, match=r"No convolution or linear layer is called 'trunk\.blocks\.0\.conv1'\. Did you mean 'trunk\."
    ):
        apply(layers=["trunk.blocks.0.conv1"])


def test_named_layers_are_replaced_even_where_the_rule_would_not() -> None:
    _, record = apply(n=4, layers=["trunk.blocks.0.shortcut.conv", "temporal.*conv1.conv", "temporal.blocks.0.*"])
    assert list(record["layers"])[:3] == [
        "trunk.blocks.0.shortcut.conv", "temporal.blocks.0.conv1.conv", "temporal.blocks.1.conv1.conv"
    ]  # fmt: skip
    assert len(record["layers"]) == 4


def test_phm_twice_is_refused() -> None:
    once, _ = apply()
    with pytest.raises(StageError, match=r"The model has PHM layers already; stage 'phm' applies once\."):
        stage_from_config(PHM).prepare(once, TOOLS)


@torch.no_grad()
def test_the_nearest_start_reproduces_a_model_that_is_phm_already() -> None:
    phm, record = apply(n=4)
    dense = classifier()
    for name in record["layers"]:
        dense.get_submodule(name).weight.copy_(fold(phm.get_submodule(name).A, phm.get_submodule(name).F))  # type: ignore
    again, _ = stage_from_config(PHM).prepare(dense, TOOLS)
    torch.testing.assert_close(again(clips()), phm(clips()), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_nearest_start_points_along_the_weight_and_keeps_its_norm() -> None:
    phm, record = apply(n=4)
    random, _ = apply(n=4, start="random")
    dense = classifier()
    for name in record["layers"]:
        weight = dense.get_submodule(name).weight
        near = phm.get_submodule(name).dense_weight()  # type: ignore[operator]
        far = random.get_submodule(name).dense_weight()  # type: ignore[operator]
        assert float(near.norm() / weight.norm()) == pytest.approx(1, rel=1e-4)  # type: ignore[operator]
        cosine = nn.functional.cosine_similarity(near.flatten(), weight.flatten(), dim=0)  # type: ignore[operator]
        assert cosine > 0.3  # about sqrt(1/n) = 0.5 for noise
        assert abs(nn.functional.cosine_similarity(far.flatten(), weight.flatten(), dim=0)) < 0.2  # type: ignore
