"""Training-time variation of clips, on the batch and on its device: what may be drawn, the drawing, and the batch.

The published LRW recipe (Ma et al., ICASSP 2022) is random_crop, flip, variable_length and time_mask_frames 15 with
time_mask_draw "published", then mixup (edgelip.train.mixing) with alpha 0.4; there time masking is worth most, mixup
comes second. On other clips the worth has to be measured: a mirrored mouth is a mouth, a mirrored sign may be another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from torch import Tensor

from edgelip.runtime.clip import ClipSpec
from edgelip.train.batch import NetworkBatch
from edgelip.train.feature_augment import FeatureVariation, varied_features
from edgelip.train.frame_draws import FrameDraws, MaskLaw, drawn_masks, drawn_shifts, drawn_windows
from edgelip.train.landmark_augment import LandmarkAugmentation, varied_landmarks
from edgelip.train.pixels import PixelDraws, Room, clips_from_frames


@final
@dataclass(frozen=True)
class Augmentation:
    """How far clips of frames are varied; the default leaves them as they are.

    flip: mirror every second clip. random_crop: any window of the stored frames instead of the middle one.
    shift_frames: most frames that a clip moves in time. brightness: most change of gain and offset of the grey level.
    time_mask_frames: longest stretch replaced by the mean of the clip; time_mask_draw: see frame_draws.drawn_masks.
    variable_length: a random window in time that holds the word; the network is told the length.
    """

    flip: bool = False
    shift_frames: int = 0
    time_mask_frames: int = 0
    brightness: float = 0.0
    random_crop: bool = False
    time_mask_draw: MaskLaw = "own"
    variable_length: bool = False


Variation: TypeAlias = Augmentation | LandmarkAugmentation | FeatureVariation


def training_batch(
    stored: Tensor,
    boundaries_B2: Tensor,
    spec: ClipSpec,
    augmentation: Variation,
    generator: torch.Generator,
    *,
    room: Room | None = None,
) -> NetworkBatch:
    """Clips as a store holds them, uint8 (B, T, S, S) or float32 (B, T, P, A), varied and normalised, on their device.
    Of cached features (B, K, T, F) one view.

    boundaries_B2: first and last frame of the word, inclusive; they move with the frames.
    room: memory that the clips of the last batch are no longer needed in.
    Without augmentation the clips equal edgelip.runtime.clip.network_input. All draws come from `generator` (CPU).
    """
    if isinstance(augmentation, LandmarkAugmentation):
        return varied_landmarks(stored, boundaries_B2, spec, augmentation, generator)
    if isinstance(augmentation, FeatureVariation):
        return varied_features(stored, boundaries_B2, augmentation, generator)
    pixels, times = drawn(stored.shape[1], boundaries_B2, spec, augmentation, generator)
    lengths_B = None if times.lengths_B is None else times.lengths_B.to(stored.device)
    return NetworkBatch(
        clips_from_frames(stored, spec, pixels, times, room=room),
        times.boundaries_B2(boundaries_B2, stored.shape[1]),
        lengths_B,
    )


def drawn(
    num_frames: int, boundaries_B2: Tensor, spec: ClipSpec, augmentation: Augmentation, generator: torch.Generator
) -> tuple[PixelDraws, FrameDraws]:
    """What happens to each clip of a batch; as many clips as there are boundaries."""
    num_clips, slack = len(boundaries_B2), spec.stored_px - spec.input_px
    corners_B2 = flips_B = gains_B = lifts_B = shifts_B = windows_B2 = masks_B2 = None
    lengths_B = torch.full((num_clips,), num_frames)
    if augmentation.random_crop and slack:
        corners_B2 = torch.randint(slack + 1, (num_clips, 2), generator=generator)
    if augmentation.flip:
        flips_B = torch.rand(num_clips, generator=generator) < 0.5
    if augmentation.shift_frames:
        shifts_B = drawn_shifts(num_clips, augmentation.shift_frames, generator)
    if augmentation.variable_length:
        moved_B2 = FrameDraws(shifts_B).boundaries_B2(boundaries_B2, num_frames)
        windows_B2 = drawn_windows(moved_B2, num_frames, generator)
        lengths_B = windows_B2[:, 1]
    if augmentation.brightness:
        gains_B = 1 + augmentation.brightness * (2 * torch.rand(num_clips, generator=generator) - 1)
        lifts_B = augmentation.brightness * (2 * torch.rand(num_clips, generator=generator) - 1)
    if augmentation.time_mask_frames:
        masks_B2 = drawn_masks(lengths_B, augmentation.time_mask_frames, generator, law=augmentation.time_mask_draw)
    return PixelDraws(corners_B2, flips_B, gains_B, lifts_B), FrameDraws(shifts_B, windows_B2, masks_B2)
