"""A model as the ONNX files that engines want, each checked against the torch logits that they came from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgelip.deploy.activation_form import pool_before_slopes, single_slopes
from edgelip.deploy.float8 import float8
from edgelip.deploy.forms import Activations, Form, Precision, Weights, forms_of
from edgelip.deploy.inner_values import InnerValues, inner_values
from edgelip.deploy.layer_names import name_layers, named_layers
from edgelip.deploy.onnx_graph import (
    INPUT,
    OUTPUT,
    constants_to_initialisers,
    onnx_from_torch,
    set_metadata,
    share_initialisers,
    shorten_names,
)
from edgelip.deploy.precision import half_precision, unsigned_activations, without_rounded_sums
from edgelip.deploy.quantiser_position import sink_quantisers
from edgelip.deploy.running_form import FixedQuantiser, RunningForm, running_form
from edgelip.deploy.stored_form import store_weights, without_building, without_whole_biases
from edgelip.errors import GoalMissed
from edgelip.runtime.check import scaled_difference
from edgelip.runtime.engines.engine import require_package

# Largest |difference| / max(1, |logit|) that a check allows. Float: sums in another order differ by 1e-5 at most.
# int8: the engine's integers equal torch's rounded floats but where a sum lies on the edge between two levels; such
# single steps moved logits by 0.02 to 0.05 at most on trained nets (11 exports x 64 clips, rms up to 0.008).
# fp16: 0.002 to 0.003 on networks at full size. fp8: 0.1 to 0.4, on untrained ones; it has 4 binary digits.
TOLERANCE: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "fp8": 0.5, "int8": 0.1}
# A net whose logits are sums of large terms (untrained weights do that) rounds by more whatever runs it: up to so many
# times what torch's float32 differs from its float64 on the same clips. float16 has 13 binary digits less. Of an int8
# net: what torch differs from itself with other kernels, whose sums come in another order. Where that moves single
# levels, an untrained net multiplies them.
ROUNDING_FACTOR: Mapping[Precision, float] = {"fp32": 3.0, "fp16": 2.0**13, "int8": 2.0}

# Kernels that sum in half precision too differ more than those here, which sum in float: the quickstart's dense net by
# 1.2e-2 in ONNX Runtime on an emulated Cortex-A76, by 2e-3 on x86. A device may differ so many times more.
HALF_SUMS = 2.0
# OpenVINO merges a sum into the convolution before it and leaves out the rounding between: closer to the float network,
# further from the trained one. Its file may differ by more than what ONNX Runtime differs without these roundings; a
# network that they move further than the limit is not OpenVINO's (an untrained DC-TCN: 1.5 to 3).
MERGING = "openvino"
MERGED_FACTOR, MERGED_LIMIT = 1.5, 0.3


@dataclass(frozen=True)
class ExportedFile:
    """One ONNX file: its bytes, what it holds, and how far ONNX Runtime is from torch on the clips exported with.

    layers: each layer's module name and the output of its node in this file, in graph order.
    """

    file_name: str
    content: bytes
    precision: Precision
    activations: Activations
    weights: Weights
    engines: tuple[str, ...]
    max_difference: float  # |difference| / max(1, |logit|)
    tolerance: float  # the largest that was allowed
    layers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Exported:
    """The files of one network, most exact first, and the torch logits that each was compared with."""

    files: tuple[ExportedFile, ...]
    logits_BV: np.ndarray


def export_model(
    model: nn.Module, clips_B1THW: Tensor, *, metadata: Mapping[str, str], precisions: Sequence[str] | None = None
) -> Exported:
    """Write a classifier as ONNX, one file per need. clips: network inputs to compare on, and to find ranges on.

    precisions: what a float network gives beside fp32, of "fp16" and "fp8"; None means fp16. A quantised network gives
    int8 alone. Raises UsageError for another precision; GoalMissed if ONNX Runtime's logits on `clips` are further from
    torch's than TOLERANCE and, except for fp8, than ROUNDING_FACTOR times what torch itself rounds; MissingError
    without ONNX Runtime.
    """
    running = running_form(model)
    forms = forms_of(
        quantised=any(isinstance(module, FixedQuantiser) for module in running.model.modules()),
        built=any(weight.is_built for weight in running.stored.values()),
        precisions=precisions,
    )
    graph = onnx_from_torch(running.model, clips_B1THW)
    constants_to_initialisers(graph)
    name_layers(graph)
    sink_quantisers(graph)
    pool_before_slopes(graph)
    single_slopes(graph)
    narrow = any(form.precision in ("fp16", "fp8") for form in forms)
    values = inner_values(graph, clips_B1THW.numpy()) if narrow else InnerValues()
    with torch.no_grad():
        logits = model.eval()(clips_B1THW).numpy()
    files = []
    for form in forms:
        content, layers = _content(graph, form, running, values, metadata)
        engines = form.engines
        difference = float(scaled_difference(_engine_logits(content, clips_B1THW.numpy(), form), logits).max())
        tolerance = TOLERANCE[form.precision]
        if tolerance < difference < float("inf") and form.precision in ROUNDING_FACTOR:
            differs = _regrouping if form.precision == "int8" else _rounding
            rounding = ROUNDING_FACTOR[form.precision] * differs(model, clips_B1THW, logits)
            tolerance = max(tolerance, rounding)
        if form.precision == "fp16":
            tolerance *= HALF_SUMS
        if form.precision == "int8" and MERGING in engines:
            merged, _ = _content(graph, form, running, values, metadata, rounded_sums=False)
            beside = float(scaled_difference(_engine_logits(merged, clips_B1THW.numpy(), form), logits).max())
            if beside <= MERGED_LIMIT:
                tolerance = max(tolerance, MERGED_FACTOR * beside)
            else:
                engines = tuple(engine for engine in engines if engine != MERGING)
        if not difference <= tolerance:
            raise GoalMissed(
                f"The export of {metadata.get('variant', 'the model')} ({form.label}) does not compute what torch "
                f"computes: max |difference| {difference:.1e} on {len(logits)} clips, limit {tolerance:.2g}. Nothing "
                f"was written; {_remedy(form)}."
            )
        files.append(
            ExportedFile(
                file_name=form.file_name,
                content=content,
                precision=form.precision,
                activations=form.activations,
                weights=form.weights,
                engines=engines,
                max_difference=difference,
                tolerance=tolerance,
                layers=layers,
            )
        )
    return Exported(tuple(files), logits)


def _remedy(form: Form) -> str:
    if form.precision in ("fp16", "fp8"):
        return f"leave {form.precision} out of the precisions"
    return "try another version of onnxruntime or torch"


def _content(
    exported: onnx.ModelProto,
    form: Form,
    running: RunningForm,
    values: InnerValues,
    metadata: Mapping[str, str],
    *,
    rounded_sums: bool = True,
) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """One file, made by passes on a copy of the exporter's graph, and the output of each layer in it."""
    graph = onnx.ModelProto()
    graph.CopyFrom(exported)
    if not rounded_sums:
        without_rounded_sums(graph)
    if form.activations == "u8":
        unsigned_activations(graph)
    if form.precision in ("fp16", "fp8"):
        half_precision(graph, values)
    if form.precision == "fp8":
        float8(graph, values)
    stored = running.stored if form.weights == "factors" else without_building(running.stored)
    if form.activations == "s8":
        stored = without_whole_biases(stored)
    store_weights(graph, stored)
    share_initialisers(graph)
    layers = named_layers(graph)
    shorten_names(graph)
    entries = {f"edgelip.{key}": value for key, value in metadata.items()} | {"edgelip.precision": form.label}
    set_metadata(graph, entries)
    onnx.checker.check_model(graph, full_check=True)
    content: bytes = graph.SerializeToString(deterministic=True)
    return content, tuple((module, node.output[0]) for module, node in layers)


