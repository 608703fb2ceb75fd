"""What engines run: dense weights, batch normalisation folded; beside it, how each weight is stored."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgelip.compress.fake_quant import (
    ActivationQuantiser,
    QuantisedLayer,
    bare,
    fake_quantise_rows,
    row_scales,
    running_scales,
    unrounded_weight,
)
from edgelip.compress.stored_layer import StoredLayer, levels_of, stored_scales
from edgelip.compress.toolkit_quantise import is_toolkit_model, take_over
from edgelip.errors import UsageError
from edgelip.models.blocks import fold_norms
from edgelip.models.factored import FactoredLayer
from edgelip.models.hypercomplex import PHMLayer, dense_like
from edgelip.models.transformer import drop_unused_rows


@dataclass(frozen=True)
class StoredArray:
    """Numbers as the file holds them: float32, float16, or integers in 8 or 4 bits times scales.

    values: float32, rounded; scales: broadcast to them, None for floats.
    """

    values: np.ndarray
    bits: int = 32
    scales: np.ndarray | None = None

    @property
    def levels(self) -> np.ndarray:
        """The integers, as int8."""
        assert self.scales is not None
        limit = levels_of(self.bits)
        return np.clip(np.rint(self.values / self.scales.astype(np.float32)), -limit - 1, limit).astype(np.int8)


@dataclass(frozen=True)
class StoredWeight:
    """One weight as the file holds it.

    factors (terms, n, n), or fewer columns, and blocks (terms, out/n, in/n, *kernel): the layer is PHM.
    dense (out, in, *kernel): a weight without factors that is stored in other numbers than those that run.
    row_scale (out,): a folded normalisation.
    weight_scales (out,): the weight that runs is int8.
    bias: stored in other numbers than those that run; bias_scales (out,): it is stored as int32.
    """

    factors: StoredArray | None = None
    blocks: StoredArray | None = None
    dense: StoredArray | None = None
    row_scale: StoredArray | None = None
    weight_scales: np.ndarray | None = None
    bias: StoredArray | None = None
    bias_scales: np.ndarray | None = None

    @property
    def is_built(self) -> bool:
        """Whether nodes build what runs from what is stored: only engines that fold them should get those."""
        runs_as_stored = self.weight_scales is not None and self.dense is not None and self.dense.bits == 8
        return self.factors is not None or (self.dense is not None and not runs_as_stored)


@dataclass(frozen=True)
class RunningForm:
    """A dense copy of a model for the exporter, and the stored form of its weights by parameter name."""

    model: nn.Module
    stored: Mapping[str, StoredWeight]


@torch.no_grad()
def running_form(model: nn.Module) -> RunningForm:
    """Fold norms and PHM factors of a copy of `model`. Quantisers of activations stay; weights hold rounded values."""
    model = deepcopy(model).eval()
    fold_norms(model)
    drop_unused_rows(model)
    stored: dict[str, StoredWeight] = {}
    if is_toolkit_model(model):
        stored = {name: StoredWeight(weight_scales=_array(scales)) for name, scales in take_over(model).items()}
    quantised = [(n, m) for n, m in model.named_modules() if isinstance(m, QuantisedLayer)]
    for name, layer in quantised:
        path = f"{name}.layer"
        stored[f"{path}.weight"] = _stored_quantised(layer, name)
        weight, bias = layer.running_parameters()
        model.set_submodule(name, nn.Sequential())
        model.get_submodule(name).add_module("input", layer.input)
        model.get_submodule(name).add_module("layer", dense_like(bare(layer.layer), weight, bias))
        if layer.output is not None:
            model.get_submodule(name).add_module("output", layer.output)
    for name, module in _outer_layers(model):
        if _runs_factored(module):
            running, arrays = _factored(module)
            model.set_submodule(name, running)
            stored |= {f"{name}.{part}": StoredWeight(dense=array) for part, array in arrays.items()}
        elif isinstance(module, StoredLayer):
            stored[f"{name}.weight"] = _stored_floats(module, name)
            model.set_submodule(name, dense_like(module.layer, module.dense_weight(), module.stored_bias()))
    for name, module in list(model.named_modules()):
        if isinstance(module, PHMLayer):
            stored[f"{name}.weight"] = _plain_factors(module, name)
            model.set_submodule(name, dense_like(module, module.dense_weight(), module.bias))
    for name, module in list(model.named_modules()):
        if isinstance(module, ActivationQuantiser):
            model.set_submodule(name, FixedQuantiser(module))
    return RunningForm(model.requires_grad_(False), stored)


class FixedQuantiser(nn.Module):
    """QuantizeLinear and DequantizeLinear, for the exporter only: eager execution gives no values.

    torch.export cannot trace torch's own fake-quantise operators (torch 2.13: no fake kernel), so these are named.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantiser: ActivationQuantiser) -> None:
        super().__init__()
        self.register_buffer("scale", quantiser.scale.clone())
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        symbolic = torch.onnx.ops.symbolic
        levels = symbolic("QuantizeLinear", (x, self.scale, self.zero_point), dtype=torch.int8, shape=x.shape)
        return symbolic("DequantizeLinear", (levels, self.scale, self.zero_point), dtype=x.dtype, shape=x.shape)


