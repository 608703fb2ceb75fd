from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelip.bench.graph import input_name, int8_coverage, optimised_weights_bytes, unfolded_operators
from edgelip.runtime.errors import MeasurementError

# One clip of 3 x 8 x 8: a convolution to 5 channels (not a multiple of any block), a depthwise one, two products.
CONV_MACS = 8 * 8 * 5 * 3 * 3 * 3
DEPTHWISE_MACS = 8 * 8 * 5 * 3 * 3
MATMUL_MACS = 5 * 24
GEMM_MACS = 24 * 10
TOTAL_MACS = CONV_MACS + DEPTHWISE_MACS + MATMUL_MACS + GEMM_MACS
NUM_WEIGHTS = 5 * 3 * 9 + 5 * 9 + 5 * 24 + 24 * 10
FEED = {"x": np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)}


def _write(path: Path, nodes: list, constants: dict[str, np.ndarray], *, takes: list, gives: tuple[str, list]) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, takes)],
        [helper.make_tensor_value_info(gives[0], TensorProto.FLOAT, gives[1])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def write_net(path: Path, *, quantised: set[str]) -> Path:
    """Conv, depthwise Conv, MatMul, Gemm; those named in `quantised` stand between Q and DQ nodes."""
    rng = np.random.default_rng(0)
    nodes: list = []
    constants: dict[str, np.ndarray] = {}

    def rounded(name: str, *, dtype: type = np.uint8, zero_point: int = 128) -> str:
        constants.update({f"{name}_s": np.array(0.05, np.float32), f"{name}_z": np.array(zero_point, dtype)})
        nodes.append(helper.make_node("QuantizeLinear", [name, f"{name}_s", f"{name}_z"], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", f"{name}_s", f"{name}_z"], [f"{name}_d"]))
        return f"{name}_d"

    def weight(name: str, *shape: int) -> str:
        values = rng.normal(size=shape).astype(np.float32)
        if name[1:] not in quantised:
            constants[name] = values
            return name
        scale = np.float32(np.abs(values).max() / 127)
        constants.update(
            {
                f"{name}_q": np.round(values / scale).astype(np.int8),
                f"{name}_s": np.array(scale),
                f"{name}_z": np.array(0, np.int8),
            }
        )
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", f"{name}_s", f"{name}_z"], [f"{name}_d"]))
        return f"{name}_d"

    def layer(kind: str, name: str, source: str, *weights: str, **attributes: object) -> str:
        entry = rounded(source) if name in quantised and not source.endswith("_d") else source
        nodes.append(helper.make_node(kind, [entry, *weights], [name], name=f"node_{name}", **attributes))
        return rounded(name) if name in quantised else name

    conv = layer("Conv", "conv", "x", weight("wconv", 5, 3, 3, 3), pads=[1, 1, 1, 1])
    depthwise = layer("Conv", "depthwise", conv, weight("wdepthwise", 5, 1, 3, 3), pads=[1, 1, 1, 1], group=5)
    nodes.append(helper.make_node("GlobalAveragePool", [depthwise], ["pool"]))
    constants["shape"] = np.array([-1, 5], np.int64)
    nodes.append(helper.make_node("Reshape", ["pool", "shape"], ["flat"]))
    matmul = layer("MatMul", "matmul", "flat", weight("wmatmul", 5, 24))
    constants["bias"] = np.zeros(10, np.float32)
    gemm = layer("Gemm", "gemm", matmul, weight("wgemm", 10, 24), "bias", transB=1)
    return _write(path, nodes, constants, takes=["B", 3, 8, 8], gives=(gemm, ["B", 10]))


def test_float_model_has_the_macs_of_its_formula_and_none_in_int8(tmp_path: Path) -> None:
    coverage = int8_coverage(write_net(tmp_path / "m.onnx", quantised=set()), FEED)
    assert (coverage.total_macs, coverage.int8_macs, coverage.int8_pct) == (TOTAL_MACS, 0, 0.0)


def test_quantised_model_has_the_same_macs_all_in_int8(tmp_path: Path) -> None:
    path = write_net(tmp_path / "m.onnx", quantised={"conv", "depthwise", "matmul", "gemm"})
    coverage = int8_coverage(path, FEED)
    assert (coverage.total_macs, coverage.int8_macs, coverage.int8_pct) == (TOTAL_MACS, TOTAL_MACS, 100.0)
    assert set(coverage.kernels) == {"QLinearConv", "QLinearMatMul", "QGemm"}


@pytest.mark.parametrize(
    ("quantised", "macs"),
    [
        ({"conv"}, CONV_MACS),
        ({"conv", "depthwise"}, CONV_MACS + DEPTHWISE_MACS),
        ({"matmul"}, MATMUL_MACS),
        ({"matmul", "gemm"}, MATMUL_MACS + GEMM_MACS),
    ],
)
def test_partly_quantised_model_is_covered_in_part(tmp_path: Path, quantised: set[str], macs: int) -> None:
    coverage = int8_coverage(write_net(tmp_path / "m.onnx", quantised=quantised), FEED)
    assert (coverage.total_macs, coverage.int8_macs) == (TOTAL_MACS, macs)
    assert coverage.int8_pct == pytest.approx(100 * macs / TOTAL_MACS)


def test_weights_rounded_but_computed_in_float_are_not_covered(tmp_path: Path) -> None:
    """Weight-only quantisation: an int8 file, float arithmetic."""
    constants = {"w": np.ones((6, 4), np.int8), "s": np.array(0.1, np.float32), "z": np.array(0, np.int8)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        helper.make_node("MatMul", ["x", "wd"], ["y"]),
    ]
    path = _write(tmp_path / "m.onnx", nodes, constants, takes=[2, 6], gives=("y", [2, 4]))
    coverage = int8_coverage(path, {"x": np.ones((2, 6), np.float32)})
    assert (coverage.total_macs, coverage.int8_macs) == (2 * 6 * 4, 0)


def test_weights_that_onnx_runtime_rounds_by_itself_are_not_covered(tmp_path: Path) -> None:
    """A float weight between rounded activations: its kernel is an integer one, with one scale for the whole weight."""
    values = np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32)
    constants = {"w": values, "s": np.array(0.05, np.float32), "z": np.array(128, np.uint8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("Conv", ["xd", "w"], ["c"], name="the_layer", pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["y"]),
    ]
    path = _write(tmp_path / "m.onnx", nodes, constants, takes=[1, 3, 8, 8], gives=("y", [1, 5, 8, 8]))
    coverage = int8_coverage(path, FEED)
    assert coverage.kernels == {"QLinearConv": CONV_MACS}
    assert (coverage.int8_macs, coverage.total_macs) == (0, CONV_MACS)
    assert coverage.float_macs == {"the_layer": CONV_MACS}
    assert coverage.self_rounded == ("the_layer",)


def test_layers_in_float_are_named_with_their_share(tmp_path: Path) -> None:
    coverage = int8_coverage(write_net(tmp_path / "m.onnx", quantised={"conv", "gemm"}), FEED)
    assert coverage.float_macs == {"node_depthwise": DEPTHWISE_MACS, "node_matmul": MATMUL_MACS}
    assert coverage.self_rounded == ()


def test_one_dimensional_and_batched_products_are_counted(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[2, 2], dilations=[2]),
        helper.make_node("MatMul", ["c", "v"], ["y"]),
    ]
    constants = {"w": np.ones((4, 6, 3), np.float32), "v": np.ones((9, 2), np.float32)}
    path = _write(tmp_path / "m.onnx", nodes, constants, takes=[2, 6, 9], gives=("y", [2, 4, 2]))
    coverage = int8_coverage(path, {"x": np.ones((2, 6, 9), np.float32)})
    assert coverage.total_macs == 2 * 9 * 4 * 6 * 3 + 2 * 4 * 9 * 2


def test_weight_built_in_the_graph_is_folded_and_not_counted(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["a", "f"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    constants = {"a": np.ones((64, 2), np.float32), "f": np.ones((2, 64), np.float32)}
    path = _write(tmp_path / "m.onnx", nodes, constants, takes=[1, 64], gives=("y", [1, 64]))
    coverage = int8_coverage(path, {"x": np.ones((1, 64), np.float32)})
    assert coverage.total_macs == 64 * 64
    assert optimised_weights_bytes(path) == 4 * 64 * 64  # resident dense, though the file holds 4 * 256 bytes
    assert path.stat().st_size < 4 * 64 * 64 / 8


def test_arithmetic_that_cannot_be_counted_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Einsum", ["x", "w"], ["y"], equation="ij,jk->ik", name="mixing")]
    path = _write(tmp_path / "m.onnx", nodes, {"w": np.ones((3, 4), np.float32)}, takes=[2, 3], gives=("y", [2, 4]))
    with pytest.raises(MeasurementError, match="cannot count the arithmetic of Einsum 'mixing'"):
        int8_coverage(path, {"x": np.ones((2, 3), np.float32)})


def test_resident_weights_are_a_quarter_in_int8(tmp_path: Path) -> None:
    dense = optimised_weights_bytes(write_net(tmp_path / "f.onnx", quantised=set()))
    whole = {"conv", "depthwise", "matmul", "gemm"}
    int8 = optimised_weights_bytes(write_net(tmp_path / "q.onnx", quantised=whole))
    assert 4 * NUM_WEIGHTS <= dense < 4 * NUM_WEIGHTS * 2.5  # NCHWc pads 5 channels to 8 or 16
    assert NUM_WEIGHTS <= int8 < NUM_WEIGHTS + 200


def test_measuring_a_graph_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_net(tmp_path / "m.onnx", quantised=set())
    int8_coverage(path, FEED)
    optimised_weights_bytes(path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]
    assert input_name(path) == "x"


def test_what_is_made_again_in_every_run_is_found(tmp_path: Path) -> None:
    """A factor through DequantizeLinear is not folded at load, one through Cast and Mul is."""
    constants = {"a": np.ones((64, 2), np.float32), "f": np.ones((2, 64), np.int8), "s": np.array(0.1, np.float32)}
    build = [helper.make_node("MatMul", ["a", "float"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    ends = {"takes": [1, 64], "gives": ("y", [1, 64])}
    kept = [helper.make_node("DequantizeLinear", ["f", "s"], ["float"]), *build]
    assert unfolded_operators(_write(tmp_path / "kept.onnx", kept, constants, **ends))
    folded = [
        helper.make_node("Cast", ["f"], ["whole"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["whole", "s"], ["float"]),
        *build,
    ]
    assert not unfolded_operators(_write(tmp_path / "folded.onnx", folded, constants, **ends))
