"""What ONNX Runtime makes of a model: the weights it keeps in memory, and the arithmetic it does in integers."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.registry import require
from edgelip.runtime.engines.ort import open_session
from edgelip.runtime.errors import MeasurementError

# Which input holds the weight of a convolution: its shape is (out, in / groups, *kernel) in both layouts.
_CONV_WEIGHT = {
    "Conv": 1,
    "FusedConv": 1,
    "NhwcFusedConv": 1,
    "ConvInteger": 1,
    "QLinearConv": 3,
}
_MATMULS = {
    "MatMul",
    "Gemm",
    "FusedMatMul",
    "FusedGemm",
    "MatMulNBits",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QLinearMatMul",
    "QGemm",
}
_TRANSPOSABLE = {"Gemm", "FusedGemm", "QGemm", "FusedMatMul"}
INTEGER = {
    "ConvInteger",
    "QLinearConv",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QLinearMatMul",
    "QGemm",
}
# They multiply too, but their arithmetic is not read off the shapes here: better no number than a wrong one.
_UNCOUNTED = {
    "ConvTranspose",
    "Einsum",
    "LSTM",
    "GRU",
    "RNN",
    "DynamicQuantizeLSTM",
    "Attention",
    "QAttention",
    "MultiHeadAttention",
    "QOrderedMatMul",
    "FusedMatMulActivation",
    "SparseToDenseMatMul",
}


_LAYOUT_SUFFIX = re.compile(r"_token_\d+$")  # of a convolution that the optimiser has turned to channels-last


@dataclass(frozen=True)
class Int8Coverage:
    """Multiply-accumulates of one run, and those that integer kernels do with weights that the file holds in integers.

    kernels: MACs by kernel as executed, with the padding of NCHWc blocks. float_macs: the rest of the total by node.
    self_rounded: nodes of that rest which integer kernels run too, since ONNX Runtime rounds a float weight between
    rounded activations by itself: with one scale a tensor, which nothing was calibrated or trained with.
    """

    total_macs: int
    int8_macs: int
    kernels: Mapping[str, int]
    float_macs: Mapping[str, int] = field(default_factory=dict)
    self_rounded: tuple[str, ...] = ()

    @property
    def int8_pct(self) -> float:
        return 100 * self.int8_macs / self.total_macs if self.total_macs else 0.0


def input_name(model_path: Path) -> str:
    """Name of the model's first input that is not a constant."""
    onnx: Any = require("onnx", extra="onnx")

    graph = onnx.load(str(model_path), load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return next(str(value.name) for value in graph.input if value.name not in constants)


def optimised_weights_bytes(model_path: Path) -> int:
    """Bytes of the constants that ONNX Runtime holds once all graph optimisations are done: the resident weights.

    Prepacked copies, which replace some of them one for one, are not counted twice.
    """
    return sum(_num_bytes(tensor) for tensor in _optimised_graph(model_path).initializer)


def unfolded_operators(model_path: Path) -> Counter[str]:
    """Nodes of ONNX Runtime's optimised graph that read nothing of the clip, by operator: work done again every run.

    Empty if every weight that is stored as less than what runs is built at load.
    """
    graph = _optimised_graph(model_path)
    moving = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    left: Counter[str] = Counter()
    for node in graph.node:  # in the order of computation
        if moving & {*node.input}:
            moving.update(node.output)
        else:
            left[node.op_type] += 1
    return left


def int8_coverage(model_path: Path, feed: Mapping[str, np.ndarray]) -> Int8Coverage:
    """Share of the multiply-accumulates that integer kernels execute, from the profile of one run on `feed`.

    The total is counted at BASIC optimisation, where shapes are those of the model: NCHWc kernels pad channels to
    whole blocks, which would count work that is not the model's. Prepacking is off: a prepacked weight has no shape in
    the profile. Neither changes which kernels the graph optimiser picks.
    Raises MeasurementError if an operator multiplies in a way that is not counted.
    """
    total = _node_macs(model_path, feed, optimisation="BASIC")
    executed = _node_macs(model_path, feed, optimisation="ALL")
    in_integers = {node for (kernel, node) in executed if kernel in INTEGER}
    self_rounded = in_integers & _nodes_of_float_weights(model_path)
    float_macs = {node: macs for (_, node), macs in total.items() if node not in in_integers - self_rounded}
    int8_macs = sum(macs for (kernel, node), macs in executed.items() if node in in_integers - self_rounded)
    kernels: Counter[str] = Counter()
    for (kernel, _), macs in executed.items():
        kernels[kernel] += macs
    return Int8Coverage(
        sum(total.values()),
        int8_macs,
        dict(kernels),
        float_macs,
        tuple(node for node in float_macs if node in self_rounded),
    )


def _nodes_of_float_weights(model_path: Path) -> set[str]:
    """Names of the nodes that multiply by a constant which the file does not hold in integers."""
    onnx: Any = require("onnx", extra="onnx")

    graph = onnx.load(str(model_path), load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    depending = {value.name for value in graph.input} - constants
    makers = {}
    for node in graph.node:
        makers.update(dict.fromkeys(node.output, node.op_type))
        if depending & {*node.input}:
            depending.update(node.output)
    return {
        node.name
        for node in graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul") and depending & {*node.input}
        for weight in node.input[:2]
        if weight not in depending and makers.get(weight) != "DequantizeLinear"
    }


def _optimised_graph(model_path: Path) -> Any:
    """The graph that ONNX Runtime runs, after all its optimisations."""
    onnx: Any = require("onnx", extra="onnx")

    with tempfile.TemporaryDirectory(prefix="edgelip-graph-") as folder:
        optimised = Path(folder) / "optimised.onnx"
        open_session(model_path, optimised_path=optimised)
        return onnx.load(str(optimised)).graph


def _num_bytes(tensor: Any) -> int:
    onnx: Any = require("onnx", extra="onnx")

    count = math.prod(int(length) for length in tensor.dims)
    if tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):  # two to a byte; numpy gives each its own
        return (count + 1) // 2
    return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _node_macs(model_path: Path, feed: Mapping[str, np.ndarray], *, optimisation: str) -> Counter[tuple[str, str]]:
    """MACs by kernel and by node: an integer kernel keeps the name of the node that it stands for."""
    macs: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory(prefix="edgelip-graph-") as folder:
        session = open_session(
            model_path,
            optimisation=optimisation,
            profile_prefix=Path(folder) / "profile",
            config={"session.disable_prepacking": "1"},
        )
        session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text())
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kernel, node = event["args"]["op_name"], event["name"].removesuffix("_kernel_time")
            macs[kernel, _LAYOUT_SUFFIX.sub("", node)] += _macs(kernel, event["args"], node=node)
    return +macs


def _macs(kernel: str, details: Mapping[str, Any], *, node: str) -> int:
    """Multiply-accumulates of one node from the shapes that its profile shows."""
    if kernel in _UNCOUNTED:
        raise MeasurementError(f"cannot count the arithmetic of {kernel} {node!r}; expected convolutions and products.")
    if kernel not in _CONV_WEIGHT and kernel not in _MATMULS:
        return 0
    inputs: list[list[int]] = [next(iter(shape.values())) for shape in details["input_type_shape"]]
    output: list[int] = next(iter(details["output_type_shape"][0].values()))
    if kernel in _CONV_WEIGHT:
        return math.prod(output) * math.prod(inputs[_CONV_WEIGHT[kernel]][1:])
    left = inputs[0]
    # (M, K) or, transposed, (K, M): either way K = M * K / M.
    inner = math.prod(left[-2:]) // output[-2] if kernel in _TRANSPOSABLE else left[-1]
    return math.prod(output) * inner
