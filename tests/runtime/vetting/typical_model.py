"""A small network with what deployed ones have: stacked frames, Q/DQ int8, built weights, shape constants."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NUM_WORDS = 3
CLIP = (1, 4, 6, 6)


def typical_model() -> onnx.ModelProto:
    """A fresh copy of the model, for a test to change."""
    return onnx.ModelProto.FromString(typical_content())


@cache
def typical_content() -> bytes:
    """(B, 1, 4, 6, 6) -> (B, 3): squeeze, pad, slice, concat, int8 conv, float conv of built weights, pool, linear."""
    rng = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {
        "one": np.array([1]),
        "pads": np.array([0, 1, 0, 0, 0, 1, 0, 0]),
        "zero": np.float32(0),
        "from": np.array([1]),
        "to": np.array([5]),
        "s": np.float32(0.05),
        "z": np.uint8(128),
        "w": rng.integers(-127, 128, (6, 4, 3, 3)).astype(np.int8),
        "ws": rng.uniform(0.001, 0.01, 6).astype(np.float32),
        "wz": np.zeros(6, np.int8),
        "b": rng.normal(size=6).astype(np.float32),
        "slope": np.full((6, 1, 1), 0.25, np.float32),
        "A": rng.normal(size=(4, 2)).astype(np.float32),
        "F": rng.integers(-127, 128, (2, 2, 27)).astype(np.int8),
        "Fs": rng.uniform(0.001, 0.01, (2, 2, 1)).astype(np.float32),
        "flat": np.array([2, -1]),
        "grid": np.array([2, 2, 2, 3, -1]),
        "shape": np.array([4, 6, 3, 3]),
        "axes": np.array([2, 3]),
        "V": rng.normal(size=(NUM_WORDS, 4)).astype(np.float32),
        "c": rng.normal(size=NUM_WORDS).astype(np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["F"], ["F1"], to=TensorProto.FLOAT),
        node("Mul", ["F1", "Fs"], ["F2"]),
        node("Reshape", ["F2", "flat"], ["F3"]),
        node("MatMul", ["A", "F3"], ["W1"]),
        node("Reshape", ["W1", "grid"], ["W2"]),
        node("Transpose", ["W2"], ["W3"], perm=[0, 2, 1, 3, 4]),
        node("Reshape", ["W3", "shape"], ["W"]),
        node("Squeeze", ["clips", "one"], ["x0"]),
        node("Pad", ["x0", "pads", "zero"], ["x1"], mode="constant"),
        node("Slice", ["x1", "from", "to", "one"], ["x2"]),
        node("QuantizeLinear", ["x2", "s", "z"], ["x3"]),
        node("DequantizeLinear", ["x3", "s", "z"], ["x4"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["w1"], axis=0),
        node("Conv", ["x4", "w1", "b"], ["x5"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1], group=1),
        node("PRelu", ["x5", "slope"], ["x6"]),
        node("MaxPool", ["x6"], ["x7"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["x7", "W"], ["x8"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["x8"], ["x9"]),
        node("ReduceMean", ["x9", "axes"], ["x10"], keepdims=0),
        node("Gemm", ["x10", "V", "c"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "typical",
        [helper.make_tensor_value_info("clips", TensorProto.FLOAT, ["batch", *CLIP])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", NUM_WORDS])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def node_of(model: onnx.ModelProto, operator: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == operator)


def initialiser(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def replace_array(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    initialiser(model, name).CopyFrom(numpy_helper.from_array(array, name))


def insert_after_clip(model: onnx.ModelProto, *nodes: onnx.NodeProto, constants: dict[str, np.ndarray]) -> None:
    """Put nodes that make "y" from "clips" before all others; the first reader of "clips" then reads "y"."""
    for node in model.graph.node:
        node.input[:] = ["y" if name == "clips" else name for name in node.input]
    prepend(model, *nodes, constants=constants)


def prepend(model: onnx.ModelProto, *nodes: onnx.NodeProto, constants: dict[str, np.ndarray]) -> None:
    """Put nodes before all others."""
    old = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *old])
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())


def nested_graph() -> onnx.GraphProto:
    value = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1])
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "inner")
    return helper.make_graph([], "inner", [], [value], [tensor])


def edited(edit: Callable[[onnx.ModelProto], object]) -> bytes:
    model = typical_model()
    edit(model)
    content: bytes = model.SerializeToString()
    return content
