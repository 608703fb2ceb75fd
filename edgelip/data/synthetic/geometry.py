"""Articulatory tracks to the curves and tones of a mouth: everything about a clip that needs no pixel of its own.

A mouth is a stack of layers from top to bottom: skin, upper lip, upper teeth, dark, tongue, lower teeth, lower lip,
skin. Each column of the picture crosses them at its own heights, so a frame is a sum of soft steps down every column.
Axes: B clip, T frame, K step, X column, Y row, R term of the skin, F texture number. Pixels are of the 96x96 crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgelip.data.synthetic.articulation import CLOSURE, JAW, LABIODENTAL, ROUNDING, TEETH, TONGUE, WIDTH
from edgelip.data.synthetic.hashing import bump, sine
from edgelip.data.synthetic.speakers import Conditions, Speakers

SIDE_PX = 96
_ROW_LEVELS = (
    256.0  # rows and columns of the skin are rounded to these, so that their matrix product is exact in float32
)
_COLUMN_LEVELS = 4.0
_BRIGHTEST_SKIN = 0.72  # albedo times exposure


@dataclass(frozen=True)
class Mouth:
    """What the pixels of a batch are made of."""

    step_scale_KBTX: Tensor
    """Step k of column x is clamp(y * scale + shift, 0, 1) * height."""
    step_shift_KBTX: Tensor
    step_height_KBTX: Tensor
    skin_rows_BTRY: Tensor
    """The skin at row y, column x is the sum over r of rows[r, y] * columns[r, x]."""
    skin_columns_BTRX: Tensor


def _tone(albedo: Tensor, exposure: Tensor, gamma: Tensor) -> Tensor:
    """Grey level of a surface; gamma is the bend of the camera's curve, 0 straight."""
    x = (albedo * exposure).clamp(0.0, 1.0)
    return 255.0 * (x + gamma * x * (1.0 - x))


def _exposure(s: Speakers, c: Conditions) -> Tensor:
    """The camera stops down before skin burns out, (B,)."""
    return torch.minimum(c.exposure_B, _BRIGHTEST_SKIN / s.skin_albedo_B)


