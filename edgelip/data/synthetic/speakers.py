"""Who speaks and how the camera sees it: every spread of the generator, speaker traits and clip conditions.

Speakers are drawn from (seed, split, number), so those of train, val and test never meet.
Axes: B clip, T frame, P articulatory parameter, G target, N word, F texture number.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from edgelip.data.synthetic.hashing import Draws, sine


@dataclass(frozen=True)
class Spreads:
    """Standard deviations (or ranges, or probabilities) of everything that varies, at severity 1.

    The one place to tune difficulty. Tuned with benchmarks/generator_controls.py.
    """

    # Speaker, how it articulates.
    speaker_log_gain: float = 0.16
    speaker_offset: float = 0.055
    speaker_log_rate: float = 0.15
    speaker_log_coarticulation: float = 0.2
    speaker_idiosyncrasy: float = 0.065
    speaker_asymmetry: float = 0.05
    # Speaker, how it looks.
    speaker_log_width: float = 0.07
    speaker_log_thickness: float = 0.18
    speaker_log_skin: float = 0.28
    speaker_log_lip: float = 0.12
    speaker_log_teeth: float = 0.15
    facial_hair_share: float = 0.25
    lipstick_share: float = 0.2
    # Clip, speech.
    clip_log_rate: float = 0.14
    clip_log_gain: float = 0.08
    log_duration: float = 0.17
    target_noise: float = 0.05
    centre_jitter_ms: float = 18.0
    pause_share: float = 0.25
    # Clip, camera.
    yaw: float = 0.22
    """sd in radians."""
    pitch: float = 0.11
    """sd in radians."""
    roll: float = 0.05
    """sd in radians."""
    log_scale: float = 0.05
    shift_px: float = 1.5
    drift_px: float = 1.0
    tracker_jitter_px: float = 0.35
    light: float = 0.2
    """sd of the relative change of brightness from the middle to the edge."""
    log_exposure: float = 0.18
    gamma: float = 0.15
    defocus_px: float = 0.8
    """sd of the extra width of edges."""
    motion_blur: float = 0.3
    """largest share of the preceding frame."""
    noise_grey: float = 4.5
    """largest sd of the sensor noise."""
    compressed_share: float = 0.5
    occluder_share: float = 0.06
    dropped_share: float = 0.08

    def scaled(self, severity: float) -> Spreads:
        """Every spread times `severity` (shares stay at most 1)."""
        values = {field.name: getattr(self, field.name) * severity for field in fields(self)}
        return Spreads(**{name: min(value, 1.0) if name.endswith("share") else value for name, value in values.items()})


@dataclass(frozen=True)
class Speakers:
    """Traits of the speaker of each clip, (B,) unless the name says more."""

    gain_B: Tensor
    offset_BP: Tensor
    idiosyncrasy_BGP: Tensor
    rate_B: Tensor
    coarticulation_B: Tensor
    accent_bits_BN: Tensor
    """Chooses the pronunciation variant of each of the 500 words."""
    lip_width_px_B: Tensor
    """Half the width of the mouth at rest."""
    upper_lip_px_B: Tensor
    lower_lip_px_B: Tensor
    cupid_bow_B: Tensor
    corner_droop_px_B: Tensor
    asymmetry_B: Tensor
    opening_px_B: Tensor
    """Distance of the lips at full jaw opening."""
    tooth_px_B: Tensor
    tooth_albedo_B: Tensor
    skin_albedo_B: Tensor
    lip_albedo_B: Tensor
    chin_px_B: Tensor
    nose_px_B: Tensor
    fold_B: Tensor
    """Depth of the nasolabial folds, 0..1."""
    hair_B: Tensor
    """Darkness of facial hair, 0 for most."""
    texture_BF: Tensor
    """Uniform numbers that make the pattern of the skin."""


def draw_speakers(draws: Draws, spreads: Spreads, num_words: int, num_targets: int, num_parameters: int) -> Speakers:
    """Traits from draws keyed by speaker."""
    s = spreads
    skin_B = 0.62 * draws.lognormal("skin", sd=s.speaker_log_skin)
    skin_B = skin_B.clamp(0.16, 0.85)
    lipstick_B = draws.chance("lipstick", s.lipstick_share)
    natural_B = 0.78 * draws.lognormal("lip", sd=s.speaker_log_lip)
    painted_B = 0.55 * draws.lognormal("paint", sd=2.0 * s.speaker_log_lip)
    hair_B = draws.uniform("hair depth", low=0.2, high=0.75) * (draws.chance("hair", s.facial_hair_share) & ~lipstick_B)
    thickness_B = draws.lognormal("thickness", sd=s.speaker_log_thickness)
    ratio_B = draws.lognormal("thickness ratio", sd=0.5 * s.speaker_log_thickness)
    return Speakers(
        gain_B=draws.lognormal("gain", sd=s.speaker_log_gain),
        offset_BP=draws.normal("offset", num_parameters, sd=s.speaker_offset),
        idiosyncrasy_BGP=draws.normal("idiosyncrasy", num_targets, num_parameters, sd=s.speaker_idiosyncrasy),
        rate_B=draws.lognormal("rate", sd=s.speaker_log_rate),
        coarticulation_B=draws.lognormal("coarticulation", sd=s.speaker_log_coarticulation),
        accent_bits_BN=draws.bits("accent", num_words),
        lip_width_px_B=24.5 * draws.lognormal("width", sd=s.speaker_log_width),
        upper_lip_px_B=5.4 * thickness_B * ratio_B,
        lower_lip_px_B=7.6 * thickness_B / ratio_B,
        cupid_bow_B=draws.uniform("bow", low=0.08, high=0.34),
        corner_droop_px_B=draws.normal("droop", sd=0.8),
        asymmetry_B=draws.normal("asymmetry", sd=s.speaker_asymmetry),
        opening_px_B=17.0 * draws.lognormal("opening", sd=0.5 * s.speaker_log_thickness),
        tooth_px_B=5.0 * draws.lognormal("tooth", sd=s.speaker_log_teeth),
        tooth_albedo_B=(0.74 * draws.lognormal("tooth albedo", sd=0.5 * s.speaker_log_teeth)).clamp(max=0.95),
        skin_albedo_B=skin_B,
        lip_albedo_B=(skin_B * torch.where(lipstick_B, painted_B, natural_B)).clamp(0.1, 0.8),
        chin_px_B=32.0 * draws.lognormal("chin", sd=0.08),
        nose_px_B=-26.0 * draws.lognormal("nose", sd=0.1),
        fold_B=draws.uniform("fold"),
        hair_B=hair_B,
        texture_BF=draws.uniform("texture", 64),
    )


@dataclass(frozen=True)
class Conditions:
    """How the camera saw each clip, (B,) unless the name says more. Pixels are of the 96x96 crop."""

    yaw_B: Tensor
    pitch_B: Tensor
    roll_B: Tensor
    scale_B: Tensor
    x_px_BT: Tensor
    """Where the middle of the mouth lies, tracker jitter included."""
    y_px_BT: Tensor
    light_x_B: Tensor
    light_y_B: Tensor
    exposure_B: Tensor
    gamma_B: Tensor
    edge_px_B: Tensor
    """Width of an edge in pixels."""
    motion_blur_B: Tensor
    noise_grey_B: Tensor
    noise_offset_B: Tensor
    """int64, where in the noise table the clip starts."""
    compression_B: Tensor
    """0 none .. 1 heavy."""
    occluder_B4: Tensor
    """x, y, radius in pixels (radius 0: none) and grey level."""
    repeated_BT: Tensor
    """True where the recorder lost the frame and repeats the one before."""


def draw_conditions(draws: Draws, spreads: Spreads, frames: int, noise_entries: int) -> Conditions:
    """Conditions from draws keyed by clip."""
    s = spreads
    times_T = torch.arange(frames, device=draws.keys_B.device).to(torch.float32) * (1.0 / 29.0)

    def path(name: str) -> Tensor:
        """A slow head movement on top of a fixed shift, and the tracker's jitter, (B, T) pixels."""
        turns_BT = draws.uniform(name + " speed", 1, low=0.2, high=1.0) * times_T + draws.uniform(name + " phase", 1)
        slow_BT = sine(turns_BT) * draws.normal(name + " drift", 1, sd=s.drift_px)
        jitter_BT = draws.normal(name + " jitter", frames, sd=s.tracker_jitter_px)
        return draws.normal(name + " shift", 1, sd=s.shift_px) + slow_BT + jitter_BT + 47.5

    compressed_B = draws.chance("compressed", s.compressed_share)
    occluded_B = draws.chance("occluded", s.occluder_share)
    dropped_B1 = draws.chance("dropped", s.dropped_share, 1)
    repeated_BT = draws.chance("repeated", 0.12, frames) & dropped_B1
    repeated_BT[:, 0] = False
    return Conditions(
        yaw_B=draws.normal("yaw", sd=s.yaw).clamp(-0.7, 0.7),
        pitch_B=draws.normal("pitch", sd=s.pitch).clamp(-0.4, 0.4),
        roll_B=draws.normal("roll", sd=s.roll),
        scale_B=draws.lognormal("scale", sd=s.log_scale),
        x_px_BT=path("x"),
        y_px_BT=path("y"),
        light_x_B=draws.normal("light x", sd=s.light),
        light_y_B=draws.normal("light y", sd=0.6 * s.light) - 0.05,
        exposure_B=draws.lognormal("exposure", sd=s.log_exposure),
        gamma_B=draws.normal("gamma", sd=s.gamma),
        edge_px_B=1.6 + draws.normal("defocus", sd=s.defocus_px).abs(),
        motion_blur_B=draws.uniform("motion blur", high=s.motion_blur).clamp(max=0.6),
        noise_grey_B=draws.uniform("noise", low=min(1.0, s.noise_grey), high=s.noise_grey),
        noise_offset_B=draws.integers("noise offset", noise_entries),
        compression_B=draws.uniform("compression", low=0.2, high=1.0) * compressed_B,
        occluder_B4=torch.stack(
            [
                draws.uniform("occluder x", low=14.0, high=82.0),
                draws.uniform("occluder y", low=58.0, high=92.0),
                draws.uniform("occluder radius", low=9.0, high=20.0) * occluded_B,
                draws.uniform("occluder grey", low=15.0, high=120.0),
            ],
            1,
        ),
        repeated_BT=repeated_BT,
    )
