"""Networks that read isolated signs from landmarks: the tutorial's linear baseline, and convolutions with attention.

Axes: B clips, T frames, P landmarks, A axes of a landmark, F numbers a frame, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgelip.errors import ShapeError
from edgelip.models.blocks import Add, ConvNorm, masked
from edgelip.models.transformer import Attention

LAGS = (1, 2)
# Below this a coordinate counts as lost: what is lost is exactly 0, and what is found is hardly ever this near to it.
NEAREST = 1e-6
# Steps between frames reach half as far as coordinates do (99.99 % of either, 20 clips of ASL resampled to 32 frames):
# scaled so, both fill the levels of one int8 tensor.
STEP_GAIN = 2.0
NORM_MOMENTUM = 0.05  # of the newest batch; Keras's 0.95 the other way round


class Landmarks(nn.Module):
    """The coordinates of each frame as one row: (B, 1, T, P, A) -> (B*T, P*A)."""

    def __init__(self, num_points: int, num_axes: int) -> None:
        super().__init__()
        self.num_points, self.num_axes = num_points, num_axes
        self.num_features = num_points * num_axes

    def forward(self, clips_B1TPA: Tensor) -> Tensor:
        return frames_as_rows(clips_B1TPA, self.num_points, self.num_axes).flatten(0, 1)


def frames_as_rows(clips_B1TPA: Tensor, num_points: int, num_axes: int) -> Tensor:
    """(B, T, P*A). Raises ShapeError for other landmarks than the network was built for."""
    if clips_B1TPA.shape[3:] != (num_points, num_axes):
        raise ShapeError(
            f"clips have shape {tuple(clips_B1TPA.shape)}; expected (B, 1, T, {num_points}, {num_axes}): this network "
            f"reads {num_points} landmarks of {num_axes} axes. Prepare clips with the landmarks of its contract."
        )
    return clips_B1TPA.squeeze(1).flatten(2)


class MovingLandmarks(nn.Module):
    """Coordinates and their steps from 1 and 2 frames before, through a linear layer with BN: -> (B*T, width).

    A step is 0 where a clip begins, and where either of its ends is lost (0): a hand that comes into view has not
    moved. Clips hold plain landmarks, so that nothing outside the network knows of steps.
    """

    def __init__(self, num_points: int, num_axes: int, width: int) -> None:
        super().__init__()
        self.num_points, self.num_axes = num_points, num_axes
        num_features = (1 + len(LAGS)) * num_points * num_axes
        self.stem = ConvNorm(nn.Linear(num_features, width, bias=False), nn.BatchNorm1d(width, momentum=NORM_MOMENTUM))

    def forward(self, clips_B1TPA: Tensor) -> Tensor:
        x_BTF = frames_as_rows(clips_B1TPA, self.num_points, self.num_axes)
        return self.stem(with_steps(x_BTF).flatten(0, 1))  # type: ignore[no-any-return]


def with_steps(x_BTF: Tensor) -> Tensor:
    """(B, T, 3 F): the coordinates, then STEP_GAIN times their steps from 1 and from 2 frames before."""
    found_BTF = (x_BTF * x_BTF * (1 / NEAREST**2)).clamp(0, 1)  # 1 where found, 0 where lost
    num_frames = x_BTF.shape[1]
    parts = [x_BTF]
    for lag in LAGS:
        # Slices count from the front: a clip may be shorter than the lag.
        before_BTF = functional.pad(x_BTF, (0, 0, lag, 0))[:, :num_frames]
        found_before_BTF = functional.pad(found_BTF, (0, 0, lag, 0))[:, :num_frames]
        parts.append((x_BTF - before_BTF) * (found_BTF * found_before_BTF * STEP_GAIN))
    return torch.cat(parts, dim=2)


class LinearFrames(nn.Module):
    """Linear - ReLU on each row: (N, F) -> (N, width)."""

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, width)
        self.act = nn.ReLU()
        self.num_features = width

    def forward(self, x_NF: Tensor) -> Tensor:
        return self.act(self.linear(x_NF))  # type: ignore[no-any-return]


class NoTemporal(nn.Module):
    """No temporal net: frames are averaged as they are.

    averages_all: each frame becomes the mean over all, so that padding counts whatever the lengths are.
    """

    def __init__(self, *, averages_all: bool = False) -> None:
        super().__init__()
        self.averages_all = averages_all

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        return x_BCT.mean(dim=2, keepdim=True).expand_as(x_BCT) if self.averages_all else x_BCT


class DropPath(nn.Module):
    """In training, zero for a share of the clips, the others scaled up (Huang et al., ECCV 2016)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x_BCT: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return x_BCT
        kept_B11 = torch.rand(len(x_BCT), 1, 1, device=x_BCT.device) >= self.share
        return x_BCT * kept_B11.to(x_BCT.dtype) / (1 - self.share)