def lay_out(tracks_BPT: Tensor, speakers: Speakers, conditions: Conditions, *, visible: bool = True) -> Mouth:
    """Curves and tones of each frame of each clip. With `visible` false the mouth is left out and the chin rests."""
    device = tracks_BPT.device
    s, c = speakers, conditions
    if not visible:
        tracks_BPT = torch.zeros_like(tracks_BPT)

    def per_clip(x_B: Tensor) -> Tensor:
        return x_B[:, None, None]

    jaw, width, rounding, closure, labiodental, tongue, teeth = (
        tracks_BPT[:, p, :, None] for p in (JAW, WIDTH, ROUNDING, CLOSURE, LABIODENTAL, TONGUE, TEETH)
    )
    columns_X = torch.arange(SIDE_PX, device=device).to(torch.float32)
    scale = per_clip(c.scale_B)
    off_x = columns_X - c.x_px_BT[..., None]
    face_x = off_x / (scale * per_clip(1.0 - 0.45 * c.yaw_B * c.yaw_B))
    face_x = face_x * (1.0 + per_clip(c.yaw_B) * face_x * 0.008)
    middle_y = c.y_px_BT[..., None] + per_clip(c.roll_B) * off_x

    half_width = per_clip(s.lip_width_px_B) * (0.84 + 0.30 * width - 0.40 * rounding).clamp(min=0.40)
    n = (face_x / half_width).clamp(-1.0, 1.0)
    n2 = n * n
    arch = 1.0 - n2
    circle = arch.sqrt()
    inner_n = face_x / (half_width * (0.88 - 0.06 * rounding))
    inner_arch = (1.0 - inner_n * inner_n).clamp(min=0.0)
    inner_arch = inner_arch + (0.35 + 0.45 * rounding) * (inner_arch.sqrt() - inner_arch)
    skew = 1.0 + per_clip(s.asymmetry_B) * n * 2.0

    apart = 4.2 * teeth + 1.2 * rounding + per_clip(s.opening_px_B) * jaw * (1.0 - 0.35 * rounding)
    apart = apart * (1.0 - closure).clamp(min=0.0)
    up = 0.22 * apart + 1.2 * teeth * (1.0 - closure)
    down = apart - 0.22 * apart
    down = down + labiodental * (1.6 - up - down)
    puff = 1.0 + 0.28 * rounding - 0.16 * (width - 0.5)
    press = 1.0 - 0.22 * (closure - 0.85).clamp(min=0.0) * (1.0 / 0.15)
    upper_px = per_clip(s.upper_lip_px_B) * puff * press * per_clip(1.0 + 0.5 * c.pitch_B)
    lower_px = per_clip(s.lower_lip_px_B) * puff * press * (1.0 - 0.42 * labiodental) * per_clip(1.0 - 0.5 * c.pitch_B)

    line = middle_y + scale * (per_clip(s.corner_droop_px_B) + 1.5 * rounding - 1.5 * (width - 0.5)) * (n2 - 0.3)
    bow = per_clip(s.cupid_bow_B)
    upper_shape = arch + 0.25 * (circle - arch) - bow * bump(n * (1.0 / 0.22)) * arch
    lower_shape = arch + 0.55 * (circle - arch)
    inner_top = line - scale * up * inner_arch * skew
    inner_bottom = line + scale * down * inner_arch * skew
    outer_top = line - scale * ((up + upper_px) * upper_shape * skew)
    outer_bottom = line + scale * ((down + lower_px).clamp(min=2.0) * lower_shape * skew)
    outer_top = torch.minimum(outer_top, inner_top)
    outer_bottom = torch.maximum(outer_bottom, inner_bottom)
    gap = inner_bottom - inner_top
    upper_teeth = torch.minimum(
        inner_top + scale * per_clip(s.tooth_px_B) * (0.35 + 0.65 * teeth) * inner_arch, inner_bottom
    )
    tongue_top = inner_bottom - gap * (0.22 + 0.6 * tongue)
    tongue_top = torch.maximum(tongue_top, upper_teeth - scale * 2.2 * (tongue - 0.4).clamp(min=0.0))
    upper_teeth = torch.minimum(upper_teeth, tongue_top)
    lower_teeth = torch.maximum(
        inner_bottom - scale * per_clip(s.tooth_px_B) * (0.55 * teeth + 0.1) * inner_arch * (1.0 - 0.7 * tongue),
        tongue_top,
    )

    shade_X = 1.0 + per_clip(c.light_x_B) * face_x * (1.0 / 48.0)
    exposure = per_clip(_exposure(s, c)) * shade_X
    from_above = per_clip(c.light_y_B)
    bend = per_clip(c.gamma_B)

    def tone(albedo: Tensor | float) -> Tensor:
        return _tone(torch.as_tensor(albedo, device=device), exposure, bend)

    lip, skin_albedo = per_clip(s.lip_albedo_B), per_clip(s.skin_albedo_B)
    inside = 0.45 + 0.55 * inner_arch
    skin = tone(skin_albedo)
    upper_edge, upper_inner = tone(lip * (1.02 + from_above)), tone(lip * (0.68 + from_above))
    lower_inner, lower_high, lower_edge = (
        tone(lip * 0.74),
        tone(lip * (1.16 - from_above)),
        tone(lip * (0.86 + from_above)),
    )
    dark = tone(0.09)
    tooth = dark + (tone(per_clip(s.tooth_albedo_B)) - dark) * inside * (0.25 + 0.75 * teeth).clamp(max=1.0)
    tongue_tone = dark + (tone(0.22 + 0.42 * lip) - dark) * inside * (0.40 + 0.60 * tongue)
    lower_tooth = dark + (tooth - dark) * 0.72
    hollow = tone(skin_albedo * 0.84)

    edge = per_clip(c.edge_px_B).expand_as(line)
    lower_lip = outer_bottom - inner_bottom
    steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def step(start: Tensor, length: Tensor, before: Tensor, after: Tensor) -> None:
        steps.append((start, length, after - before))

    def at(curve: Tensor, before: Tensor, after: Tensor) -> None:
        step(curve - 0.5 * edge, edge, before, after)

    at(outer_top, skin, upper_edge)
    step(outer_top, torch.maximum(inner_top - outer_top, edge), upper_edge, upper_inner)
    at(inner_top, upper_inner, tooth)
    at(upper_teeth, tooth, dark)
    at(tongue_top, dark, tongue_tone)
    at(lower_teeth, tongue_tone, lower_tooth)
    at(inner_bottom, lower_tooth, lower_inner)
    step(inner_bottom, torch.maximum(0.45 * lower_lip, edge), lower_inner, lower_high)
    step(inner_bottom + 0.45 * lower_lip, torch.maximum(0.55 * lower_lip, edge), lower_high, lower_edge)
    at(outer_bottom, lower_edge, hollow)
    step(outer_bottom + 0.5 * edge, torch.maximum(scale * 9.0 * arch, edge), hollow, skin)

    # At the corners all steps meet and cancel.
    present = (arch * 8.0).clamp(max=1.0) * float(visible)
    scales, shifts, heights = [], [], []
    for start, length, height in steps:
        inverse = 1.0 / length
        scales.append(inverse.expand_as(line))
        shifts.append(-start * inverse)
        heights.append(height * present)
    rows, skin_columns = _skin(tracks_BPT, s, c, skin, face_x)
    return Mouth(torch.stack(scales), torch.stack(shifts), torch.stack(heights), rows, skin_columns)


