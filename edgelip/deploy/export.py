"""A model as ONNX bytes for an engine, checked against the torch logits that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgelip.deploy.onnx_graph import (
    constants_to_initialisers,
    onnx_from_torch,
    set_metadata,
    share_initialisers,
    shorten_names,
)
from edgelip.deploy.running_form import FixedQuantiser, running_form
from edgelip.deploy.stored_form import store_weights

TOLERANCE = {"fp32": 1e-4, "int8-u8": 0.25}  # largest |difference| / max(1, |logit|) that a check allows


@dataclass(frozen=True)
class ExportedModel:
    """One ONNX file: its bytes, precision, and the multiply-adds of one clip."""

    content: bytes
    precision: str
    logits_BV: np.ndarray  # what torch gives on the clips that were exported with

    @property
    def file_name(self) -> str:
        return f"model.{self.precision}.onnx"


def export_model(model: nn.Module, clips_B1THW: Tensor, *, metadata: Mapping[str, str]) -> ExportedModel:
    """Write a classifier as ONNX: factors stored, int8 as int8, names short. clips: network inputs to compare on."""
    running = running_form(model)
    quantised = any(isinstance(module, FixedQuantiser) for module in running.model.modules())
    precision = "int8-u8" if quantised else "fp32"
    graph = onnx_from_torch(running.model, clips_B1THW)
    store_weights(graph, running.stored)
    constants_to_initialisers(graph)
    share_initialisers(graph)
    shorten_names(graph)
    set_metadata(graph, {f"edgelip.{key}": value for key, value in metadata.items()} | {"edgelip.precision": precision})
    onnx.checker.check_model(graph, full_check=True)
    with torch.no_grad():
        logits = model.eval()(clips_B1THW).numpy()
    return ExportedModel(graph.SerializeToString(deterministic=True), precision, logits)
