"""Weights in the ONNX file as they are stored, with the few nodes that build what runs.

PHM:   A, F -> MatMul -> Reshape -> Transpose -> Reshape (-> Mul by row) = W.
int8:  -> Cast to float16 -> Cast to float -> Mul by scale, in place of what was a float. int4 alike. ONNX Runtime folds
       this at load; DequantizeLinear in its place would be run again for every clip. OpenVINO keeps an integer that
       goes through one Cast as it is, and then fails on the MatMul behind it; two it folds.
half:  -> Cast.
int8 that runs: the float weight -> QuantizeLinear -> DequantizeLinear, of which the first is folded; without factors
       the int8 weight -> DequantizeLinear. For linear layers the bias too, from int32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgelip.deploy.running_form import StoredArray, StoredWeight

INT4_OPSET, INT4_IR_VERSION = 21, 10  # the first that have INT4; what else changed since 18 is more types
_HALF_LARGEST = float(np.finfo(np.float16).max)


def without_building(stored: Mapping[str, StoredWeight]) -> dict[str, StoredWeight]:
    """The same weights for engines that do not fold: int8 ones that run as dense levels, float ones as they are."""
    return {
        name: StoredWeight(weight_scales=weight.weight_scales, bias_scales=weight.bias_scales)
        for name, weight in stored.items()
        if weight.weight_scales is not None
    }


def without_whole_biases(stored: Mapping[str, StoredWeight]) -> dict[str, StoredWeight]:
    """The same weights with every bias in float, of the same value: TensorRT dequantises no int32."""
    return {name: replace(weight, bias_scales=None) for name, weight in stored.items()}


def store_weights(model: onnx.ModelProto, stored: Mapping[str, StoredWeight]) -> None:
    """Replace the dense initialisers of `stored` by their stored form, in place: in float16 where they are."""
    graph = model.graph
    _unshare_biases(graph, stored)
    initialisers = {tensor.name: tensor for tensor in graph.initializer}
    building: list[onnx.NodeProto] = []

    def take(name: str) -> np.ndarray:
        """An initialiser, to be replaced; the exporter keeps parameter names, so that a missing one is our mistake."""
        graph.initializer.remove(initialisers[name])
        return np.asarray(numpy_helper.to_array(initialisers[name]))

    for name, weight in stored.items():
        dense = take(name)
        writer = _Writer(graph, name, half=dense.dtype == np.float16)
        writer.weight(weight, dense)
        bias = _bias_of(name)
        has_bias = bias in initialisers  # the exporter leaves zeros out
        if has_bias and weight.bias_scales is not None:
            writer.whole_bias(bias, take(bias), weight.bias_scales)
        elif has_bias and weight.bias is not None and initialisers[bias].data_type == TensorProto.FLOAT:
            take(bias)
            writer.give(bias, writer.number("b", weight.bias))
        building += writer.nodes
    nodes = [*building, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    if any(tensor.data_type == TensorProto.INT4 for tensor in graph.initializer):
        model.opset_import[0].version = max(model.opset_import[0].version, INT4_OPSET)
        model.ir_version = max(model.ir_version, INT4_IR_VERSION)


def _unshare_biases(graph: onnx.GraphProto, stored: Mapping[str, StoredWeight]) -> None:
    """Give each layer a bias of its own: the exporter keeps one of several equal ones, such as zeros."""
    initialisers = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if len(node.input) == 3 and node.input[1] in stored:
            bias = _bias_of(node.input[1])
            if bias not in initialisers:
                tensor = onnx.TensorProto()
                tensor.CopyFrom(initialisers[node.input[2]])
                tensor.name = node.input[2] = bias
                graph.initializer.append(tensor)


def _bias_of(weight: str) -> str:
    return f"{weight.removesuffix('weight')}bias"


class _Writer:
    """Collects the nodes and initialisers of one weight."""

    def __init__(self, graph: onnx.GraphProto, name: str, *, half: bool) -> None:
        self.graph, self.name, self.half = graph, name, half
        self.nodes: list[onnx.NodeProto] = []

    def weight(self, weight: StoredWeight, dense: np.ndarray) -> None:
        """Nodes that give the weight that runs, under its name."""
        if weight.weight_scales is None:
            value = self.float_weight(weight, dense.shape)
            self.give(self.name, self.node("Cast", [value], to=TensorProto.FLOAT16) if self.half else value)
            return
        is_half = weight.is_built and (weight.weight_scales.astype(np.float16) == weight.weight_scales).all()
        parameters = [self.number("s", StoredArray(weight.weight_scales, 16 if is_half else 32))]
        parameters.append(self.constant("z", np.zeros(len(weight.weight_scales), np.int8)))
        if weight.factors is not None or (weight.dense is not None and weight.dense.bits == 16):
            levels = self.node("QuantizeLinear", [self.float_weight(weight, dense.shape), *parameters], axis=0)
        elif weight.dense is not None and weight.dense.bits == 4:  # the same levels run, of the same scale
            levels = self.node("Cast", [self.integers("q", weight.dense)], to=TensorProto.INT8)
        else:
            scales = weight.weight_scales.reshape(-1, *[1] * (dense.ndim - 1))
            levels = self.integers("q", StoredArray(dense, 8, scales))
        self.node("DequantizeLinear", [levels, *parameters], self.name, axis=0)

    def float_weight(self, weight: StoredWeight, shape: tuple[int, ...]) -> str:
        """Nodes that give a dense float weight; mirrors edgelip.models.kronecker.fold."""
        if weight.factors is None:
            assert weight.dense is not None  # a float dense weight is not in `stored`
            return self.number("W", weight.dense)
        assert weight.blocks is not None
        terms, rows, columns = weight.factors.values.shape
        height, width = weight.blocks.values.shape[1:3]
        flat = weight.blocks.values.reshape(terms, -1)
        if weight.blocks.scales is None:
            blocks = self.number("F", replace(weight.blocks, values=flat))
        else:
            rows_of_blocks = _arranged(weight.blocks, flat.reshape(terms, height, -1), terms, height, 1)
            blocks = self.node("Reshape", [self.number("F", rows_of_blocks), self.constant("f", np.array([terms, -1]))])
        columns_of_terms = weight.factors.values.reshape(terms, rows * columns).T
        factors = self.number("A", _arranged(weight.factors, columns_of_terms, 1, terms))
        products = self.node("MatMul", [factors, blocks])
        grid = self.node("Reshape", [products, self.constant("grid", np.array([rows, columns, height, width, -1]))])
        turned = self.node("Transpose", [grid], perm=[0, 2, 1, 3, 4])
        value = self.node("Reshape", [turned, self.constant("shape", np.array(shape))])
        if weight.row_scale is None:
            return value
        rows_scaled = weight.row_scale.values.reshape(-1, *[1] * (len(shape) - 1))
        scale = self.number("r", replace(weight.row_scale, values=rows_scaled))
        return self.node("Mul", [value, scale])

    def number(self, suffix: str, array: StoredArray) -> str:
        """Stored numbers as float32; in a half-precision file no float takes more than 16 bits."""
        if array.scales is not None:
            half = self.node("Cast", [self.integers(suffix, array)], to=TensorProto.FLOAT16)
            scales = StoredArray(array.scales.astype(np.float32), 16 if array.scales.dtype == np.float16 else 32)
            levels = self.node("Cast", [half], to=TensorProto.FLOAT)
            return self.node("Mul", [levels, self.number(f"{suffix}s", scales)])
        narrow = self.half or array.bits == 16
        if not narrow or np.abs(array.values).max() > _HALF_LARGEST:
            return self.constant(suffix, array.values)
        return self.node("Cast", [self.constant(suffix, array.values.astype(np.float16))], to=TensorProto.FLOAT)

    def integers(self, suffix: str, array: StoredArray) -> str:
        kind = helper.tensor_dtype_to_np_dtype(TensorProto.INT4 if array.bits == 4 else TensorProto.INT8)
        return self.constant(suffix, array.levels.astype(kind))

    def whole_bias(self, bias: str, values: np.ndarray, scales: np.ndarray) -> None:
        levels = np.clip(np.rint(values / scales.astype(np.float64)), -(2**31), 2**31 - 1).astype(np.int32)
        constants = [self.constant("b", levels), self.constant("bs", scales)]
        self.node("DequantizeLinear", [*constants, self.constant("bz", np.zeros(len(scales), np.int32))], bias, axis=0)

    def constant(self, suffix: str, array: np.ndarray) -> str:
        name = f"{self.name}.{suffix}"
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, operator: str, inputs: list[str], output: str | None = None, **attributes: object) -> str:
        output = output or f"{self.name}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def give(self, name: str, value: str) -> None:
        """Let the last node, or a constant, be called `name`."""
        made = next((node for node in self.nodes if value in node.output), None)
        if made is not None:
            made.output[0] = name
        else:
            next(tensor for tensor in self.graph.initializer if tensor.name == value).name = name


def _arranged(array: StoredArray, values: np.ndarray, *scales_shape: int) -> StoredArray:
    """The same numbers with other axes, and scales that fit those."""
    return replace(array, values=values, scales=None if array.scales is None else array.scales.reshape(scales_shape))
