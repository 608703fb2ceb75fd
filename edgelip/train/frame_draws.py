"""Which frames of each clip a network gets and which of them are hidden: the drawing, and what the draws mean.

Draws are small integer tensors on the CPU, made from a CPU generator, so that they are the same on every device.
Axes: B clips, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

MaskLaw = Literal["own", "published"]


@final
@dataclass(frozen=True, eq=False)
class FrameDraws:
    """What happens to the frames of each clip, in this order; None leaves them as they are.

    shifts_B: frame t becomes frame t + shift, the first or last one beyond the ends.
    windows_B2: first frame that is kept, and how many are. Kept frames move to the front.
    masks_B2: first frame that is hidden, of those kept, and how many are; may be none, or run past the end.
    """

    shifts_B: Tensor | None = None
    windows_B2: Tensor | None = None
    masks_B2: Tensor | None = None

    @property
    def lengths_B(self) -> Tensor | None:
        """Frames of each clip; None where all clips keep all."""
        return None if self.windows_B2 is None else self.windows_B2[:, 1]

    def sources_BT(self, num_clips: int, num_frames: int) -> Tensor:
        """The stored frame behind each frame given to the network, T as many as the longest clip keeps."""
        if self.windows_B2 is None:
            places_BT = torch.arange(num_frames).expand(num_clips, -1)
        else:
            first_B1, count_B1 = self.windows_B2[:, :1], self.windows_B2[:, 1:]
            places_BT = first_B1 + torch.minimum(torch.arange(int(count_B1.max())), count_B1 - 1)
        if self.shifts_B is None:
            return places_BT
        return (places_BT + self.shifts_B[:, None]).clamp(0, num_frames - 1)

    def boundaries_B2(self, boundaries_B2: Tensor, num_frames: int) -> Tensor:
        """Where the word lies afterwards: what moves out of the clip ends at its edge."""
        last = num_frames - 1
        if self.shifts_B is not None:
            boundaries_B2 = (boundaries_B2 - self.shifts_B[:, None].to(boundaries_B2.device)).clamp(0, last)
        if self.windows_B2 is not None:
            windows_B2 = self.windows_B2.to(boundaries_B2.device)
            boundaries_B2 = torch.minimum((boundaries_B2 - windows_B2[:, :1]).clamp(min=0), windows_B2[:, 1:] - 1)
        return boundaries_B2

    def hidden_BT(self, num_frames: int) -> Tensor | None:
        """True where a frame is masked."""
        if self.masks_B2 is None:
            return None
        frames_T, start_B1 = torch.arange(num_frames), self.masks_B2[:, :1]
        return (frames_T >= start_B1) & (frames_T < start_B1 + self.masks_B2[:, 1:])


def drawn_shifts(num_clips: int, most: int, generator: torch.Generator) -> Tensor:
    """One of -most..most frames a clip."""
    return torch.randint(-most, most + 1, (num_clips, 1), generator=generator)[:, 0]


def drawn_windows(boundaries_B2: Tensor, num_frames: int, generator: torch.Generator) -> Tensor:
    """Variable length: a window of each clip that holds its word, every beginning and every end before and after it
    equally likely. First frame, number of frames. Source: Martinez et al., ICASSP 2020; for training only.
    """
    first_B, last_B = boundaries_B2.cpu().unbind(dim=1)
    draws_B2 = torch.rand(len(first_B), 2, generator=generator, dtype=torch.float64)
    left_B = (draws_B2[:, 0] * (first_B + 1)).long()
    right_B = last_B + 1 + (draws_B2[:, 1] * (num_frames - last_B)).long()
    return torch.stack([left_B, right_B - left_B], dim=1)


def drawn_masks(lengths_B: Tensor, longest: int, generator: torch.Generator, *, law: MaskLaw = "own") -> Tensor:
    """One stretch of frames a clip to hide: start, number.

    own: 0..longest frames, every number and every place inside the clip equally likely.
    published: the draws of the published LRW recipe (Ma et al. 2021): t and the number m, both in 0..longest - 1 and
    independent; start below length - t, nothing where t is 0 or the clip is no longer than t. So the stretch may run
    past the end, and tends to the front.
    """
    num_clips, lengths_B1 = len(lengths_B), lengths_B[:, None]
    if law == "own":
        count_B1 = torch.randint(0, longest + 1, (num_clips, 1), generator=generator).minimum(lengths_B1)
        room_B1 = lengths_B1 - count_B1 + 1
    else:
        drawn_B2 = torch.randint(0, longest, (num_clips, 2), generator=generator)
        room_B1 = lengths_B1 - drawn_B2[:, :1]
        count_B1 = torch.where((drawn_B2[:, :1] == 0) | (room_B1 <= 0), 0, drawn_B2[:, 1:])
    start_B1 = (torch.rand(num_clips, 1, generator=generator) * room_B1.clamp(min=1)).long()
    return torch.cat([start_B1, count_B1], dim=1)
