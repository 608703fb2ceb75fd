"""How large the values inside a float graph get on given clips: what half precision and float8 must hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgelip.deploy.onnx_graph import INPUT
from edgelip.runtime.engines.engine import require_package


@dataclass(frozen=True)
class InnerValues:
    """Largest finite |x| by value name, weights included, and the largest sum inside a node by its first output."""

    largest: Mapping[str, float] = field(default_factory=dict)
    sums: Mapping[str, float] = field(default_factory=dict)


def looking_at(model: onnx.ModelProto, names: Iterable[str]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function from one clip (1, 1, T, H, W) to these values of the graph. Raises what ONNX Runtime raises."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    names = list(dict.fromkeys(names))
    del exposed.graph.output[:]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    onnxruntime: Any = require_package("onnxruntime", engine="ort")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def look(clip_11THW: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {INPUT: clip_11THW}), strict=True))

    return look


def inner_values(model: onnx.ModelProto, clips_B1THW: np.ndarray) -> InnerValues:
    """Run the graph in ONNX Runtime, clip by clip, with every inner value as an output."""
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    look = looking_at(model, [name for name in float_values(model) if name not in constants and name != INPUT])
    largest = {name: _largest(array) for name, array in constants.items() if array.dtype == np.float32}
    sums: dict[str, float] = {}
    for clip_1THW in clips_B1THW:
        values = {INPUT: clip_1THW[None], **look(clip_1THW[None])}
        for name, array in values.items():
            largest[name] = max(largest.get(name, 0.0), _largest(array))
        for node in graph.node:
            inside = _sum_inside(node, values, constants)
            sums[node.output[0]] = max(sums.get(node.output[0], 0.0), inside)
    return InnerValues(largest, {name: value for name, value in sums.items() if value})


def float_values(model: onnx.ModelProto) -> list[str]:
    """Names of all float32 values of a graph: inputs, weights, and what nodes give."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    typed = [*graph.input, *graph.value_info, *graph.output]
    names = [value.name for value in typed if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    return [*names, *(tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT)]


def _largest(array: np.ndarray) -> float:
    """Infinity is a value of every float type: masks are made of it."""
    low, high = float(array.min(initial=0.0)), float(array.max(initial=0.0))
    if np.isfinite(low) and np.isfinite(high):
        return max(-low, high)
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))


def _sum_inside(node: onnx.NodeProto, values: Mapping[str, np.ndarray], constants: Mapping[str, np.ndarray]) -> float:
    """What a mean adds up before it divides; a layer normalisation adds up squares."""
    if node.op_type in ("ReduceMean", "ReduceSum") and len(node.input) > 1 and node.input[0] in values:
        axes = tuple(int(axis) for axis in constants[node.input[1]])
        return float(np.abs(values[node.input[0]]).sum(axis=axes).max())
    if node.op_type == "LayerNormalization":
        return float(np.square(values[node.input[0]]).sum(axis=-1).max())
    return 0.0
