"""Training-time variation of signs: clips of landmarks, on the batch and on its device.

What is drawn and what is done with it are apart: `drawn_landmarks` takes all random numbers from one CPU generator.
A lost point stays lost and becomes 0 at the end, so that noise never touches it.
Axes: B clips, T frames, P points, A coordinates, K parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from edgelip.runtime.clip import ClipSpec
from edgelip.runtime.errors import ClipError
from edgelip.runtime.landmarks import PointSet
from edgelip.train.batch import NetworkBatch

_SMALLEST_UNIT = 1e-6


@final
@dataclass(frozen=True)
class LandmarkAugmentation:
    """How far clips of landmarks are varied; the default leaves them as they are. Lengths are in normalised units.

    flip: mirror every second clip, left and right points changing places: a left-handed signer.
    scale, rotate_deg, shear, shift: most change of size (0.2: by 1/1.2 to 1.2), angle, slant and place, of the whole
    body or of each part about its own middle (affine_on).
    time_warp: most change of speed inside a clip, below 1. shortest_share: a random window of at least this share of
    the clip is stretched to its length, in every second clip; 1 keeps all.
    noise: standard deviation added to each coordinate. drop_part, drop_joint: chance that a part, or a point, is lost
    in the whole clip; drop_frames: longest stretch of frames in which all is lost; drop_box: chance that an obstacle, a
    box of side 1 anywhere on the body, hides what is behind it.
    """

    flip: bool = False
    scale: float = 0.0
    rotate_deg: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    affine_on: Literal["body", "parts"] = "body"
    time_warp: float = 0.0
    shortest_share: float = 1.0
    noise: float = 0.0
    drop_part: float = 0.0
    drop_joint: float = 0.0
    drop_frames: int = 0
    drop_box: float = 0.0


@final
@dataclass(frozen=True, eq=False)
class LandmarkDraws:
    """What happens to each clip; None: nothing.

    maps_BK22, moves_BK2: x, y -> maps @ (x, y) + moves, of the body (K = 1) or of each part. positions_BT: where in
    time each frame comes from, in frames. noise_BTPA: added. lost_BTP: points that are taken away. boxes_B4: middle and
    half sides of an obstacle; half sides 0 where there is none.
    """

    flips_B: Tensor | None = None
    maps_BK22: Tensor | None = None
    moves_BK2: Tensor | None = None
    positions_BT: Tensor | None = None
    noise_BTPA: Tensor | None = None
    lost_BTP: Tensor | None = None
    boxes_B4: Tensor | None = None


def varied_landmarks(
    stored_BTPA: Tensor,
    boundaries_B2: Tensor,
    spec: ClipSpec,
    augmentation: LandmarkAugmentation,
    generator: torch.Generator,
) -> NetworkBatch:
    """Clips as a store holds them, varied and normalised, (B, 1, T, P, A) on their device, 0 where a point is lost.

    Without augmentation they equal edgelip.runtime.clip.network_input. All draws come from `generator` (CPU).
    Raises ClipError if the points have no mirror pairs and clips shall be flipped.
    """
    draws = drawn_landmarks(len(stored_BTPA), spec, augmentation, generator)
    return NetworkBatch(landmark_clips(stored_BTPA, spec, draws), boundaries_B2)


def drawn_landmarks(
    num_clips: int, spec: ClipSpec, augmentation: LandmarkAugmentation, generator: torch.Generator
) -> LandmarkDraws:
    """What happens to each clip of a batch."""
    a, points = augmentation, spec.point_set
    if a.flip and points.mirror is None:
        raise ClipError(f"points {points.name!r} have no mirror pairs, so clips cannot be flipped. Switch flip off.")
    flips_B = torch.rand(num_clips, generator=generator) < 0.5 if a.flip else None
    maps_BK22 = moves_BK2 = noise_BTPA = boxes_B4 = None
    if a.scale or a.rotate_deg or a.shear or a.shift:
        num_parts = len(points.parts) if a.affine_on == "parts" else 1
        maps_BK22 = _drawn_maps(num_clips, num_parts, a, generator)
        moves_BK2 = a.shift * _signed(generator, num_clips, num_parts, 2)
    if a.noise:
        noise_BTPA = a.noise * torch.randn(num_clips, *spec.stored_shape, generator=generator)
    if a.drop_box:
        boxes_B4 = torch.full((num_clips, 4), 0.5)
        boxes_B4[:, :2] = 2.0 * torch.randn(num_clips, 2, generator=generator)
        boxes_B4[torch.rand(num_clips, generator=generator) >= a.drop_box, 2:] = 0.0
    return LandmarkDraws(
        flips_B=flips_B,
        maps_BK22=maps_BK22,
        moves_BK2=moves_BK2,
        positions_BT=_drawn_positions(num_clips, spec.frames, a, generator),
        noise_BTPA=noise_BTPA,
        lost_BTP=_drawn_losses(num_clips, spec, a, generator),
        boxes_B4=boxes_B4,
    )


def landmark_clips(stored_BTPA: Tensor, spec: ClipSpec, draws: LandmarkDraws) -> Tensor:
    """Float32 (B, 1, T, P, A): normalised, then varied in time, mirrored, moved, made noisy, and points taken away."""
    points, device = spec.point_set, stored_BTPA.device
    clips_BTPA = normalised_points(stored_BTPA, points, spec.normalise)
    if draws.positions_BT is not None:
        clips_BTPA = resampled(clips_BTPA, draws.positions_BT.to(device))
    if draws.flips_B is not None:
        clips_BTPA = torch.where(
            draws.flips_B.to(device)[:, None, None, None], mirrored(clips_BTPA, points), clips_BTPA
        )
    if draws.maps_BK22 is not None and draws.moves_BK2 is not None:
        clips_BTPA = _mapped(clips_BTPA, points, draws.maps_BK22.to(device), draws.moves_BK2.to(device))
    if draws.noise_BTPA is not None:
        clips_BTPA = clips_BTPA + draws.noise_BTPA.to(device)
    if draws.boxes_B4 is not None:
        boxes = draws.boxes_B4.to(device)[:, None, None]
        hidden_BTP = ((clips_BTPA[..., :2] - boxes[..., :2]).abs() < boxes[..., 2:]).all(dim=-1)
        clips_BTPA = clips_BTPA.masked_fill(hidden_BTP[..., None], torch.nan)
    if draws.lost_BTP is not None:
        clips_BTPA = clips_BTPA.masked_fill(draws.lost_BTP.to(device)[..., None], torch.nan)
    return clips_BTPA.nan_to_num(nan=0.0)[:, None]


def normalised_points(stored_BTPA: Tensor, points: PointSet, normalise: str) -> Tensor:
    """What edgelip.runtime.landmarks.normalised computes, but a lost point stays NaN in all coordinates."""
    if normalise == "body":
        return _centred_and_scaled(stored_BTPA, [points.reference])
    result_BTPA = torch.empty_like(stored_BTPA)
    for positions in points.parts.values():
        inside = list(positions)
        result_BTPA[:, :, inside] = _centred_and_scaled(stored_BTPA[:, :, inside], range(len(inside)))
    return result_BTPA


def _centred_and_scaled(points_BTPA: Tensor, reference: Sequence[int]) -> Tensor:
    exact_BTPA = points_BTPA.double()
    found_BTP1 = exact_BTPA.isfinite().all(dim=3, keepdim=True)
    inner = list(reference)
    origin_B11A, num_B111 = _mean(exact_BTPA[:, :, inner], found_BTP1[:, :, inner])
    origin_B11A = torch.where(num_B111 > 0, origin_B11A, _mean(exact_BTPA, found_BTP1)[0])
    centred_BTPA = exact_BTPA - origin_B11A
    unit_B11A = _mean(centred_BTPA.square(), found_BTP1)[0].sqrt()
    unit_B11A = torch.where(unit_B11A < _SMALLEST_UNIT, 1.0, unit_B11A)
    return torch.where(found_BTP1, centred_BTPA / unit_B11A, torch.nan).to(points_BTPA.dtype)


def mirrored(clips_BTPA: Tensor, points: PointSet) -> Tensor:
    """Left and right changed: the sign of x, and which point is which."""
    assert points.mirror is not None
    flipped_BTPA = clips_BTPA[:, :, list(points.mirror)].clone()
    flipped_BTPA[..., 0] = -flipped_BTPA[..., 0]
    return flipped_BTPA


def resampled(clips_BTPA: Tensor, positions_BT: Tensor) -> Tensor:
    """Each frame taken from a place in time, linear; between a found and a lost point the nearer one counts."""
    last = clips_BTPA.shape[1] - 1
    low_BT = positions_BT.floor().clamp(0, last).long()
    high_BT = (low_BT + 1).clamp(max=last)
    weight = (positions_BT - low_BT)[:, :, None, None]
    rows_B1 = torch.arange(len(clips_BTPA), device=clips_BTPA.device)[:, None]
    low_BTPA, high_BTPA = clips_BTPA[rows_B1, low_BT], clips_BTPA[rows_B1, high_BT]
    mixed_BTPA = low_BTPA * (1 - weight) + high_BTPA * weight
    return torch.where(mixed_BTPA.isnan(), torch.where(weight < 0.5, low_BTPA, high_BTPA), mixed_BTPA)


def _mapped(clips_BTPA: Tensor, points: PointSet, maps_BK22: Tensor, moves_BK2: Tensor) -> Tensor:
    whole = maps_BK22.shape[1] == 1
    groups = [range(len(points))] if whole else list(points.parts.values())
    result_BTPA = clips_BTPA.clone()
    for place, positions in enumerate(groups):
        part_BTP2 = clips_BTPA[:, :, list(positions), :2]
        middle_B112 = torch.zeros_like(part_BTP2[:, :1, :1])
        if not whole:
            middle_B112 = _mean(part_BTP2, ~part_BTP2.isnan().any(dim=-1, keepdim=True))[0]
        moved = torch.einsum("bij,btpj->btpi", maps_BK22[:, place], part_BTP2 - middle_B112)
        result_BTPA[:, :, list(positions), :2] = moved + middle_B112 + moves_BK2[:, place, None, None]
    return result_BTPA


def _mean(values_BTPA: Tensor, found_BTP1: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the found points of all frames, (B, 1, 1, A), and how many they are, (B, 1, 1, 1)."""
    num_B111 = found_BTP1.sum(dim=(1, 2), keepdim=True)
    total_B11A = torch.where(found_BTP1, values_BTPA, 0.0).sum(dim=(1, 2), keepdim=True)
    return total_B11A / num_B111.clamp(min=1), num_B111


