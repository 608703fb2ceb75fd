"""Random numbers and functions that come out the same on every device, batch and thread count.

Only operations that IEEE 754 rounds correctly (+, -, *, /, square root, floor, min, max) and integer arithmetic are
used, so the tail of a vectorised loop, a GPU and another thread count give the same bits; `torch.log` and `torch.rand`
do not, `torch.exp` and `torch.sin` promise nothing.
Axes: B clip, any further axes as asked for.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

_MASK32 = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9
_BYTE_SUM_MEAN = 510.0  # of four uniform bytes
_BYTE_SUM_SD = 147.8006  # sqrt(4 * (256^2 - 1) / 12)


def mix(keys: Tensor) -> Tensor:
    """Scatter int64 `keys` over 0..2^32-1. Source: 'lowbias32', C. Wellons, Prospecting for Hash Functions (2018)."""
    h = keys & _MASK32
    h = h ^ (h >> 16)
    h = (h * 0x7FEB352D) & _MASK32
    h = h ^ (h >> 15)
    h = (h * 0x846CA68B) & _MASK32
    return h ^ (h >> 16)


def combine(keys: Tensor, *more: int | Tensor) -> Tensor:
    """Hash `keys` together with further integers; the order of the arguments counts."""
    h = mix(keys)
    for key in more:
        h = mix((h * 0x2545F491 + key + _GOLDEN) & _MASK32)
    return h


@dataclass(frozen=True)
class Draws:
    """Random numbers of B independent owners (clips, speakers), each draw named: no draw depends on another."""

    keys_B: Tensor

    def bits(self, name: str, *shape: int) -> Tensor:
        """Integers 0..2^32-1, (B, *shape)."""
        num = 1
        for extent in shape:
            num *= extent
        stream_B1 = combine(self.keys_B, zlib.crc32(name.encode()))[:, None]
        slots_N = torch.arange(num, device=self.keys_B.device) * _GOLDEN
        return mix(stream_B1 + slots_N).reshape(-1, *shape)

    def uniform(self, name: str, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Float32 in [low, high), (B, *shape)."""
        return (self.bits(name, *shape) >> 8).to(torch.float32) * (2.0**-24 * (high - low)) + low

    def integers(self, name: str, count: int | Tensor, *shape: int) -> Tensor:
        """Integers 0..count-1, (B, *shape)."""
        return (self.bits(name, *shape) * count) >> 32

    def normal(self, name: str, *shape: int, sd: float = 1.0) -> Tensor:
        """Bell-shaped float32 of mean 0 within +-3.45 sd (a sum of four uniform bytes), (B, *shape)."""
        h = self.bits(name, *shape)
        total = (h & 255) + ((h >> 8) & 255) + ((h >> 16) & 255) + (h >> 24)
        return (total.to(torch.float32) - _BYTE_SUM_MEAN) * (sd / _BYTE_SUM_SD)

    def lognormal(self, name: str, *shape: int, sd: float) -> Tensor:
        """Positive factors of median 1 whose logarithm has standard deviation `sd`, (B, *shape)."""
        return exp(self.normal(name, *shape, sd=sd))

    def chance(self, name: str, probability: float, *shape: int) -> Tensor:
        """True with the given probability, (B, *shape)."""
        return self.uniform(name, *shape) < probability


def exp(x: Tensor) -> Tensor:
    """e^x for |x| < 4 as (1 + x/1024)^1024: relative error below x^2/2048, the same bits everywhere."""
    y = x * (1.0 / 1024.0) + 1.0
    for _ in range(10):
        y = y * y
    return y


def decay(x: Tensor) -> Tensor:
    """e^-x for x >= 0 as max(0, 1 - x/32)^32: exactly zero from x = 32, the same bits everywhere."""
    y = (1.0 - x * (1.0 / 32.0)).clamp(min=0.0)
    for _ in range(5):
        y = y * y
    return y


def sine(turns: Tensor) -> Tensor:
    """sin(2 pi `turns`) within 0.0011, from the refined parabola; the same bits everywhere."""
    t = turns - torch.floor(turns + 0.5)
    parabola = t * (8.0 - 16.0 * t.abs())
    return parabola * (0.775 + 0.225 * parabola.abs())


def bump(distance: Tensor) -> Tensor:
    """A smooth hill: 1 at distance 0, 0 from |distance| = 1 on."""
    hill = (1.0 - distance * distance).clamp(min=0.0)
    return hill * hill


def sum_in_halves(x: Tensor, dim: int) -> Tensor:
    """Sum over `dim` in a fixed order (halves added to halves), so that every device rounds alike."""
    while (extent := x.shape[dim]) > 1:
        half = extent // 2
        folded = x.narrow(dim, 0, half) + x.narrow(dim, half, half)
        x = torch.cat([folded, x.narrow(dim, extent - 1, 1)], dim) if extent % 2 else folded
    return x.squeeze(dim)
