from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from small_graphs import clips, constants_of, graph_of, node, operators, run

from edgelip.deploy.inner_values import inner_values
from edgelip.deploy.precision import HALF_LIMIT, half_precision, unsigned_activations, without_rounded_sums

SCALE = {"scale": np.float32(0.02), "zero": np.int8(0)}
AXES = np.array([2])


def rounded(source: str, result: str) -> list[onnx.NodeProto]:
    """A signed symmetric pair."""
    return [
        node("QuantizeLinear", f"{source} scale zero", f"{result}_q"),
        node("DequantizeLinear", f"{result}_q scale zero", result),
    ]


def zero_points(model: onnx.ModelProto) -> list[int]:
    constants = constants_of(model)
    zeros = [constants[item.input[2]] for item in model.graph.node if item.op_type == "QuantizeLinear"]
    assert {zero.dtype for zero in zeros} == {np.dtype(np.uint8)}
    for item in model.graph.node:
        if item.op_type == "DequantizeLinear":
            assert constants[item.input[2]].dtype == np.uint8
    return [int(zero) for zero in zeros]


@pytest.mark.parametrize(
    ("nodes", "zero"),
    [
        ([], 128),
        ([node("Relu", "clips", "x")], 0),
        ([node("Sigmoid", "clips", "x")], 0),
        ([node("Tanh", "clips", "x")], 128),
        ([node("Relu", "clips", "r"), node("MaxPool", "r", "x", kernel_shape=[2])], 0),
        ([node("Relu", "clips", "r"), node("AveragePool", "r", "x", kernel_shape=[2])], 0),
        ([node("Relu", "clips", "r"), node("ReduceMean", "r axes", "x")], 0),
        ([node("Relu", "clips", "r"), node("Transpose", "r", "x", perm=[0, 2, 1])], 0),
        ([node("Relu", "clips", "r"), node("Neg", "r", "x")], 128),
        ([node("Relu", "clips", "r"), node("Concat", "r clips", "x", axis=1)], 128),
        ([node("Relu", "clips", "r"), node("Concat", "r r", "x", axis=1)], 0),
        ([node("Relu", "clips", "r"), node("Add", "r r", "x")], 0),
        ([node("Relu", "clips", "r"), node("Add", "r minus", "x")], 128),
        ([node("Relu", "clips", "r"), node("Mul", "r r", "x")], 0),
        ([node("Relu", "clips", "r"), node("Pad", "r pads nought", "x")], 0),
        ([node("Relu", "clips", "r"), node("Pad", "r pads minus", "x")], 128),
        ([node("Relu", "clips", "r"), *rounded("r", "d"), node("MaxPool", "d", "x", kernel_shape=[2])], 0),
        ([node("Sigmoid", "clips", "g"), node("Mul", "g clips", "x")], 128),  # Swish goes below zero
    ],
    ids=lambda value: " ".join(item.op_type for item in value) if isinstance(value, list) else str(value),
)
@pytest.mark.parametrize("size", [1.0, 5.0])  # at 5 most values lie beyond 127 steps of 0.02
def test_unsigned_levels_give_the_same_values(nodes: list[onnx.NodeProto], zero: int, size: float) -> None:
    source = "x" if nodes else "clips"
    constants = SCALE | {
        "axes": AXES, "minus": np.float32(-1), "pads": np.array([0, 0, 1, 0, 0, 1]), "nought": np.float32(0)
    }  # fmt: skip
    model = graph_of([*nodes, *rounded(source, "y"), node("Identity", "y", "logits")], constants)
    before = run(model, clips(size=size))
    unsigned_activations(model)
    assert zero_points(model)[-1] == zero
    np.testing.assert_array_equal(run(model, clips(size=size)), before)
    assert np.ptp(before) > 0.1


