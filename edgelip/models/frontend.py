"""The 3-D stem of lip-reading networks, as a 2-D convolution over stacked frames.

Axes: B clips, T frames, H rows, W columns, C channels, D stacked frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgelip.models.blocks import ActivationName, ConvNorm, activation


class StackedFrontend(nn.Module):
    """Conv3d(1 -> C, (depth, k, k), stride (1, 2, 2)) - BN - activation - max-pool 3x3 stride 2, frame by frame.

    A 3-D convolution over one channel equals a 2-D one over `depth` neighbouring frames as channels (zeros beyond the
    ends): same numbers, but engines have fast int8 kernels for the second only. Its weight (C, depth, k, k) is the
    Conv3d weight (C, 1, depth, k, k) without its second axis.
    """

    def __init__(
        self,
        width: int,
        *,
        depth: int = 5,
        kernel: int = 5,
        act: ActivationName = "relu",
        bias: bool = False,
        pool: bool = True,
    ) -> None:
        super().__init__()
        self.depth = depth
        conv = nn.Conv2d(depth, width, kernel, stride=2, padding=kernel // 2, bias=bias)
        self.stem = ConvNorm(conv, nn.BatchNorm2d(width))
        self.act = activation(act, width)
        self.pool: nn.Module = nn.MaxPool2d(3, stride=2, padding=1) if pool else nn.Identity()

    def forward(self, clips_B1THW: Tensor) -> Tensor:
        """(B, 1, T, H, W) -> (B*T, C, H/4, W/4), or H/2, W/2 without the pool."""
        return self.pool(self.act(self.stem(stack_frames(clips_B1THW, self.depth))))  # type: ignore[no-any-return]


def stack_frames(clips_B1THW: Tensor, depth: int) -> Tensor:
    """Put each frame's neighbours beside it as channels: (B, 1, T, H, W) -> (B*T, depth, H, W)."""
    num_frames, height, width = clips_B1THW.shape[2:]
    padded = functional.pad(clips_B1THW.squeeze(1), (0, 0, 0, 0, depth // 2, depth // 2))
    shifted = [padded[:, offset : offset + num_frames].unsqueeze(2) for offset in range(depth)]
    return torch.cat(shifted, dim=2).reshape(-1, depth, height, width)