class ChannelAttention(nn.Module):
    """Channels scaled by sigmoid(a convolution over neighbouring channels of their means over the valid frames).

    Source: ECA-Net, Wang et al., CVPR 2020.
    """

    def __init__(self, kernel: int = 5) -> None:
        super().__init__()
        self.mix = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        mean_BC = x_BCT.mean(dim=2) if mask_B1T is None else x_BCT.sum(dim=2) / mask_B1T.sum(dim=2)
        scale_B1C = torch.sigmoid(self.mix(mean_BC.unsqueeze(1)))
        return x_BCT * scale_B1C.transpose(1, 2)


class SignConvBlock(nn.Module):
    """1x1 convolution - Swish - depthwise convolution over time - BN - channel attention - 1x1, added to the input.

    causal: a frame sees itself and those before it; else as many on either side. The channel attention still sees the
    whole clip.
    """

    def __init__(self, width: int, *, kernel: int, expansion: int, causal: bool, drop_path: float) -> None:
        super().__init__()
        inner = width * expansion
        self.expand = nn.Conv1d(width, inner, 1)
        self.act = nn.SiLU()
        self.ahead = kernel - 1 if causal else 0  # zeros before the clip
        conv = nn.Conv1d(inner, inner, kernel, padding=0 if causal else kernel // 2, groups=inner, bias=False)
        self.depthwise = ConvNorm(conv, nn.BatchNorm1d(inner, momentum=NORM_MOMENTUM))
        self.attend = ChannelAttention()
        self.project = nn.Conv1d(inner, width, 1)
        self.drop_path = DropPath(drop_path)
        self.add = Add()

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        hidden = masked(self.act(self.expand(x_BCT)), mask_B1T)
        if self.ahead:
            hidden = functional.pad(hidden, (self.ahead, 0))
        hidden = self.attend(masked(self.depthwise(hidden), mask_B1T), mask_B1T)
        return self.add(x_BCT, self.drop_path(self.project(hidden)))  # type: ignore[no-any-return]


class SignTransformerBlock(nn.Module):
    """BN - self-attention over the valid frames, added; BN - 1x1 - Swish - 1x1, added: (B, C, T) -> (B, C, T)."""

    def __init__(self, width: int, *, num_heads: int, expansion: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm1d(width, momentum=NORM_MOMENTUM)
        self.attention = Attention(width, num_heads=num_heads, mode="time", dropout=dropout, bias=False)
        self.attention_add = Add()
        self.norm2 = nn.BatchNorm1d(width, momentum=NORM_MOMENTUM)
        self.feedforward1 = nn.Conv1d(width, width * expansion, 1, bias=False)
        self.feedforward_act = nn.SiLU()
        self.feedforward2 = nn.Conv1d(width * expansion, width, 1, bias=False)
        self.feedforward_add = Add()
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        attended_BTC = self.attention(self.norm1(x_BCT).transpose(1, 2), mask_B1T)
        x_BCT = self.attention_add(x_BCT, self.drop_path(attended_BTC.transpose(1, 2)))
        inner = self.feedforward_act(self.feedforward1(self.norm2(x_BCT)))
        return self.feedforward_add(x_BCT, self.drop_path(self.feedforward2(inner)))  # type: ignore[no-any-return]


class SignTemporal(nn.Module):
    """`num_stages` times convolution blocks and a transformer block, then 1x1 to twice the width: -> (B, 2 C, T).

    dropout: share of the features that a clip loses in training, all frames of one alike: as behind the mean.
    The results of a clip depend on its valid frames only; what stands in the others is unspecified.
    """

    def __init__(
        self,
        width: int,
        *,
        num_stages: int,
        blocks: int,
        kernel: int,
        expansion: int,
        num_heads: int,
        causal: bool,
        attention_dropout: float,
        drop_path: float,
        dropout: float,
    ) -> None:
        super().__init__()

        def stage() -> Iterator[nn.Module]:
            for _ in range(blocks):
                yield SignConvBlock(width, kernel=kernel, expansion=expansion, causal=causal, drop_path=drop_path)
            yield SignTransformerBlock(
                width, num_heads=num_heads, expansion=expansion, dropout=attention_dropout, drop_path=drop_path
            )

        self.blocks = nn.ModuleList(block for _ in range(num_stages) for block in stage())
        self.top = nn.Conv1d(width, 2 * width, 1)
        self.dropout = nn.Dropout1d(dropout)
        self.num_features = 2 * width

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        for block in self.blocks:
            x_BCT = block(x_BCT, mask_B1T)
        return self.dropout(self.top(x_BCT))  # type: ignore[no-any-return]


def initialise_glorot(model: nn.Module) -> None:
    """Weights of convolutions and linear layers as Keras draws them (Glorot and Bengio 2010), biases zero."""
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
