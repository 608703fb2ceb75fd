"""Variation of cached features: what happens in time, on what a frozen trunk made of each frame.

A time mask, a shift and a window act on features as they do on frames, but for the two frames at each cut, whose
features have seen their old neighbours; masked frames become the mean feature of the clip, not the feature of its mean.
Axes: B clips, K views of each, T frames, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from edgelip.train.batch import NetworkBatch
from edgelip.train.frame_draws import FrameDraws, MaskLaw, drawn_masks, drawn_shifts, drawn_windows


@final
@dataclass(frozen=True)
class FeatureVariation:
    """How far features are varied in time; the default takes the first view as it is. Fields as in Augmentation.

    any_view: one of the views of each clip, instead of the first.
    """

    shift_frames: int = 0
    time_mask_frames: int = 0
    time_mask_draw: MaskLaw = "own"
    variable_length: bool = False
    any_view: bool = False


def varied_features(
    features_BKTF: Tensor, boundaries_B2: Tensor, variation: FeatureVariation, generator: torch.Generator
) -> NetworkBatch:
    """Clips float32 (B, 1, T, F, 1) of stored features. Draws in the order of augment.drawn, then the view."""
    num_clips, num_views, num_frames = features_BKTF.shape[:3]
    times = _drawn_times(num_frames, boundaries_B2, variation, generator)
    view_B = torch.zeros(num_clips, dtype=torch.long)
    if variation.any_view and num_views > 1:
        view_B = torch.randint(num_views, (num_clips,), generator=generator)
    device = features_BKTF.device
    clip_B1 = torch.arange(num_clips, device=device)[:, None]
    sources_BT = times.sources_BT(num_clips, num_frames).to(device)
    features_BTF = features_BKTF[clip_B1, view_B.to(device)[:, None], sources_BT].float()
    num_given = features_BTF.shape[1]
    lengths_B = times.lengths_B
    if lengths_B is not None:
        valid_BT = (torch.arange(num_given) < lengths_B[:, None]).to(device)
        features_BTF = features_BTF * valid_BT[:, :, None]
    hidden_BT = times.hidden_BT(num_given)
    if hidden_BT is not None:
        count_B1 = torch.full((num_clips, 1), num_given) if lengths_B is None else lengths_B[:, None]
        mean_BF = features_BTF.sum(dim=1) / count_B1.to(device)
        hidden_BT = hidden_BT & (torch.arange(num_given) < count_B1)
        features_BTF = torch.where(hidden_BT.to(device)[:, :, None], mean_BF[:, None], features_BTF)
    return NetworkBatch(
        features_BTF[:, None, :, :, None],
        times.boundaries_B2(boundaries_B2, num_frames),
        None if lengths_B is None else lengths_B.to(device),
    )


def _drawn_times(
    num_frames: int, boundaries_B2: Tensor, variation: FeatureVariation, generator: torch.Generator
) -> FrameDraws:
    shifts_B = windows_B2 = masks_B2 = None
    lengths_B = torch.full((len(boundaries_B2),), num_frames)
    if variation.shift_frames:
        shifts_B = drawn_shifts(len(boundaries_B2), variation.shift_frames, generator)
    if variation.variable_length:
        moved_B2 = FrameDraws(shifts_B).boundaries_B2(boundaries_B2, num_frames)
        windows_B2 = drawn_windows(moved_B2, num_frames, generator)
        lengths_B = windows_B2[:, 1]
    if variation.time_mask_frames:
        masks_B2 = drawn_masks(lengths_B, variation.time_mask_frames, generator, law=variation.time_mask_draw)
    return FrameDraws(shifts_B, windows_B2, masks_B2)
