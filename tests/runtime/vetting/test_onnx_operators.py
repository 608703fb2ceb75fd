"""Shapes by edgelip against those by onnx's own shape inference, the second method."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edgelip.runtime.vetting.onnx_messages import FLOAT, INT8, INT64
from edgelip.runtime.vetting.onnx_operators import OPERATORS
from edgelip.runtime.vetting.onnx_shapes import Call, Known

SIDES = st.integers(1, 9)
AXES = st.lists(SIDES, min_size=1, max_size=4).map(tuple)


def by_edgelip(operator: str, inputs: list[Known], parts: int = 1, **attributes: Any) -> list[tuple[int, ...]]:
    fields = {
        name: value.encode() if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
        for name, value in attributes.items()
    }
    return [value.axes for value in OPERATORS[operator].result(Call(inputs, fields, parts))]


def by_onnx(operator: str, inputs: list[Known], parts: int = 1, **attributes: Any) -> list[tuple[int, ...]]:
    """What onnx infers; constants are given as initialisers. Raises InferenceError if it refuses."""
    names, outputs = [f"i{i}" for i in range(len(inputs))], [f"o{i}" for i in range(parts)]
    graph = helper.make_graph(
        [helper.make_node(operator, names, outputs, **attributes)],
        "one",
        [
            helper.make_tensor_value_info(name, known.elem_type, known.axes)
            for name, known in zip(names, inputs, strict=True)
            if known.values is None
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [
            numpy_helper.from_array(np.array(known.values, np.int64).reshape(known.axes), name)
            for name, known in zip(names, inputs, strict=True)
            if known.values is not None
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph.output
    return [tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in inferred]


def agree(operator: str, inputs: list[Known], parts: int = 1, **attributes: Any) -> None:
    """Both give the same, or edgelip refuses; what onnx refuses or finds empty, edgelip must not accept."""
    try:
        mine = by_edgelip(operator, inputs, parts, **attributes)
    except ValueError:
        return
    theirs = by_onnx(operator, inputs, parts, **attributes)
    assert mine == theirs


def real(axes: tuple[int, ...]) -> Known:
    return Known(FLOAT, tuple(axes))


def whole(*values: int) -> Known:
    return Known(INT64, (len(values),), tuple(values), constant=True)


WINDOW = st.fixed_dictionaries(
    {
        "strides": st.lists(st.integers(1, 3), min_size=2, max_size=2),
        "dilations": st.lists(st.integers(1, 2), min_size=2, max_size=2),
        "pads": st.lists(st.integers(0, 2), min_size=4, max_size=4),
    }
)


@given(st.tuples(SIDES, SIDES), st.tuples(st.integers(1, 3), st.integers(1, 3)), st.sampled_from([1, 2]), WINDOW)
@settings(max_examples=80)
def test_convolutions(sides: tuple[int, int], kernel: tuple[int, int], group: int, window: dict[str, Any]) -> None:
    inputs = [real((2, 4, *sides)), real((6, 4 // group, *kernel)), real((6,))]
    agree("Conv", inputs, group=group, kernel_shape=list(kernel), **window)


@given(st.tuples(SIDES, SIDES), st.tuples(st.integers(2, 3), st.integers(2, 3)), WINDOW)
@settings(max_examples=80)
def test_pools(sides: tuple[int, int], kernel: tuple[int, int], window: dict[str, Any]) -> None:
    agree("MaxPool", [real((2, 4, *sides))], kernel_shape=list(kernel), ceil_mode=0, **window)


def test_a_pool_that_rounds_up_is_refused_because_engines_disagree_on_its_last_window() -> None:
    with pytest.raises(ValueError, match="has ceil_mode 1; expected 0"):
        by_edgelip("MaxPool", [real((2, 4, 5, 5))], kernel_shape=[2, 2], ceil_mode=1)


@given(AXES, AXES)
@settings(max_examples=80)
def test_broadcasting(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    for shape in (second, first, tuple(1 for _ in first), first[-1:]):
        agree("Mul", [real(first), real(shape)])
        agree("Sub", [real(first), real(shape)])
    if len(first) > 1 and len(second) > 1:
        agree("MatMul", [real(first), real((*second[:-2], first[-1], second[-1]))])


@given(AXES, st.lists(st.integers(-2, 12), min_size=1, max_size=4))
@settings(max_examples=80)
def test_reshapes(axes: tuple[int, ...], wanted: list[int]) -> None:
    agree("Reshape", [real(axes), whole(*wanted)])
    agree("Reshape", [real(axes), whole(-1, *axes[1:][:1])])


@given(AXES, st.data())
@settings(max_examples=80)
def test_slices_and_pads(axes: tuple[int, ...], data: st.DataObject) -> None:
    number = st.integers(-12, 12) | st.sampled_from([2**63 - 1, -(2**63)])
    axis = data.draw(st.integers(-len(axes), len(axes) - 1))
    step = data.draw(st.sampled_from([1, 2, -1, -3]))
    limits = whole(data.draw(number)), whole(data.draw(number))
    inputs = [real(axes), *limits, whole(axis), whole(step)]
    if all(length > 0 for (shape,) in [by_edgelip("Slice", inputs)] for length in shape):
        agree("Slice", inputs)
    agree("Pad", [real(axes), whole(*(data.draw(st.integers(0, 3)) for _ in range(2 * len(axes))))], mode="constant")


@given(AXES, st.integers(-4, 3), st.integers(0, 1))
@settings(max_examples=80)
def test_reductions_and_moves(axes: tuple[int, ...], axis: int, keep: int) -> None:
    agree("ReduceMean", [real(axes), whole(axis)], keepdims=keep)
    agree("ReduceMean", [real(axes)], keepdims=keep)
    agree("Unsqueeze", [real(axes), whole(axis)])
    agree("Squeeze", [real((*axes, 1)), whole(-1)])
    agree("Transpose", [real(axes)], perm=list(range(len(axes)))[::-1])
    agree("Concat", [real(axes), real(axes)], axis=axis)
    agree("Split", [real(axes)], 2, axis=axis, num_outputs=2)
    agree("Shape", [real(axes)], start=0)
    agree("Cast", [real(axes)], to=TensorProto.FLOAT16)


@given(AXES, st.integers(0, 3))
def test_levels(axes: tuple[int, ...], axis: int) -> None:
    rows = axes[axis : axis + 1]
    agree("QuantizeLinear", [real(axes), real(rows), Known(INT8, rows)], axis=axis)
    agree("DequantizeLinear", [Known(INT8, axes), real(()), Known(INT8, ())])


def test_small_integers_are_followed_so_that_a_shape_may_be_computed() -> None:
    shape = OPERATORS["Shape"].result(Call([real((2, 3, 4))], {}, 1))[0]
    assert shape.values == (2, 3, 4)
    tail = OPERATORS["Slice"].result(Call([shape, whole(1), whole(3)], {}, 1))[0]
    joined = OPERATORS["Concat"].result(Call([tail, whole(-1)], {"axis": 0}, 1))[0]
    assert joined.values == (3, 4, -1)
    assert by_edgelip("Reshape", [real((2, 3, 4)), joined]) == [(3, 4, 2)]


def test_integers_are_followed_up_to_a_number_so_that_joining_them_costs_no_memory() -> None:
    value = whole(*range(200))
    assert OPERATORS["Concat"].result(Call([value, value], {"axis": 0}, 1))[0] == Known(INT64, (400,))


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_of_the_table_is_one_of_onnx_with_these_attributes(operator: str) -> None:
    # QuantizeLinear took its newest attributes with operator set 21, ReduceMean gave up one with 18.
    known = {name for version in (13, 18, 21) for name in _attributes(operator, version)}
    assert set(OPERATORS[operator].attributes) <= known


def _attributes(operator: str, version: int) -> list[str]:
    try:
        return list(onnx.defs.get_schema(operator, version, "").attributes)
    except onnx.defs.SchemaError:
        return []
