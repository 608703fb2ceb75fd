"""Activation functions whose input is rounded: without it ONNX Runtime runs the convolution before them in float.

It makes an integer convolution only where the rounding stands right at the output. A ReLU may stand between, since it
is merged into the rounding; a Swish or PReLU may not. On the deployed DC-TCN 85 of 108 convolutions ran in float.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from edgelip.compress.fake_quant import LEVELS, ActivationQuantiser, QuantisedAdd, QuantisedLayer
from edgelip.errors import StageError
from edgelip.registry import nearest

CURVED = (nn.SiLU, nn.PReLU)
# A slope of 1/4, as networks start with, takes every other level half way between two levels of the same scale, where
# torch and the engines round in different directions. A scale that is none of theirs keeps them apart.
OFF_HALF_WAYS = 1.0037


class QuantisedSwish(nn.Module):
    """x * sigmoid(x), x and the sigmoid rounded: a table and a product of integers on ONNX Runtime.

    The sigmoid's step is 1/127, whatever the clips: its noise is a few hundredths of that of rounding x.
    """

    def __init__(self) -> None:
        super().__init__()
        self.input = ActivationQuantiser()
        self.gate = ActivationQuantiser(fixed_scale=1 / LEVELS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input(x)
        return x * self.gate(torch.sigmoid(x))  # type: ignore[no-any-return]


class QuantisedSlope(nn.Module):
    """PReLU of a rounded input, in float."""

    def __init__(self, act: nn.PReLU) -> None:
        super().__init__()
        self.input = ActivationQuantiser(headroom=OFF_HALF_WAYS)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.input(x))  # type: ignore[no-any-return]


def quantised_activation(act: nn.Module) -> nn.Module:
    return QuantisedSwish() if isinstance(act, nn.SiLU) else QuantisedSlope(act)  # type: ignore[arg-type]


@torch.no_grad()
def curved_activations(model: nn.Module, clip_B1THW: Tensor) -> tuple[str, ...]:
    """Names of the Swish and PReLU modules that read what a quantised layer or sum gives, and nothing else.

    Found by running the model: what an activation reads does not show in its name.
    """
    made: dict[int, Tensor] = {}
    found: dict[str, bool] = {}
    handles = []

    def keep(_: nn.Module, __: object, output: Tensor) -> None:
        made[id(output)] = output  # kept, so that no other tensor gets its number

    for name, module in model.named_modules():
        if isinstance(module, (QuantisedLayer, QuantisedAdd)):
            handles.append(module.register_forward_hook(keep))
        elif isinstance(module, CURVED):

            def look(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                found[name] = found.get(name, True) and id(inputs[0]) in made

            handles.append(module.register_forward_pre_hook(look))
    try:
        model(clip_B1THW)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(name for name, follows in found.items() if follows)


def insert_activations(model: nn.Module, names: Iterable[str]) -> None:
    """Put the quantised form in place of the named activations, in place. Raises StageError for one that is none."""
    known = {name for name, module in model.named_modules() if isinstance(module, CURVED)}
    for name in names:
        if name not in known:
            raise StageError(
                f"The record rounds the activation {name!r}, which is none of this model. {nearest(str(name), known)}"
            )
        model.set_submodule(name, quantised_activation(model.get_submodule(name)))