def _signed(generator: torch.Generator, *shape: int) -> Tensor:
    """Uniform in -1 .. 1."""
    return 2.0 * torch.rand(*shape, generator=generator) - 1.0


def _drawn_maps(num_clips: int, num_parts: int, a: LandmarkAugmentation, generator: torch.Generator) -> Tensor:
    """Turned, slanted and scaled, (B, K, 2, 2)."""
    size = (1.0 + a.scale) ** _signed(generator, num_clips, num_parts)
    angle = torch.deg2rad(a.rotate_deg * _signed(generator, num_clips, num_parts))
    slant = a.shear * _signed(generator, num_clips, num_parts)
    sin, cos = angle.sin(), angle.cos()
    rows = (torch.stack([cos, cos * slant - sin], dim=-1), torch.stack([sin, sin * slant + cos], dim=-1))
    return size[..., None, None] * torch.stack(rows, dim=-2)


def _drawn_positions(
    num_clips: int, num_frames: int, a: LandmarkAugmentation, generator: torch.Generator
) -> Tensor | None:
    if not a.time_warp and a.shortest_share >= 1.0:
        return None
    share_T = torch.linspace(0.0, 1.0, num_frames).expand(num_clips, -1)
    if a.time_warp:  # speed 1 + w cos(pi s): above 0 as long as |w| < 1
        share_T = share_T + a.time_warp * _signed(generator, num_clips, 1) * torch.sin(torch.pi * share_T) / torch.pi
    if a.shortest_share < 1.0:
        kept_B1 = 1.0 - (1.0 - a.shortest_share) * torch.rand(num_clips, 1, generator=generator)
        kept_B1[torch.rand(num_clips, 1, generator=generator) < 0.5] = 1.0
        start_B1 = (1.0 - kept_B1) * torch.rand(num_clips, 1, generator=generator)
        share_T = start_B1 + kept_B1 * share_T
    return (share_T * (num_frames - 1)).clamp(0.0, num_frames - 1.0)


def _drawn_losses(num_clips: int, spec: ClipSpec, a: LandmarkAugmentation, generator: torch.Generator) -> Tensor | None:
    if not a.drop_part and not a.drop_joint and not a.drop_frames:
        return None
    points = spec.point_set
    lost_BTP = torch.zeros(num_clips, spec.frames, len(points), dtype=torch.bool)
    if a.drop_part:
        for positions in points.parts.values():
            lost_B = torch.rand(num_clips, generator=generator) < a.drop_part
            lost_BTP[:, :, list(positions)] |= lost_B[:, None, None]
    if a.drop_joint:
        lost_BTP |= torch.rand(num_clips, 1, len(points), generator=generator) < a.drop_joint
    if a.drop_frames:
        length_B1 = torch.randint(0, min(a.drop_frames, spec.frames) + 1, (num_clips, 1), generator=generator)
        start_B1 = (torch.rand(num_clips, 1, generator=generator) * (spec.frames - length_B1 + 1)).long()
        frame_T = torch.arange(spec.frames)
        lost_BTP |= ((frame_T >= start_B1) & (frame_T < start_B1 + length_B1))[:, :, None]
    return lost_BTP
