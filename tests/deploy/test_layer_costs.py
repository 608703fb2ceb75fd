from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_models import WORDS, clips, compressed

from edgelip.compress.pipeline import model_from_checkpoint
from edgelip.deploy.export import export_model
from edgelip.deploy.layer_costs import LayerCost, layer_costs, load_graph
from edgelip.errors import BundleError, MeasurementError
from edgelip.models.census import count_macs


def graph(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    *,
    takes: list[int | str],
    gives: str = "y",
    dtype: int = TensorProto.FLOAT,
    opset: int = 18,
) -> onnx.ModelProto:
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", dtype, takes)],
        [helper.make_tensor_value_info(gives, dtype, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def node(kind: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=f"node_{output}", **attributes)


def quantised(name: str, *, zero: int = 0, dtype: type = np.int8) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Nodes that round `name` to `name`_d, and their constants."""
    nodes = [
        node("QuantizeLinear", f"{name} {name}_s {name}_z", f"{name}_q"),
        node("DequantizeLinear", f"{name}_q {name}_s {name}_z", f"{name}_d"),
    ]
    return nodes, {f"{name}_s": np.array(0.1, np.float32), f"{name}_z": np.array(zero, dtype)}


W = np.ones((5, 3, 3, 3), np.float32)
CONV_MACS, IN_BYTES, OUT_BYTES = 8 * 8 * 5 * 27, 4 * 3 * 64, 4 * 5 * 64


def test_convolution_with_bias_and_relu_is_one_layer() -> None:
    model = graph(
        [node("Conv", "x w b", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "y")],
        {"w": W, "b": np.zeros(5, np.float32)},
        takes=["B", 3, 8, 8],
    )
    assert layer_costs(model) == [
        LayerCost("node_c", ("Conv", "Relu"), "fp32", CONV_MACS, 4 * (135 + 5), IN_BYTES + OUT_BYTES)
    ]


def test_product_with_a_transposed_weight_has_the_macs_of_its_formula() -> None:
    model = graph(
        [node("Gemm", "x w b", "y", transB=1)],
        {"w": np.ones((10, 24), np.float32), "b": np.zeros(10, np.float32)},
        takes=["B", 24],
    )
    assert layer_costs(model) == [LayerCost("node_y", ("Gemm",), "fp32", 240, 4 * 250, 4 * 34)]


def test_product_of_a_transposed_input_counts_its_rows() -> None:
    model = graph([node("Gemm", "x w", "y", transA=1)], {"w": np.ones((1, 7), np.float32)}, takes=["B", 24])
    assert layer_costs(model)[0].macs == 24 * 1 * 7


def test_depthwise_and_strided_convolutions_count_what_they_do() -> None:
    model = graph(
        [node("Conv", "x w", "y", group=4, strides=[2])], {"w": np.ones((4, 1, 3), np.float32)}, takes=["B", 4, 9]
    )
    assert layer_costs(model)[0].macs == 4 * 4 * 3


def test_product_of_two_activations_has_no_weights() -> None:
    nodes = [node("Transpose", "x", "t", perm=[0, 2, 1]), node("MatMul", "x t", "y")]
    copy, product = layer_costs(graph(nodes, {}, takes=["B", 6, 4]))
    assert (copy.operators, copy.precision, copy.macs, copy.activation_bytes) == (("Transpose",), None, 0, 2 * 96)
    assert (product.macs, product.weight_bytes, product.activation_bytes) == (6 * 6 * 4, 0, 96 + 96 + 4 * 36)


@pytest.mark.parametrize(("dtype", "zero"), [(np.int8, 0), (np.uint8, 128)])
def test_quantised_convolution_moves_and_computes_in_int8(dtype: type, zero: int) -> None:
    entry, entry_constants = quantised("x", zero=zero, dtype=dtype)
    after, after_constants = quantised("c", zero=zero, dtype=dtype)
    nodes = [
        *entry,
        node("DequantizeLinear", "w w_s w_z", "w_d"),
        node("Conv", "x_d w_d", "c", pads=[1, 1, 1, 1]),
        *after,
        node("MaxPool", "c_d", "y", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    weights = {"w": np.ones(W.shape, np.int8), "w_s": np.array(0.1, np.float32), "w_z": np.array(0, np.int8)}
    rounding, conv, pool = layer_costs(
        graph(nodes, {**entry_constants, **after_constants, **weights}, takes=["B", 3, 8, 8])
    )
    assert (rounding.operators, rounding.activation_bytes) == (("QuantizeLinear",), IN_BYTES + IN_BYTES // 4)
    assert conv == LayerCost(
        "node_c", ("Conv", "QuantizeLinear"), "int8", CONV_MACS, 135, IN_BYTES // 4 + OUT_BYTES // 4
    )
    assert pool.activation_bytes == OUT_BYTES // 4 + OUT_BYTES // 4  # int8 in, a quarter of the pixels in float32 out


def test_convolution_with_rounded_weights_alone_computes_in_float() -> None:
    nodes = [node("DequantizeLinear", "w w_s w_z", "w_d"), node("Conv", "x w_d", "y", pads=[1, 1, 1, 1])]
    weights = {"w": np.ones(W.shape, np.int8), "w_s": np.array(0.1, np.float32), "w_z": np.array(0, np.int8)}
    (conv,) = layer_costs(graph(nodes, weights, takes=["B", 3, 8, 8]))
    assert (conv.precision, conv.weight_bytes) == ("fp32", 135)


def test_float8_on_both_sides_computes_in_float8() -> None:
    nodes = [
        node("QuantizeLinear", "x s z", "x_q"),
        node("DequantizeLinear", "x_q s z", "x_d"),
        node("DequantizeLinear", "w s z", "w_d"),
        node("MatMul", "x_d w_d", "y"),
    ]
    model = graph(nodes, {"s": np.array(0.1, np.float32)}, takes=["B", 6], opset=19)
    for name, dims in {"z": [], "w": [6, 4]}.items():
        model.graph.initializer.append(
            helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, dims, bytes(24 if dims else 1), raw=True)
        )
    rounding, product = layer_costs(model)
    assert (rounding.operators, rounding.activation_bytes) == (("QuantizeLinear",), 24 + 6)
    assert (product.precision, product.weight_bytes, product.activation_bytes) == ("fp8", 24, 6 + 16)


def test_half_precision_moves_half_the_bytes() -> None:
    nodes = [node("Cast", "x", "h", to=TensorProto.FLOAT16), node("Conv", "h w", "c"), node("Relu", "c", "y")]
    model = graph(nodes, {"w": W.astype(np.float16)}, takes=["B", 3, 8, 8])
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    (conv,) = layer_costs(model)
    assert (conv.precision, conv.weight_bytes, conv.activation_bytes) == ("fp16", 2 * 135, IN_BYTES + 2 * 5 * 36)


def test_weight_built_from_factors_counts_as_the_dense_one() -> None:
    nodes = [
        node("MatMul", "a f", "flat"),
        node("Reshape", "flat shape", "w"),
        node("MatMul", "x w", "y"),
    ]
    constants = {
        "a": np.ones((64, 2), np.float32),
        "f": np.ones((2, 64), np.float32),
        "shape": np.array([64, 64], np.int64),
    }
    (product,) = layer_costs(graph(nodes, constants, takes=["B", 64]))
    assert (product.macs, product.weight_bytes) == (64 * 64, 4 * 64 * 64)


def test_weight_built_in_float_and_cast_is_held_in_half() -> None:
    nodes = [node("Mul", "a f", "w"), node("Cast", "w", "h", to=TensorProto.FLOAT16), node("MatMul", "x h", "y")]
    constants = {"a": np.ones((6, 4), np.float32), "f": np.ones((6, 1), np.float32)}
    (product,) = layer_costs(graph(nodes, constants, takes=["B", 6], dtype=TensorProto.FLOAT16))
    assert (product.precision, product.weight_bytes, product.activation_bytes) == ("fp16", 2 * 24, 2 * 10)


def test_residual_sum_reads_its_other_side() -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("Conv", "a v", "b"),
        node("Add", "b a", "s"),
        node("Relu", "s", "y"),
    ]
    constants = {"w": np.ones((4, 4, 1), np.float32), "v": np.ones((4, 4, 1), np.float32)}
    first, second = layer_costs(graph(nodes, constants, takes=["B", 4, 10]))
    assert first.operators == ("Conv",)
    assert second.operators == ("Conv", "Add", "Relu")
    assert second.activation_bytes == 160 + 160  # `a` once, though two nodes read it, and y


def test_scaling_of_channels_is_a_pass_of_its_own() -> None:
    nodes = [
        node("GlobalAveragePool", "x", "p"),
        node("Sigmoid", "p", "g"),
        node("Mul", "x g", "y"),
    ]
    squeeze, scale = layer_costs(graph(nodes, {}, takes=["B", 4, 5, 5]))
    assert (squeeze.operators, squeeze.activation_bytes) == (("GlobalAveragePool", "Sigmoid"), 400 + 16)
    assert (scale.operators, scale.activation_bytes) == (("Mul",), 400 + 16 + 400)


def test_slice_reads_what_it_writes_and_a_view_moves_nothing() -> None:
    nodes = [
        node("Slice", "x from to axes", "s"),
        node("Unsqueeze", "s axes", "u"),
        node("Relu", "u", "y"),
    ]
    constants = {name: np.array([value], np.int64) for name, value in {"from": 0, "to": 2, "axes": 1}.items()}
    (only,) = layer_costs(graph(nodes, constants, takes=["B", 8, 5]))
    assert (only.operators, only.weight_bytes, only.activation_bytes) == (("Slice", "Relu"), 0, 40 + 40)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [node("Einsum", "x w", "y", equation="ij,jk->ik")],
            r"cannot count the arithmetic of Einsum 'node_y'; expected Co",
        ),
        (
            [node("NonZero", "x", "n"), node("Cast", "n", "f", to=1), node("MatMul", "f w", "y")],
            "cannot be inferred for one",
        ),
    ],
)
def test_what_cannot_be_counted_is_refused(nodes: list[onnx.NodeProto], message: str) -> None:
    model = graph(nodes, {"w": np.ones((6, 4), np.float32)}, takes=["B", 6])
    with pytest.raises(MeasurementError, match=message):
        layer_costs(model)


def test_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\xff\xff nothing")
    with pytest.raises(BundleError, match=r"m.onnx cannot be read as ONNX: .*\. Export the bundle again"):
        load_graph(tmp_path / "m.onnx")


def test_layers_that_do_not_fit_each_other_are_refused() -> None:
    model = graph([node("Gemm", "x w", "y")], {"w": np.ones((5, 2), np.float32)}, takes=["B", 24])
    with pytest.raises(MeasurementError, match="the shape of 'y' cannot be inferred for one clip; expected static"):
        layer_costs(model)


@pytest.mark.parametrize("variant", ["phm", "phm-int8"])
def test_every_form_has_the_macs_of_the_census_in_its_own_precision(variant: str, tmp_path: Path) -> None:
    network = model_from_checkpoint(compressed(variant))
    exported = export_model(network, clips(), metadata={"words": "\n".join(WORDS)})
    weights: dict[str, list[int]] = {}
    for file in exported.files:
        (tmp_path / file.file_name).write_bytes(file.content)
        costs = layer_costs(load_graph(tmp_path / file.file_name))
        assert sum(cost.macs for cost in costs) == count_macs(network, clips())
        assert {cost.precision for cost in costs} == {file.precision, None}
        weights.setdefault(file.precision, []).append(sum(cost.weight_bytes for cost in costs))
    if variant == "phm":  # stored as factors or dense, an engine holds the same
        assert weights["fp32"][0] == weights["fp32"][1] == 2 * weights["fp16"][0] == 2 * weights["fp16"][1]
