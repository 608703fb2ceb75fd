"""Stored gray frames to the normalised clips of a network, given what was settled.

On the CPU clip by clip, so that everything but the result stays in the cache: 0.1 ms for 29 frames of 88 x 88
(benchmarks/feeding.py). Elsewhere as one gather over the batch.
Axes: B clips, T frames, S stored pixels a side, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import cv2
import numpy as np
import torch
from torch import Tensor

from edgelip.errors import ShapeError
from edgelip.runtime.clip import ClipSpec
from edgelip.train.frame_draws import FrameDraws


@final
@dataclass(frozen=True, eq=False)
class PixelDraws:
    """What happens to the pixels of each clip, the same in all its frames; tensors on the CPU.

    corners_B2: row and column of the crop's corner; None takes the middle. flips_B: true mirrors left and right.
    gains_B, lifts_B: grey level after normalisation, gain x grey + lift.
    """

    corners_B2: Tensor | None = None
    flips_B: Tensor | None = None
    gains_B: Tensor | None = None
    lifts_B: Tensor | None = None


@final
class Room:
    """Memory for the clips of one batch after another, on the CPU: what `take` gave holds until it is asked again.

    New memory for each batch would cost as much again as making the clips, above 32 MB (benchmarks/feeding.py).
    """

    def __init__(self) -> None:
        self._floats = np.empty(0, np.float32)

    def take(self, shape: Sequence[int]) -> Tensor:
        num_floats = math.prod(shape)
        if len(self._floats) < num_floats:
            self._floats = np.empty(num_floats, np.float32)  # numpy asks for huge pages, torch does not
        return torch.from_numpy(self._floats[:num_floats].reshape(tuple(shape)))


def clips_from_frames(
    frames_BTSS: Tensor, spec: ClipSpec, pixels: PixelDraws, times: FrameDraws, *, room: Room | None = None
) -> Tensor:
    """Float32 (B, 1, T, H, W) from uint8 frames: frames chosen, cropped, flipped, (x / 255 - mean) / std, masked.

    Masked frames become the mean of the normalised clip, frames beyond a clip's length 0. T is that of the longest.
    room: memory to write them to, on the CPU. Raises ShapeError for frames of another size or type.
    """
    side = spec.stored_px
    if frames_BTSS.dtype != torch.uint8 or frames_BTSS.ndim != 4 or frames_BTSS.shape[2:] != (side, side):
        raise ShapeError(
            f"stored frames are {frames_BTSS.dtype} {tuple(frames_BTSS.shape)}; expected torch.uint8 "
            f"(B, T, {side}, {side}). Prepare the clips for this contract."
        )
    settled = _settled(len(frames_BTSS), spec, pixels)
    if frames_BTSS.device.type == "cpu":
        return _clip_by_clip(frames_BTSS, spec.input_px, settled, times, room or Room())
    return _gathered(frames_BTSS, spec.input_px, settled, times)


@dataclass(frozen=True, eq=False)
class _Settled:
    """Draws with every default filled in: a clip is scale x grey level + shift."""

    corners_B2: Tensor
    flips_B: Tensor
    scales_B: Tensor
    shifts_B: Tensor


def _settled(num_clips: int, spec: ClipSpec, pixels: PixelDraws) -> _Settled:
    corners, flips = pixels.corners_B2, pixels.flips_B
    gains = torch.ones(num_clips) if pixels.gains_B is None else pixels.gains_B
    lifts = torch.zeros(num_clips) if pixels.lifts_B is None else pixels.lifts_B
    return _Settled(
        torch.full((num_clips, 2), (spec.stored_px - spec.input_px) // 2) if corners is None else corners,
        torch.zeros(num_clips, dtype=torch.bool) if flips is None else flips,
        gains.double() / (255.0 * spec.std),
        (lifts.double() - gains.double() * (spec.mean / spec.std)).float(),
    )


def _clip_by_clip(frames_BTSS: Tensor, side: int, settled: _Settled, times: FrameDraws, room: Room) -> Tensor:
    num_clips, num_frames = frames_BTSS.shape[:2]
    stored = frames_BTSS.contiguous().numpy()
    sources = times.sources_BT(num_clips, num_frames)
    num_given = sources.shape[1]
    firsts, chosen = sources[:, 0].tolist(), sources.numpy()
    lengths = [num_given] * num_clips if times.lengths_B is None else times.lengths_B.tolist()
    masks = [(0, 0)] * num_clips if times.masks_B2 is None else times.masks_B2.tolist()
    clips = room.take((num_clips, 1, num_given, side, side))
    crop, grey = np.empty((num_given, side, side), np.uint8), torch.empty(num_given, side, side)
    row = np.dtype((np.void, side))  # rows of pixels copied whole: 3 times as fast as pixels
    crop_rows, seen, levels = crop.view(row), torch.from_numpy(crop), grey.numpy()
    each = zip(
        clips[:, 0].unbind(),
        settled.corners_B2.tolist(),
        settled.flips_B.tolist(),
        settled.scales_B.tolist(),
        settled.shifts_B.unbind(),
        strict=True,
    )
    for index, (clip, (top, left), flip, scale, shift) in enumerate(each):
        length, first = lengths[index], firsts[index]
        if times.shifts_B is None:
            window = stored[index, first : first + length, top : top + side, left : left + side]
        else:
            window = stored[index, chosen[index, :length], top : top + side, left : left + side]
        now, level, rows = seen, grey, crop_rows
        if length < num_given:
            clip[length:] = 0
            clip, now, level, rows = clip[:length], seen[:length], grey[:length], crop_rows[:length]
        np.copyto(rows, window.view(row))
        pixels_FW = crop[:length].reshape(-1, side)
        if flip:
            cv2.flip(pixels_FW, 1, dst=pixels_FW)
        level.copy_(now)
        start, count = masks[index]
        if count:  # a sum of integers, exact and 6 times as fast as that of floats
            levels[start : min(start + count, length)] = cv2.sumElems(pixels_FW)[0] / pixels_FW.size
        torch.add(shift, level, alpha=scale, out=clip)
    return clips


def _gathered(frames_BTSS: Tensor, side: int, settled: _Settled, times: FrameDraws) -> Tensor:
    """The same without a loop over clips, for devices where each operation costs a launch."""
    device = frames_BTSS.device
    num_clips, num_frames = frames_BTSS.shape[:2]
    sources_BT = times.sources_BT(num_clips, num_frames)
    num_given = sources_BT.shape[1]
    columns_BW = settled.corners_B2[:, 1:] + torch.arange(side)
    columns_BW = torch.where(settled.flips_B[:, None], columns_BW.flip(1), columns_BW).to(device)
    rows_BH = (settled.corners_B2[:, :1] + torch.arange(side)).to(device)
    clip_B = torch.arange(num_clips, device=device)
    grey = frames_BTSS[
        clip_B[:, None, None, None],
        sources_BT.to(device)[:, :, None, None],
        rows_BH[:, None, :, None],
        columns_BW[:, None, None, :],
    ].float()
    scale = settled.scales_B.float().to(device)[:, None, None, None]
    clips = torch.addcmul(settled.shifts_B.to(device)[:, None, None, None], grey, scale)
    lengths_B = torch.full((num_clips,), num_given) if times.lengths_B is None else times.lengths_B
    valid_BT = (torch.arange(num_given) < lengths_B[:, None]).to(device)
    hidden_BT = times.hidden_BT(num_given)
    if hidden_BT is not None:
        means_BT = clips.mean(dim=(2, 3))
        mean_B1 = (means_BT * valid_BT).sum(dim=1, keepdim=True) / lengths_B.to(device)[:, None]
        clips = torch.where(hidden_BT.to(device)[:, :, None, None], mean_B1[:, :, None, None], clips)
    if times.lengths_B is not None:
        clips = clips * valid_BT[:, :, None, None]
    return clips[:, None]
