"""Typed precision as passes on an ONNX graph: unsigned int8 activations, and half precision by casts.

The graphs say every type: TensorRT builds strongly typed networks only, and every other engine can read them too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgelip.deploy.inner_values import InnerValues, float_values

HALF_LIMIT = 65504 / 4  # the check clips are few; others may reach four times as far

_GATE_STEP = np.float32(1 / 127)  # smallest step of which no more than 127 make 1
_NON_NEGATIVE = {"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Softplus", "Sqrt"}
# Not below zero if none of their (first, or all) inputs is.
_OF_FIRST = {
    "AveragePool", "DequantizeLinear", "Flatten", "GlobalAveragePool", "Identity", "MaxPool", "QuantizeLinear",
    "ReduceMax", "ReduceMean", "ReduceSum", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
_OF_ALL = {"Add", "Concat", "Mul"}


def unsigned_activations(model: onnx.ModelProto) -> None:
    """Write signed activation levels as unsigned ones, in place: the same scale and results, 128 as the zero point.

    Where the rounded value cannot be negative, the zero point stays 0: ONNX Runtime merges a ReLU into the rounding for
    that one only, and runs the convolution before it in float otherwise. Levels then end at 255, so that a Clip holds
    them at the trained 127: without it, a few outliers moved logits by 0.09. A sigmoid in steps of 1/127 needs none.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    positive = _non_negative(graph, constants)
    bounded = {name for node in graph.node if node.op_type == "Sigmoid" for name in node.output}
    levels = {"level.0": 0, "level.127": 127, "level.128": 128}
    graph.initializer.extend(numpy_helper.from_array(np.array(level, np.uint8), name) for name, level in levels.items())
    nodes: list[onnx.NodeProto] = []
    zeros: dict[str, str] = {}
    for node in graph.node:
        nodes.append(node)
        if node.op_type == "QuantizeLinear" and constants[node.input[2]].shape == ():
            name = node.output[0]
            zeros[name] = node.input[2] = "level.0" if node.input[0] in positive else "level.128"
            if zeros[name] == "level.0" and not (node.input[0] in bounded and constants[node.input[1]] >= _GATE_STEP):
                node.output[0] = f"{name}.open"
                nodes.append(helper.make_node("Clip", [f"{name}.open", "", "level.127"], [name]))
        elif node.op_type == "DequantizeLinear" and node.input[0] in zeros:
            node.input[2] = zeros[node.input[0]]
    del graph.node[:]
    graph.node.extend(nodes)


def _non_negative(graph: onnx.GraphProto, constants: Mapping[str, np.ndarray]) -> set[str]:
    """The values that cannot be below zero, whatever the clips."""
    found = {name for name, array in constants.items() if array.size and array.min() >= 0}
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if (
            node.op_type in _NON_NEGATIVE
            or (node.op_type in _OF_FIRST and inputs[0] in found)
            or (node.op_type in _OF_ALL and {*inputs} <= found)
            or (node.op_type == "Pad" and {inputs[0], *inputs[2:3]} <= found)
        ):
            found.update(node.output)
    return found


def without_rounded_sums(model: onnx.ModelProto) -> None:
    """Add values as they are before their rounding, in place: what an engine computes that merges sums into kernels."""
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type != "Add":
            continue
        for position, name in enumerate(node.input):
            end = makers.get(name)
            start = makers.get(end.input[0]) if end is not None and end.op_type == "DequantizeLinear" else None
            if start is not None and start.op_type == "QuantizeLinear":
                node.input[position] = start.input[0]


def half_precision(model: onnx.ModelProto, values: InnerValues) -> None:
    """Compute in float16, in place, with float32 at the ends of the graph and wherever float16 would not hold it.

    A node stays in float32 if a value that it takes or gives, or a sum inside it, is beyond HALF_LIMIT on the clips of
    `values`. Each node has one float type; casts stand where the types meet. ONNX Runtime's own converter is not used:
    it clamps weights and passes a value from one float32 node to the next through float16, where it overflows.
    """
    graph = model.graph
    floats = {*float_values(model)}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    types = {value.name: TensorProto.FLOAT for value in graph.input}
    results = {value.name for value in graph.output}
    nodes: list[onnx.NodeProto] = []
    made: dict[tuple[str, int], str] = {}

    def typed(name: str, wanted: int) -> str:
        """The name under which a float value is to be had in the wanted type."""
        if name in constants and name not in types:
            types[name] = wanted
            if wanted == TensorProto.FLOAT16:
                _halve(constants[name])
        if types[name] == wanted:
            return name
        if (name, wanted) not in made:
            made[name, wanted] = f"{name}.{'half' if wanted == TensorProto.FLOAT16 else 'float'}"
            nodes.append(helper.make_node("Cast", [name], [made[name, wanted]], to=wanted))
        return made[name, wanted]

    for node in graph.node:
        taken, given = [n for n in node.input if n in floats], [n for n in node.output if n in floats]
        inside = [values.sums.get(node.output[0], 0.0), *(values.largest.get(name, 0.0) for name in (*taken, *given))]
        wanted = TensorProto.FLOAT16 if max(inside) <= HALF_LIMIT else TensorProto.FLOAT
        if node.op_type == "Cast" and given:
            node.attribute[0].i = wanted
        elif not taken:
            wanted = TensorProto.FLOAT
        node.input[:] = [typed(name, wanted) if name in floats else name for name in node.input]
        types.update(dict.fromkeys(given, wanted))
        nodes.append(node)
        for position, name in enumerate(node.output):
            if name in results and types.get(name) == TensorProto.FLOAT16:
                node.output[position] = f"{name}.half"
                nodes.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)


def _halve(tensor: onnx.TensorProto) -> None:
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