def test_weights_rounded_in_the_graph_stay_signed() -> None:
    constants = {"w": clips(1)[0], "ws": np.full(4, 0.02, np.float32), "wz": np.zeros(4, np.int8)}
    nodes = [
        node("QuantizeLinear", "w ws wz", "q", axis=0),
        node("DequantizeLinear", "q ws wz", "d", axis=0),
        node("Add", "clips d", "logits"),
    ]
    model = graph_of(nodes, constants)
    before = [item.SerializeToString() for item in model.graph.node]
    unsigned_activations(model)
    assert [item.SerializeToString() for item in model.graph.node] == before


def test_sums_without_their_rounding_leave_the_other_roundings() -> None:
    nodes = [
        *rounded("clips", "a"),
        node("Relu", "a", "r"),
        *rounded("r", "b"),
        node("Add", "a b", "s"),
        *rounded("s", "logits"),
    ]
    model = graph_of(nodes, {"scale": np.float32(0.5), "zero": np.int8(0)})
    values = clips(size=4)

    def levels(array: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(array / 0.5), -128, 127) * 0.5

    relu = np.maximum(levels(values), 0)
    np.testing.assert_array_equal(run(model, values), levels(levels(values) + relu))
    without_rounded_sums(model)
    np.testing.assert_array_equal(run(model, values), levels(values + relu))


def half(nodes: list[onnx.NodeProto], values: np.ndarray, **constants: np.ndarray) -> onnx.ModelProto:
    model = graph_of(nodes, constants)
    half_precision(model, inner_values(model, values))
    return model


def types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    typed = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    return typed | {tensor.name: tensor.data_type for tensor in graph.initializer}


LINEAR = [node("MatMul", "clips w", "m"), node("Add", "m b", "a"), node("Relu", "a", "logits")]
WEIGHTS = {"w": clips(1, seed=1)[0].T.copy(), "b": clips(1, seed=2)[0][:, :4].copy()}


def test_half_precision_stands_between_casts_at_the_ends() -> None:
    expected = run(graph_of(LINEAR, WEIGHTS), clips())
    model = half(LINEAR, clips(), **WEIGHTS)
    assert operators(model) == ["Cast", "MatMul", "Add", "Relu", "Cast"]
    assert {array.dtype for array in constants_of(model).values()} == {np.dtype(np.float16)}
    found = run(model, clips())
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.01


@given(
    nodes=st.permutations(
        [
            node("Mul", "{} big", "{}"),
            node("Mul", "{} small", "{}"),
            node("Relu", "{}", "{}"),
            node("Add", "{} one", "{}"),
            node("MatMul", "{} w", "{}"),
        ]
    ),
    seed=st.integers(0, 20),
)
def test_every_node_has_one_float_type_and_nothing_overflows(nodes: list[onnx.NodeProto], seed: int) -> None:
    """Values reach 1e8 in some orders; in half precision they would be infinite."""
    chain, last = [], "clips"
    for position, template in enumerate(nodes):
        item = onnx.NodeProto()
        item.CopyFrom(template)
        item.input[0], last = last, f"v{position}"
        item.output[0] = last
        chain.append(item)
    chain.append(node("Identity", last, "logits"))
    constants = {
        "big": np.float32(1e5), "small": np.float32(1e-5), "one": np.float32(1), "w": np.eye(6, dtype=np.float32)
    }  # fmt: skip
    values = clips(seed=seed)
    expected = run(graph_of(chain, constants), values)
    model = half(chain, values, **constants)
    typed = types(model)
    for item in model.graph.node:
        kinds = {typed[name] for name in item.input} & {TensorProto.FLOAT, TensorProto.FLOAT16}
        assert len(kinds) == 1
        assert item.op_type == "Cast" or typed[item.output[0]] in kinds
    # Not ONNX Runtime: on CPUs it computes half precision in float and would hide an overflow.
    found = ReferenceEvaluator(model).run(None, {"clips": values})[0]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-2 * max(1e-3, float(np.abs(expected).max())))


def test_a_value_between_two_float_nodes_stays_in_float() -> None:
    nodes = [node("Mul", "clips big", "x"), node("Relu", "x", "y"), node("Mul", "y small", "logits")]
    model = half(nodes, clips(), big=np.float32(1e6), small=np.float32(1e-6))
    assert operators(model) == ["Mul", "Relu", "Mul"]


