"""Which node of an ONNX file computes which layer of the network: names that a recipe knows, kept in the manifest.

Nodes of a bundle's files have short names, since the text of a graph is a large part of a small file. The manifest's
ledger holds {"names": [module, ...], "outputs": {file: [value, ...]}}: layers in graph order, and for each file the
first output of the node that multiplies by the layer's weight. A module that runs twice stands there twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeGuard

import onnx

from edgelip.errors import BundleError, UsageError
from edgelip.runtime.bundle import Bundle

MULTIPLYING = ("Conv", "Gemm", "MatMul")
_MARK = "layer:"
_WEIGHT, _WRAPPER = ".weight", ".layer"  # stages wrap a module as the child `layer` of what stands in its place


class NamedFile(Protocol):
    """A file of an export with its layers: (module name, output)."""

    @property
    def file_name(self) -> str: ...

    @property
    def layers(self) -> Sequence[tuple[str, str]]: ...


def name_layers(model: onnx.ModelProto) -> None:
    """Mark, in place, the nodes that multiply by a parameter with the module that it belongs to."""
    weights = {tensor.name for tensor in model.graph.initializer if tensor.name.endswith(_WEIGHT)}
    for node in model.graph.node:
        if node.op_type in MULTIPLYING and node.input[1] in weights:
            module = node.input[1].removesuffix(_WEIGHT)
            while module.endswith(_WRAPPER):
                module = module.removesuffix(_WRAPPER)
            node.name = f"{_MARK}{module}"


def named_layers(model: onnx.ModelProto) -> list[tuple[str, onnx.NodeProto]]:
    """The marked nodes in graph order, each with its module."""
    return [(node.name.removeprefix(_MARK), node) for node in model.graph.node if node.name.startswith(_MARK)]


def layer_table(files: Sequence[NamedFile]) -> dict[str, Any]:
    """What the manifest says of the files of one export. All of them have the same layers in the same order."""
    names = [module for module, _ in files[0].layers]
    assert all([module for module, _ in file.layers] == names for file in files)
    return {"names": names, "outputs": {file.file_name: [output for _, output in file.layers] for file in files}}


def layers_of(bundle: Bundle, file: str) -> dict[str, tuple[str, ...]]:
    """Outputs of each layer in one file of a bundle, by module name, in graph order.

    Raises UsageError for a bundle of before layers were named, BundleError for a table that is none.
    """
    table = bundle.manifest.ledger.get("layers")
    if table is None:
        raise UsageError(f"{bundle.name} does not say which node is which layer: it is older. Export it again.")
    names = table.get("names") if isinstance(table, Mapping) else None
    by_file = table.get("outputs") if isinstance(table, Mapping) else None
    outputs = by_file.get(file) if isinstance(by_file, Mapping) else None
    if not _texts(names) or not _texts(outputs) or len(names) != len(outputs):
        raise BundleError(
            f"{bundle.name}: the layers of {file} in the manifest are not a list of names and one of as many outputs. "
            "Export the bundle again."
        )
    found: dict[str, tuple[str, ...]] = {}
    for name, output in zip(names, outputs, strict=True):
        found[name] = (*found.get(name, ()), output)
    return found


def _texts(values: Any) -> TypeGuard[list[str]]:
    return isinstance(values, list) and all(isinstance(value, str) and 0 < len(value) <= 256 for value in values)
