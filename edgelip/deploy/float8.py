"""float8 as a pass on a half-precision ONNX graph: Q/DQ of E4M3FN at what convolutions and products take.

Symmetric, scale = largest / 448: of each output row for weights, which are stored so, and of the whole tensor on given
clips for activations.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgelip.deploy.inner_values import InnerValues

FLOAT8_LARGEST = 448.0  # of E4M3FN
FLOAT8_OPSET = 19  # the first in which QuantizeLinear knows float8; what else changed there is more types
_MIN_HALF_SCALE = 2.0**-14  # smallest float16 with all its digits


def float8(model: onnx.ModelProto, values: InnerValues) -> None:
    """Round what products and convolutions without groups take to float8, in place, after `half_precision`.

    What stays in float32 is left alone.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    rounded: dict[str, str] = {}
    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type in ("Conv", "Gemm", "MatMul") else None
        if weight is None or weight.data_type != TensorProto.FLOAT16 or _attribute(node, "group", 1) != 1:
            nodes.append(node)
            continue
        source = node.input[0]
        if source not in rounded:
            rounded[source] = f"{source}.float8"
            largest = values.largest[source.removesuffix(".half")]
            nodes += _float8_pair(graph, source, rounded[source], largest)
        rows = 0 if node.op_type == "Conv" or _attribute(node, "transB", 0) else len(weight.dims) - 1
        nodes.append(_float8_weight(graph, weight, axis=rows))
        node.input[0] = rounded[source]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    model.opset_import[0].version = FLOAT8_OPSET


def _float8_pair(graph: onnx.GraphProto, source: str, result: str, largest: float) -> list[onnx.NodeProto]:
    parameters = [f"{result}.scale", f"{result}.zero"]
    scale = np.float16(max(largest / FLOAT8_LARGEST, _MIN_HALF_SCALE))
    graph.initializer.append(numpy_helper.from_array(np.asarray(scale), parameters[0]))
    graph.initializer.append(_float8_tensor(np.zeros(()), parameters[1]))
    return [
        helper.make_node("QuantizeLinear", [source, *parameters], [f"{result}.levels"]),
        helper.make_node("DequantizeLinear", [f"{result}.levels", *parameters], [result]),
    ]


def _float8_weight(graph: onnx.GraphProto, weight: onnx.TensorProto, *, axis: int) -> onnx.NodeProto:
    """Replace a stored weight by its levels and scales; the node that gives it."""
    array = numpy_helper.to_array(weight).astype(np.float32)
    others = tuple(position for position in range(array.ndim) if position != axis)
    scales = np.maximum(np.abs(array).max(axis=others) / FLOAT8_LARGEST, _MIN_HALF_SCALE).astype(np.float16)
    levels = array / np.expand_dims(scales.astype(np.float32), others)
    name = weight.name
    inputs = [f"{name}.levels", f"{name}.scales", f"{name}.zeros"]
    graph.initializer.remove(weight)
    graph.initializer.append(_float8_tensor(levels, inputs[0]))
    graph.initializer.append(numpy_helper.from_array(scales, inputs[1]))
    graph.initializer.append(_float8_tensor(np.zeros(len(scales)), inputs[2]))
    return helper.make_node("DequantizeLinear", inputs, [name], axis=axis)


def _float8_tensor(values: np.ndarray, name: str) -> onnx.TensorProto:
    kind = helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN)
    clipped = np.clip(values, -FLOAT8_LARGEST, FLOAT8_LARGEST)
    return numpy_helper.from_array(np.asarray(clipped.astype(kind)), name)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)