def test_a_weight_beyond_half_precision_is_kept() -> None:
    nodes = [node("Add", "clips w", "a"), node("Relu", "a", "logits")]
    weight = np.full((4, 6), 7e4, np.float32)
    model = half(nodes, clips(), w=weight)
    np.testing.assert_array_equal(constants_of(model)["w"], weight)
    np.testing.assert_array_equal(run(model, clips()), np.maximum(clips() + weight, 0))


def test_a_mean_whose_sum_is_too_large_stays_in_float() -> None:
    """The values fit, six of them do not: engines may add before they divide."""
    values = np.full((1, 4, 6), HALF_LIMIT / 5, np.float32)
    nodes = [node("ReduceMean", "clips axes", "logits")]
    assert operators(half(nodes, values, axes=AXES)) == ["ReduceMean"]
    assert operators(half(nodes, values / 2, axes=AXES)) == ["Cast", "ReduceMean", "Cast"]


def test_squares_inside_a_layer_normalisation_count() -> None:
    nodes = [node("LayerNormalization", "clips s b", "logits", axis=-1)]
    constants = {"s": np.ones(6, np.float32), "b": np.zeros(6, np.float32)}
    assert operators(half(nodes, clips(size=100.0), **constants)) == ["LayerNormalization"]
    assert operators(half(nodes, clips(), **constants)) == ["Cast", "LayerNormalization", "Cast"]


def test_infinity_is_a_value_of_half_precision() -> None:
    mask = np.array([0, 0, 0, 0, -np.inf, -np.inf], np.float32)
    nodes = [node("Add", "clips mask", "a"), node("Softmax", "a", "logits", axis=-1)]
    model = half(nodes, clips(), mask=mask)
    assert operators(model) == ["Cast", "Add", "Softmax", "Cast"]
    assert (run(model, clips())[..., 4:] == 0).all()


def test_casts_to_float_become_casts_to_half() -> None:
    nodes = [
        node("Shape", "clips", "s"),
        node("Cast", "s", "f", to=TensorProto.FLOAT),
        node("ReduceMax", "f", "m", keepdims=0),
        node("Div", "clips m", "logits"),
    ]
    model = half(nodes, clips())
    np.testing.assert_allclose(run(model, clips()), clips() / 6, atol=1e-3)
    assert types(model)["f"] == TensorProto.FLOAT16


def test_a_value_that_both_types_read_is_cast_once() -> None:
    nodes = [
        node("Mul", "clips big", "x"),
        node("Mul", "clips big", "y"),
        node("Relu", "clips", "z"),
        node("Neg", "clips", "v"),
        node("Sum", "z v", "w"),
        node("Mul", "x small", "x1"),
        node("Mul", "y small", "y1"),
        node("Sum", "x1 y1 w", "logits"),
    ]
    values = clips()
    constants = {"big": np.float32(1e6), "small": np.float32(1e-6)}
    expected = run(graph_of(nodes, constants), values)
    model = half(nodes, values, **constants)
    casts = [(item.input[0], item.attribute[0].i) for item in model.graph.node if item.op_type == "Cast"]
    assert len(casts) == len({*casts})
    np.testing.assert_allclose(run(model, values), expected, atol=1e-2)


@pytest.mark.parametrize(("scale", "num_clips"), [(1 / 127, 0), (1 / 200, 1)])
def test_a_sigmoid_that_fits_its_levels_is_not_clipped(scale: float, num_clips: int) -> None:
    model = graph_of(
        [node("Sigmoid", "clips", "x"), *rounded("x", "y"), node("Identity", "y", "logits")],
        {"scale": np.float32(scale), "zero": np.int8(0)},
    )
    before = run(model, clips(size=30.0))
    unsigned_activations(model)
    assert operators(model).count("Clip") == num_clips
    np.testing.assert_array_equal(run(model, clips(size=30.0)), before)
