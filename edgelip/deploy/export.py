"""A model as ONNX bytes for an engine, checked against the torch logits that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgelip.deploy.onnx_graph import (
    INPUT,
    OUTPUT,
    constants_to_initialisers,
    onnx_from_torch,
    set_metadata,
    share_initialisers,
    shorten_names,
)
from edgelip.deploy.quantiser_position import sink_quantisers
from edgelip.deploy.running_form import FixedQuantiser, running_form
from edgelip.deploy.stored_form import store_weights
from edgelip.errors import GoalMissed
from edgelip.registry import require
from edgelip.runtime.check import scaled_difference

# Largest |difference| / max(1, |logit|) that a check allows. Float: sums in another order differ by 1e-5 at most.
# int8: the engine's integers equal torch's rounded floats but where a sum lies on the edge between two levels; such
# single steps moved logits by 0.02 to 0.05 at most on trained nets (11 exports x 64 clips, rms up to 0.008).
TOLERANCE = {"fp32": 1e-4, "int8-u8": 0.1}
# A net whose logits are sums of large terms (untrained weights do that) rounds by more than 1e-4 whatever runs it.
ROUNDING_FACTOR = 3.0  # times what float32 differs from float64 on the same clips, in torch


@dataclass(frozen=True)
class ExportedModel:
    """One ONNX file: its bytes, its precision, and how far ONNX Runtime is from torch on the clips exported with."""

    content: bytes
    precision: str
    logits_BV: np.ndarray  # what torch gives on these clips
    max_difference: float  # |difference| / max(1, |logit|)
    tolerance: float  # the largest that was allowed

    @property
    def file_name(self) -> str:
        return f"model.{self.precision}.onnx"


def export_model(model: nn.Module, clips_B1THW: Tensor, *, metadata: Mapping[str, str]) -> ExportedModel:
    """Write a classifier as ONNX: factors stored, int8 as int8, names short. clips: network inputs to compare on.

    Raises GoalMissed if ONNX Runtime's logits on `clips` are further from torch's than TOLERANCE and, for a float file,
    than ROUNDING_FACTOR times torch's own rounding; MissingError without ONNX Runtime.
    """
    running = running_form(model)
    quantised = any(isinstance(module, FixedQuantiser) for module in running.model.modules())
    precision = "int8-u8" if quantised else "fp32"
    graph = onnx_from_torch(running.model, clips_B1THW)
    constants_to_initialisers(graph)
    sink_quantisers(graph)
    store_weights(graph, running.stored)
    share_initialisers(graph)
    shorten_names(graph)
    set_metadata(graph, {f"edgelip.{key}": value for key, value in metadata.items()} | {"edgelip.precision": precision})
    onnx.checker.check_model(graph, full_check=True)
    content = graph.SerializeToString(deterministic=True)
    with torch.no_grad():
        logits = model.eval()(clips_B1THW).numpy()
    difference = float(scaled_difference(_engine_logits(content, clips_B1THW.numpy()), logits).max())
    tolerance = TOLERANCE[precision]
    if tolerance < difference < float("inf") and precision == "fp32":
        tolerance = max(tolerance, ROUNDING_FACTOR * _rounding(model, clips_B1THW, logits))
    if not difference <= tolerance:
        raise GoalMissed(
            f"The export of {metadata.get('variant', 'the model')} ({precision}) does not compute what torch computes: "
            f"max |difference| {difference:.1e} on {len(logits)} clips, limit {tolerance:.2g}. Nothing was "
            "written; try another version of onnxruntime or torch."
        )
    return ExportedModel(content, precision, logits, difference, tolerance)


@torch.no_grad()
def _rounding(model: nn.Module, clips_B1THW: Tensor, logits_BV: np.ndarray) -> float:
    """How far torch's float32 logits lie from those in float64: max |difference| / max(1, |logit|)."""
    exact_BV = deepcopy(model).double()(clips_B1THW.double()).numpy()
    return float(scaled_difference(logits_BV, exact_BV).max())


def _engine_logits(content: bytes, clips_B1THW: np.ndarray) -> np.ndarray:
    """Logits by ONNX Runtime with all its optimisations, as a device runs the file."""
    onnxruntime = require("onnxruntime", extra="ort")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (logits_BV,) = session.run([OUTPUT], {INPUT: clips_B1THW})
    return np.asarray(logits_BV)
