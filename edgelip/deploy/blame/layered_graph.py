"""One ONNX file of a bundle as named layers: what each takes before rounding, its dense weight, its bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgelip.deploy.layer_names import MULTIPLYING, layers_of
from edgelip.errors import BundleError
from edgelip.runtime.bundle import Bundle, ModelFile
from edgelip.runtime.engines.engine import first_line, require_package

_ROUNDING = ("QuantizeLinear", "Clip", "DequantizeLinear")


@dataclass(frozen=True)
class LayerNode:
    """The node that multiplies by a layer's weight.

    source: what it takes, before the rounding of this layer; rounding: the nodes that round it, in order.
    weight, bias: as the engine folds them when it loads the file, dequantised; half: computed in float16.
    """

    node: onnx.NodeProto
    source: str
    rounding: tuple[onnx.NodeProto, ...]
    weight: np.ndarray
    bias: np.ndarray | None
    half: bool


class LayeredGraph:
    """A file of a bundle, opened and vetted before. layers: by module name, in graph order; most are one node.

    Raises UsageError for a bundle without layer names, BundleError where the names do not fit the graph.
    """

    def __init__(self, bundle: Bundle, file: ModelFile) -> None:
        self.file = file
        self.model = onnx.load(str(file.path))
        graph = self.model.graph
        self.makers = {name: node for node in graph.node for name in node.output}
        self.constants = _constants(graph)
        named: dict[str, list[onnx.NodeProto]] = {}
        for name, outputs in layers_of(bundle, file.path.name).items():
            for output in outputs:
                node = self.makers.get(output)
                if node is None or node.op_type not in MULTIPLYING or node.input[1] not in self.constants:
                    raise BundleError(
                        f"{bundle.name}: the manifest says that {output!r} of {file.path.name} is layer {name!r}; no "
                        "convolution or product by a weight gives it. Export the bundle again."
                    )
                named.setdefault(name, []).append(node)
        wanted = {name for nodes in named.values() for node in nodes for name in node.input[1:] if name}
        values = _folded(self.model, sorted(wanted), file.path)
        self.layers: Mapping[str, tuple[LayerNode, ...]] = {
            name: tuple(self._layer(node, values) for node in nodes) for name, nodes in named.items()
        }

    def _layer(self, node: onnx.NodeProto, values: Mapping[str, np.ndarray]) -> LayerNode:
        rounding: list[onnx.NodeProto] = []
        source = node.input[0]
        maker = self.makers.get(source)
        if maker is not None and maker.op_type == "DequantizeLinear":
            while maker is not None and maker.op_type in _ROUNDING:
                rounding.insert(0, maker)
                source = maker.input[0]
                if maker.op_type == "QuantizeLinear":
                    break
                maker = self.makers.get(source)
            if rounding[0].op_type != "QuantizeLinear":  # integers from somewhere else: nothing to put back before
                source, rounding = node.input[0], []
        weight = values[node.input[1]]
        bias = values[node.input[2]] if len(node.input) > 2 and node.input[2] else None
        return LayerNode(
            node=node,
            source=source,
            rounding=tuple(rounding),
            weight=weight.astype(np.float32),
            bias=None if bias is None else bias.astype(np.float32),
            half=weight.dtype == np.float16,
        )


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def tensor(array: np.ndarray, name: str, *, half: bool) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(array.astype(np.float16 if half else np.float32), name)


def cast(value: str, result: str, *, half: bool) -> onnx.NodeProto:
    return helper.make_node("Cast", [value], [result], to=TensorProto.FLOAT16 if half else TensorProto.FLOAT)


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove, in place, what no output of the graph needs."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed & {*node.output}:
            needed.update(node.input)
            kept.insert(0, node)
    tensors = [each for each in graph.initializer if each.name in needed]
    del graph.node[:]
    graph.node.extend(kept)
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def _constants(graph: onnx.GraphProto) -> set[str]:
    """Names of the values that no clip changes."""
    found = {each.name for each in graph.initializer}
    for node in graph.node:
        if all(name in found for name in node.input if name):
            found.update(node.output)
    return found


def _folded(model: onnx.ModelProto, names: Sequence[str], path: Path) -> dict[str, np.ndarray]:
    """Values that do not depend on the clips, as ONNX Runtime computes them."""
    alone = onnx.ModelProto()
    alone.CopyFrom(model)
    del alone.graph.input[:]
    del alone.graph.output[:]
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer if each.name in names}
    computed = [name for name in names if name not in stored]
    if computed:
        alone.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed)
        drop_unused(alone)
        onnxruntime: Any = require_package("onnxruntime", engine="ort")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(
                alone.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            stored |= dict(zip(computed, session.run(computed, {}), strict=True))
        except Exception as error:  # its exceptions have no common root below Exception
            raise BundleError(f"ONNX Runtime cannot fold the weights of {path}: {first_line(error)}") from error
    return stored
