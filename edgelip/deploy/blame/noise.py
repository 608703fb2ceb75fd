"""Signal to noise of every layer of a suspect file against the reference, in one pass over a few clips.

Axes: B clips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from edgelip.deploy.blame.layered_graph import LayeredGraph, LayerNode, attributes_of, cast, tensor
from edgelip.deploy.blame.places import Place
from edgelip.deploy.inner_values import looking_at
from edgelip.errors import BundleError, EdgelipError
from edgelip.runtime.engines.engine import first_line


@dataclass(frozen=True)
class Noise:
    """Signal to noise in dB of a layer's output: in the suspect, and of the layer alone on the reference's inputs.

    alone_db: None of a chain of factors. Infinite where nothing differs.
    """

    inside_db: float
    alone_db: float | None


def layer_noise(
    reference: LayeredGraph, suspect: LayeredGraph, places: Iterable[Place], clips_B1THW: np.ndarray
) -> dict[str, Noise]:
    """Noise by layer. clips: network inputs; one at a time, since every layer's output is held at once.

    The outputs are those before the activation, in float: ONNX Runtime runs a layer whose output is looked at on
    dequantised numbers, the same up to the order of sums.
    """
    places = list(places)
    theirs = {place.name: place.last.node.output[0] for place in places}
    ours = {place.name: place.reference.node.output[0] for place in places}
    alone = {place.name: f"alone{number}." for number, place in enumerate(places) if place.first is place.last}
    model = _with_layers_alone(
        reference, suspect, [(place, alone[place.name]) for place in places if place.name in alone]
    )
    first = _look(model, [*ours.values(), *(f"{prefix}given" for prefix in alone.values())])
    second = _look(suspect.model, list(theirs.values()))
    powers = np.zeros((len(places), 3))
    for clip_1THW in clips_B1THW:
        wanted = first(clip_1THW[None])
        got = second(clip_1THW[None])
        for row, place in enumerate(places):
            clean = wanted[ours[place.name]].astype(np.float64)
            powers[row, 0] += np.square(clean).sum()
            powers[row, 1] += np.square(got[theirs[place.name]] - clean).sum()
            if place.name in alone:
                powers[row, 2] += np.square(wanted[f"{alone[place.name]}given"] - clean).sum()
    return {
        place.name: Noise(_decibel(signal, noise), _decibel(signal, own) if place.name in alone else None)
        for place, (signal, noise, own) in zip(places, powers.tolist(), strict=True)
    }


def sqnr_db(logits_BV: np.ndarray, reference_BV: np.ndarray) -> float:
    """Power of the reference's logits over that of the difference, in dB; infinite where there is none."""
    clean = reference_BV.astype(np.float64)
    return _decibel(float(np.square(clean).sum()), float(np.square(logits_BV - clean).sum()))


def _decibel(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _with_layers_alone(
    reference: LayeredGraph, suspect: LayeredGraph, places: Iterable[tuple[Place, str]]
) -> onnx.ModelProto:
    """The reference's graph with, beside each of its layers, the suspect's on the same input."""
    model = onnx.ModelProto()
    model.CopyFrom(reference.model)
    stored = {each.name: each for each in suspect.model.graph.initializer}
    copied: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    beside: dict[str, list[onnx.NodeProto]] = {}
    for place, prefix in places:
        layer, made = place.first, list[onnx.NodeProto]()
        value = place.reference.source
        if place.reference.half != layer.half:
            made.append(cast(value, f"{prefix}typed", half=layer.half))
            value = f"{prefix}typed"
        for step, node in enumerate(layer.rounding):
            for name in node.input[1:]:
                if name and name not in copied:
                    copied.add(name)
                    model.graph.initializer.append(_renamed(stored[name], f"theirs.{name}"))
            result = f"{prefix}{step}"
            constants = [f"theirs.{name}" if name else "" for name in node.input[1:]]
            made.append(helper.make_node(node.op_type, [value, *constants], [result], **attributes_of(node)))
            value = result
        made += _computed(model, layer, value, prefix, half=place.reference.half)
        beside[place.reference.node.output[0]] = made
    for node in model.graph.node:
        nodes.append(node)
        nodes += beside.get(node.output[0], [])
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _computed(model: onnx.ModelProto, layer: LayerNode, value: str, prefix: str, *, half: bool) -> list[onnx.NodeProto]:
    """The layer's own product of `value`, in the type of the reference."""
    inputs = [value, f"{prefix}weight"]
    model.graph.initializer.append(tensor(layer.weight, inputs[1], half=layer.half))
    if layer.bias is not None:
        inputs.append(f"{prefix}bias")
        model.graph.initializer.append(tensor(layer.bias, inputs[2], half=layer.half))
    given = f"{prefix}given"
    result = given if layer.half == half else f"{prefix}own"
    made = [helper.make_node(layer.node.op_type, inputs, [result], **attributes_of(layer.node))]
    if result != given:
        made.append(cast(result, given, half=half))
    return made


def _renamed(stored: onnx.TensorProto, name: str) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(stored)
    copy.name = name
    return copy


def _look(model: onnx.ModelProto, names: list[str]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    try:
        return looking_at(model, names)
    except EdgelipError:
        raise
    except Exception as error:  # ONNX Runtime's have no common root below Exception
        raise BundleError(f"ONNX Runtime cannot show the layers of the graph: {first_line(error)}") from error
