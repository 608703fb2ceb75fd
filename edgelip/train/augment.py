"""Training-time variation of clips, on the batch and on its device.

Axes: B clips, T frames, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgelip.runtime.clip import ClipSpec


@dataclass(frozen=True)
class Augmentation:
    """How far clips are varied; the default leaves them as they are."""

    flip: bool = False
    shift_frames: int = 0
    time_mask_frames: int = 0
    brightness: float = 0.0
    random_crop: bool = False


def network_batch(
    frames_BTHW: Tensor, spec: ClipSpec, augmentation: Augmentation, generator: torch.Generator
) -> Tensor:
    """Stored uint8 frames (B, T, stored_px, stored_px) -> float32 (B, 1, T, input_px, input_px), varied and normalised.

    Without augmentation it equals edgelip.runtime.clip.network_input. All draws come from `generator` (CPU).
    """
    whole_B2 = torch.tensor([[0, frames_BTHW.shape[1] - 1]])
    return varied_batch(frames_BTHW, whole_B2, spec, augmentation, generator)[0]


def varied_batch(
    frames_BTHW: Tensor,
    boundaries_B2: Tensor,
    spec: ClipSpec,
    augmentation: Augmentation,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The clips of `network_batch`, and where the word lies in them: boundaries move with a shift in time.

    boundaries_B2: first and last frame of the word, inclusive; what a shift moves out of the clip ends at its edge.
    """
    num_clips, num_frames = frames_BTHW.shape[:2]
    slack = spec.stored_px - spec.input_px
    corners = torch.full((num_clips, 2), slack // 2)
    if augmentation.random_crop and slack:
        corners = torch.randint(slack + 1, (num_clips, 2), generator=generator)
    side = spec.input_px
    cropped = torch.stack(
        [clip[:, r : r + side, c : c + side] for clip, (r, c) in zip(frames_BTHW, corners.tolist(), strict=True)]
    )
    clips = cropped.float() * (1.0 / (255.0 * spec.std)) - spec.mean / spec.std
    if augmentation.flip:
        flipped = torch.rand(num_clips, generator=generator) < 0.5
        clips = torch.where(flipped.to(clips.device)[:, None, None, None], clips.flip(-1), clips)
    if augmentation.shift_frames:
        most = augmentation.shift_frames
        offset_B1 = torch.randint(-most, most + 1, (num_clips, 1), generator=generator)
        clips = _shift(clips, offset_B1)
        boundaries_B2 = (boundaries_B2 - offset_B1.to(boundaries_B2.device)).clamp(0, num_frames - 1)
    if augmentation.brightness:
        gain = 1 + augmentation.brightness * (2 * torch.rand(num_clips, 1, 1, 1, generator=generator) - 1)
        offset = augmentation.brightness * (2 * torch.rand(num_clips, 1, 1, 1, generator=generator) - 1)
        clips = clips * gain.to(clips.device) + offset.to(clips.device)
    if augmentation.time_mask_frames:
        clips = _mask_time(clips, augmentation.time_mask_frames, num_frames, generator)
    return clips[:, None], boundaries_B2


def _shift(clips: Tensor, offset_B1: Tensor) -> Tensor:
    """Frame t of each clip becomes its frame t + offset, the first or last one beyond its ends."""
    num_clips, num_frames = clips.shape[:2]
    source = (torch.arange(num_frames) + offset_B1).clamp(0, num_frames - 1).to(clips.device)
    return clips[torch.arange(num_clips, device=clips.device)[:, None], source]


def _mask_time(clips: Tensor, longest: int, num_frames: int, generator: torch.Generator) -> Tensor:
    """Replace one stretch of 0..longest frames of each clip by the clip's mean."""
    num_clips = len(clips)
    length = torch.randint(0, longest + 1, (num_clips, 1), generator=generator)
    start = (torch.rand(num_clips, 1, generator=generator) * (num_frames - length + 1)).long()
    frame = torch.arange(num_frames)
    masked = ((frame >= start) & (frame < start + length)).to(clips.device)[:, :, None, None]
    return torch.where(masked, clips.mean(dim=(1, 2, 3), keepdim=True), clips)
