"""Layers put back into an int8 file compute as in the float one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_suspects import BAD_LAYER, Suspects

from edgelip.deploy.blame.layered_graph import LayeredGraph
from edgelip.deploy.blame.noise import sqnr_db
from edgelip.deploy.blame.places import match_layers
from edgelip.deploy.blame.putting_back import Change, _without_rounding_after, put_back
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.clip import network_input
from edgelip.runtime.engines.engine import open_engine


@pytest.fixture(scope="module")
def pair(suspects: Suspects) -> tuple[LayeredGraph, LayeredGraph]:
    bundles = [Bundle.open(suspects[name]) for name in ("dense", "bad")]
    return tuple(LayeredGraph(bundle, bundle.model_for("ort")) for bundle in bundles)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def clips(suspects: Suspects) -> np.ndarray:
    with np.load(suspects.clips) as archive:
        return network_input(archive["frames"][:12], Bundle.open(suspects["dense"]).manifest.clip)


def logits(content: bytes, clips: np.ndarray, folder: Path) -> np.ndarray:
    path = folder / "model.onnx"
    path.write_bytes(content)
    with open_engine("ort", path) as engine:
        return engine.infer(clips)


def test_the_spoilt_layer_put_back_brings_the_logits_back(
    pair: tuple[LayeredGraph, LayeredGraph], clips: np.ndarray, tmp_path: Path
) -> None:
    reference, suspect = pair
    places = {place.name: place for place in match_layers(reference, suspect).found}
    wanted = logits(reference.model.SerializeToString(), clips, tmp_path)
    before = sqnr_db(logits(suspect.model.SerializeToString(), clips, tmp_path), wanted)
    gains = {
        name: sqnr_db(logits(put_back(suspect, [Change(place)]), clips, tmp_path), wanted) - before
        for name, place in places.items()
    }
    assert max(gains, key=lambda name: gains[name]) == BAD_LAYER
    assert gains[BAD_LAYER] > 5
    assert all(gain < 1 for name, gain in gains.items() if name != BAD_LAYER)
    own = sqnr_db(logits(put_back(suspect, [Change(places[BAD_LAYER], "own")]), clips, tmp_path), wanted) - before
    assert own > 5  # its weight was not spoilt, the scale of its input was


def test_a_layer_put_back_is_float_and_leaves_nothing_unused(pair: tuple[LayeredGraph, LayeredGraph]) -> None:
    reference, suspect = pair
    place = next(place for place in match_layers(reference, suspect).found if place.name == BAD_LAYER)
    before = suspect.model.SerializeToString()
    graph = onnx.load_from_string(put_back(suspect, [Change(place)])).graph
    assert suspect.model.SerializeToString() == before
    onnx.checker.check_model(onnx.load_from_string(put_back(suspect, [Change(place)])))
    (node,) = [node for node in graph.node if node.output[0] == place.last.node.output[0]]
    assert node.input[0] == place.first.source
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert np.array_equal(stored[node.input[1]], place.reference.weight)
    read = {name for each in graph.node for name in each.input}
    assert {*stored} <= read
    assert place.first.rounding[-1].output[0] not in read


def test_all_layers_back_leave_the_rounding_of_sums_alone(
    pair: tuple[LayeredGraph, LayeredGraph], clips: np.ndarray, tmp_path: Path
) -> None:
    reference, suspect = pair
    changes = [Change(place) for place in match_layers(reference, suspect).found]
    graph = onnx.load_from_string(put_back(suspect, changes)).graph
    rounded = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    readers = [node.op_type for node in graph.node if rounded & {*node.input}]
    assert {*readers} == {"Add"}


@pytest.mark.parametrize(("reader", "kept"), [("Sigmoid", False), ("Conv", True), ("Add", True)])
def test_rounding_of_the_output_goes_unless_it_is_the_next_layers(reader: str, kept: bool) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "s", "z"], ["q"]),
        helper.make_node("Clip", ["q", "", "top"], ["c"]),
        helper.make_node("DequantizeLinear", ["c", "s", "z"], ["d"]),
        helper.make_node(reader, ["d", "w"][: 1 if reader == "Sigmoid" else 2], ["out"]),
    ]
    value = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [], [value])
    _without_rounding_after(graph, "y")
    assert graph.node[-1].input[0] == ("d" if kept else "y")


def test_a_rounded_swish_behind_the_layer_becomes_a_float_one() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Sigmoid", ["d"], ["gate"]),
        helper.make_node("QuantizeLinear", ["gate", "t", "z"], ["gq"]),
        helper.make_node("DequantizeLinear", ["gq", "t", "z"], ["gd"]),
        helper.make_node("Mul", ["d", "gd"], ["swish"]),
        helper.make_node("QuantizeLinear", ["swish", "u", "z"], ["nq"]),
        helper.make_node("DequantizeLinear", ["nq", "u", "z"], ["next"]),
        helper.make_node("Conv", ["next", "w2"], ["out"]),
    ]
    graph = helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)])
    _without_rounding_after(graph, "y")
    makers = {node.output[0]: [*node.input] for node in graph.node}
    assert (makers["gate"], makers["swish"], makers["out"]) == (["y"], ["y", "gate"], ["next", "w2"])
