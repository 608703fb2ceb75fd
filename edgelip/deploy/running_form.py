"""What engines run: dense weights, batch normalisation folded; beside it, how each weight is stored."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgelip.compress.fake_quant import (
    ActivationQuantiser,
    QuantisedLayer,
    fake_quantise_rows,
    row_scales,
    unrounded_weight,
)
from edgelip.compress.toolkit_quantise import is_toolkit_model, take_over
from edgelip.errors import UsageError
from edgelip.models.blocks import fold_norms
from edgelip.models.hypercomplex import PHMLayer, dense_like
from edgelip.models.transformer import drop_unused_rows


@dataclass(frozen=True)
class StoredWeight:
    """One weight as the file holds it.

    factors (n, n, n), or fewer columns, and blocks (n, out/n, in/n, *kernel): the layer is PHM.
    row_scale (out,): a folded normalisation.
    weight_scales (out,): the weight that runs is int8; block_scales (n, out/n): the stored blocks are int8.
    bias_scales (out,): the bias is stored as int32.
    """

    factors: np.ndarray | None = None
    blocks: np.ndarray | None = None
    row_scale: np.ndarray | None = None
    weight_scales: np.ndarray | None = None
    block_scales: np.ndarray | None = None
    bias_scales: np.ndarray | None = None


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
    for name, module in quantised:
        path = f"{name}.layer"
        stored[f"{path}.weight"] = _stored_quantised(module)
        weight, bias = module.running_parameters()
        model.set_submodule(name, nn.Sequential())
        model.get_submodule(name).add_module("input", module.input)
        model.get_submodule(name).add_module("layer", dense_like(module.layer, weight, bias))
    for name, module in list(model.named_modules()):
        if isinstance(module, PHMLayer):
            if module.bnd is not None:
                raise UsageError(
                    f"{name} takes a word-boundary indicator; a bundle takes clips only. Export a model without it."
                )
            stored[f"{name}.weight"] = StoredWeight(
                factors=_array(module.used_factors()), blocks=_array(module.F), row_scale=_array(module.row_scale)
            )
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


def _stored_quantised(module: QuantisedLayer) -> StoredWeight:
    layer: Any = module.layer
    if not isinstance(layer, PHMLayer):
        scales = row_scales(layer.weight, 1)
        # ONNX Runtime rounds the bias of a convolution by itself; a linear layer with a float bias it runs in float.
        whole = isinstance(layer, nn.Linear) and layer.bias is not None
        return StoredWeight(
            weight_scales=_array(scales), bias_scales=_array(scales * module.input.scale) if whole else None
        )
    return StoredWeight(
        factors=_array(layer.used_factors()),
        blocks=_array(fake_quantise_rows(layer.F, 2)),  # rounded by torch, so that the file holds its levels
        row_scale=_array(layer.row_scale),
        weight_scales=_array(row_scales(unrounded_weight(layer), 1)),
        block_scales=_array(row_scales(layer.F, 2)),
    )


def _array(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().cpu().numpy()
