"""Shapes of a procedural signer: hands by forward kinematics, a face of 468 points, the upper body.

Lengths are in half shoulder widths; x to the right of the picture, y down, z away from the camera.
Axes: ... any leading axes, F fingers, J joints, P points, A coordinates (x, y, z).
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from edgelip.data.synthetic.hashing import sine

NUM_FINGERS = 5
SHAPES: dict[str, tuple[tuple[float, ...], float]] = {
    # curl of thumb, index, middle, ring and little finger (0 straight, 1 closed), then how far they are spread
    "flat": ((0.2, 0.0, 0.0, 0.0, 0.0), 0.2),
    "claw": ((0.3, 0.45, 0.45, 0.45, 0.45), 1.0),
    "fist": ((0.8, 1.0, 1.0, 1.0, 1.0), 0.0),
    "vee": ((0.8, 0.0, 0.0, 1.0, 1.0), 1.0),
    "point": ((0.8, 0.0, 1.0, 1.0, 1.0), 0.0),
    "wye": ((0.0, 1.0, 1.0, 1.0, 0.0), 0.8),
    "ell": ((0.0, 0.0, 1.0, 1.0, 1.0), 0.5),
    "round": ((0.5, 0.6, 0.6, 0.6, 0.6), 0.0),
}
# Of a hand of length 1, palm to the camera, fingers up, thumb to the right: knuckles, splay in turns, phalanges, and
# the flexion of each joint of a closed finger in turns. Proportions are rough; nothing is measured on people.
_KNUCKLES = ((0.18, 0.12), (0.17, 0.50), (0.03, 0.52), (-0.10, 0.49), (-0.21, 0.43))
_SPLAY = (0.13, 0.035, 0.005, -0.03, -0.065)
_PHALANGES = ((0.17, 0.14, 0.11), (0.21, 0.125, 0.095), (0.22, 0.13, 0.10), (0.21, 0.125, 0.095), (0.17, 0.10, 0.075))
_FLEXION = ((0.06, 0.12, 0.12), *[(0.22, 0.27, 0.16)] * 4)

_OUTER_LIP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
_INNER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
_RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173)
_LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398)


def hand_points(curls_F: Tensor, spread: Tensor) -> Tensor:
    """21 points (..., 21, 3) of a right hand of length 1, its wrist at 0, palm to the camera, fingers up.

    curls_F: (..., 5); spread: (...).
    """
    zero = torch.zeros_like(spread)
    points = [torch.stack([zero, zero, zero], dim=-1)]
    for finger in range(NUM_FINGERS):
        curl = curls_F[..., finger]
        gain = (0.45 + 0.75 * spread) if finger else (1.2 - 0.9 * curl)
        splay = _SPLAY[finger] * gain
        sideways, onward = sine(splay), sine(splay + 0.25)
        x, y = _KNUCKLES[finger]
        place = torch.stack([zero + x, zero - y, zero], dim=-1)
        points.append(place)
        flexion = zero
        for length, most in zip(_PHALANGES[finger], _FLEXION[finger], strict=True):
            flexion = flexion + most * curl
            along, out = sine(flexion + 0.25), sine(flexion)
            step = torch.stack([sideways * along, -onward * along, -out], dim=-1)
            place = place + step * length
            points.append(place)
    return torch.stack(points, dim=-2)


def turned(points_PA: Tensor, *, roll: Tensor, yaw: Tensor) -> Tensor:
    """Points (..., P, 3) turned about the vertical axis by `yaw`, then in the picture by `roll`; turns, (...)."""
    x, y, z = points_PA.unbind(-1)
    sin, cos = sine(yaw)[..., None], sine(yaw + 0.25)[..., None]
    x, z = x * cos + z * sin, z * cos - x * sin
    sin, cos = sine(roll)[..., None], sine(roll + 0.25)[..., None]
    return torch.stack([x * cos - y * sin, x * sin + y * cos, z], dim=-1)


@cache
def face_template() -> Tensor:
    """468 points (468, 3) about the middle of a face of half width 1; pairs of `PointSet.mirror` are mirrored.

    Lips, eyes and nose have their places; all other points are spread over the oval.
    """
    face = torch.empty(468, 3)
    for index in range(468):  # a sunflower's spiral
        radius, angle = math.sqrt((index + 0.5) / 468), index * 2.399963
        face[index, 0], face[index, 1] = radius * math.cos(angle), 1.3 * radius * math.sin(angle)
    for ring, width, height in ((_OUTER_LIP, 0.42, 0.17), (_INNER_LIP, 0.33, 0.06)):
        for place, index in enumerate(ring):
            angle = math.pi * (1 - 2 * place / len(ring))
            face[index, 0], face[index, 1] = width * math.cos(angle), 0.72 - height * math.sin(angle)
    for side, eye in ((-1, _RIGHT_EYE), (1, _LEFT_EYE)):
        for place, index in enumerate(eye):
            share = place / 8 if place <= 8 else (place - 8) / 8
            bend = 1 if place <= 8 else -1  # lower lid, then upper lid, from the outer corner to the inner one
            face[index, 0] = side * (0.45 + 0.2 * math.cos(math.pi * share))
            face[index, 1] = -0.28 + bend * 0.08 * math.sin(math.pi * share)
    for index, x, y in ((1, 0.0, 0.22), (2, 0.0, 0.34), (98, -0.15, 0.3), (327, 0.15, 0.3)):
        face[index, 0], face[index, 1] = x, y
    face[:, 2] = 0.6 * (face[:, 0] ** 2 + 0.5 * face[:, 1] ** 2) - 0.5
    face[[1, 2], 2] -= 0.3
    return (face * 4096).round() / 4096  # cos and sin differ by an ulp between machines


OPENED = {**dict.fromkeys(_INNER_LIP[1:10], -0.5), **dict.fromkeys((*_INNER_LIP[11:], *_OUTER_LIP[11:]), 1.0)}
"""How far each point of the lips goes down when the mouth opens by 1."""
