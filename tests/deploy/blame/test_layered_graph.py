"""A deployed file as layers: weights as engines fold them, inputs before their rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_suspects import BAD_LAYER, Suspects

from edgelip.deploy.blame.layered_graph import LayeredGraph
from edgelip.errors import BundleError
from edgelip.runtime.bundle import Bundle


def graph_of(suspects: Suspects, name: str) -> LayeredGraph:
    bundle = Bundle.open(suspects[name])
    return LayeredGraph(bundle, bundle.model_for("ort"))


def test_an_int8_layer_has_the_weight_of_the_float_one_up_to_half_a_level(suspects: Suspects) -> None:
    dense, rounded = graph_of(suspects, "dense"), graph_of(suspects, "bad")
    assert {*dense.layers} == {*rounded.layers}
    for name, (layer,) in dense.layers.items():
        (other,) = rounded.layers[name]
        level = np.abs(layer.weight).max(axis=tuple(range(1, layer.weight.ndim)), keepdims=True) / 127
        assert (np.abs(other.weight - layer.weight) <= 0.501 * level + 1e-9).all(), name
        assert layer.bias is not None
        assert other.bias is not None
        assert np.allclose(other.bias, layer.bias, atol=0.05)


def test_only_int8_layers_round_what_they_take(suspects: Suspects) -> None:
    (layer,) = graph_of(suspects, "dense").layers[BAD_LAYER]
    assert (layer.rounding, layer.source) == ((), layer.node.input[0])
    (layer,) = graph_of(suspects, "bad").layers[BAD_LAYER]
    assert [node.op_type for node in layer.rounding][:1] == ["QuantizeLinear"]
    assert layer.rounding[-1].output[0] == layer.node.input[0]
    assert layer.rounding[0].input[0] == layer.source


@pytest.mark.parametrize("output", ["nowhere", "clips"])
def test_names_that_do_not_fit_the_graph_are_refused(suspects: Suspects, output: str) -> None:
    bundle = Bundle.open(suspects["dense"])
    table = {"names": ["trunk"], "outputs": {"model.fp32.onnx": [output]}}
    bundle = replace(bundle, manifest=replace(bundle.manifest, ledger={"layers": table}))
    with pytest.raises(BundleError) as caught:
        LayeredGraph(bundle, bundle.model_for("ort"))
    assert str(caught.value) == (
        f"dense: the manifest says that {output!r} of model.fp32.onnx is layer 'trunk'; no convolution or product by a "
        "weight gives it. Export the bundle again."
    )
