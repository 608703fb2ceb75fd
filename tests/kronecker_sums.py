"""The weight of a PHM layer by its definition."""

from __future__ import annotations

import torch


def kron_sum(factors: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """The definition, position by position of the kernel."""
    (terms, rows, columns), (height, width, *kernel) = factors.shape, blocks.shape[1:]
    flat = blocks.reshape(terms, height, width, -1)
    positions = [sum(torch.kron(factors[m], flat[m, :, :, k]) for m in range(terms)) for k in range(flat.shape[-1])]
    return torch.stack(positions, dim=-1).reshape(rows * height, columns * width, *kernel)  # type: ignore[arg-type]
