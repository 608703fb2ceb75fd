"""A torch model as a clean ONNX graph: static frames, free batch, no exporter's notes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

OPSET = 18
INPUT, OUTPUT = "clips", "logits"


def onnx_from_torch(model: nn.Module, clips_B1THW: Tensor) -> onnx.ModelProto:
    """Export an eval-mode model: input "clips" (batch, 1, T, H, W), output "logits" (batch, V).

    Initialisers keep the names of the parameters they come from.
    """
    batch = torch.export.Dim("batch")
    example = clips_B1THW[:2] if len(clips_B1THW) > 1 else clips_B1THW.repeat(2, 1, 1, 1, 1)
    with _quiet():
        program = torch.onnx.export(
            model.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: batch},),
            verbose=False,
        )
    assert program is not None  # only the file form returns nothing
    return _clean(program.model_proto)


def _clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what no engine reads: source locations, doc strings, inner shapes."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    model.graph.doc_string = ""
    model.graph.name = "edgelip"
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    return model


def constants_to_initialisers(model: onnx.ModelProto) -> None:
    """Turn Constant nodes into initialisers, so that equal ones can be shared."""
    for node in [node for node in model.graph.node if node.op_type == "Constant"]:
        value = next((attribute for attribute in node.attribute if attribute.name == "value"), None)
        if value is None:
            continue
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value.t)
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
        model.graph.node.remove(node)


def share_initialisers(model: onnx.ModelProto) -> None:
    """Keep one of each set of equal initialisers and drop unused ones: equal quantisers then merge at load."""
    first: dict[tuple[Any, ...], str] = {}
    renamed: dict[str, str] = {}
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        key = (tensor.data_type, tuple(tensor.dims), array.tobytes())
        renamed[tensor.name] = first.setdefault(key, tensor.name)
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
    used = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def shorten_names(model: onnx.ModelProto) -> None:
    """Give inner values names of one to three characters; the text of a graph is a large part of a small file.

    A node is called like its first output; one that reads nothing of the clip, such as those that build a weight, has
    no name.
    """
    kept = {value.name for value in (*model.graph.input, *model.graph.output)} | {""}
    short: dict[str, str] = {}

    def name_of(name: str) -> str:
        if name in kept:
            return name
        return short.setdefault(name, np.base_repr(len(short), 36).lower())

    for tensor in model.graph.initializer:
        tensor.name = name_of(tensor.name)
    moving = {value.name for value in model.graph.input}
    for node in model.graph.node:
        node.input[:] = [name_of(name) for name in node.input]
        node.output[:] = [name_of(name) for name in node.output]
        if moving & {*node.input}:
            moving.update(node.output)
            node.name = node.output[0]
        else:
            node.name = ""


def set_metadata(model: onnx.ModelProto, entries: dict[str, str]) -> None:
    """Write string pairs into the model, sorted, replacing what is there."""
    del model.metadata_props[:]
    for key in sorted(entries):
        pair = model.metadata_props.add()
        pair.key, pair.value = key, entries[key]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and warns about its own internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
