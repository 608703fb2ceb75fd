"""Networks that run as the published code runs them: the reference of the timings, in our own writing.

Differences to ours, results being equal: PHM layers build their weight in each forward from materialised Kronecker
terms; the stem is a 3-D convolution with 3-D normalisation and pooling; temporal convolutions run over the full padded
clip, are normalised, and then cut to length.
Sources: Panagos et al., Pattern Recognition Letters 2024 (PHM as in Grassucci et al., arXiv 2110.04176); Ma et al.,
ICASSP 2021 (stem and temporal nets).
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgelip.models.blocks import ConvNorm
from edgelip.models.frontend import StackedFrontend
from edgelip.models.hypercomplex import PHMLayer, convolve


def as_published_forward(network: nn.Module) -> nn.Module:
    """A copy that computes each forward as the published code does, in training and eval; logits agree within rounding.

    The number of parameters is that of the network. A PHM stem stays a 2-D convolution over stacked frames.
    """
    network = deepcopy(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, PHMLayer):
            network.set_submodule(name, RebuiltLayer(module))
    for name, module in list(network.named_modules()):
        if isinstance(module, StackedFrontend) and isinstance(module.stem.conv, nn.Conv2d):
            network.set_submodule(name, VolumeFrontend(module))
        elif isinstance(module, ConvNorm) and module.overhang:
            network.set_submodule(name, FullConvNorm(module))
    return network


class RebuiltLayer(nn.Module):
    """Runs a PHM layer with all n Kronecker products in memory at once, (n, out, in, *kernel), then summed."""

    def __init__(self, layer: PHMLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        weight = kronecker_terms(layer.used_factors(), layer.F).sum(dim=0)
        if layer.bnd is not None:
            weight = torch.cat([weight, layer.bnd], dim=1)
        if layer.row_scale is not None:
            weight = weight * layer.row_scale.reshape(-1, *[1] * (weight.ndim - 1))
        return convolve(layer, x, weight, layer.bias)


def kronecker_terms(factors: Tensor, blocks: Tensor) -> Tensor:
    """kron(A_n, F_n) of every term: factors (n, P, Q), blocks (n, I, J, *kernel) -> (n, P*I, Q*J, *kernel)."""
    num_terms, rows, columns = factors.shape
    height, width, *kernel = blocks.shape[1:]
    spread = factors.reshape(num_terms, rows, 1, columns, 1, *[1] * len(kernel))
    return (spread * blocks[:, None, :, None]).reshape(num_terms, rows * height, columns * width, *kernel)


class VolumeFrontend(nn.Module):
    """A stem as a convolution, normalisation and pooling over (T, H, W): (B, 1, T, H, W) -> (B*T, C, h, w)."""

    def __init__(self, stem: StackedFrontend) -> None:
        super().__init__()
        stacked, norm2d = stem.stem.conv, stem.stem.norm
        width, depth, *kernel = stacked.weight.shape
        padding = (depth // 2, *stacked.padding)
        self.conv = nn.Conv3d(1, width, (depth, *kernel), (1, *stacked.stride), padding, bias=stacked.bias is not None)
        self.norm = nn.BatchNorm3d(width, eps=norm2d.eps, momentum=norm2d.momentum)
        self.act = stem.act
        pools = isinstance(stem.pool, nn.MaxPool2d)
        self.pool: nn.Module = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)) if pools else nn.Identity()
        with torch.no_grad():
            self.conv.weight.copy_(stacked.weight.unsqueeze(1))
            if self.conv.bias is not None:
                self.conv.bias.copy_(stacked.bias)
        self.norm.load_state_dict(norm2d.state_dict())
        self.train(stem.training)

    def forward(self, clips_B1THW: Tensor) -> Tensor:
        volume_BCTHW = self.pool(self.act(self.norm(self.conv(clips_B1THW))))
        return volume_BCTHW.transpose(1, 2).flatten(0, 1)  # type: ignore[no-any-return]


class FullConvNorm(nn.Module):
    """A temporal convolution over all positions that see the clip, its normalisation, then the cut to length."""

    def __init__(self, block: ConvNorm) -> None:
        super().__init__()
        self.conv, self.norm, self.overhang = block.conv, block.norm, block.overhang

    def forward(self, x: Tensor) -> Tensor:
        full = self.norm(self.conv(functional.pad(x, (self.overhang, self.overhang))))
        return full[..., self.overhang : -self.overhang].contiguous()  # type: ignore[no-any-return]
