"""A residual trunk of basic blocks, applied to every frame."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from edgelip.models.blocks import Add, conv2d


class BasicBlock(nn.Module):
    """conv3x3 - BN - ReLU - conv3x3 - BN, added to the input (1x1 projection where the shape changes), ReLU.

    Source: He et al., CVPR 2016.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = conv2d(in_channels, out_channels, 3, stride=stride)
        self.act1 = nn.ReLU()
        self.conv2 = conv2d(out_channels, out_channels, 3)
        same = stride == 1 and in_channels == out_channels
        self.shortcut: nn.Module = nn.Identity() if same else conv2d(in_channels, out_channels, 1, stride=stride)
        self.add = Add()
        self.act2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act2(self.add(self.conv2(self.act1(self.conv1(x))), self.shortcut(x)))  # type: ignore[no-any-return]


class ResidualTrunk(nn.Module):
    """One basic block of stride 2 for each width, then the mean over the map: (B*T, C, h, w) -> (B*T, widths[-1])."""

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        sizes = [in_channels, *widths]
        self.blocks = nn.Sequential(*(BasicBlock(a, b, stride=2) for a, b in pairwise(sizes)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x).mean(dim=(2, 3))  # type: ignore[no-any-return]