def _skin(
    tracks_BPT: Tensor, s: Speakers, c: Conditions, skin_BTX: Tensor, face_x_BTX: Tensor
) -> tuple[Tensor, Tensor]:
    """The face around the mouth as products of a row and a column pattern, (B, T, R, Y) and (B, T, R, X)."""
    device = skin_BTX.device
    rows_Y = torch.arange(SIDE_PX, device=device).to(torch.float32)
    face_y_BTY = (rows_Y - c.y_px_BT[..., None]) / c.scale_B[:, None, None]
    jaw_BT1 = tracks_BPT[:, JAW, :, None]
    level_B11 = (255.0 * s.skin_albedo_B * _exposure(s, c))[:, None, None]
    x, y = face_x_BTX, face_y_BTY
    terms: list[tuple[Tensor, Tensor]] = [(torch.ones_like(y), skin_BTX)]

    def add(row_BTY: Tensor, column_BTX: Tensor, amount_B: Tensor | float) -> None:
        terms.append((row_BTY, column_BTX * level_B11 * torch.as_tensor(amount_B, device=device).reshape(-1, 1, 1)))

    one_X = torch.ones_like(x)
    add(y * (1.0 / 48.0), one_X, c.light_y_B)
    nose_y = y - s.nose_px_B[:, None, None]
    nostrils_X = bump((x - 7.5) * (1.0 / 4.5)) + bump((x + 7.5) * (1.0 / 4.5))
    add(bump(nose_y * (1.0 / 5.0)), nostrils_X, -0.60)
    add(bump((nose_y - 4.0) * (1.0 / 9.0)), bump(x * (1.0 / 19.0)), -0.22)
    add(bump((nose_y + 10.0) * (1.0 / 11.0)), bump(x * (1.0 / 13.0)), 0.14)
    add(bump((nose_y - 13.0) * (1.0 / 11.0)), bump(x * (1.0 / 3.6)), -0.10)
    for k in range(4):
        at_y, at_x = -24.0 + 9.0 * k, 20.0 + 4.2 * k
        fold_X = bump((x - at_x) * (1.0 / 5.0)) + bump((x + at_x) * (1.0 / 5.0))
        add(bump((y - at_y) * (1.0 / 9.0)), fold_X, -0.15 * s.fold_B)
    chin_y = y - s.chin_px_B[:, None, None] - 9.0 * jaw_BT1
    add(bump((chin_y + 3.0) * (1.0 / 10.0)), bump(x * (1.0 / 20.0)), 0.10)
    # The jaw line rises to the sides: three overlapping strips, each with its own height.
    for at_x, wide, rise in ((0.0, 29.0, 0.0), (27.0, 25.0, 4.0), (48.0, 27.0, 12.0)):
        strip_X = bump((x.abs() - at_x) * (1.0 / wide))
        add(((chin_y + rise - 4.0) * (1.0 / 8.0)).clamp(0.0, 1.0), strip_X, -0.30)
    cheek_X = ((x.abs() - 30.0) * (1.0 / 26.0)).clamp(0.0, 1.0)
    add(torch.ones_like(y), cheek_X * cheek_X, -0.30)
    beard_Y = ((y - 15.0 - 11.0 * jaw_BT1) * (1.0 / 9.0)).clamp(0.0, 1.0)
    moustache_Y = bump((y + 12.5) * (1.0 / 7.5))
    moustache_X = bump(x * (1.0 / 31.0))
    add(moustache_Y, moustache_X, -0.62 * s.hair_B)
    add(beard_Y, one_X, -0.45 * s.hair_B)
    for k in range(2):
        hairs_X = sine(x * (0.19 + 0.13 * k + 0.05 * s.texture_BF[:, 60 + k, None, None]))
        add(moustache_Y, hairs_X * moustache_X, 0.035 * s.hair_B)
        add(beard_Y * sine(y * (0.11 + 0.06 * k)), hairs_X, 0.02 * s.hair_B)
    for k in range(12):
        f = s.texture_BF[:, 4 * k : 4 * k + 4, None, None]
        finest = (0.03, 0.09, 0.24)[k % 3]
        row_Y = sine(y * (0.01 + finest * f[:, 0]) + f[:, 1])
        column_X = sine(x * (0.01 + finest * f[:, 2]) + f[:, 3])
        add(row_Y, column_X, (0.022, 0.013, 0.008)[k % 3])
    rows = torch.stack([row for row, _ in terms], 2)
    columns = torch.stack([column for _, column in terms], 2)
    return _rounded(rows, _ROW_LEVELS), _rounded(columns, _COLUMN_LEVELS)


def _rounded(x: Tensor, levels: float) -> Tensor:
    return (x * levels).add_(0.5).floor_().mul_(1.0 / levels)
