"""Where activations are rounded in an ONNX graph: right before the kernels that want rounded inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

_COPYING = {"Concat", "Flatten", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}


def sink_quantisers(model: onnx.ModelProto) -> None:
    """Move each QuantizeLinear -> DequantizeLinear pair behind operators that copy values or add zeros, in place.

    No result changes: rounding a copy equals copying the rounded value, and zero is a level of every quantiser.
    ONNX Runtime carries pairs past some of these operators by itself, but not past the stacking of frames: a stem whose
    quantiser sits at the clips would run in float.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    for end in [node for node in graph.node if node.op_type == "DequantizeLinear"]:
        start = next((node for node in graph.node if end.input[0] in node.output), None)
        if start is None or start.op_type != "QuantizeLinear":
            continue
        copies, movers = _copies(graph, end.output[0], constants)
        readers = [node for node in graph.node if node.output[0] not in movers and copies & {*node.input}]
        read = {name for node in readers for name in node.input if name in copies}
        if not movers or end.output[0] in read or outputs & copies:
            continue
        for node in graph.node:
            if node.output[0] in movers:
                node.input[:] = [start.input[0] if name == end.output[0] else name for name in node.input]
        for node in readers:
            node.input[:] = [f"{name}.rounded" if name in read else name for name in node.input]
        parameters = list(start.input[1:])
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            if node.output[0] not in (start.output[0], end.output[0]):
                nodes.append(node)
            for name in read & {*node.output}:
                levels = f"{name}.levels"
                nodes.append(helper.make_node("QuantizeLinear", [name, *parameters], [levels]))
                nodes.append(helper.make_node("DequantizeLinear", [levels, *parameters], [f"{name}.rounded"]))
        del graph.node[:]
        graph.node.extend(nodes)


def _copies(
    graph: onnx.GraphProto, source: str, constants: Mapping[str, onnx.TensorProto]
) -> tuple[set[str], set[str]]:
    """The values made of `source` and zeros alone, itself included, and the first outputs of what makes them."""
    copies, movers = {source}, set()
    for node in graph.node:
        moved = {*(node.input if node.op_type == "Concat" else node.input[:1])}
        if node.op_type in _COPYING and moved <= copies and _pads_zeros(node, constants):
            copies.update(node.output)
            movers.add(node.output[0])
    return copies, movers


def _pads_zeros(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    if node.op_type != "Pad" or len(node.input) < 3 or not node.input[2]:
        return True
    filling = constants.get(node.input[2])
    return filling is not None and not np.any(numpy_helper.to_array(filling))
