"""Sums of Kronecker products: folded to the matrix they stand for, and found for a given one.

Axes: N terms, P rows and Q columns of a factor A_NPQ, I and J output and input channels of a block F_NIJ...
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgelip.errors import ShapeError


def fold(factors_NPQ: Tensor, blocks_NIJ: Tensor) -> Tensor:
    """The dense weight that PHM factors stand for: W = sum_n kron(A_n, F_n).

    factors_NPQ: (n, n, n), or fewer columns; blocks_NIJ: (n, out/n, in/n, *kernel). Returns (out, in, *kernel).
    One matrix product and one transpose, without n-fold temporaries. Source: Zhang et al., ICLR 2021.
    """
    num_terms, rows, columns = factors_NPQ.shape
    height, width, *kernel = blocks_NIJ.shape[1:]
    products = factors_NPQ.reshape(num_terms, rows * columns).t() @ blocks_NIJ.reshape(num_terms, -1)
    grid = products.reshape(rows, columns, height, width, -1).permute(0, 2, 1, 3, 4)
    return grid.reshape(rows * height, columns * width, *kernel)


def factorise(weight: Tensor, num_terms: int) -> tuple[Tensor, Tensor]:
    """The nearest sum of `num_terms` Kronecker products of factors (n, n): exact if the weight is one.

    weight: (out, in, *kernel), n dividing out and in. Returns A (n, n, n), F (n, out/n, in/n, *kernel) with
    ||A_m|| = ||F_m|| up to a shared scale. Source: Van Loan and Pitsianis 1993 (rearrangement and SVD).
    """
    n = num_terms
    out_channels, in_channels, *kernel = weight.shape
    if out_channels % n or in_channels % n:
        raise ShapeError(divisor_message("weight", out_channels, in_channels, n))
    height, width = out_channels // n, in_channels // n
    blocks = weight.detach().double().reshape(n, height, n, width, -1).permute(0, 2, 1, 3, 4)
    left, strength, right = torch.linalg.svd(blocks.reshape(n * n, -1), full_matrices=False)
    root = strength[:n].sqrt()
    kept = len(root)
    factors = torch.zeros(n, n * n, dtype=torch.float64)
    spread = torch.zeros(n, right.shape[1], dtype=torch.float64)
    factors[:kept] = (left[:, :kept] * root).t()
    spread[:kept] = root[:, None] * right[:kept]
    return (
        factors.reshape(n, n, n).to(weight.dtype),
        spread.reshape(n, height, width, *kernel).to(weight.dtype),
    )


def divisor_message(name: str, out_channels: int, in_channels: int, n: int) -> str:
    """Error text for an n that does not divide the channels, with those that do."""
    common = math.gcd(out_channels, in_channels)
    divisors = [d for d in range(2, common + 1) if common % d == 0]
    offer = f"Choose n from {divisors}." if divisors else "No n above 1 divides both: leave this layer dense."
    return f"PHM n={n} does not divide the {out_channels} output and {in_channels} input channels of {name}. {offer}"
