"""Weights in the ONNX file as they are stored, with the few nodes that build what runs.

PHM float:  A, F -> MatMul -> Reshape -> Transpose -> Reshape (-> Mul by row) = W. ONNX Runtime folds it when it loads.
PHM half:   A, F in float16 -> Cast -> the same in float32 -> Cast to float16. It is folded too.
PHM int8:   F int8 -> Cast -> Mul by scale -> the same -> QuantizeLinear -> DequantizeLinear. Cast and Mul are folded at
            load; DequantizeLinear in their place would be run again for every clip.
dense int8: W int8 -> DequantizeLinear; for linear layers the bias too, from int32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgelip.deploy.running_form import StoredWeight


def without_factors(stored: Mapping[str, StoredWeight]) -> dict[str, StoredWeight]:
    """The same weights for engines that do not fold factors: int8 ones as dense levels, float ones as they are."""
    plain = {"factors": None, "blocks": None, "row_scale": None, "block_scales": None}
    return {name: replace(weight, **plain) for name, weight in stored.items() if weight.weight_scales is not None}


def without_whole_biases(stored: Mapping[str, StoredWeight]) -> dict[str, StoredWeight]:
    """The same weights with every bias in float, of the same value: TensorRT dequantises no int32."""
    return {name: replace(weight, bias_scales=None) for name, weight in stored.items()}


def store_weights(model: onnx.ModelProto, stored: Mapping[str, StoredWeight]) -> None:
    """Replace the dense initialisers of `stored` by their stored form, in place: in float16 where they are."""
    graph = model.graph
    initialisers = {tensor.name: tensor for tensor in graph.initializer}
    building: list[onnx.NodeProto] = []
    for name, weight in stored.items():
        tensor = initialisers[name]  # the exporter keeps parameter names; a missing one is our mistake
        dense = numpy_helper.to_array(tensor)
        graph.initializer.remove(tensor)
        writer = _Writer(model, name, half=dense.dtype == np.float16)
        if weight.factors is not None:
            value = writer.build(weight, dense.shape)
            if weight.weight_scales is not None:
                value = writer.quantise(value, weight.weight_scales)
        else:
            assert weight.weight_scales is not None  # a float dense weight is not in `stored`
            value = writer.stored_int8(dense, weight.weight_scales)
        if weight.weight_scales is not None:
            writer.node("DequantizeLinear", [value, *writer.scales(weight.weight_scales)], name, axis=0)
        else:
            writer.rename_last(name)
        if weight.bias_scales is not None:
            bias = f"{name.removesuffix('weight')}bias"
            tensor = initialisers[bias]
            graph.initializer.remove(tensor)
            writer.dequantise_bias(bias, numpy_helper.to_array(tensor), weight.bias_scales)
        building += writer.nodes
    nodes = [*building, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


class _Writer:
    """Collects the nodes and initialisers of one weight."""

    def __init__(self, model: onnx.ModelProto, name: str, *, half: bool) -> None:
        self.model, self.name, self.half = model, name, half
        self.nodes: list[onnx.NodeProto] = []

    def constant(self, suffix: str, array: np.ndarray) -> str:
        name = f"{self.name}.{suffix}"
        if all(tensor.name != name for tensor in self.model.graph.initializer):
            self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, operator: str, inputs: list[str], output: str | None = None, **attributes: object) -> str:
        output = output or f"{self.name}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def factor(self, suffix: str, array: np.ndarray) -> str:
        """A stored float32 array; in a half-precision file in float16 where that holds it."""
        if not self.half or np.abs(array).max() > np.finfo(np.float16).max:
            return self.constant(suffix, array)
        return self.node("Cast", [self.constant(suffix, array.astype(np.float16))], to=TensorProto.FLOAT)

    def rename_last(self, name: str) -> None:
        self.nodes[-1].output[0] = name

    def build(self, weight: StoredWeight, shape: tuple[int, ...]) -> str:
        """Nodes that give the dense float weight from factors; mirrors edgelip.models.kronecker.fold."""
        assert weight.factors is not None
        assert weight.blocks is not None
        n, rows, columns = weight.factors.shape
        height, width = weight.blocks.shape[1:3]
        flat = weight.blocks.reshape(n, -1)
        if weight.block_scales is None:
            blocks = self.factor("F", flat)
        else:
            scales = weight.block_scales[(...,) + (None,) * (weight.blocks.ndim - 2)]
            levels = np.clip(np.rint(weight.blocks / scales), -128, 127).astype(np.int8)
            whole = self.node("Cast", [self.constant("F", levels.reshape(n, height, -1))], to=TensorProto.FLOAT)
            real = self.node("Mul", [whole, self.constant("Fs", weight.block_scales[..., None])])
            blocks = self.node("Reshape", [real, self.constant("flat", np.array([n, -1]))])
        factors = self.factor("A", weight.factors.reshape(n, rows * columns).T)
        products = self.node("MatMul", [factors, blocks])
        grid = self.node("Reshape", [products, self.constant("grid", np.array([rows, columns, height, width, -1]))])
        turned = self.node("Transpose", [grid], perm=[0, 2, 1, 3, 4])
        value = self.node("Reshape", [turned, self.constant("shape", np.array(shape))])
        if weight.row_scale is not None:
            scale = weight.row_scale.reshape(-1, *[1] * (len(shape) - 1))
            value = self.node("Mul", [value, self.factor("row_scale", scale)])
        return self.node("Cast", [value], to=TensorProto.FLOAT16) if self.half else value

    def quantise(self, value: str, weight_scales: np.ndarray) -> str:
        return self.node("QuantizeLinear", [value, *self.scales(weight_scales)], axis=0)

    def stored_int8(self, dense: np.ndarray, weight_scales: np.ndarray) -> str:
        scales = weight_scales.reshape(-1, *[1] * (dense.ndim - 1))
        return self.constant("q", np.clip(np.rint(dense / scales), -128, 127).astype(np.int8))

    def dequantise_bias(self, bias: str, values: np.ndarray, scales: np.ndarray) -> None:
        levels = np.clip(np.rint(values / scales.astype(np.float64)), -(2**31), 2**31 - 1).astype(np.int32)
        constants = [self.constant("b", levels), self.constant("bs", scales)]
        self.node("DequantizeLinear", [*constants, self.constant("bz", np.zeros(len(scales), np.int32))], bias, axis=0)

    def scales(self, weight_scales: np.ndarray) -> list[str]:
        zero = np.zeros(len(weight_scales), dtype=np.int8)
        return [self.constant("s", weight_scales), self.constant("z", zero)]
