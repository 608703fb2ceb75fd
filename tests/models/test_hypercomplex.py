from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgelip.errors import ShapeError
from edgelip.models.blocks import ConvNorm, fold_norms
from edgelip.models.hypercomplex import PHMConv, dense_weight, divisor_message, factorise, fold

GOLDEN = Path(__file__).parents[3] / "shared/golden/phm_layers"


def kron_sum(factors: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """The definition, position by position of the kernel."""
    n, height, width, *kernel = blocks.shape
    flat = blocks.reshape(n, height, width, -1)
    positions = [sum(torch.kron(factors[m], flat[m, :, :, k]) for m in range(n)) for k in range(flat.shape[-1])]
    return torch.stack(positions, dim=-1).reshape(n * height, n * width, *kernel)  # type: ignore[arg-type]


def factors_of(
    n: int, out: int, into: int, kernel: tuple[int, ...], seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(n, n, n, generator=generator, dtype=torch.float64)
    return factors, torch.randn(n, out, into, *kernel, generator=generator, dtype=torch.float64)


@given(
    n=st.integers(1, 6),
    out=st.integers(1, 4),
    into=st.integers(1, 4),
    kernel=st.lists(st.integers(1, 3), max_size=3).map(tuple),
    seed=st.integers(0, 99),
)
def test_fold_is_the_sum_of_kronecker_products(n: int, out: int, into: int, kernel: tuple[int, ...], seed: int) -> None:
    factors, blocks = factors_of(n, out, into, kernel, seed)
    torch.testing.assert_close(fold(factors, blocks), kron_sum(factors, blocks), rtol=0, atol=1e-12)


@given(n=st.integers(2, 4), out=st.integers(2, 4), into=st.integers(2, 4), seed=st.integers(0, 99))
def test_factorise_is_exact_on_a_kronecker_sum(n: int, out: int, into: int, seed: int) -> None:
    weight = fold(*factors_of(n, out, into, (3,), seed))
    found_factors, found_blocks = factorise(weight, n)
    torch.testing.assert_close(fold(found_factors, found_blocks), weight, rtol=0, atol=1e-10)
    torch.testing.assert_close(found_factors.square().sum((1, 2)), found_blocks.square().sum((1, 2, 3)))


def test_the_error_of_factorise_is_the_tail_of_the_singular_values() -> None:
    weight = torch.randn(16, 16, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for n in (2, 4, 8):
        # Rearranged by loops: row (p, q) holds block (p, q) of the weight.
        side = 16 // n
        rows = [
            weight[p * side : (p + 1) * side, q * side : (q + 1) * side].flatten() for p in range(n) for q in range(n)
        ]
        strengths = torch.linalg.svdvals(torch.stack(rows))
        error = (fold(*factorise(weight, n)) - weight).norm()
        assert error == pytest.approx(float(strengths[n:].square().sum().sqrt()), rel=1e-10)


def test_factorise_of_a_kernel_with_fewer_ranks_than_terms_is_exact() -> None:
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fold(*factorise(weight, 8)), weight, rtol=0, atol=1e-5)  # blocks of one number: rank 1


def test_a_divisor_that_does_not_fit_is_refused_with_those_that_do() -> None:
    text = r"PHM n=3 does not divide the 8 output and 12 input channels of weight\. Choose n from \[2, 4\]\."
    with pytest.raises(ShapeError, match=text):
        factorise(torch.zeros(8, 12), 3)
    with pytest.raises(ShapeError, match=r"PHM n=4 .* 9 input channels of trunk\.conv\. No n above 1 divides both"):
        PHMConv.like(nn.Conv1d(9, 8, 3), n=4, name="trunk.conv")


@given(out=st.integers(1, 200), into=st.integers(1, 200))
def test_the_divisors_offered_are_all_that_divide_both(out: int, into: int) -> None:
    message = divisor_message("x", out, into, 7)
    fitting = [d for d in range(2, 201) if out % d == 0 and into % d == 0]
    assert f"from {fitting}." in message if fitting else "leave this layer dense" in message


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(8, 8), nn.Conv1d(8, 8, 3, groups=4), nn.Conv1d(8, 8, 3, padding="same"),
     nn.Conv2d(8, 8, 3, padding_mode="reflect")],
)  # fmt: skip
def test_layers_without_a_phm_form_are_refused(layer: nn.Module) -> None:
    with pytest.raises(ShapeError, match="PHM layers replace convolutions without groups and with zero padding"):
        PHMConv.like(layer, n=4, name="x")


