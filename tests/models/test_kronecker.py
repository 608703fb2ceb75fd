from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kronecker_sums import kron_sum
from torch import nn

from edgelip.errors import ShapeError
from edgelip.models.hypercomplex import phm_from_dense
from edgelip.models.kronecker import divisor_message, factorise, fold


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
        phm_from_dense(nn.Conv1d(9, 8, 3), n=4, name="trunk.conv")


@given(out=st.integers(1, 200), into=st.integers(1, 200))
def test_the_divisors_offered_are_all_that_divide_both(out: int, into: int) -> None:
    message = divisor_message("x", out, into, 7)
    fitting = [d for d in range(2, 201) if out % d == 0 and into % d == 0]
    assert f"from {fitting}." in message if fitting else "leave this layer dense" in message
