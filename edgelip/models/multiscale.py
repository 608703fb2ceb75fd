"""Multi-scale temporal convolutional networks: MS-TCN, its depthwise-separable form, and the densely connected DC-TCN.

Sources: Martinez et al., ICASSP 2020; Ma et al., ICASSP 2021 (depthwise) and WACV 2021 (dense, squeeze-excitation).
Axes: B clips, C channels, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgelip.models.blocks import ActivationName, Add, activation, conv1d, masked


class Excitation(nn.Module):
    """Squeeze-excitation: channels scaled by sigmoid(expand(swish(reduce(mean over the valid frames))))."""

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, channels // reduction, bias=False)
        self.act = nn.SiLU()
        self.expand = nn.Linear(channels // reduction, channels, bias=False)

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        mean_BC = x_BCT.mean(dim=2) if mask_B1T is None else x_BCT.sum(dim=2) / mask_B1T.sum(dim=2)
        scale_BC = torch.sigmoid(self.expand(self.act(self.reduce(mean_BC))))
        return x_BCT * scale_BC.unsqueeze(2)


class Branch(nn.Module):
    """One kernel size of a multi-scale set: (squeeze-excitation -) convolution - BN - activation; zero where absent."""

    def __init__(
        self, in_channels: int, width: int, kernel: int, *, dilation: int, act: ActivationName, excite: bool = False
    ) -> None:
        super().__init__()
        self.excite = Excitation(in_channels) if excite else None
        self.conv = conv1d(in_channels, width, kernel, dilation=dilation, bias=True, overhang=True)
        self.act = activation(act, width)

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        if self.excite is not None:
            x_BCT = self.excite(x_BCT, mask_B1T)
        return masked(self.act(self.conv(x_BCT)), mask_B1T)


class SeparableBranch(nn.Module):
    """Depthwise convolution - BN - activation - 1x1 convolution - BN - activation; zero where absent.

    Its activations are PReLU or ReLU only: the published nets fall back to ReLU here where the rest is Swish.
    """

    def __init__(self, in_channels: int, width: int, kernel: int, *, dilation: int, act: ActivationName) -> None:
        super().__init__()
        inner: ActivationName = "prelu" if act == "prelu" else "relu"
        self.depthwise = conv1d(in_channels, in_channels, kernel, dilation=dilation, groups=in_channels, overhang=True)
        self.depthwise_act = activation(inner, in_channels)
        self.conv = conv1d(in_channels, width, 1)
        self.act = activation(inner, width)

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        return masked(self.act(self.conv(self.depthwise_act(self.depthwise(x_BCT)))), mask_B1T)


class MultiScaleBlock(nn.Module):
    """Two sets of parallel branches, one for each kernel size, and a 1x1 residual: (B, C, T) -> (B, width, T).

    Each set is concatenated and followed by dropout; then the projected input is added, then the activation.
    excite: squeeze-excitation before each convolution of the first set.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        kernels: Sequence[int],
        dilation: int,
        dropout: float,
        act: ActivationName,
        separable: bool = False,
        excite: bool = False,
    ) -> None:
        super().__init__()
        share = width // len(kernels)

        def branches(channels: int, *, excited: bool) -> nn.ModuleList:
            if separable:
                return nn.ModuleList(SeparableBranch(channels, share, k, dilation=dilation, act=act) for k in kernels)
            return nn.ModuleList(
                Branch(channels, share, k, dilation=dilation, act=act, excite=excited) for k in kernels
            )

        self.first = branches(in_channels, excited=excite)
        self.second = branches(width, excited=False)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Conv1d(in_channels, width, 1)
        self.add = Add()
        self.act = activation(act, width)

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        hidden = self.dropout(torch.cat([branch(x_BCT, mask_B1T) for branch in self.first], dim=1))
        hidden = self.dropout(torch.cat([branch(hidden, mask_B1T) for branch in self.second], dim=1))
        return masked(self.act(self.add(hidden, self.shortcut(x_BCT))), mask_B1T)


class MultiScaleNet(nn.Module):
    """MS-TCN: `num_blocks` multi-scale blocks of dilation 1, 2, 4, ...: (B, C, T) -> (B, width, T).

    The 1x1 residual stands in every block, as published, also where the width does not change.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        num_blocks: int,
        kernels: Sequence[int],
        dropout: float,
        act: ActivationName,
        separable: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            MultiScaleBlock(
                width if i else in_channels,
                width,
                kernels=kernels,
                dilation=2**i,
                dropout=dropout,
                act=act,
                separable=separable,
            )
            for i in range(num_blocks)
        )
        self.num_features = width

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        for block in self.blocks:
            x_BCT = block(x_BCT, mask_B1T)
        return x_BCT


class Transition(nn.Module):
    """1x1 convolution - BN - activation; zero where absent."""

    def __init__(self, in_channels: int, width: int, *, act: ActivationName) -> None:
        super().__init__()
        self.project = conv1d(in_channels, width, 1)
        self.act = activation(act, width)

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        return masked(self.act(self.project(x_BCT)), mask_B1T)


class DenseBlock(nn.Module):
    """Layers that see the block's input and all earlier layers: (B, C, T) -> (B, C + layers * growth, T)."""

    def __init__(
        self,
        in_channels: int,
        *,
        num_layers: int,
        growth: int,
        kernels: Sequence[int],
        dilations: Sequence[int],
        dropout: float,
        act: ActivationName,
        excite: bool,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            MultiScaleBlock(
                in_channels + i * growth,
                growth,
                kernels=kernels,
                dilation=dilations[i % len(dilations)],
                dropout=dropout,
                act=act,
                excite=excite,
            )
            for i in range(num_layers)
        )
        self.num_features = in_channels + num_layers * growth

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        for layer in self.layers:
            x_BCT = torch.cat([x_BCT, layer(x_BCT, mask_B1T)], dim=1)
        return x_BCT


class DenselyConnectedNet(nn.Module):
    """DC-TCN: transition - dense block, `len(block_config)` times, then BN: (B, C, T) -> (B, num_features, T).

    The activation of the first transition is PReLU whatever `act` says, as published.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        reduced: int,
        block_config: Sequence[int],
        growth: Sequence[int],
        kernels: Sequence[int],
        dilations: Sequence[int],
        dropout: float,
        act: ActivationName,
        excite: bool,
    ) -> None:
        super().__init__()
        self.transitions = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for num_layers, rate in zip(block_config, growth, strict=True):
            self.transitions.append(Transition(in_channels, reduced, act=act if self.blocks else "prelu"))
            block = DenseBlock(
                reduced,
                num_layers=num_layers,
                growth=rate,
                kernels=kernels,
                dilations=dilations,
                dropout=dropout,
                act=act,
                excite=excite,
            )
            self.blocks.append(block)
            in_channels = block.num_features
        self.norm = nn.BatchNorm1d(in_channels)
        self.num_features = in_channels

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        for transition, block in zip(self.transitions, self.blocks, strict=True):
            x_BCT = block(transition(x_BCT, mask_B1T), mask_B1T)
        return self.norm(x_BCT)  # type: ignore[no-any-return]
