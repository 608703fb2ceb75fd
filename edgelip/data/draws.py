"""Random numbers by integer hash: the same on every machine and numpy, none depending on another.

The hash is that of edgelip.data.synthetic.hashing, without torch.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

_MASK32 = np.uint64(0xFFFFFFFF)
_GOLDEN = 0x9E3779B9
_BYTE_SUM_MEAN = 510.0  # of four uniform bytes
_BYTE_SUM_SD = 147.8006  # sqrt(4 * (256^2 - 1) / 12)


def mix(keys: np.ndarray) -> np.ndarray:
    """Scatter uint64 `keys` over 0..2^32-1. Source: 'lowbias32', C. Wellons, Prospecting for Hash Functions (2018)."""
    hashed = np.asarray(keys, np.uint64) & _MASK32
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        hashed = ((hashed ^ (hashed >> np.uint64(shift))) * np.uint64(factor)) & _MASK32
    mixed: np.ndarray = hashed ^ (hashed >> np.uint64(16))
    return mixed


@dataclass(frozen=True)
class Draws:
    """Random numbers of one clip under one condition; each draw has a name."""

    seed: int
    clip: int
    condition: str

    def bits(self, name: str, *shape: int) -> np.ndarray:
        """Integers 0..2^32-1, uint64 of `shape`."""
        key = mix(np.array(self.seed & 0xFFFFFFFF))
        for part in (self.clip, zlib.crc32(self.condition.encode()), zlib.crc32(name.encode())):
            key = mix((key * np.uint64(0x2545F491) + np.uint64(part + _GOLDEN)) & _MASK32)
        drawn: np.ndarray = mix(key + np.arange(math.prod(shape), dtype=np.uint64) * np.uint64(_GOLDEN))
        return drawn.reshape(shape)

    def uniform(self, name: str, *shape: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Float64 in [low, high)."""
        drawn: np.ndarray = self.bits(name, *shape) * (2.0**-32 * (high - low)) + low
        return drawn

    def normal(self, name: str, *shape: int) -> np.ndarray:
        """Bell-shaped float64 of mean 0 and standard deviation 1, within +-3.45: a sum of four uniform bytes."""
        bits = self.bits(name, *shape)
        byte = np.uint64(255)
        total = sum((bits >> np.uint64(shift)) & byte for shift in (0, 8, 16, 24))
        drawn: np.ndarray = (np.asarray(total, np.float64) - _BYTE_SUM_MEAN) / _BYTE_SUM_SD
        return drawn

    def sign(self, name: str) -> int:
        """-1 or 1."""
        return 1 if int(self.bits(name, 1)[0]) & 1 else -1
