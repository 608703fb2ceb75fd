"""PReLU as engines run it fast: after a pooling instead of before it, and without a tensor for a single slope.

ONNX Runtime 1.31 has a slow kernel for PReLU: 6.3 ms for the stem of a ShuffleNet, a quarter of the network's time, and
0.2 ms behind the pooling.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


def pool_before_slopes(model: onnx.ModelProto) -> None:
    """Exchange PReLU -> MaxPool where no slope is negative, in place: a function that never falls keeps the largest.

    A rounding before the PReLU is repeated behind the pooling, where it changes nothing: the pooling then runs on
    integers.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    for pool in [node for node in graph.node if node.op_type == "MaxPool"]:
        act = makers.get(pool.input[0])
        if act is None or act.op_type != "PRelu" or _num_readers(graph, act.output[0]) != 1:
            continue
        slopes = constants.get(act.input[1])
        if slopes is None or numpy_helper.to_array(slopes).min() < 0:
            continue
        result, pooled = pool.output[0], f"{pool.output[0]}.pooled"
        pool.input[0], pool.output[0] = act.input[0], pooled
        between = _repeated_rounding(makers, act.input[0], pooled)
        act.input[0] = between[-1].output[0] if between else pooled
        act.output[0] = result
        nodes = [node for node in graph.node if node is not act]
        position = next(i for i, node in enumerate(nodes) if node is pool) + 1
        nodes[position:position] = [*between, act]
        ordered = [_copy(node) for node in nodes]
        del graph.node[:]
        graph.node.extend(ordered)
        makers = {name: node for node in graph.node for name in node.output}


def single_slopes(model: onnx.ModelProto) -> None:
    """Write a PReLU of one slope as LeakyRelu, in place: engines merge it into convolutions, in integers too."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        slopes = constants.get(node.input[1]) if node.op_type == "PRelu" else None
        if slopes is not None and np.size(slopes) == 1:
            leaky = helper.make_node("LeakyRelu", node.input[:1], node.output, name=node.name, alpha=slopes.item())
            node.CopyFrom(leaky)


def _num_readers(graph: onnx.GraphProto, name: str) -> int:
    read = [*(source for node in graph.node for source in node.input), *(value.name for value in graph.output)]
    return read.count(name)


def _repeated_rounding(makers: dict[str, onnx.NodeProto], name: str, pooled: str) -> list[onnx.NodeProto]:
    """The rounding that gives `name`, of `pooled`; nothing if it is not rounded."""
    end = makers.get(name)
    start = makers.get(end.input[0]) if end is not None and end.op_type == "DequantizeLinear" else None
    if end is None or start is None or start.op_type != "QuantizeLinear":
        return []
    levels = f"{pooled}.levels"
    return [
        helper.make_node("QuantizeLinear", [pooled, *start.input[1:]], [levels]),
        helper.make_node("DequantizeLinear", [levels, *end.input[1:]], [f"{pooled}.rounded"]),
    ]


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    made = onnx.NodeProto()
    made.CopyFrom(node)
    return made
