from __future__ import annotations

import numpy as np
import pytest
from small_graphs import clips, graph_of, node

from edgelip.deploy.inner_values import float_values, inner_values


def test_the_largest_of_every_value_over_all_clips() -> None:
    values = clips(5, size=3.0)
    weight = clips(1, seed=3)[0]
    model = graph_of([node("Add", "clips w", "a"), node("Relu", "a", "logits")], {"w": weight, "unused": np.array([1])})
    found = inner_values(model, values)
    total = values + weight
    assert found.largest == {
        "clips": pytest.approx(np.abs(values).max()),
        "w": pytest.approx(np.abs(weight).max()),
        "a": pytest.approx(np.abs(total).max()),
        "logits": pytest.approx(np.maximum(total, 0).max()),
    }
    assert found.sums == {}


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceSum"])
def test_sums_inside_reductions_are_of_magnitudes(operator: str) -> None:
    values = clips(4)
    found = inner_values(graph_of([node(operator, "clips axes", "logits")], {"axes": np.array([1, 2])}), values)
    assert found.sums == {"logits": pytest.approx(np.abs(values).sum(axis=(1, 2)).max())}


def test_infinite_and_undefined_values_are_left_out() -> None:
    mask = np.array([-np.inf, 2.0, 0, 0, 0, 0], np.float32)
    found = inner_values(
        graph_of([node("Add", "clips mask", "logits")], {"mask": mask}), np.ones((1, 4, 6), np.float32)
    )
    assert found.largest == {"clips": 1.0, "mask": 2.0, "logits": 3.0}
    values = clips(1)
    values[0, 0, 0] = np.nan
    found = inner_values(graph_of([node("Relu", "clips", "logits")], {}), values)
    assert 0 < found.largest["clips"] == np.nanmax(np.abs(values))


def test_only_float_values_are_named() -> None:
    nodes = [node("Shape", "clips", "s"), node("ConstantOfShape", "s", "o"), node("Add", "clips o", "logits")]
    assert sorted(float_values(graph_of(nodes, {"axes": np.array([1])}))) == ["clips", "logits", "o"]