def _stored_quantised(module: QuantisedLayer, name: str) -> StoredWeight:
    layer: Any = module.layer
    scales = running_scales(layer, unrounded_weight(layer))
    # ONNX Runtime rounds the bias of a convolution by itself; a linear layer with a float bias it runs in float.
    whole = isinstance(bare(layer), nn.Linear) and bare(layer).bias is not None
    bias_scales = _array(scales * module.input.scale) if whole else None
    weight = StoredWeight()
    if isinstance(layer, StoredLayer):
        weight = _stored_floats(layer, name)
    elif isinstance(layer, PHMLayer):
        blocks = fake_quantise_rows(layer.F, 2)  # rounded by torch, so that the file holds its levels
        weight = replace(_plain_factors(layer, name), blocks=_integers(blocks, row_scales(layer.F, 2), 8))
    return replace(weight, weight_scales=_array(scales), bias_scales=bias_scales)


def _outer_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules by name without what stored layers hold."""
    held = {module.layer for module in model.modules() if isinstance(module, StoredLayer)}
    return [(name, module) for name, module in model.named_modules() if module not in held]


def _runs_factored(module: nn.Module) -> bool:
    return isinstance(bare(module), PHMLayer) and bare(module).runs_factored()


def _factored(module: Any) -> tuple[FactoredLayer, dict[str, StoredArray]]:
    """A layer that never builds its weight, and how its parameters are stored where that is not as they run."""
    inner: Any = bare(module)
    if not isinstance(module, StoredLayer):
        return FactoredLayer(inner, inner.A, inner.F, bias=inner.bias, row_scale=inner.row_scale), {}
    factors, blocks = module.stored_factors(), module.stored_blocks()
    running = FactoredLayer(inner, factors, blocks, bias=module.stored_bias(), row_scale=module.stored_row_scale())
    plain = _rounded(inner.A, factors, 1, module.bits.factors)
    scales = None if plain.scales is None else np.tile(plain.scales.reshape(-1), inner.n)[None]
    arrays = {
        "weight": _rounded(inner.F.flatten(0, 1), blocks.flatten(0, 1), 1, module.bits.blocks),
        "mix": StoredArray(_array(running.mix), plain.bits, scales),
    }
    return running, {name: array for name, array in arrays.items() if array.bits < 32}


def _plain_factors(layer: PHMLayer, name: str) -> StoredWeight:
    """Factors in float32."""
    _refuse_boundary(layer, name)
    return StoredWeight(
        factors=StoredArray(_array(layer.used_factors())),
        blocks=StoredArray(_array(layer.F)),
        row_scale=None if layer.row_scale is None else StoredArray(_array(layer.row_scale)),
    )


def _stored_floats(layer: StoredLayer, name: str) -> StoredWeight:
    """What a layer in few bits builds its float weight from."""
    bits, inner = layer.bits, bare(layer)
    bias = _halves(layer.stored_bias(), layer.weight_bits)
    if not isinstance(inner, PHMLayer):
        return StoredWeight(dense=_rounded(inner.weight, layer.dense_weight(), 1, bits.dense), bias=bias)
    _refuse_boundary(inner, name)
    return StoredWeight(
        factors=_rounded(inner.used_factors(), layer.stored_factors(), 1, bits.factors),
        blocks=_rounded(inner.F, layer.stored_blocks(), 2, bits.blocks),
        row_scale=_halves(layer.stored_row_scale(), layer.weight_bits),
        bias=bias,
    )


def _rounded(exact: Tensor, rounded: Tensor, num_axes: int, bits: int) -> StoredArray:
    if bits >= 16:
        return StoredArray(_array(rounded), bits)
    return _integers(rounded, stored_scales(exact, num_axes, bits).half(), bits)


def _integers(rounded: Tensor, scales: Tensor, bits: int) -> StoredArray:
    aligned = scales.reshape(*scales.shape, *[1] * (rounded.ndim - scales.ndim))
    return StoredArray(_array(rounded), bits, _array(aligned))


def _halves(tensor: Tensor | None, bits: int) -> StoredArray | None:
    return None if tensor is None else StoredArray(_array(tensor), min(max(bits, 16), 32))


def _refuse_boundary(layer: PHMLayer, name: str) -> None:
    if layer.bnd is not None:
        raise UsageError(
            f"{name} takes a word-boundary indicator; a bundle takes clips only. Export a model without it."
        )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
