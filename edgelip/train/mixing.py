"""Two clips in one: mixup and cutmix over a batch, and how much of each clip is still itself.

Axes: B clips, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from torch import Tensor

from edgelip.train.batch import NetworkBatch
from edgelip.train.pixels import Room

Cut = Literal["tube", "span", "box"]
_CUT_AXES: dict[Cut, tuple[int, ...]] = {"tube": (1, 2), "span": (0,), "box": (0, 1, 2)}


@final
@dataclass(frozen=True, eq=False)
class Mixing:
    """Each clip's partner, and what it gets of it.

    share: of the first clip, in every pixel; of no meaning where there is a window.
    window: frames, rows and columns that are the partner's instead, the same in all clips.
    """

    partner_B: Tensor
    share: float = 1.0
    window: tuple[slice, slice, slice] | None = None


def mixed(batch: NetworkBatch, mixing: Mixing, *, room: Room | None = None) -> tuple[NetworkBatch, Tensor]:
    """The mixed clips, and the share (B,) of the first in each, by which labels are mixed.

    Lengths and word boundaries stay those of the first clip (published: Ma et al. 2022). With a window, the partner
    gives the pixels of frames that it has, and the share is that of pixels within the first clip's length.
    room: memory to write them to, on the CPU; not that of the batch.
    """
    clips = batch.clips
    place = clips.new_empty(clips.shape) if room is None or clips.device.type != "cpu" else room.take(clips.shape)
    partner_B = mixing.partner_B.to(clips.device)
    if mixing.window is None:
        blended = torch.index_select(clips, 0, partner_B, out=place).lerp_(clips, mixing.share)
        return replace(batch, clips=blended), clips.new_full((len(clips),), mixing.share)
    frames, rows, columns = mixing.window
    num_frames, height, width = clips.shape[2:]
    lengths_B = clips.new_full((len(clips),), num_frames) if batch.lengths_B is None else batch.lengths_B
    both_B = torch.minimum(lengths_B, lengths_B[partner_B])
    given_BT = torch.arange(num_frames, device=clips.device)[frames] < both_B[:, None]
    where = (slice(None), slice(None), frames, rows, columns)
    pasted = place.copy_(clips)
    pasted[where] = torch.where(given_BT[:, None, :, None, None], clips[where].index_select(0, partner_B), clips[where])
    area = len(range(height)[rows]) * len(range(width)[columns])
    shares_B = 1 - given_BT.sum(dim=1) * area / (lengths_B * height * width)
    return replace(batch, clips=pasted), shares_B.to(clips.dtype)


def drawn_mixing(
    num_clips: int,
    shape_THW: Sequence[int],
    generator: torch.Generator,
    *,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
    cut: Cut = "tube",
) -> Mixing | None:
    """Mixup (Zhang et al., ICLR 2018) or cutmix (Yun et al., ICCV 2019), each with its Beta(alpha, alpha).

    alpha 0 leaves it out; with both, each batch takes one of them at random; None where neither is asked for.
    cut: which part of a clip a window takes. "tube": rows and columns of every frame, the best choice in VideoMix
    (Yun et al. 2020, on actions); "span": some frames whole; "box": frames, rows and columns. A window's centre may lie
    anywhere, what lies outside the clip is cut off. On LRW mixup with alpha 0.4 is worth most after time masking
    (published: Ma et al. 2022); for cutmix on lips no figure was found.
    """
    cuts = cutmix_alpha > 0
    if cuts and mixup_alpha > 0:
        cuts = bool(torch.rand(1, generator=generator) < 0.5)
    alpha = cutmix_alpha if cuts else mixup_alpha
    if alpha <= 0:
        return None
    share, partner_B = _beta_and_partners(num_clips, alpha, generator)
    if not cuts:
        return Mixing(partner_B, share)
    axes = _CUT_AXES[cut]
    window = [slice(0, size) for size in shape_THW]
    for axis in axes:
        size = shape_THW[axis]
        length = round(size * (1 - share) ** (1 / len(axes)))
        start = int(torch.randint(size, (1,), generator=generator)) - length // 2
        window[axis] = slice(max(0, start), max(0, min(size, start + length)))
    return Mixing(partner_B, window=(window[0], window[1], window[2]))


def _beta_and_partners(num_clips: int, alpha: float, generator: torch.Generator) -> tuple[float, Tensor]:
    beta = torch.distributions.Beta(alpha, alpha)
    seed = int(torch.randint(2**31, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # Beta takes no generator
        share = float(beta.sample())
    return share, torch.randperm(num_clips, generator=generator)
