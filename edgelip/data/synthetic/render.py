"""Curves and tones to pixels: the part that costs, one pass per step over the frames.

Axes: B clip, K step, T frame, Y row, X column, R term of the skin. Pixels are grey levels, float32 until the last line.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from edgelip.data.synthetic.geometry import SIDE_PX, Mouth
from edgelip.data.synthetic.hashing import Draws
from edgelip.data.synthetic.speakers import Conditions

_TOP = 16  # rows above this hold no part of the mouth
_NOISE_BITS = 20
NOISE_ENTRIES = 1 << _NOISE_BITS
_BLOCK = 8  # pixels, as in H.264 and JPEG


@cache
def _noise_table(device: torch.device, entries: int) -> Tensor:
    """Bell-shaped noise of unit sd, long enough that every clip can start anywhere."""
    return Draws(torch.zeros(1, dtype=torch.int64, device=device)).normal("sensor", entries)[0]


@cache
def _block_basis(device: torch.device) -> Tensor:
    """Orthonormal DCT-II of one block row, (frequency, pixel)."""
    place = torch.arange(_BLOCK, dtype=torch.float64)
    basis: Tensor = torch.cos(torch.pi / _BLOCK * (place[None] + 0.5) * place[:, None]) * (2.0 / _BLOCK) ** 0.5
    basis[0] *= 0.5**0.5
    return basis.to(torch.float32).to(device)


def paint(mouth: Mouth, conditions: Conditions, frames_BTYX: Tensor) -> Tensor:
    """Fill uint8 `frames_BTYX`, (B, T, 96, 96), with the clips and return it."""
    for b in range(frames_BTYX.shape[0]):
        frames_BTYX[b] = _paint_clip(mouth, conditions, b)
    return frames_BTYX


def _paint_clip(mouth: Mouth, conditions: Conditions, b: int) -> Tensor:
    c = conditions
    device = mouth.skin_rows_BTRY.device
    pixels_TYX = torch.bmm(mouth.skin_rows_BTRY[b].transpose(1, 2), mouth.skin_columns_BTRX[b])
    window_TYX = pixels_TYX[:, _TOP:]
    y_Y1 = torch.arange(_TOP, SIDE_PX, device=device).to(torch.float32)[:, None]
    for k in range(mouth.step_scale_KBTX.shape[0]):
        ramp_TYX = torch.addcmul(mouth.step_shift_KBTX[k, b, :, None], y_Y1, mouth.step_scale_KBTX[k, b, :, None])
        window_TYX.addcmul_(ramp_TYX.clamp_(0.0, 1.0), mouth.step_height_KBTX[k, b, :, None])
    return _film(pixels_TYX, c, b)


def _film(pixels_TYX: Tensor, c: Conditions, b: int) -> Tensor:
    """What the camera and the codec make of a clean clip, uint8 (T, Y, X)."""
    device = pixels_TYX.device
    frames = pixels_TYX.shape[0]
    x, y, radius, grey = c.occluder_B4[b].tolist()
    if radius > 0:
        rows_Y1 = torch.arange(SIDE_PX, device=device).to(torch.float32)[:, None] - y
        columns_X = torch.arange(SIDE_PX, device=device).to(torch.float32) - x
        cover_YX = ((radius * radius - rows_Y1 * rows_Y1 - columns_X * columns_X) * (0.5 / radius) + 0.5).clamp(
            0.0, 1.0
        )
        pixels_TYX = pixels_TYX + (grey - pixels_TYX) * cover_YX
    blur = float(c.motion_blur_B[b])
    pixels_TYX[1:] = torch.lerp(pixels_TYX[1:], pixels_TYX[:-1], blur)
    table = _noise_table(device, NOISE_ENTRIES + frames * SIDE_PX * SIDE_PX)
    start = int(c.noise_offset_B[b])
    noise_TYX = table[start : start + pixels_TYX.numel()].view_as(pixels_TYX)
    pixels_TYX.add_(noise_TYX, alpha=float(c.noise_grey_B[b]))
    strength = float(c.compression_B[b])
    if strength > 0:
        pixels_TYX = _compress(pixels_TYX, strength)
    grey_TYX = pixels_TYX.add_(0.5).clamp_(0.0, 255.0).to(torch.uint8)
    for t in torch.nonzero(c.repeated_BT[b])[:, 0].tolist():
        grey_TYX[t] = grey_TYX[t - 1]
    return grey_TYX


def _compress(pixels_TYX: Tensor, strength: float) -> Tensor:
    """Weaken the high frequencies of every 8x8 block, which leaves block edges as strong compression does."""
    basis_FX = _block_basis(pixels_TYX.device).to(pixels_TYX.dtype)
    frequency_F = torch.arange(_BLOCK, device=pixels_TYX.device).to(pixels_TYX.dtype)
    keep_F1 = (1.0 - strength * (frequency_F - 1.0) * (1.0 / 5.0)).clamp(0.0, 1.0)[:, None]
    shrink_XX = basis_FX.T @ (basis_FX * keep_F1)
    frames = pixels_TYX.shape[0]
    across = pixels_TYX.reshape(-1, _BLOCK) @ shrink_XX
    blocks = across.view(frames * (SIDE_PX // _BLOCK), _BLOCK, SIDE_PX)
    return torch.matmul(shrink_XX, blocks).view(frames, SIDE_PX, SIDE_PX)