@torch.no_grad()
def _rounding(model: nn.Module, clips_B1THW: Tensor, logits_BV: np.ndarray) -> float:
    """How far torch's float32 logits lie from those in float64: max |difference| / max(1, |logit|)."""
    exact_BV = deepcopy(model).double()(clips_B1THW.double()).numpy()
    return float(scaled_difference(logits_BV, exact_BV).max())


@torch.no_grad()
def _regrouping(model: nn.Module, clips_B1THW: Tensor, logits_BV: np.ndarray) -> float:
    """How far torch's logits lie from those of its other convolution kernels: max |difference| / max(1, |logit|)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of settings of GPUs, which the context restores
        with torch.backends.mkldnn.flags(enabled=False):
            others_BV = model(clips_B1THW).numpy()
    return float(scaled_difference(others_BV, logits_BV).max())


def _engine_logits(content: bytes, clips_B1THW: np.ndarray, form: Form) -> np.ndarray:
    """Logits by ONNX Runtime with all its optimisations, as a device runs the file."""
    onnxruntime: Any = require_package("onnxruntime", engine="ort")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions
    if form.precision == "fp8":  # ONNX Runtime 1.31 moves float8 past operators that it has no float8 kernel for
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (logits_BV,) = session.run([OUTPUT], {INPUT: clips_B1THW})
    return np.asarray(logits_BV)
