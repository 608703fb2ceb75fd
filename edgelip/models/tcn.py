"""Single-branch temporal convolutional networks over per-frame features.

Source: Bai et al. 2018; centred form of Martinez et al., ICASSP 2020.
Axes: B clips, C channels, T frames.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgelip.models.blocks import ActivationName, Add, activation, conv1d, masked


class TemporalBlock(nn.Module):
    """conv3 - BN - ReLU - dropout - conv3 - BN, added to the input, ReLU; dilated, centred, length kept."""

    def __init__(self, in_channels: int, width: int, *, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = conv1d(in_channels, width, 3, dilation=dilation)
        self.act1 = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv1d(width, width, 3, dilation=dilation)
        self.shortcut: nn.Module = nn.Identity() if in_channels == width else conv1d(in_channels, width, 1)
        self.add = Add()
        self.act2 = nn.ReLU()

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        hidden = masked(self.dropout(self.act1(self.conv1(x_BCT))), mask_B1T)
        return masked(self.act2(self.add(self.conv2(hidden), self.shortcut(x_BCT))), mask_B1T)


class TemporalNet(nn.Module):
    """`num_blocks` temporal blocks of dilation 1, 2, 4, ...: (B, C, T) -> (B, width, T)."""

    def __init__(self, in_channels: int, width: int, *, num_blocks: int = 3, dropout: float = 0.1) -> None:
        super().__init__()
        sizes = [in_channels] + [width] * num_blocks
        self.blocks = nn.ModuleList(
            TemporalBlock(sizes[i], width, dilation=2**i, dropout=dropout) for i in range(num_blocks)
        )
        self.num_features = width

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        for block in self.blocks:
            x_BCT = block(x_BCT, mask_B1T)
        return x_BCT


class PublishedBlock(nn.Module):
    """conv - BN - act - dropout, twice, added to the input, act: the block of the published lip-reading TCN.

    Convolutions have biases. Where the width changes the shortcut is a 1x1 convolution with bias, not normalised.
    """

    def __init__(
        self, in_channels: int, width: int, *, kernel: int, dilation: int, dropout: float, act: ActivationName
    ) -> None:
        super().__init__()
        self.conv1 = conv1d(in_channels, width, kernel, dilation=dilation, bias=True, overhang=True)
        self.act1 = activation(act, width)
        self.conv2 = conv1d(width, width, kernel, dilation=dilation, bias=True, overhang=True)
        self.act2 = activation(act, width)
        self.dropout = nn.Dropout(dropout)
        self.shortcut: nn.Module = nn.Identity() if in_channels == width else nn.Conv1d(in_channels, width, 1)
        self.add = Add()
        self.act = activation(act, width)

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        hidden = masked(self.dropout(self.act1(self.conv1(x_BCT))), mask_B1T)
        hidden = self.dropout(self.act2(self.conv2(hidden)))
        return masked(self.act(self.add(hidden, self.shortcut(x_BCT))), mask_B1T)


class PublishedNet(nn.Module):
    """`num_blocks` published blocks of dilation 1, 2, 4, ...: (B, C, T) -> (B, width, T)."""

    def __init__(
        self, in_channels: int, width: int, *, num_blocks: int, kernel: int, dropout: float, act: ActivationName
    ) -> None:
        super().__init__()
        sizes = [in_channels] + [width] * num_blocks
        self.blocks = nn.ModuleList(
            PublishedBlock(sizes[i], width, kernel=kernel, dilation=2**i, dropout=dropout, act=act)
            for i in range(num_blocks)
        )
        self.num_features = width

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        for block in self.blocks:
            x_BCT = block(x_BCT, mask_B1T)
        return x_BCT
