"""The small pieces that every family is built from."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgelip.models.hypercomplex import PHMConv


class ConvNorm(nn.Module):
    """A convolution and its batch normalisation, kept together so that the second can be folded into the first."""

    def __init__(self, conv: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


class Add(nn.Module):
    """Sum of two branches: a module, so that its inputs can be quantised."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def conv2d(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> ConvNorm:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return ConvNorm(conv, nn.BatchNorm2d(out_channels))


def conv1d(in_channels: int, out_channels: int, kernel: int, *, dilation: int = 1) -> ConvNorm:
    conv = nn.Conv1d(in_channels, out_channels, kernel, 1, dilation * (kernel // 2), dilation, bias=False)
    return ConvNorm(conv, nn.BatchNorm1d(out_channels))


def initialise(model: nn.Module) -> None:
    """He initialisation by fan out for convolutions, by fan in for linear layers (He et al. 2015)."""
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            nn.init.normal_(module.weight, std=math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels)))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=math.sqrt(1 / module.in_features))
            nn.init.zeros_(module.bias)


@torch.no_grad()
def fold_norms(model: nn.Module) -> None:
    """Fold every batch normalisation into the convolution before it, in place; the model must be in eval mode.

    A PHM layer takes the scale as `row_scale`, one number a row, so that its factors stay as they are.
    """
    for module in model.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.modules.batchnorm._BatchNorm):
            norm = module.norm
            assert norm.running_var is not None  # ours always track
            assert norm.running_mean is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            conv = module.conv
            bias = conv.bias if conv.bias is not None else torch.zeros_like(norm.running_mean)
            conv.bias = nn.Parameter((bias - norm.running_mean) * scale + norm.bias)  # type: ignore[operator]
            if isinstance(conv, PHMConv):
                conv.row_scale = scale.clone() if conv.row_scale is None else conv.row_scale * scale
            else:
                conv.weight.mul_(scale.reshape(-1, *[1] * (conv.weight.ndim - 1)))  # type: ignore[operator]
            module.norm = nn.Identity()
