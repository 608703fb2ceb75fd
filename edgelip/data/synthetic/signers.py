"""What differs between procedural signers and between their clips.

Axes: B clips, W words' shapes or places, F fingers, A coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from edgelip.data.synthetic.anatomy import NUM_FINGERS, SHAPES
from edgelip.data.synthetic.hashing import Draws

ASPECTS = (0.5625, 0.75, 1.3333334, 1.7777778)
"""Width by height of a camera's picture; landmarks are parts of each."""


@dataclass(frozen=True)
class SignerSpreads:
    """Standard deviations, of the logarithm where a factor varies; angles in turns, lengths in half shoulder widths."""

    size: float = 0.10
    place: float = 0.13  # where a signer makes the signs of one place
    place_clip: float = 0.06
    reach: float = 0.20  # how far a movement goes
    tilt: float = 0.025
    palm: float = 0.045
    curl: float = 0.09
    tempo: float = 0.20
    yaw: float = 0.02
    camera: float = 0.14
    jitter: float = 0.008
    lost: float = 0.10  # mean share of stretches in which a hand is not found
    left_handed: float = 0.12  # share of signers; not scaled

    def scaled(self, severity: float) -> SignerSpreads:
        names = [field.name for field in fields(self) if field.name != "left_handed"]
        return replace(self, **{name: severity * getattr(self, name) for name in names})


@dataclass(frozen=True)
class Signers:
    """One row a clip: the signer who makes it, and how it was made this time."""

    side_B: Tensor  # 1 right-handed, -1 left-handed
    hand_B: Tensor
    face_B2: Tensor
    places_BW2: Tensor
    reach_B: Tensor
    tilt_B: Tensor
    roll_B: Tensor
    palm_yaw_B: Tensor
    curls_BWF: Tensor
    spread_B: Tensor
    durations_B6: Tensor  # frames: still, preparation, hold, stroke, retraction, still
    yaw_B: Tensor
    aspect_B: Tensor
    scale_B: Tensor
    middle_B2: Tensor
    camera_roll_B: Tensor
    lost_B: Tensor
    jitter_B: Tensor


def draw_signers(signer: Draws, clip: Draws, spreads: SignerSpreads, num_places: int) -> Signers:
    """signer, clip: draws that depend on the signer alone, and on the clip."""
    s = spreads
    tempo_B = signer.lognormal("tempo", sd=s.tempo) * clip.lognormal("tempo", sd=0.6 * s.tempo)
    typical_6 = torch.tensor([0.0, 9.0, 2.0, 22.0, 9.0, 0.0], device=tempo_B.device)
    durations_B6 = typical_6 * clip.lognormal("durations", 6, sd=0.8 * s.tempo) * tempo_B[:, None]
    still_B2 = clip.integers("still", 9, 2).to(torch.float32)
    durations_B6[:, 0], durations_B6[:, 5] = still_B2[:, 0], still_B2[:, 1]
    place_sd = signer.normal("places", num_places, 2, sd=s.place) + clip.normal("place", 1, 2, sd=s.place_clip)
    aspects = torch.tensor(ASPECTS, device=tempo_B.device)
    return Signers(
        side_B=1.0 - 2.0 * signer.chance("left-handed", s.left_handed).to(torch.float32),
        hand_B=0.9 * signer.lognormal("hand", sd=s.size),
        face_B2=0.38 * signer.lognormal("face", 2, sd=s.size),
        places_BW2=place_sd,
        reach_B=signer.lognormal("reach", sd=s.reach) * clip.lognormal("reach", sd=0.5 * s.reach),
        tilt_B=signer.normal("tilt", sd=s.tilt) + clip.normal("tilt", sd=0.5 * s.tilt),
        roll_B=signer.normal("roll", sd=s.palm) + clip.normal("roll", sd=0.4 * s.palm),
        palm_yaw_B=signer.normal("palm", sd=s.palm) + clip.normal("palm", sd=0.4 * s.palm),
        curls_BWF=signer.normal("curls", len(SHAPES), NUM_FINGERS, sd=s.curl)
        + clip.normal("curls", 1, NUM_FINGERS, sd=0.5 * s.curl),
        spread_B=signer.lognormal("spread", sd=2 * s.curl),
        durations_B6=durations_B6,
        yaw_B=signer.normal("yaw", sd=s.yaw) + clip.normal("yaw", sd=0.7 * s.yaw),
        aspect_B=aspects[signer.integers("aspect", len(ASPECTS))],
        scale_B=0.2 * signer.lognormal("scale", sd=s.camera) * clip.lognormal("scale", sd=0.3 * s.camera),
        middle_B2=signer.normal("middle", 2, sd=0.3 * s.camera) + clip.normal("middle", 2, sd=0.15 * s.camera),
        camera_roll_B=signer.normal("camera roll", sd=0.06 * s.camera),
        lost_B=signer.uniform("lost", high=2 * s.lost),
        jitter_B=signer.lognormal("jitter", sd=0.3) * s.jitter,
    )
