from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgelip.compress.fake_quant import fake_quantise_rows, row_scales
from edgelip.deploy.onnx_graph import constants_to_initialisers, share_initialisers, shorten_names
from edgelip.deploy.running_form import StoredArray, StoredWeight
from edgelip.deploy.stored_form import store_weights
from edgelip.models.kronecker import fold


def run(model: onnx.ModelProto) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {})[0])


def identity_of(dense: np.ndarray) -> onnx.ModelProto:
    """A graph that gives the initialiser "w"."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])], "g", [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, dense.shape)],
        [numpy_helper.from_array(dense, "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@settings(max_examples=30)
@given(
    n=st.integers(2, 4),
    out=st.integers(1, 4),
    into=st.integers(1, 4),
    kernel=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    scaled=st.booleans(),
    int8=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_nodes_build_the_weight_that_torch_folds(
    n: int, out: int, into: int, kernel: tuple[int, ...], scaled: bool, int8: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(n, n, n, generator=generator)
    blocks = torch.randn(n, out, into, *kernel, generator=generator)
    rows = torch.rand(n * out, generator=generator) + 0.5 if scaled else None
    rounded = fake_quantise_rows(blocks, 2) if int8 else blocks
    scales = row_scales(blocks, 2).reshape(n, out, *[1] * (1 + len(kernel)))
    weight = fold(factors, rounded)
    if rows is not None:
        weight = weight * rows.reshape(-1, *[1] * (weight.ndim - 1))
    stored = StoredWeight(
        factors=StoredArray(factors.numpy()),
        blocks=StoredArray(rounded.numpy(), 8, scales.numpy()) if int8 else StoredArray(rounded.numpy()),
        row_scale=None if rows is None else StoredArray(rows.numpy()),
        weight_scales=row_scales(weight, 1).numpy() if int8 else None,
    )
    runs = fake_quantise_rows(weight, 1) if int8 else weight
    model = identity_of(runs.numpy())
    store_weights(model, {"w": stored})
    assert all(tensor.name != "w" for tensor in model.graph.initializer)
    types = {t.data_type for t in model.graph.initializer}
    assert (TensorProto.INT8 in types) == int8
    share_initialisers(model)
    shorten_names(model)
    onnx.checker.check_model(model, full_check=True)
    difference = np.abs(run(model) - runs.numpy())
    step = stored.weight_scales.max() if stored.weight_scales is not None else 0.0
    assert difference.max() <= 1.001 * step + 1e-5  # a sum on the edge between two levels may fall either way
    assert (difference > 1e-5).mean() <= 0.02


@given(out=st.integers(1, 5), into=st.integers(1, 5), seed=st.integers(0, 99))
def test_a_dense_weight_is_stored_in_whole_numbers(out: int, into: int, seed: int) -> None:
    weight = torch.randn(out, into, 3, generator=torch.Generator().manual_seed(seed))
    runs = fake_quantise_rows(weight, 1)
    model = identity_of(runs.numpy())
    store_weights(model, {"w": StoredWeight(weight_scales=row_scales(weight, 1).numpy())})
    np.testing.assert_allclose(run(model), runs.numpy(), rtol=1e-6, atol=1e-9)
    assert sum(t.data_type == TensorProto.INT8 and len(t.dims) == 3 for t in model.graph.initializer) == 1


def test_equal_constants_are_shared_and_unused_ones_dropped() -> None:
    two = numpy_helper.from_array(np.array([2.0], np.float32))
    nodes = [
        helper.make_node("Constant", [], ["c"], value=two),
        helper.make_node("Add", ["a", "b"], ["ab"]),
        helper.make_node("Mul", ["ab", "c"], ["y"]),
    ]
    constants = {"a": [2.0], "b": [2.0], "unused": [5.0], "other_type": [2]}
    graph = helper.make_graph(
        nodes, "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [
            numpy_helper.from_array(np.array(value, np.float32 if name != "other_type" else np.int32), name)
            for name, value in constants.items()
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    constants_to_initialisers(model)
    share_initialisers(model)
    shorten_names(model)
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.initializer) == 1
    assert [node.op_type for node in model.graph.node] == ["Add", "Mul"]
    assert run(model).tolist() == [8.0]
    assert model.graph.output[0].name == "y"
