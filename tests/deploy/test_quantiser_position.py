from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelip.deploy.quantiser_position import sink_quantisers

CONSTANTS = {
    "scale": np.float32(0.1),
    "zero": np.uint8(100),
    "pads": np.array([0, 1, 0, 1]),
    "nought": np.float32(0),
    "one": np.float32(1),
    "from": np.array([0]),
    "to": np.array([2]),
    "axis": np.array([1]),
}
ROUND = [
    helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
    helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
]


def graph_of(*nodes: onnx.NodeProto, outputs: Sequence[str] = ("y",)) -> onnx.ModelProto:
    """Rounding, then `nodes`, from x (2, 3) to 2-D outputs."""
    graph = helper.make_graph(
        [*ROUND, *nodes],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in CONSTANTS.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def node(operator: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(0, 5, (2, 3)).astype(np.float32)
    return list(session.run(None, {"x": x}))


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


STACKING = [
    node("Pad", "d pads nought", "p"),
    node("Slice", "p from to axis", "a"),
    node("Concat", "p a", "c", axis=1),
]


def test_pair_moves_behind_copies_and_keeps_every_value() -> None:
    model = graph_of(*STACKING, node("Relu", "c", "y"))
    before = run(model)
    sink_quantisers(model)
    assert operators(model) == ["Pad", "Slice", "Concat", "QuantizeLinear", "DequantizeLinear", "Relu"]
    assert np.array_equal(run(model)[0], before[0])


def test_two_readers_of_different_copies_each_get_a_pair() -> None:
    model = graph_of(*STACKING, node("Relu", "c", "y"), node("Neg", "a", "z"), outputs=("y", "z"))
    before = run(model)
    sink_quantisers(model)
    assert operators(model).count("QuantizeLinear") == 2
    assert model.graph.node[0].op_type == "Pad"
    for after, expected in zip(run(model), before, strict=True):
        assert np.array_equal(after, expected)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Relu", "d", "y")],
        [node("Pad", "d pads one", "p"), node("Relu", "p", "y")],  # one is no level: 1.0 would become another value
        [node("Flatten", "d", "f"), node("Add", "f d", "y")],  # the rounded value itself is read too
        [node("Flatten", "d", "y")],  # the copy is the output
    ],
)
def test_pair_stays_where_moving_would_change_or_repeat_work(nodes: list[onnx.NodeProto]) -> None:
    model = graph_of(*nodes)
    before = model.SerializeToString()
    sink_quantisers(model)
    assert model.SerializeToString() == before


def test_stacking_with_another_value_ends_the_way() -> None:
    model = graph_of(node("Flatten", "d", "f"), node("Concat", "f x", "c", axis=1), node("Relu", "c", "y"))
    before = run(model)
    sink_quantisers(model)
    assert operators(model) == ["Flatten", "QuantizeLinear", "DequantizeLinear", "Concat", "Relu"]
    assert np.array_equal(run(model)[0], before[0])