@pytest.mark.parametrize(
    "dense",
    [
        nn.Conv1d(8, 16, 3, padding=4, dilation=4),
        nn.Conv2d(8, 12, (3, 5), stride=(2, 1), padding=(1, 2), bias=False),
        nn.Conv3d(4, 8, (5, 3, 3), stride=(1, 2, 2), padding=(2, 1, 1)),
    ],
)
def test_a_phm_layer_computes_what_the_dense_layer_of_its_weight_computes(dense: nn.Conv1d) -> None:
    layer = PHMConv.like(dense, n=4, name="x")
    with torch.no_grad():
        dense.weight.copy_(kron_sum(layer.A, layer.F))
        if layer.bias is not None:
            layer.bias.uniform_(-1, 1)
            dense.bias.copy_(layer.bias)  # type: ignore[union-attr]
    x = torch.randn(2, dense.in_channels, *[7] * (dense.weight.ndim - 2), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), dense(x), rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in layer.parameters() if p.ndim > 1) == 64 + dense.weight.numel() // 4


def test_the_start_of_a_phm_layer_has_the_variance_of_the_dense_rule() -> None:
    torch.manual_seed(0)
    layer = PHMConv.like(nn.Conv2d(64, 128, 3), n=4, name="x")
    assert float(layer.dense_weight().detach().var()) == pytest.approx(2 / (128 * 9), rel=0.15)


def test_a_phm_layer_survives_copies_types_and_its_state(tmp_path: Path) -> None:
    block = ConvNorm(PHMConv.like(nn.Conv1d(8, 8, 3, bias=False), n=2, name="x"), nn.BatchNorm1d(8)).eval()
    fold_norms(block)
    copy = deepcopy(block)
    fresh = ConvNorm(PHMConv.like(nn.Conv1d(8, 8, 3, bias=False), n=2, name="x"), nn.BatchNorm1d(8)).eval()
    fold_norms(fresh)
    torch.save(block.state_dict(), tmp_path / "state.pt")
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    x = torch.randn(2, 8, 9)
    assert torch.equal(copy(x), block(x))
    assert torch.equal(fresh(x), block(x))
    torch.testing.assert_close(deepcopy(block).double()(x.double()).float(), block(x))
    assert deepcopy(block).to(torch.bfloat16)(x.to(torch.bfloat16)).dtype == torch.bfloat16
    assert {"conv.A", "conv.F", "conv.row_scale", "conv.bias"} == set(block.state_dict())


GEOMETRY = {
    "conv1d_n4": nn.Conv1d(16, 32, 3, padding=4, dilation=2),
    "conv2d_n2": nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
    "conv2d_n8_1x1": nn.Conv2d(16, 32, 1, stride=2, bias=False),
    "conv3d_n4": nn.Conv3d(4, 64, (5, 7, 7), stride=(1, 2, 2), padding=(2, 3, 3), bias=False),
}  # fmt: skip


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the reference outputs {GOLDEN.name} are not beside the repository")
class TestReference:
    """Outputs of the published PHM layers with seeded random weights (n 2, 4, 8; float32)."""

    @pytest.mark.parametrize("case", GEOMETRY)
    def test_layer_equals_the_published_one(self, case: str) -> None:
        golden = np.load(GOLDEN / f"{case}.npz")
        layer = PHMConv.like(GEOMETRY[case], n=int(case.split("_n")[1].split("_")[0]), name=case)
        layer.load_state_dict({k.removeprefix("param."): torch.from_numpy(golden[k]) for k in golden if "param." in k})
        with torch.no_grad():
            np.testing.assert_allclose(dense_weight(layer).numpy(), golden["weight"], atol=1e-7)
            np.testing.assert_allclose(layer(torch.from_numpy(golden["input"])).numpy(), golden["output"], atol=1e-5)

    @pytest.mark.parametrize("case", ["linear_n4", "linear_n16_floor"])
    def test_fold_gives_the_published_linear_weight(self, case: str) -> None:
        golden = np.load(GOLDEN / f"{case}.npz")
        weight = fold(torch.from_numpy(golden["param.A"]), torch.from_numpy(golden["param.S"]))
        np.testing.assert_allclose(weight.numpy(), golden["weight"], atol=1e-7)

    def test_every_case_that_has_our_layout_is_covered(self) -> None:
        ours = {*GEOMETRY, "linear_n4", "linear_n16_floor"}
        others = {"conv1d_n2_boundary", "se_n4", "se_n16_896"}  # a dense column beside; two layers in one
        assert ours | others == set(json.loads((GOLDEN / "cases.json").read_text()))
