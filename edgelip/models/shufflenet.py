"""The ShuffleNetV2 trunk, applied to every frame.

Source: Ma et al., ECCV 2018; stages 2 to 4 and the last convolution, as Ma et al., ICASSP 2021 use them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgelip.errors import ShapeError, UsageError
from edgelip.models.blocks import conv2d

# Channels of the three stages and of the last convolution, by width multiplier (Ma et al. 2018, table 5).
PUBLISHED_WIDTHS: dict[float, tuple[tuple[int, ...], int]] = {
    0.5: ((48, 96, 192), 1024),
    1.0: ((116, 232, 464), 1024),
    1.5: ((176, 352, 704), 1024),
    2.0: ((244, 488, 976), 2048),
}


class ShuffleUnit(nn.Module):
    """(B*T, in, h, w) -> (B*T, out, h/stride, w/stride): two halves side by side, their channels interleaved.

    The right half is conv1x1 - depthwise 3x3 - conv1x1. The left half is the untouched first half of the channels
    (stride 1, where in = out), or depthwise 3x3 - conv1x1 (stride 2, where both halves read the whole input).
    BN after each convolution, ReLU after each 1x1.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.downsamples = stride > 1
        if self.downsamples:
            self.left_depthwise = conv2d(in_channels, in_channels, 3, stride=stride, groups=in_channels)
            self.left_pointwise = conv2d(in_channels, half, 1)
            self.left_act = nn.ReLU()
        self.right_reduce = conv2d(in_channels if self.downsamples else half, half, 1)
        self.right_act1 = nn.ReLU()
        self.right_depthwise = conv2d(half, half, 3, stride=stride, groups=half)
        self.right_expand = conv2d(half, half, 1)
        self.right_act2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        if self.downsamples:
            left, right = self.left_act(self.left_pointwise(self.left_depthwise(x))), x
        else:
            left, right = x.chunk(2, dim=1)
        right = self.right_depthwise(self.right_act1(self.right_reduce(right)))
        return interleave(torch.cat([left, self.right_act2(self.right_expand(right))], dim=1))


def interleave(x: Tensor) -> Tensor:
    """Channels 0, C/2, 1, C/2 + 1, ...: the channel shuffle of two groups."""
    num_channels, height, width = x.shape[1:]
    return x.reshape(-1, 2, num_channels // 2, height, width).transpose(1, 2).reshape(-1, num_channels, height, width)


class ShuffleTrunk(nn.Module):
    """Units of stride 1 after one of stride 2 in each stage, a 1x1 convolution, the mean over the map.

    (B*T, in_channels, h, w) -> (B*T, last). widths: even channels of each stage; repeats: its units; last: features.
    """

    def __init__(
        self, in_channels: int, *, widths: Sequence[int], last: int, repeats: Sequence[int] = (4, 8, 4)
    ) -> None:
        super().__init__()
        odd = [width for width in widths if width % 2]
        if odd:
            raise ShapeError(f"ShuffleNet stages have widths {list(widths)}; expected even ones. Change {odd}.")
        units = []
        for width, count in zip(widths, repeats, strict=True):
            for repeat in range(count):
                units.append(ShuffleUnit(in_channels, width, stride=1 if repeat else 2))
                in_channels = width
        self.units = nn.Sequential(*units)
        self.last = conv2d(in_channels, last, 1)
        self.last_act = nn.ReLU()
        self.num_features = last

    def forward(self, x: Tensor) -> Tensor:
        return self.last_act(self.last(self.units(x))).mean(dim=(2, 3))  # type: ignore[no-any-return]


def shuffle_trunk(width_multiplier: float, *, in_channels: int = 24) -> ShuffleTrunk:
    """A trunk of one of the published widths. Raises UsageError for others."""
    if width_multiplier not in PUBLISHED_WIDTHS:
        raise UsageError(
            f"ShuffleNetV2 has no published width {width_multiplier}; expected one of {list(PUBLISHED_WIDTHS)}. "
            "Give ShuffleTrunk widths and last for another."
        )
    widths, last = PUBLISHED_WIDTHS[width_multiplier]
    return ShuffleTrunk(in_channels, widths=widths, last=last)
