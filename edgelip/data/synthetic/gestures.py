"""What a procedural signer does: from the word to points of the body, in half shoulder widths, the neck at 0.

Axes: B clips, T frames, P points, A coordinates; F fingers, W words' shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgelip.data.synthetic.anatomy import OPENED, SHAPES, face_template, hand_points, turned
from edgelip.data.synthetic.hashing import Draws, sine
from edgelip.data.synthetic.signers import Signers
from edgelip.runtime.landmarks import PARTS, PointSet

MAX_FRAMES = 96
PLACES = {  # of the middle knuckle of a right-handed signer, and how far the fingers lean inwards, in turns
    "chin": (-0.2, -0.6, 0.05),
    "chest": (-0.1, 0.4, 0.17),
    "space": (-0.5, 0.55, 0.07),  # both hands
    "forehead": (-0.35, -1.5, 0.04),
    "side": (-0.95, 0.0, -0.02),
    "shoulder": (0.45, 0.05, 0.13),
}
PATHS = ("vertical", "circle", "change", "twist", "arc", "horizontal", "diagonal")
ORDERS = ("out", "back", "out-back", "back-out")
_TWO_HANDED = "space"
_REST = (-0.55, 2.9)

Base = tuple[str, str, str]
"""Shape, place and path of a word."""


@dataclass(frozen=True)
class Motion:
    """How far along its path the hand is, and how far from rest."""

    along_BT: Tensor  # 0 one end of the path .. 1 the other
    raised_BT: Tensor  # 0 at rest .. 1 signing
    lengths_B: Tensor


def motion_of(orders_B: Tensor, signers: Signers) -> Motion:
    durations_B6 = signers.durations_B6.clone()
    two_way_B = orders_B >= 2
    durations_B6[:, 3] = durations_B6[:, 3] * torch.where(two_way_B, 1.3, 1.0)
    ends_B6 = durations_B6.cumsum(dim=1)  # one after another: a sum may be rounded otherwise on another machine
    ends_B6 = ends_B6 * (MAX_FRAMES / ends_B6[:, 5:]).clamp(max=1.0)
    frames = torch.arange(MAX_FRAMES, dtype=torch.float32)

    def progress(phase: int) -> Tensor:
        start_B1, end_B1 = ends_B6[:, phase - 1 : phase], ends_B6[:, phase : phase + 1]
        return ((frames - start_B1) / (end_B1 - start_B1)).clamp(0.0, 1.0)

    stroke_BT = progress(3)
    there_BT = torch.where(two_way_B[:, None], 1.0 - (2.0 * stroke_BT - 1.0).abs(), stroke_BT)
    along_BT = _eased(there_BT)
    along_BT = torch.where((orders_B % 2 == 1)[:, None], 1.0 - along_BT, along_BT)
    raised_BT = _eased(progress(1)) - _eased(progress(4))
    return Motion(along_BT, raised_BT, ends_B6[:, 5].ceil().clamp(8, MAX_FRAMES).long())


def _eased(share: Tensor) -> Tensor:
    return share * share * (3.0 - 2.0 * share)


def _path(names: Sequence[Base], along_BT: Tensor) -> Tensor:
    """(B, T, 4): offset x (outwards), y, roll and how far the shape has changed."""
    u = along_BT
    wide, zero = 2.0 * u - 1.0, torch.zeros_like(u)
    made = {
        "vertical": (zero, 0.42 * wide, zero, zero),
        "circle": (0.3 * sine(u + 0.25), 0.3 * sine(u), zero, zero),
        "change": (zero, zero, zero, u),
        "twist": (zero, zero, 0.11 * wide, zero),
        "arc": (-0.42 * sine(0.5 * u + 0.25), 0.2 - 0.4 * sine(0.5 * u), zero, zero),
        "horizontal": (-0.42 * wide, zero, zero, zero),
        "diagonal": (-0.3 * wide, 0.3 * wide, zero, zero),
    }
    each = {name: torch.stack(four, dim=-1) for name, four in made.items()}
    return torch.stack([each[path][clip] for clip, (_, _, path) in enumerate(names)])


def body_points(motion: Motion, names: Sequence[Base], signers: Signers, clip: Draws, points: PointSet) -> Tensor:
    """Points (B, T, P, 3) in half shoulder widths, neck at 0."""
    shapes, places = list(SHAPES), list(PLACES)
    path_BT4 = _path(names, motion.along_BT)
    rows = torch.arange(len(names))
    shape_B = torch.tensor([shapes.index(shape) for shape, _, _ in names])
    place_B = torch.tensor([places.index(place) for _, place, _ in names])
    rest_2 = torch.tensor(_REST)
    where_B3 = torch.tensor([PLACES[place] for _, place, _ in names])
    centre_B2 = where_B3[:, :2] + signers.places_BW2[rows, place_B]
    tilt = signers.tilt_B[:, None]
    sin, cos = sine(tilt), sine(tilt + 0.25)
    dx, dy = (path_BT4[..., axis] * signers.reach_B[:, None] for axis in (0, 1))
    offset_BT2 = torch.stack([dx * cos - dy * sin, dx * sin + dy * cos], dim=-1)
    at_BT2 = centre_B2[:, None] + offset_BT2
    knuckle_BT2 = rest_2 + (at_BT2 - rest_2) * motion.raised_BT[..., None]

    curls_WF = torch.tensor([curls for curls, _ in SHAPES.values()])
    spreads_W = torch.tensor([spread for _, spread in SHAPES.values()])
    changed_B = (shape_B + 3) % len(shapes)
    change_BT1 = path_BT4[..., 3:]
    mine_BWF = curls_WF + signers.curls_BWF
    curls_BTF = mine_BWF[rows, shape_B][:, None] * (1.0 - change_BT1) + mine_BWF[rows, changed_B][:, None] * change_BT1
    relaxed_BT1 = 0.35 * (1.0 - motion.raised_BT)[..., None]
    curls_BTF = (curls_BTF * (1.0 - relaxed_BT1) + 0.3 * relaxed_BT1).clamp(-0.05, 1.05)
    change_BT = change_BT1[..., 0]
    spread_BT = spreads_W[shape_B][:, None] * (1.0 - change_BT) + spreads_W[changed_B][:, None] * change_BT
    spread_BT = spread_BT * signers.spread_B[:, None]
    hand_BTPA = hand_points(curls_BTF, spread_BT) * signers.hand_B[:, None, None, None]
    roll_BT = where_B3[:, 2:] + signers.roll_B[:, None] + path_BT4[..., 2]
    yaw_BT = (0.06 + signers.palm_yaw_B)[:, None].expand_as(roll_BT)
    hand_BTPA = turned(hand_BTPA, roll=roll_BT, yaw=yaw_BT)
    hand_BTPA = hand_BTPA - 0.9 * hand_BTPA[:, :, 9:10]
    depth_BT1 = torch.full_like(knuckle_BT2[..., :1], -0.5)
    right_BTPA = hand_BTPA + torch.cat([knuckle_BT2, depth_BT1], dim=-1)[:, :, None]

    both_B = place_B == places.index(_TWO_HANDED)
    idle_B = clip.chance("idle hand in view", 0.2) & ~both_B
    mirror_3 = torch.tensor([-1.0, 1.0, 1.0])
    hanging = right_BTPA - right_BTPA[:, :, 9:10] + torch.tensor([-0.55, 3.2, -0.3])
    in_lap = right_BTPA - right_BTPA[:, :, 9:10] + torch.tensor([-0.45, 1.3, -0.4])
    other_BTPA = torch.where(both_B[:, None, None, None], right_BTPA, hanging)
    other_BTPA = torch.where(idle_B[:, None, None, None], in_lap, other_BTPA) * mirror_3
    side = signers.side_B[:, None, None, None]
    handed_3 = torch.cat([side, torch.ones_like(side), torch.ones_like(side)], dim=-1)
    dominant_BTPA, other_BTPA = right_BTPA * handed_3, other_BTPA * handed_3
    is_right = side > 0
    parts = {
        "right_hand": torch.where(is_right, dominant_BTPA, other_BTPA),
        "left_hand": torch.where(is_right, other_BTPA, dominant_BTPA),
    }
    parts["face"] = _face(signers, clip, points)
    parts["pose"] = _pose(parts["right_hand"], parts["left_hand"], signers)
    result = torch.empty(len(names), MAX_FRAMES, len(points), 3)
    for part, positions in points.parts.items():
        inside = [points.indices[place] - PARTS[part].start for place in positions]
        source = parts[part] if part == "face" else parts[part][:, :, inside]
        result[:, :, list(positions)] = source
    return result


def _face(signers: Signers, clip: Draws, points: PointSet) -> Tensor:
    """The face points of the subset, (B, T, P, 3), with a mouth that moves for no reason."""
    indices = [index for index in points.indices if index in PARTS["face"]]
    frames = torch.arange(MAX_FRAMES, dtype=torch.float32)
    speed_B1, phase_B1 = clip.uniform("mouth speed", 1, low=0.02, high=0.08), clip.uniform("mouth phase", 1)
    opening_BT = (sine(frames * speed_B1 + phase_B1) + 0.2).clamp(min=0.0) * clip.uniform("mouth", 1, high=0.25)
    drop_P = torch.tensor([OPENED.get(index, 0.0) for index in indices])
    template_PA = face_template()[indices]
    face_BTPA = template_PA.expand(len(opening_BT), MAX_FRAMES, -1, -1).clone()
    face_BTPA[..., 1] += opening_BT[..., None] * drop_P * 0.5
    size_B = signers.face_B2
    face_BTPA = face_BTPA * torch.stack([size_B[:, 0], size_B[:, 1], size_B[:, 0]], dim=-1)[:, None, None]
    nod_B12 = clip.uniform("nod speed", 1, 2, low=0.005, high=0.02)
    drift_BT2 = 0.05 * sine(frames[:, None] * nod_B12 + clip.uniform("nod phase", 1, 2))
    face_BTPA[..., :2] += drift_BT2[:, :, None]
    face_BTPA[..., 1] += -1.15
    face_BTPA[..., 2] += -0.3
    return face_BTPA


def _pose(right_BTPA: Tensor, left_BTPA: Tensor, signers: Signers) -> Tensor:
    """33 points (B, T, 33, 3): arms that follow the hands, the rest still."""
    pose_BTPA = torch.zeros(*right_BTPA.shape[:2], 33, 3)
    size_B1 = signers.face_B2[:, None]
    for index, x, y in ((0, 0.0, 0.22), (9, 0.3, 0.72), (10, -0.3, 0.72), (7, 1.0, -0.1), (8, -1.0, -0.1)):
        pose_BTPA[:, :, index, 0], pose_BTPA[:, :, index, 1] = x * size_B1[..., 0], y * size_B1[..., 1] - 1.15
    for index in range(1, 7):
        side, step = (1.0, index - 2) if index < 4 else (-1.0, index - 5)
        pose_BTPA[:, :, index, 0] = side * (0.45 + 0.12 * side * step) * size_B1[..., 0]
        pose_BTPA[:, :, index, 1] = -0.28 * size_B1[..., 1] - 1.15
    for first, hand_BTPA, side in ((11, left_BTPA, 1.0), (12, right_BTPA, -1.0)):
        shoulder_3, wrist_BTA = torch.tensor([side, 0.0, 0.0]), hand_BTPA[:, :, 0]
        elbow_BTA = 0.5 * (shoulder_3 + wrist_BTA) + torch.tensor([0.35 * side, 0.5, 0.1])
        for place, joint in zip(range(first, first + 12, 2), (shoulder_3, elbow_BTA, wrist_BTA), strict=False):
            pose_BTPA[:, :, place] = joint
        for place, knuckle in ((first + 6, 17), (first + 8, 5), (first + 10, 2)):
            pose_BTPA[:, :, place] = hand_BTPA[:, :, knuckle]
        for row, place in enumerate(range(first + 12, 33, 2)):
            pose_BTPA[:, :, place] = torch.tensor([0.65 * side, 2.4 + 1.6 * min(row, 2), 0.0])
    return pose_BTPA
