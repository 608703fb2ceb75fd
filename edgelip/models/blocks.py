"""The small pieces that every family is built from."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgelip.models.hypercomplex import CONVOLUTIONS, PHMLayer
from edgelip.models.low_rank import LowRank

ActivationName = Literal["relu", "prelu", "swish", "silu"]


class ConvNorm(nn.Module):
    """A convolution and its batch normalisation, kept together so that the second can be folded into the first.

    overhang: in training the convolution also runs this many positions beyond each end of the last axis, so that the
    batch statistics see them: published temporal nets normalise before they cut a full convolution to length. Results
    in eval mode are the same without.
    """

    def __init__(self, conv: nn.Module, norm: nn.Module, *, overhang: int = 0) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.overhang = overhang

    def forward(self, x: Tensor) -> Tensor:
        if self.overhang and self.norm.training and not isinstance(self.norm, nn.Identity):
            wide = self.norm(self.conv(functional.pad(x, (self.overhang, self.overhang))))
            return wide[..., self.overhang : -self.overhang]  # type: ignore[no-any-return]
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


class Add(nn.Module):
    """Sum of two branches: a module, so that its inputs can be quantised."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def activation(name: ActivationName, channels: int) -> nn.Module:
    """ReLU, PReLU with one slope a channel (0.25 at first), or Swish x * sigmoid(x), which is SiLU."""
    if name == "relu":
        return nn.ReLU()
    return nn.PReLU(channels) if name == "prelu" else nn.SiLU()


def masked(x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
    """Zero beyond each clip's length: absent frames are like the zeros beyond a clip's ends."""
    return x_BCT if mask_B1T is None else x_BCT * mask_B1T


def conv2d(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1, momentum: float = 0.1
) -> ConvNorm:
    """A centred convolution with its normalisation. momentum: weight of the newest batch in running statistics."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return ConvNorm(conv, nn.BatchNorm2d(out_channels, momentum=momentum))


def conv1d(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
    overhang: bool = False,
    momentum: float = 0.1,
) -> ConvNorm:
    """A centred convolution that keeps the length, with its normalisation; overhang as ConvNorm's, over all taps."""
    reach = dilation * (kernel // 2)
    conv = nn.Conv1d(in_channels, out_channels, kernel, 1, reach, dilation, groups=groups, bias=bias)
    return ConvNorm(conv, nn.BatchNorm1d(out_channels, momentum=momentum), overhang=reach if overhang else 0)


def initialise(model: nn.Module) -> None:
    """He initialisation by fan out for convolutions, by fan in for linear layers (He et al. 2015)."""
    for module in model.modules():
        if isinstance(module, CONVOLUTIONS):
            nn.init.normal_(module.weight, std=math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels)))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=math.sqrt(1 / module.in_features))
            nn.init.zeros_(module.bias)


def initialise_as_published(model: nn.Module) -> None:
    """Initialisation of the TCN families (Ma et al.): fan out not divided by groups, zero convolution biases."""
    for module in model.modules():
        if isinstance(module, CONVOLUTIONS):
            nn.init.normal_(module.weight, std=math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels)))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=math.sqrt(2 / module.in_features))


@torch.no_grad()
def fold_norms(model: nn.Module) -> None:
    """Fold every batch normalisation into the convolution before it, in place; the model must be in eval mode.

    A PHM layer takes the scale as `row_scale`, one number a row, so that its factors stay as they are; of two layers of
    small rank the second takes it.
    """
    for module in model.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.modules.batchnorm._BatchNorm):
            norm = module.norm
            assert norm.running_var is not None  # ours always track
            assert norm.running_mean is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            conv = module.conv.second if isinstance(module.conv, LowRank) else module.conv
            bias = conv.bias if conv.bias is not None else torch.zeros_like(norm.running_mean)
            conv.bias = nn.Parameter((bias - norm.running_mean) * scale + norm.bias)  # type: ignore[operator]
            if isinstance(conv, PHMLayer):
                conv.row_scale = scale.clone() if conv.row_scale is None else conv.row_scale * scale
            else:
                conv.weight.mul_(scale.reshape(-1, *[1] * (conv.weight.ndim - 1)))  # type: ignore[operator]
            module.norm = nn.Identity()
