from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kronecker_sums import kron_sum
from torch import nn

from edgelip.errors import ShapeError
from edgelip.models.census import count_macs
from edgelip.models.factored import FactoredLayer, factored_macs_ratio
from edgelip.models.hypercomplex import phm_from_dense

N = 4
DENSE: dict[str, nn.Module] = {
    "linear": nn.Linear(8, 12),
    "dilated": nn.Conv1d(8, 16, 3, padding=2, dilation=2),
    "strided": nn.Conv2d(8, 12, (3, 5), stride=(2, 1), padding=(1, 2), bias=False),
    "3-D": nn.Conv3d(8, 4, (3, 1, 3), stride=(1, 2, 1), padding=(1, 0, 1)),
}


def few_terms(dense: nn.Module, terms: int, *, factored: bool = True, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    layer = phm_from_dense(dense, n=N, terms=terms, factored=factored)
    layer.row_scale = torch.rand(layer.out_channels) + 0.5
    with torch.no_grad():
        if layer.bias is not None:
            layer.bias.normal_()
    return layer.eval()


def inputs(dense: nn.Module) -> torch.Tensor:
    kernel = [7] * (dense.weight.ndim - 2)  # type: ignore[operator, union-attr]
    return torch.randn(2, 8, *kernel, generator=torch.Generator().manual_seed(1))


@given(kind=st.sampled_from(sorted(DENSE)), terms=st.integers(1, N), seed=st.integers(0, 99))
def test_factored_and_folded_give_the_same(kind: str, terms: int, seed: int) -> None:
    layer, x = few_terms(DENSE[kind], terms, seed=seed), inputs(DENSE[kind])
    with torch.no_grad():
        factored = layer(x)
        layer.factored = False
        folded = layer(x)
        exported = FactoredLayer(layer, layer.A, layer.F, bias=layer.bias, row_scale=layer.row_scale)(x)
    torch.testing.assert_close(factored, folded, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(exported, factored, rtol=1e-5, atol=1e-5)


@given(kind=st.sampled_from(sorted(DENSE)), terms=st.integers(1, N))
def test_the_weight_of_few_terms_is_their_kronecker_sum(kind: str, terms: int) -> None:
    layer = few_terms(DENSE[kind], terms)
    assert layer.A.shape == (terms, N, N)
    scale = layer.row_scale.reshape(-1, *[1] * (layer.F.ndim - 2))
    torch.testing.assert_close(layer.dense_weight(), kron_sum(layer.A, layer.F) * scale)


def test_a_linear_layer_runs_factored_on_any_leading_axes() -> None:
    layer = few_terms(nn.Linear(8, 12), 2)
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(layer(x)[1], layer(x[1]))


def test_training_folds_and_eval_does_not() -> None:
    layer = few_terms(nn.Linear(8, 12), 1)
    assert layer.runs_factored()
    layer(torch.randn(2, 8))
    assert layer._kept is None  # no weight was built
    assert not layer.train().runs_factored()
    layer(torch.randn(2, 8)).sum().backward()
    assert layer.A.grad is not None


def test_fresh_weights_of_few_terms_have_the_variance_of_the_dense_rule() -> None:
    torch.manual_seed(0)
    layer = phm_from_dense(nn.Conv2d(64, 128, 3), n=8, terms=2)
    assert float(layer.dense_weight().detach().var()) == pytest.approx(2 / (128 * 9), rel=0.2)


@pytest.mark.parametrize("kind", sorted(DENSE))
def test_what_runs_is_what_is_counted(kind: str) -> None:
    dense, x = DENSE[kind], inputs(DENSE[kind])
    layer = few_terms(dense, 1)
    positions = layer(x)[:1].numel() // layer.out_channels
    # By hand: n groups through blocks of out/n x in/n x kernel, then n x n numbers for each channel of a block.
    by_hand = positions * (N * layer.F.numel() + N * N * layer.out_channels // N)
    assert count_macs(nn.Sequential(layer), x) == by_hand
    dense_macs = positions * dense.weight.numel()  # type: ignore[operator, union-attr]
    ratio = factored_macs_ratio(tuple(dense.weight.shape), n=N, terms=1)  # type: ignore[union-attr, arg-type]
    assert by_hand / dense_macs == pytest.approx(ratio)
    layer.factored = False
    assert count_macs(nn.Sequential(layer), x) == dense_macs


def test_terms_out_of_range_are_refused() -> None:
    for terms in (0, 5):
        with pytest.raises(ShapeError, match=rf"PHM n=4 with {terms} terms for x; expected from 1 to 4 terms\."):
            phm_from_dense(nn.Linear(8, 8), n=4, terms=terms, name="x")


def test_columns_of_their_own_are_not_run_factored() -> None:
    with pytest.raises(ShapeError, match=r"x has columns of its own beside its factors; it runs folded\."):
        phm_from_dense(nn.Linear(9, 8), n=4, terms=1, dense_columns=1, factored=True, name="x")
