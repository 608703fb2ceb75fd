"""The EfficientNetV2 trunk of EfLip, applied to every frame.

Source: Tan and Le, ICML 2021; Koumparoulis and Potamianos, ICASSP 2022, in the sizes of the EfLipReading code.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgelip.errors import ShapeError
from edgelip.models.blocks import Add, conv2d


class Row(NamedTuple):
    """`repeats` blocks of one kind; the first takes stride and in_channels, the others keep map and channels."""

    expand: int  # inner channels / input channels
    kernel: int
    stride: int
    in_channels: int
    out_channels: int
    repeats: int
    kind: Literal["F", "M"]  # fused convolution, or MBConv: depthwise with squeeze-excitation


SIZES: dict[str, tuple[Row, ...]] = {
    "T": (
        Row(1, 3, 1, 8, 8, 1, "F"),
        Row(4, 3, 2, 8, 16, 2, "F"),
        Row(4, 3, 2, 16, 32, 2, "F"),
        Row(4, 3, 2, 32, 56, 3, "M"),
        Row(6, 3, 1, 56, 64, 5, "M"),
        Row(6, 3, 2, 64, 112, 8, "M"),
    ),
    "S": (
        Row(1, 3, 1, 24, 24, 2, "F"),
        Row(4, 3, 2, 24, 48, 4, "F"),
        Row(4, 3, 2, 48, 64, 4, "F"),
        Row(4, 3, 2, 64, 128, 6, "M"),
        Row(6, 3, 1, 128, 160, 9, "M"),
        Row(6, 3, 2, 160, 256, 15, "M"),
    ),
    "B": (
        Row(1, 3, 1, 24, 24, 1, "F"),
        Row(4, 3, 2, 24, 32, 2, "F"),
        Row(4, 3, 2, 32, 48, 2, "F"),
        Row(4, 3, 2, 48, 96, 3, "M"),
        Row(6, 3, 1, 96, 112, 5, "M"),
        Row(6, 3, 2, 112, 192, 8, "M"),
    ),
}


class Excitation2d(nn.Module):
    """Squeeze-excitation: channels scaled by sigmoid(expand(silu(reduce(mean over the map)))), as 1x1 convolutions."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, bottleneck, 1)
        self.act = nn.SiLU()
        self.expand = nn.Conv2d(bottleneck, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(self.act(self.reduce(mean))))


class FusedBlock(nn.Module):
    """conv kxk to the inner channels - BN - SiLU - conv1x1 - BN, added to the input where the shape stays."""

    def __init__(
        self, in_channels: int, out_channels: int, *, expand: int, kernel: int, stride: int, norm_momentum: float
    ) -> None:
        super().__init__()
        inner = in_channels * expand
        self.fused = conv2d(in_channels, inner, kernel, stride=stride, momentum=norm_momentum)
        self.act = nn.SiLU()
        self.project = conv2d(inner, out_channels, 1, momentum=norm_momentum)
        self.add = Add() if stride == 1 and in_channels == out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.act(self.fused(x)))
        return out if self.add is None else self.add(out, x)


class MBConvBlock(nn.Module):
    """conv1x1 - depthwise kxk - squeeze-excitation - conv1x1, added to the input where the shape stays.

    BN after each convolution, SiLU after the first two; the squeeze is to a quarter of the input channels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, expand: int, kernel: int, stride: int, norm_momentum: float
    ) -> None:
        super().__init__()
        inner = in_channels * expand
        self.expand = conv2d(in_channels, inner, 1, momentum=norm_momentum)
        self.act1 = nn.SiLU()
        self.depthwise = conv2d(inner, inner, kernel, stride=stride, groups=inner, momentum=norm_momentum)
        self.act2 = nn.SiLU()
        self.excite = Excitation2d(inner, max(1, in_channels // 4))
        self.project = conv2d(inner, out_channels, 1, momentum=norm_momentum)
        self.add = Add() if stride == 1 and in_channels == out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act2(self.depthwise(self.act1(self.expand(x))))
        out: Tensor = self.project(self.excite(hidden))
        return out if self.add is None else self.add(out, x)


KINDS = {"F": FusedBlock, "M": MBConvBlock}


class EfficientTrunk(nn.Module):
    """Blocks by row, a 1x1 convolution, the mean over the map, a gated linear unit over the channels.

    (B*T, rows[0].in_channels, h, w) -> (B*T, last / 2): the first half of `last` channels times sigmoid of the second.
    norm_momentum: weight of the newest batch in running statistics; 0.99 in the published code, so that they are those
    of the last batch. Raises ShapeError if a row does not take what the one before it gives, or `last` is odd.
    """

    def __init__(self, rows: Sequence[Row], *, last: int = 768, norm_momentum: float = 0.1) -> None:
        super().__init__()
        rows = [Row(*row) for row in rows]
        for number, (before, after) in enumerate(pairwise(rows), start=1):
            if before.out_channels != after.in_channels:
                raise ShapeError(
                    f"rows[{number}] takes {after.in_channels} channels; expected the {before.out_channels} that "
                    f"rows[{number - 1}] gives. Make them equal."
                )
        if last % 2:
            raise ShapeError(f"last is {last} channels; expected an even number, for one half gates the other.")
        blocks: list[nn.Module] = []
        for row in rows:
            for repeat in range(row.repeats):
                blocks.append(
                    KINDS[row.kind](
                        row.out_channels if repeat else row.in_channels,
                        row.out_channels,
                        expand=row.expand,
                        kernel=row.kernel,
                        stride=1 if repeat else row.stride,
                        norm_momentum=norm_momentum,
                    )
                )
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Conv2d(rows[-1].out_channels, last, 1, bias=False)
        self.num_features = last // 2

    def forward(self, x: Tensor) -> Tensor:
        # Published the other way round: a 1x1 convolution and a mean commute, and this order costs one pixel a map.
        pooled = self.last(self.blocks(x).mean(dim=(2, 3), keepdim=True))
        return functional.glu(pooled.flatten(1), dim=1)
