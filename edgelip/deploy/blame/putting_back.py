"""A suspect file with some of its layers put back: in float, as they were before they were rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import helper

from edgelip.deploy.blame.layered_graph import LayeredGraph, attributes_of, cast, drop_unused, tensor
from edgelip.deploy.blame.places import Place
from edgelip.deploy.layer_names import MULTIPLYING

Weights = Literal["reference", "own"]
_OWN_ROUNDING = (*MULTIPLYING, "Add")  # layers and sums round what they take themselves
_ACTIVATIONS = ("Relu", "Sigmoid")  # their result may be rounded too: it is the layer's, or the gate of its Swish


@dataclass(frozen=True)
class Change:
    """One layer to put back. weights: of the reference; or its own, dequantised, where training went on after it."""

    place: Place
    weights: Weights = "reference"


def put_back(suspect: LayeredGraph, changes: Sequence[Change]) -> bytes:
    """The suspect's file with these layers in float: inputs unrounded, weights and biases float32.

    A rounding of its output goes too, unless it is that of the next layer or sum: stages put it behind rounded layers
    only.
    """
    model = onnx.ModelProto()
    model.CopyFrom(suspect.model)
    nodes: dict[str, list[onnx.NodeProto]] = {}
    for number, change in enumerate(changes):
        place, prefix = change.place, f"back{number}."
        own = change.weights == "own" and place.first is place.last
        layer = place.first if own else place.reference
        inputs = [place.first.source]
        made: list[onnx.NodeProto] = []
        if place.first.half:
            inputs = [f"{prefix}taken"]
            made.append(cast(place.first.source, inputs[0], half=False))
        model.graph.initializer.append(tensor(layer.weight, f"{prefix}weight", half=False))
        inputs.append(f"{prefix}weight")
        if layer.bias is not None:
            model.graph.initializer.append(tensor(layer.bias, f"{prefix}bias", half=False))
            inputs.append(f"{prefix}bias")
        output = place.last.node.output[0]
        given = f"{prefix}given" if place.last.half else output
        made.append(helper.make_node(layer.node.op_type, inputs, [given], **attributes_of(layer.node)))
        if place.last.half:
            made.append(cast(given, output, half=True))
        nodes[output] = made
        _without_rounding_after(model.graph, output)
    kept: list[onnx.NodeProto] = []
    for node in model.graph.node:
        kept += nodes.get(node.output[0], [node])
    del model.graph.node[:]
    model.graph.node.extend(kept)
    drop_unused(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _without_rounding_after(graph: onnx.GraphProto, output: str) -> None:
    """Let what follows take `output`, and what its activation makes of it, without a rounding between, in place."""
    readers = [node for node in graph.node if output in node.input]
    rounded = _rounded(graph, output)
    if len(readers) == 1 and rounded is not None:
        readers = [node for node in graph.node if rounded in node.input]
        if any(node.op_type in _OWN_ROUNDING for node in readers):
            return
        for node in readers:
            node.input[:] = [output if name == rounded else name for name in node.input]
    for node in readers:
        if node.op_type in _ACTIVATIONS:
            _without_rounding_after(graph, node.output[0])


def _rounded(graph: onnx.GraphProto, value: str) -> str | None:
    """What a value is behind its QuantizeLinear, Clip and DequantizeLinear, if they follow."""
    for operator in ("QuantizeLinear", "Clip", "DequantizeLinear"):
        found = [node for node in graph.node if node.input[:1] == [value] and node.op_type == operator]
        if len(found) == 1:
            value = found[0].output[0]
        elif operator != "Clip":
            return None
    return value
