"""Sums of Kronecker products: folded to the matrix they stand for, and found for a given one.

Axes: R terms, P rows and Q columns of a factor A_RPQ, I and J output and input channels of a block F_RIJ...
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from edgelip.errors import ShapeError


def fold(factors_RPQ: Tensor, blocks_RIJ: Tensor) -> Tensor:
    """The dense weight that PHM factors stand for: W = sum_r kron(A_r, F_r).

    factors_RPQ: (terms, n, n), or fewer columns; blocks_RIJ: (terms, out/n, in/n, *kernel). Returns (out, in, *kernel).
    One matrix product and one transpose, without n-fold temporaries. Source: Zhang et al., ICLR 2021.
    """
    num_terms, rows, columns = factors_RPQ.shape
    height, width, *kernel = blocks_RIJ.shape[1:]
    products = factors_RPQ.reshape(num_terms, rows * columns).t() @ blocks_RIJ.reshape(num_terms, -1)
    grid = products.reshape(rows, columns, height, width, -1).permute(0, 2, 1, 3, 4)
    return grid.reshape(rows * height, columns * width, *kernel)


def rearranged(weight: Tensor, n: int) -> Tensor:
    """Blocks of a weight as rows: (n*n, out/n * in/n * kernel), in double precision. A Kronecker product has rank 1.

    Raises ShapeError if n does not divide both channel counts. Source: Van Loan and Pitsianis 1993.
    """
    out_channels, in_channels = weight.shape[:2]
    if out_channels % n or in_channels % n:
        raise ShapeError(divisor_message("weight", out_channels, in_channels, n))
    blocks = weight.detach().double().reshape(n, out_channels // n, n, in_channels // n, -1)
    return blocks.permute(0, 2, 1, 3, 4).reshape(n * n, -1)


def factorise(weight: Tensor, n: int, *, terms: int | None = None) -> tuple[Tensor, Tensor]:
    """The nearest sum of `terms` (n if not given) Kronecker products of factors (n, n): exact if the weight is one.

    weight: (out, in, *kernel), n dividing out and in. Returns A (terms, n, n), F (terms, out/n, in/n, *kernel) with
    ||A_m|| = ||F_m|| up to a shared scale. Source: Van Loan and Pitsianis 1993 (rearrangement and SVD).
    """
    terms = n if terms is None else terms
    out_channels, in_channels, *kernel = weight.shape
    left, strength, right = torch.linalg.svd(rearranged(weight, n), full_matrices=False)
    root = strength[:terms].sqrt()
    kept = len(root)
    factors = torch.zeros(terms, n * n, dtype=torch.float64)
    spread = torch.zeros(terms, right.shape[1], dtype=torch.float64)
    factors[:kept] = (left[:, :kept] * root).t()
    spread[:kept] = root[:, None] * right[:kept]
    return (
        factors.reshape(terms, n, n).to(weight.dtype),
        spread.reshape(terms, out_channels // n, in_channels // n, *kernel).to(weight.dtype),
    )


def energy_kept(weight: Tensor, n: int, *, terms: int | None = None) -> float:
    """Share of the squared weight that its nearest sum of `terms` (n if not given) Kronecker products holds: 0 to 1."""
    blocks = rearranged(weight, n)
    total = float(blocks.square().sum())
    # The squared singular values, from the smaller of the two Gram matrices.
    gram = blocks @ blocks.t() if blocks.shape[0] <= blocks.shape[1] else blocks.t() @ blocks
    return float(torch.linalg.eigvalsh(gram)[-(n if terms is None else terms) :].sum()) / total if total else 1.0


def phm_parameters(shape: Sequence[int], *, n: int, terms: int | None = None) -> int:
    """Numbers in the factors of a weight (out, in, *kernel): terms * (n^2 + |W| / n^2). n must divide out and in."""
    return (n if terms is None else terms) * (n * n + math.prod(shape) // (n * n))


def largest_paying(shape: Sequence[int], *, terms: int | None = None) -> int | None:
    """The largest n whose factors, of `terms` or n terms, are smaller than a weight (out, in, *kernel), if any."""
    common, size = math.gcd(shape[0], shape[1]), math.prod(shape)
    for n in range(common, 1, -1):
        if common % n == 0 and phm_parameters(shape, n=n, terms=min(n, terms or n)) < size:
            return n
    return None


def divisor_message(name: str, out_channels: int, in_channels: int, n: int) -> str:
    """Error text for an n that does not divide the channels, with those that do."""
    common = math.gcd(out_channels, in_channels)
    divisors = [d for d in range(2, common + 1) if common % d == 0]
    offer = f"Choose n from {divisors}." if divisors else "No n above 1 divides both: leave this layer dense."
    return f"PHM n={n} does not divide the {out_channels} output and {in_channels} input channels of {name}. {offer}"
