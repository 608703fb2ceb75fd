"""What a camera and a tracker make of a procedural signer.

Axes: B clips, T frames, P points, A coordinates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgelip.data.synthetic.anatomy import turned
from edgelip.data.synthetic.gestures import MAX_FRAMES
from edgelip.data.synthetic.hashing import Draws, combine
from edgelip.data.synthetic.signers import Signers
from edgelip.runtime.landmarks import PointSet


def seen_points(body_BTPA: Tensor, signers: Signers, clip: Draws, points: PointSet) -> Tensor:
    """Points of the body as parts of the picture, (B, T, P, 3), with noise, lost parts NaN."""
    level_B1 = torch.zeros_like(signers.yaw_B)[:, None]
    body_BTPA = turned(body_BTPA, roll=level_B1, yaw=signers.yaw_B[:, None])
    body_BTPA = body_BTPA + _jitter(clip, points) * signers.jitter_B[:, None, None, None]
    body_BTPA = turned(body_BTPA, roll=signers.camera_roll_B[:, None], yaw=level_B1)
    scale = signers.scale_B[:, None, None]
    x = 0.5 + signers.middle_B2[:, 0, None, None] + scale * body_BTPA[..., 0] / signers.aspect_B[:, None, None]
    y = 0.5 + signers.middle_B2[:, 1, None, None] + scale * body_BTPA[..., 1]
    z = scale * body_BTPA[..., 2]
    seen_BTPA = torch.stack([x, y, z], dim=-1)
    for part, positions in points.parts.items():
        places = list(positions)
        found_BT = _found(part, seen_BTPA[:, :, places], signers, clip)
        first = seen_BTPA[:, :, places[:1], 2:] if part != "pose" else torch.zeros(1)
        depth = seen_BTPA[:, :, places, 2:] - first
        flat = torch.cat([seen_BTPA[:, :, places, :2], depth], dim=-1)
        seen_BTPA[:, :, places] = torch.where(found_BT[:, :, None, None], flat, torch.nan)
    return seen_BTPA


def _jitter(clip: Draws, points: PointSet) -> Tensor:
    """Noise (B, T, P, 3) of standard deviation 1, of a point the same in whatever subset it is."""
    owners_BP = combine(clip.keys_B[:, None].expand(-1, len(points)), torch.tensor(points.indices))
    noise = Draws(owners_BP.reshape(-1)).normal("jitter", MAX_FRAMES, 3)
    return noise.reshape(*owners_BP.shape, MAX_FRAMES, 3).transpose(1, 2)


def _found(part: str, part_BTPA: Tensor, signers: Signers, clip: Draws) -> Tensor:
    """Whether the tracker finds a part in each frame: not outside of the picture, and not in unlucky stretches."""
    if part == "pose":
        return torch.ones(part_BTPA.shape[:2], dtype=torch.bool)
    if part == "face":
        return ~clip.chance("lost face", 0.01, MAX_FRAMES // 4).repeat_interleave(4, dim=1)
    knuckle_BT2 = part_BTPA[:, :, 9, :2]
    inside_BT = ((knuckle_BT2 > -0.03) & (knuckle_BT2 < 1.03)).all(dim=-1)
    stretches_BS = clip.uniform(f"lost {part}", MAX_FRAMES // 3) < signers.lost_B[:, None]
    flicker_BT = clip.uniform(f"flicker {part}", MAX_FRAMES) < 0.3 * signers.lost_B[:, None]
    return inside_BT & ~stretches_BS.repeat_interleave(3, dim=1) & ~flicker_BT
