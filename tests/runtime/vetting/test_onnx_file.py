from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper
from typical_model import typical_model

from edgelip.runtime.vetting.onnx_file import read_onnx, shown
from edgelip.runtime.vetting.onnx_messages import TYPE_BYTES, TYPE_NAMES

DTYPES = st.sampled_from([np.float32, np.uint8, np.int8, np.int32, np.int64, np.bool_, np.float16])
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, max_side=4)))


def model_of(*tensors: onnx.TensorProto) -> onnx.ModelProto:
    model = typical_model()
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
    return model


def test_the_summary_is_what_onnx_reads(tmp_path: Path) -> None:
    model = typical_model()
    helper.set_model_props(model, {"edgelip.words": "ABOUT\nBELOW", "edgelip.precision": "int8"})
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with (tmp_path / "model.onnx").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        read = read_onnx(mapped)
    assert read == read_onnx(model.SerializeToString())
    assert (read.ir_version, read.opset) == (model.ir_version, model.opset_import[0].version)
    assert read.metadata == {"edgelip.words": "ABOUT\nBELOW", "edgelip.precision": "int8"}
    assert len(read.nodes) == len(model.graph.node)
    for mine, node in zip(read.nodes, model.graph.node, strict=True):
        assert (mine.op_type, mine.inputs, mine.outputs) == (node.op_type, tuple(node.input), tuple(node.output))
        values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        assert {name: list(v) if isinstance(v, tuple) else v for name, v in mine.attributes.items()} == values
    for tensor, stored in zip(read.initialisers, model.graph.initializer, strict=True):
        assert (tensor.name, tensor.elem_type, tensor.dims) == (stored.name, stored.data_type, tuple(stored.dims))
        assert tensor.num_bytes == numpy_helper.to_array(stored).nbytes


@given(ARRAYS, st.booleans())
@settings(max_examples=60)
def test_tensors_are_measured_however_they_are_stored(array: np.ndarray, raw: bool) -> None:
    stored = numpy_helper.from_array(array, "w")
    if not raw:
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        stored = helper.make_tensor("w", kind, array.shape, array.flatten().tolist())
    (tensor,) = read_onnx(model_of(stored).SerializeToString()).initialisers
    assert (tensor.dims, tensor.num_bytes) == (array.shape, array.nbytes)
    if array.dtype in (np.int32, np.int64):
        assert tensor.values == tuple(array.flatten().tolist())
    else:
        assert tensor.values is None


def test_float8_weights_take_one_byte_each() -> None:
    for kind in (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2):
        stored = TensorProto(name="w", data_type=kind, dims=[2, 3], raw_data=bytes(6))
        assert read_onnx(model_of(stored).SerializeToString()).initialisers[0].num_bytes == 6


@given(st.integers(1, 9), st.integers(1, 9))
def test_nibbles_are_measured_two_to_a_byte(rows: int, columns: int) -> None:
    kind = helper.tensor_dtype_to_np_dtype(TensorProto.INT4)
    stored = numpy_helper.from_array(np.ones((rows, columns), np.int8).astype(kind), "w")
    (tensor,) = read_onnx(model_of(stored).SerializeToString()).initialisers
    assert (tensor.dims, tensor.num_bytes) == ((rows, columns), (rows * columns + 1) // 2)
    stored.raw_data += b"\0"
    with pytest.raises(ValueError, match=rf"with {tensor.num_bytes + 1} bytes; its dims .* of int4 are"):
        read_onnx(model_of(stored).SerializeToString())
    stored.ClearField("raw_data")
    stored.int32_data.extend([1] * tensor.num_bytes)
    with pytest.raises(ValueError, match=r"\(int4\) with data in \['int32_data'\]; expected raw_data"):
        read_onnx(model_of(stored).SerializeToString())


def test_types_are_named_and_measured_as_onnx_does() -> None:
    for kind, size in TYPE_BYTES.items():
        if kind < TensorProto.FLOAT8E4M3FN:
            assert helper.tensor_dtype_to_np_dtype(kind).itemsize == size
    for kind, name in TYPE_NAMES.items():
        theirs = TensorProto.DataType.Name(kind).lower()
        assert name == {"float": "float32", "double": "float64"}.get(theirs, theirs)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            TensorProto(name="w", data_type=1, dims=[2], raw_data=bytes(8), float_data=[0, 0]),
            r"data in \['raw_data', 'fl",
        ),
        (
            TensorProto(name="w", data_type=1, dims=[2]),
            r"has initialiser 'w' \(float32\) with data in \[\]; expected raw",
        ),
        (
            TensorProto(name="w", data_type=1, dims=[2], int32_data=[0, 0]),
            r"data in \['int32_data'\]; expected raw_data",
        ),
        (
            TensorProto(name="w", data_type=6, dims=[3], int32_data=[0, 0]),
            r"with 8 bytes; its dims \[3\] of int32 are 12",
        ),
    ],
)
def test_a_tensor_is_stored_once_and_whole(tensor: onnx.TensorProto, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_onnx(model_of(tensor).SerializeToString())


def test_a_known_field_of_another_wire_type_is_refused_where_protobuf_would_pass_over_it() -> None:
    content = b"\x0a\x01x" + typical_model().SerializeToString()  # ir_version as text
    assert onnx.load_from_string(content).ir_version == 10
    with pytest.raises(ValueError, match="stores ir_version as wire type 2; expected 0"):
        read_onnx(content)


def test_a_name_is_shown_in_one_short_line() -> None:
    assert shown("a\n\u202e\0") == r"'a\n\u202e\x00'"
    assert shown("x" * 500) == "'" + "x" * 75 + "...'"
