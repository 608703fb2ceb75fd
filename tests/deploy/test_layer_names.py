"""Layer names in bundles: the table of the manifest, and what is made of one that is older or wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from tiny_models import classifier
from tiny_suspects import Suspects
from torch import nn

from edgelip.deploy.layer_names import MULTIPLYING, layers_of
from edgelip.errors import BundleError, UsageError
from edgelip.runtime.bundle import Bundle


@pytest.mark.parametrize("name", ["dense", "bad"])
def test_every_weighted_layer_is_named_as_in_the_network_in_every_file(suspects: Suspects, name: str) -> None:
    modules = dict(classifier().named_modules())
    weighted = {path for path, module in modules.items() if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear))}
    bundle = Bundle.open(suspects[name])
    for entry in bundle.manifest.models:
        layers = layers_of(bundle, entry.file)
        assert {*layers} == weighted  # wrappers of the int8 network leave the names as they are
        nodes = {node.output[0]: node for node in onnx.load(str(suspects[name] / entry.file)).graph.node}
        for module, outputs in layers.items():
            (output,) = outputs
            assert nodes[output].op_type in MULTIPLYING
            assert nodes[output].name == output
            kind = "Gemm" if isinstance(modules[module], nn.Linear) else "Conv"
            assert nodes[output].op_type == kind


def test_names_take_no_room_in_the_onnx_file(suspects: Suspects) -> None:
    content = Path(suspects["dense"] / "model.fp32.onnx").read_bytes()
    assert b"trunk" not in content


def edited(bundle: Bundle, table: Any) -> Bundle:
    ledger = {key: value for key, value in bundle.manifest.ledger.items() if key != "layers"}
    if table is not None:
        ledger["layers"] = table
    return replace(bundle, manifest=replace(bundle.manifest, ledger=ledger))


def test_an_older_bundle_says_that_it_is_one(suspects: Suspects) -> None:
    bundle = edited(Bundle.open(suspects["dense"]), None)
    with pytest.raises(UsageError) as caught:
        layers_of(bundle, "model.fp32.onnx")
    assert str(caught.value) == "dense does not say which node is which layer: it is older. Export it again."


@pytest.mark.parametrize(
    "table",
    [
        [],
        {"names": ["a"]},
        {"names": "a", "outputs": {"model.fp32.onnx": "b"}},
        {"names": ["a"], "outputs": {"model.fp32.onnx": ["b", "c"]}},
        {"names": ["a"], "outputs": {"model.fp16.onnx": ["b"]}},
        {"names": ["a"], "outputs": {"model.fp32.onnx": [3]}},
        {"names": [""], "outputs": {"model.fp32.onnx": ["b"]}},
    ],
)
def test_a_table_that_is_none_is_refused(suspects: Suspects, table: Any) -> None:
    bundle = edited(Bundle.open(suspects["dense"]), table)
    with pytest.raises(BundleError, match=r"layers of model\.fp32\.onnx in the manifest are not a list of names"):
        layers_of(bundle, "model.fp32.onnx")


def test_a_layer_that_runs_twice_has_two_outputs(suspects: Suspects) -> None:
    table = {"names": ["a", "b", "a"], "outputs": {"model.fp32.onnx": ["1", "2", "3"]}}
    assert layers_of(edited(Bundle.open(suspects["dense"]), table), "model.fp32.onnx") == {"a": ("1", "3"), "b": ("2",)}
