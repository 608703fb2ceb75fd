"""What each layer of an ONNX file costs for one clip: multiply-adds and bytes moved, whatever runs it.

A layer is a node that computes or copies, with the elementwise nodes that an engine merges into it. Weights that the
graph builds from constants (PHM factors) count as the dense weights that an engine folds them to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from edgelip.errors import BundleError, MeasurementError
from edgelip.runtime.engines.engine import first_line

_MULTIPLYING = {"Conv", "Gemm", "MatMul"}
# They multiply too, but their arithmetic is not read off the shapes here: better no number than a wrong one.
_UNCOUNTED = {"ConvTranspose", "Einsum", "GRU", "LSTM", "RNN", "Attention", "ConvInteger", "MatMulInteger"}
# They give another view or type of the same numbers, which the next layer reads where they are.
_VIEWS = {"Cast", "DequantizeLinear", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
_CONSTANT_VIEWS = _VIEWS - {"Cast"}  # a constant is folded to the type that it is cast to
_MERGED = {
    "Add", "BatchNormalization", "Clip", "Div", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max",
    "Min", "Mul", "Neg", "PRelu", "Pow", "QuantizeLinear", "Relu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh",
}  # fmt: skip
_PARTIAL = {"Gather", "Slice", "Split"}  # they read only what they write
_PRECISIONS = {
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT16: "fp16",
    TensorProto.FLOAT: "fp32",
}


@dataclass(frozen=True)
class LayerCost:
    """One layer. precision: of its arithmetic, none where it multiplies nothing; weights and activations in bytes."""

    name: str
    operators: tuple[str, ...]
    precision: str | None
    macs: int
    weight_bytes: int
    activation_bytes: int


@dataclass
class _Layer:
    name: str
    operators: list[str] = field(default_factory=list)
    precision: str | None = None
    macs: int = 0
    constants: set[str] = field(default_factory=set)
    reads: dict[str, int] = field(default_factory=dict)  # value to bytes
    made: set[str] = field(default_factory=set)


def layer_costs(model: onnx.ModelProto) -> list[LayerCost]:
    """The layers of a graph in its order, for one clip.

    Arithmetic is in int8 or float8 where both operands are dequantised from it, else in the type of the result. An
    activation is moved in the type in which it is kept between layers.
    Raises MeasurementError if a shape cannot be inferred or an operator multiplies in a way that is not counted.
    """
    return _Reading(model).costs()


def load_graph(path: Path) -> onnx.ModelProto:
    """An ONNX file without its external data: shapes are enough here. Raises BundleError if it is none."""
    try:
        return onnx.load(str(path), load_external_data=False)
    except (OSError, DecodeError) as error:
        raise BundleError(f"{path} cannot be read as ONNX: {first_line(error)}. Export the bundle again.") from error


class _Reading:
    def __init__(self, model: onnx.ModelProto) -> None:
        one_clip = onnx.ModelProto()
        one_clip.CopyFrom(model)
        constants = {tensor.name for tensor in model.graph.initializer}
        for value in one_clip.graph.input:
            if value.name not in constants and value.type.tensor_type.shape.dim:
                value.type.tensor_type.shape.dim[0].dim_value = 1
        for value in one_clip.graph.output:
            value.type.tensor_type.ClearField("shape")  # it says a free batch
        try:
            self._graph = onnx.shape_inference.infer_shapes(one_clip, data_prop=True).graph
        except (ValueError, onnx.shape_inference.InferenceError) as error:
            raise MeasurementError(
                f"the shapes of the graph cannot be inferred for one clip: {first_line(error)}"
            ) from error
        self._constants = constants
        self._kept: dict[str, str] = {}  # a view to the value whose numbers it shows
        self._maker: dict[str, _Layer] = {}
        self._layers: list[_Layer] = []
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._types: dict[str, int] = {}
        for tensor in self._graph.initializer:
            self._shapes[tensor.name], self._types[tensor.name] = tuple(tensor.dims), tensor.data_type
        for value in (*self._graph.input, *self._graph.value_info, *self._graph.output):
            tensor_type = value.type.tensor_type
            self._types.setdefault(value.name, tensor_type.elem_type)
            if tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor_type.shape.dim):
                self._shapes.setdefault(value.name, tuple(dim.dim_value for dim in tensor_type.shape.dim))

    def costs(self) -> list[LayerCost]:
        for node in self._graph.node:
            self._read(node)
        wanted = {self._source(value.name) for value in self._graph.output}
        for layer in self._layers:
            wanted |= layer.reads.keys() - layer.made
        return [self._cost(layer, wanted) for layer in self._layers]

    def _read(self, node: onnx.NodeProto) -> None:
        inputs = [name for name in node.input if name]
        if node.op_type == "Shape" or all(name in self._constants for name in inputs):
            self._constants.update(node.output)
            if node.op_type in _CONSTANT_VIEWS:
                self._kept[node.output[0]] = self._source(inputs[0])
            return
        if node.op_type in _UNCOUNTED:
            kinds = ", ".join(sorted(_MULTIPLYING))
            raise MeasurementError(f"cannot count the arithmetic of {node.op_type} {node.name!r}; expected {kinds}.")
        if node.op_type in _VIEWS:
            self._kept[node.output[0]] = self._source(inputs[0])
            return
        layer = self._layer_of(node, inputs)
        layer.operators.append(node.op_type)
        if node.op_type in _MULTIPLYING:
            layer.macs += self._macs(node)
            layer.precision = self._precision(node)
        for name in inputs:
            source = self._source(name)
            if name not in self._constants:
                layer.reads[source] = self._bytes(node.output[0] if node.op_type in _PARTIAL else source)
            elif node.op_type in _MULTIPLYING | _MERGED - {"Clip", "QuantizeLinear"}:  # not their bounds and scales
                layer.constants.add(source)
        layer.made.update(node.output)
        self._maker.update(dict.fromkeys(node.output, layer))

    def _layer_of(self, node: onnx.NodeProto, inputs: list[str]) -> _Layer:
        """The layer that the node merges into: the one that last made something of its size for it; else a new one."""
        if node.op_type in _MERGED:
            made = [self._source(name) for name in inputs if self._source(name) in self._maker]
            last = max(made, key=lambda name: self._layers.index(self._maker[name]), default=None)
            if last is not None and self._count(last) == self._count(node.output[0]):
                return self._maker[last]
        self._layers.append(_Layer(node.name or node.output[0]))
        return self._layers[-1]

    def _cost(self, layer: _Layer, wanted: set[str]) -> LayerCost:
        read = sum(size for name, size in layer.reads.items() if name not in layer.made)
        written = sum(self._bytes(name) for name in layer.made & wanted)
        weights = sum(self._bytes(name) for name in layer.constants)
        return LayerCost(layer.name, tuple(layer.operators), layer.precision, layer.macs, weights, read + written)

    def _macs(self, node: onnx.NodeProto) -> int:
        left, right, result = (self._shape(name) for name in (node.input[0], node.input[1], node.output[0]))
        if node.op_type == "Conv":
            return math.prod(result) * math.prod(right[1:])  # weights are (out, in / groups, *kernel)
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return math.prod(result) * (left[0] if transposed else left[-1])

    def _precision(self, node: onnx.NodeProto) -> str:
        kept = {_PRECISIONS.get(self._types.get(self._source(name), 0)) for name in node.input[:2]}
        if kept in ({"int8"}, {"fp8"}):
            return str(kept.pop())
        kind = self._types.get(node.output[0], 0)
        if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            raise MeasurementError(f"{node.op_type} {node.name!r} gives type {kind}; expected float32 or float16.")
        return _PRECISIONS[kind]

    def _source(self, name: str) -> str:
        return self._kept.get(name, name)

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            raise MeasurementError(f"the shape of {name!r} cannot be inferred for one clip; expected static lengths.")
        return self._shapes[name]

    def _count(self, name: str) -> int:
        return math.prod(self._shape(name))

    def _bytes(self, name: str) -> int:
        kind = self._types.get(name, 0)
        if not kind:
            raise MeasurementError(f"the type of {name!r} cannot be inferred; expected a typed graph.")
        return self._count(name) * int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
