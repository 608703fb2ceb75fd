"""Residual trunks of basic blocks, applied to every frame."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edgelip.models.blocks import ActivationName, Add, activation, conv2d


class BasicBlock(nn.Module):
    """conv3x3 - BN - act - conv3x3 - BN, added to the input (1x1 projection where the shape changes), act.

    Source: He et al., CVPR 2016.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, act: ActivationName = "relu") -> None:
        super().__init__()
        self.conv1 = conv2d(in_channels, out_channels, 3, stride=stride)
        self.act1 = activation(act, out_channels)
        self.conv2 = conv2d(out_channels, out_channels, 3)
        same = stride == 1 and in_channels == out_channels
        self.shortcut: nn.Module = nn.Identity() if same else conv2d(in_channels, out_channels, 1, stride=stride)
        self.add = Add()
        self.act2 = activation(act, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act2(self.add(self.conv2(self.act1(self.conv1(x))), self.shortcut(x)))  # type: ignore[no-any-return]


class ResidualTrunk(nn.Module):
    """`repeats` basic blocks for each width, then the mean over the map: (B*T, C, h, w) -> (B*T, widths[-1]).

    strides: of the first block of each width. Repeats 2 and strides 1, 2, 2, 2 make the eight blocks of ResNet-18.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        *,
        strides: Sequence[int],
        repeats: int = 1,
        act: ActivationName = "relu",
    ) -> None:
        super().__init__()
        blocks = []
        for width, stride in zip(widths, strides, strict=True):
            for repeat in range(repeats):
                blocks.append(BasicBlock(in_channels, width, stride=1 if repeat else stride, act=act))
                in_channels = width
        self.blocks = nn.Sequential(*blocks)
        self.num_features = in_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x).mean(dim=(2, 3))  # type: ignore[no-any-return]
