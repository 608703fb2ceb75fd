from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_graphs import node, operators, run

from edgelip.deploy.activation_form import pool_before_slopes, single_slopes

SLOPES = np.array([0.0, 0.3, 1.0, 2.0], np.float32)[:, None]
POOL = {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}
ROUND = [node("QuantizeLinear", "clips scale zero", "q"), node("DequantizeLinear", "q scale zero", "x")]


def graph_of(nodes: list[onnx.NodeProto], slopes: np.ndarray = SLOPES, *, outputs: str = "logits") -> onnx.ModelProto:
    """From clips (batch, 4, 6); slopes are called `a`."""
    constants = {"a": slopes, "scale": np.float32(0.1), "zero": np.int8(0)}
    shape = ["batch", None, None]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("clips", TensorProto.FLOAT, ["batch", 4, 6])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs.split()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 4, (3, 4, 6)).astype(np.float32)


def test_pooling_before_slopes_gives_the_same_values(values: np.ndarray) -> None:
    model = graph_of([node("PRelu", "clips a", "p"), node("MaxPool", "p", "logits", **POOL)])
    before = run(model, values)
    pool_before_slopes(model)
    assert operators(model) == ["MaxPool", "PRelu"]
    assert np.array_equal(run(model, values), before)


def test_a_rounding_before_is_repeated_behind_the_pooling(values: np.ndarray) -> None:
    model = graph_of(
        [*ROUND, node("PRelu", "x a", "p"), node("MaxPool", "p", "r", **POOL), node("Relu", "r", "logits")]
    )
    before = run(model, values)
    pool_before_slopes(model)
    pair = ["QuantizeLinear", "DequantizeLinear"]
    assert operators(model) == [*pair, "MaxPool", *pair, "PRelu", "Relu"]
    assert np.array_equal(run(model, values), before)


@pytest.mark.parametrize(
    ("nodes", "slopes"),
    [
        ([node("PRelu", "clips a", "p"), node("MaxPool", "p", "logits", **POOL)], -SLOPES),
        ([node("PRelu", "clips a", "p"), node("MaxPool", "p", "m", **POOL), node("Neg", "p", "logits")], SLOPES),
        ([node("Sigmoid", "clips", "p"), node("MaxPool", "p", "logits", **POOL)], SLOPES),
        ([node("MaxPool", "clips", "logits", **POOL)], SLOPES),
    ],
    ids=["falls", "is read elsewhere", "is no slope", "reads the clip"],
)
def test_other_poolings_stay(nodes: list[onnx.NodeProto], slopes: np.ndarray) -> None:
    model = graph_of(nodes, slopes)
    before = model.SerializeToString()
    pool_before_slopes(model)
    assert model.SerializeToString() == before


def test_single_slope_becomes_leaky_relu(values: np.ndarray) -> None:
    model = graph_of([node("PRelu", "clips a", "logits")], np.array([0.3], np.float32))
    before = run(model, values)
    single_slopes(model)
    assert operators(model) == ["LeakyRelu"]
    np.testing.assert_allclose(run(model, values), before, rtol=1e-6)


def test_slopes_of_several_channels_stay() -> None:
    model = graph_of([node("PRelu", "clips a", "logits")])
    single_slopes(model)
    assert operators(model) == ["PRelu"]
