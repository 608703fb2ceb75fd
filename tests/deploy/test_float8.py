from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from small_graphs import clips, constants_of, graph_of, node, operators, run

from edgelip.deploy.float8 import FLOAT8_LARGEST, float8
from edgelip.deploy.inner_values import inner_values
from edgelip.deploy.precision import half_precision


def narrowed(nodes: list[onnx.NodeProto], values: np.ndarray, **constants: np.ndarray) -> onnx.ModelProto:
    model = graph_of(nodes, constants)
    found = inner_values(model, values)
    half_precision(model, found)
    float8(model, found)
    return model


def e4m3(values: np.ndarray) -> np.ndarray:
    """The nearest number of one sign, four exponent and three mantissa bits: by the definition, not by a library."""
    magnitude = np.minimum(np.abs(values.astype(np.float64)), 448.0)
    exponent = np.maximum(np.floor(np.log2(np.maximum(magnitude, 1e-30))), -6)
    step = 2.0 ** (exponent - 3)
    return np.sign(values) * np.minimum(np.rint(magnitude / step) * step, 448.0)


WEIGHT = (clips(1, seed=1)[0].T * np.array([1e-3, 1, 30, 500], np.float32)).copy()  # (6, 4): columns of unlike size


def test_a_product_is_that_of_rounded_values() -> None:
    values = clips(size=2.0)
    model = narrowed([node("MatMul", "clips w", "logits")], values, w=WEIGHT)
    assert operators(model) == ["Cast", "QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "MatMul", "Cast"]
    scale = np.float32(np.float16(np.abs(values).max() / FLOAT8_LARGEST))
    scales = (np.abs(WEIGHT).max(axis=0) / FLOAT8_LARGEST).astype(np.float16).astype(np.float32).clip(2.0**-14)
    expected = (e4m3(values.astype(np.float16) / scale) * scale) @ (e4m3(WEIGHT.astype(np.float16) / scales) * scales)
    difference = np.abs(run(model, values) - expected) / np.abs(expected).max(axis=(0, 1))
    assert difference.max() < 2e-3  # the product is in half precision
    exact = np.abs(values @ WEIGHT - expected) / np.abs(expected).max(axis=(0, 1))
    assert exact.max() > 1e-2  # so that rounding is seen


@pytest.mark.parametrize(
    ("operator", "weight", "axis", "attributes"),
    [
        ("Conv", clips(8, seed=2)[:, :, :3].copy(), 0, {}),
        ("MatMul", WEIGHT, 1, {}),
    ],
)
def test_weights_are_stored_in_float8_with_a_scale_a_row(
    operator: str, weight: np.ndarray, axis: int, attributes: dict[str, int]
) -> None:
    model = narrowed([node(operator, "clips w", "logits", **attributes)], clips(), w=weight)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    (stored,) = (name for name, size in sizes.items() if size == weight.size)
    assert kinds[stored] == TensorProto.FLOAT8E4M3FN
    (dequantise,) = (item for item in model.graph.node if item.input[0] == stored)
    assert dequantise.attribute[0].i == axis
    assert sizes[dequantise.input[1]] == weight.shape[axis]
    assert kinds[dequantise.input[1]] == TensorProto.FLOAT16


def test_gemm_rows_follow_the_transposition() -> None:
    flat = [node("Flatten", "clips", "f"), node("Gemm", "f w", "g", transB=1), node("Unsqueeze", "g axis", "logits")]
    weight = np.random.default_rng(0).standard_normal((5, 24)).astype(np.float32)
    model = narrowed(flat, clips(), w=weight, axis=np.array([2]))
    assert constants_of(model)["w.scales"].shape == (5,)
    exact = clips().reshape(3, -1) @ weight.T
    assert np.abs(run(model, clips())[..., 0] - exact).max() < 0.1 * np.abs(exact).max()


def test_groups_and_float_nodes_and_products_without_weights_are_left_alone() -> None:
    nodes = [
        node("Conv", "clips k", "c", group=4),
        node("MatMul", "clips t", "m"),
        node("Mul", "m small", "n"),
        node("Transpose", "c", "ct", perm=[0, 2, 1]),
        node("MatMul", "n ct", "logits"),
    ]
    constants = {
        "k": np.ones((4, 1, 1), np.float32), "t": np.eye(6, dtype=np.float32) * 1e6, "small": np.float32(1e-6)
    }  # fmt: skip
    model = narrowed(nodes, clips(), **constants)
    assert "QuantizeLinear" not in operators(model)
    assert "DequantizeLinear" not in operators(model)


def test_two_readers_share_one_rounding() -> None:
    nodes = [node("MatMul", "clips w", "a"), node("MatMul", "clips v", "b"), node("Add", "a b", "logits")]
    model = narrowed(nodes, clips(), w=WEIGHT, v=np.flip(WEIGHT).copy())
    assert operators(model).count("QuantizeLinear") == 1


def test_a_row_of_zeros_is_stored_as_zeros() -> None:
    weight = WEIGHT.copy()
    weight[:, 1] = 0
    model = narrowed([node("MatMul", "clips w", "logits")], clips(), w=weight)
    assert (run(model, clips())[..., 1] == 0).all()
