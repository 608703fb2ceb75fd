"""Which layers of two files can be compared."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import helper

from edgelip.deploy.blame.layered_graph import LayerNode
from edgelip.deploy.blame.places import match_layers


def conv(out: int, taken: int, *, scale: float = 1.0, taps: int = 1) -> LayerNode:
    weight = scale * np.ones((out, taken, taps), np.float32)
    return LayerNode(helper.make_node("Conv", ["x", "w"], ["y"]), "x", (), weight, None, False)


def linear(out: int, taken: int) -> LayerNode:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    return LayerNode(node, "x", (), np.ones((out, taken), np.float32), None, False)


def graph(**layers: LayerNode | tuple[LayerNode, ...]) -> Any:
    named = {name.replace("__", "."): each if isinstance(each, tuple) else (each,) for name, each in layers.items()}
    return SimpleNamespace(layers=named)


def test_layers_of_one_shape_are_compared_and_say_how_far_the_weights_moved() -> None:
    places = match_layers(graph(a=conv(4, 3), b=linear(2, 4)), graph(a=conv(4, 3, scale=1.5), b=linear(2, 4)))
    assert [(place.name, place.moved) for place in places.found] == [("a", 0.5), ("b", 0.0)]
    assert places.apart == {}


def test_what_rounding_cannot_move_was_trained() -> None:
    close = match_layers(graph(a=conv(4, 3)), graph(a=conv(4, 3, scale=1.01)))
    far = match_layers(graph(a=conv(4, 3)), graph(a=conv(4, 3, scale=1.2)))
    assert (close.trained_on, far.trained_on) == (False, True)


def test_a_pruned_layer_is_said_not_to_be_comparable() -> None:
    places = match_layers(graph(a=conv(4, 3), b=conv(4, 4)), graph(a=conv(2, 3), b=conv(4, 4)))
    assert [place.name for place in places.found] == ["b"]
    assert places.apart == {"a": "its weight has another shape: it was pruned or built otherwise"}


@pytest.mark.parametrize("make", [lambda out, taken: conv(out, taken), linear])
def test_factors_below_a_name_stand_for_the_layer(make: Any) -> None:
    first, last = make(2, 3), make(4, 2)
    (place,) = match_layers(graph(a=make(4, 3)), graph(a__0=first, a__1=last)).found
    assert (place.first, place.last, place.moved) == (first, last, None)


def test_factors_of_other_ends_and_foreign_layers_are_apart() -> None:
    reference = graph(a=conv(4, 3), b=conv(4, 4), c=(conv(1, 1), conv(1, 1)), d=conv(1, 1))
    suspect = graph(a__0=conv(2, 3), a__1=conv(5, 2), c=conv(1, 1), d=(conv(1, 1), conv(1, 1)), e=conv(1, 1))
    assert match_layers(reference, suspect).apart == {
        "a": "its factors take and give (3, 5) channels, not (3, 4)",
        "b": "no layer of the suspect has its name",
        "c": "it runs more than once",
        "d": "it runs more than once",
        "e": "the reference has no layer of its name",
    }
