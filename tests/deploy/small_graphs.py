"""Small ONNX graphs from "clips" to "logits", written node by node, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def node(operator: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    """inputs: names with spaces between."""
    return helper.make_node(operator, inputs.split(), output.split(), **attributes)


def graph_of(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """From clips (batch, 4, 6) to logits of the same rank."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("clips", TensorProto.FLOAT, ["batch", 4, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", None, None])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def clips(num_clips: int = 3, *, size: float = 1.0, seed: int = 0) -> np.ndarray:
    return (size * np.random.default_rng(seed).standard_normal((num_clips, 4, 6))).astype(np.float32)


def run(model: onnx.ModelProto, values: np.ndarray, *, optimised: bool = False) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"clips": values})[0])


def operators(model: onnx.ModelProto) -> list[str]:
    return [item.op_type for item in model.graph.node]


def constants_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
