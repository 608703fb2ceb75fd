"""Ways to make the typical model hostile: each an edit varied by a random source, and what vetting says of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from typical_model import initialiser, insert_after_clip, nested_graph, node_of, replace_array

Model = onnx.ModelProto
HOSTILE: dict[str, tuple[Callable[[Model, Random], object], str]] = {}


def hostile(message: str) -> Callable[[Callable[[Model, Random], object]], Callable[[Model, Random], object]]:
    """Enter an edit under its function's name; `message` is a pattern of what vetting says."""

    def enter(edit: Callable[[Model, Random], object]) -> Callable[[Model, Random], object]:
        HOSTILE[edit.__name__] = (edit, message)
        return edit

    return enter


def some_node(model: Model, rng: Random) -> onnx.NodeProto:
    return rng.choice(list(model.graph.node))


def some_tensor(model: Model, rng: Random) -> onnx.TensorProto:
    return rng.choice([tensor for tensor in model.graph.initializer if len(tensor.raw_data) > 1])


@hostile(r"has operator '\w+' of domain '.*'; expected ai\.onnx alone")
def foreign_node_domain(model: Model, rng: Random) -> None:
    some_node(model, rng).domain = rng.choice(["com.microsoft", "ai.onnx.ml", "a" * rng.randint(1, 300), "\n"])


@hostile(r"uses the operator sets \[.*; expected ai\.onnx alone")
def foreign_operator_set(model: Model, rng: Random) -> None:
    model.opset_import.append(helper.make_opsetid(rng.choice(["com.microsoft", "evil", "ai.onnx.training"]), 1))


@hostile(r"has operator set -?\d+; expected 13 to 23")
def impossible_opset(model: Model, rng: Random) -> None:
    model.opset_import[0].version = rng.choice([0, -1, 1, 12, 24, 99, 2**62])


@hostile(r"has IR version -?\d+; expected 7 to 13")
def impossible_ir_version(model: Model, rng: Random) -> None:
    model.ir_version = rng.choice([0, 1, 6, 14, 2**40, -3])


@hostile(r"has node \d+, '.*', that is no operator that a bundle's model uses: Add, BatchNormalization")
def operator_not_on_the_list(model: Model, rng: Random) -> None:
    names = ["Loop", "If", "Scan", "Expand", "Tile", "Range", "ConstantOfShape", "RandomNormal", "Resize", "NonZero"]
    some_node(model, rng).op_type = rng.choice([*names, "", "conv", "Conv\n", "\u0421onv", "x" * 5000])


@hostile(r"has (a nested graph|nested graphs); a bundle's model has none")
def nested_graph_attribute(model: Model, rng: Random) -> None:
    graphs: Any = nested_graph() if rng.random() < 0.5 else [nested_graph()] * rng.randint(1, 3)
    some_node(model, rng).attribute.append(helper.make_attribute(rng.choice(["body", "axis", "then_branch"]), graphs))


@hostile(r"has functions; a bundle's model has none")
def local_function(model: Model, rng: Random) -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    model.functions.append(
        helper.make_function(rng.choice(["", "custom"]), "Relu", ["x"], ["y"], [relu], [helper.make_opsetid("", 18)])
    )


@hostile(r"has training information; a bundle's model has none")
def training_information(model: Model, rng: Random) -> None:
    model.training_info.add().algorithm.CopyFrom(nested_graph())


@hostile(r"has sparse initialisers; a bundle's model has none")
def sparse_initialiser(model: Model, rng: Random) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    indices = numpy_helper.from_array(np.array([2**40]), "indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2**41]))


@hostile(r"has an? (sequence|optional|map|sparse tensor) type; a bundle's model has none")
def type_that_is_no_tensor(model: Model, rng: Random) -> None:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
    value = rng.choice([model.graph.input[0], model.graph.output[0]])
    make: Any = rng.choice([helper.make_sequence_type_proto, helper.make_optional_type_proto])
    value.type.CopyFrom(make(tensor))


@hostile(r"has initialiser '\w+' of type \S+; expected float32, uint8|has strings;")
def initialiser_of_foreign_type(model: Model, rng: Random) -> None:
    tensor = some_tensor(model, rng)
    tensor.data_type = rng.choice([0, 4, 5, 8, 11, 12, 13, 14, 15, 16, 18, 21, 22, 23, 77, -1])
    if rng.random() < 0.3:
        tensor.ClearField("raw_data")
        tensor.string_data.append(b"text")


@hostile(r"has initialiser '\w+' with \d+ bytes; its dims .* of \w+ are \d+|that mixes the types|that takes")
def initialiser_of_another_type(model: Model, rng: Random) -> None:
    tensor = initialiser(model, rng.choice(["w", "ws", "b", "A", "V", "Fs", "slope"]))
    kinds = [TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT64, TensorProto.FLOAT16, TensorProto.INT32]
    tensor.data_type = rng.choice([kind for kind in kinds if kind != tensor.data_type])
    if rng.random() < 0.5 and tensor.data_type == TensorProto.INT32:  # as many bytes, so that only types disagree
        tensor.data_type = TensorProto.INT32


@hostile(r"has initialiser '\w+' with \d+ bytes; its dims \[.*\] of \w+ are \d+")
def stored_bytes_that_are_not_dims_times_type(model: Model, rng: Random) -> None:
    tensor = some_tensor(model, rng)
    content = tensor.raw_data
    cut = content[: rng.randrange(len(content))]
    tensor.raw_data = rng.choice([cut, content + bytes(rng.randint(1, 9)), b""])


@hostile(r"has initialiser '\w+' of shape \[.*\]; expected up to 8 lengths above 0")
def impossible_dims(model: Model, rng: Random) -> None:
    tensor = some_tensor(model, rng)
    dims = list(tensor.dims) or [1]
    dims[rng.randrange(len(dims))] = rng.choice([0, -1, -(2**63), 2**62, 2**63 - 1])
    del tensor.dims[:]
    tensor.dims.extend(rng.choice([dims, [1] * rng.randint(9, 2000)]))


@hostile(r"has initialiser '\w+' with \d+ bytes; its dims \[.*\] of \w+ are \d{9,}")
def giant_dims(model: Model, rng: Random) -> None:
    tensor = some_tensor(model, rng)
    del tensor.dims[:]
    tensor.dims.extend([rng.randint(2**16, 2**39) for _ in range(rng.randint(2, 8))])


@hostile(
    r"takes float32 \[.*\]; expected float32 \(batch, 1, 4, 6, 6\) as the manifest|takes \w+ \[.*; expected float32"
)
def input_of_another_shape_or_type(model: Model, rng: Random) -> None:
    value = model.graph.input[0].type.tensor_type
    if rng.random() < 0.4:
        value.elem_type = rng.choice([0, 2, 7, 8, 10, 11, 99])
        return
    axis = rng.randint(1, 4)
    value.shape.dim[axis].dim_value = rng.choice([0, 7, 2**40, -1])
    if rng.random() < 0.3:
        value.shape.dim[axis].dim_param = "T"
    if rng.random() < 0.3:
        del value.shape.dim[rng.randint(1, 4) :]


@hostile(r"gives \w+ \[.*\]; expected float32 \(batch, 3\) as the manifest says")
def output_of_another_shape_or_type(model: Model, rng: Random) -> None:
    value = model.graph.output[0].type.tensor_type
    if rng.random() < 0.5:
        value.elem_type = rng.choice([0, 2, 7, 8, 10, 11, 99])
    else:
        value.shape.dim[1].dim_value = rng.choice([0, 1, 4, 2**50, -1])


@hostile(r"has \d inputs and \d outputs; expected one of each")
def more_inputs_or_outputs(model: Model, rng: Random) -> None:
    values = rng.choice([model.graph.input, model.graph.output])
    extra = helper.make_tensor_value_info(rng.choice(["b", "x9", "more"]), TensorProto.FLOAT, [1])
    if rng.random() < 0.3:
        del values[:]
    else:
        values.extend([extra] * rng.randint(1, 5))


@hostile(r"has batches \[.*\]; expected both free, or both from 1 to 16")
def impossible_batch(model: Model, rng: Random) -> None:
    batches = rng.choice([(0, 0), (-1, -1), (2**40, 2**40), (1, 2), (65, 65)])
    for value, batch in zip((model.graph.input[0], model.graph.output[0]), batches, strict=True):
        value.type.tensor_type.shape.dim[0].dim_value = batch


@hostile(r"makes the value '\w+' twice")
def name_made_twice(model: Model, rng: Random) -> None:
    tensors, nodes = list(model.graph.initializer), list(model.graph.node)
    way = rng.randrange(3)
    if way == 0:
        model.graph.initializer.append(rng.choice(tensors))
    elif way == 1:
        first, second = sorted(rng.sample(range(len(nodes)), 2))
        nodes[second].output[0] = nodes[first].output[0]
    else:
        rng.choice(nodes).output[0] = rng.choice([tensor.name for tensor in tensors] + ["clips"])


@hostile(r"has node \d+, '\w+', that reads '.*', which nothing before it makes")
def value_that_nobody_makes(model: Model, rng: Random) -> None:
    node = some_node(model, rng)
    node.input[rng.randrange(len(node.input))] = rng.choice(["nobody", "logits ", "W\n", "Clips", "\u0441lips"])


@hostile(r"has node \d+, '\w+', that reads '\w+', which nothing before it makes")
def cycle(model: Model, rng: Random) -> None:
    nodes = list(model.graph.node)
    first = rng.randrange(len(nodes))
    later = rng.randrange(first, len(nodes))
    nodes[first].input[0] = nodes[later].output[0]


@hostile(r"has node \d+, '\w+', that reads '\w+', which nothing before it makes")
def nodes_out_of_order(model: Model, rng: Random) -> None:
    nodes = list(model.graph.node)
    pairs = [i for i in range(1, len(nodes)) if nodes[i - 1].output[0] in nodes[i].input]
    second = rng.choice(pairs)
    nodes[second - 1], nodes[second] = nodes[second], nodes[second - 1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


@hostile(r"has two nodes of one name")
def node_name_twice(model: Model, rng: Random) -> None:
    for node in rng.sample(list(model.graph.node), 2):
        node.name = "twin"


@hostile(r"names the output 'nobody', which no node makes")
def output_that_nobody_makes(model: Model, rng: Random) -> None:
    model.graph.output[0].name = "nobody"


@hostile(r"that makes \d+ bytes, \d+ in use, \d+ multiply-adds so far; the limits for|grows faster than the batch")
def doubling_by_concat(model: Model, rng: Random) -> None:
    axis = rng.randint(0, 4)
    names = ["clips", *(f"d{i}" for i in range(rng.randint(30, 60)))]
    nodes = [helper.make_node("Concat", [a, a], [b], axis=axis) for a, b in pairwise(names)]
    insert_after_clip(model, *nodes, constants={})


@hostile(r"that makes \d+ bytes, \d+ in use, \d+ multiply-adds so far; the limits for")
def outer_products(model: Model, rng: Random) -> None:
    """(n, 1) x (1, n), flattened and again: squared at each step."""
    nodes, constants = [], {"row": np.ones((1, rng.randint(200, 300)), np.float32), "tall": np.array([-1, 1])}
    constants["wide"] = np.array([1, -1])
    name = "row"
    for i in range(6):
        nodes += [
            helper.make_node("Reshape", [name, "tall"], [f"t{i}"]),
            helper.make_node("Reshape", [name, "wide"], [f"w{i}"]),
            helper.make_node(rng.choice(["MatMul", "Mul", "Add"]), [f"t{i}", f"w{i}"], [f"o{i}"]),
        ]
        name = f"o{i}"
    insert_after_clip(model, *nodes, constants=constants)


@hostile(r"has value 'y', which grows faster than the batch")
def values_that_grow_with_the_square_of_the_batch(model: Model, rng: Random) -> None:
    constants = {"tall": np.array([-1, 1]), "wide": np.array([1, -1])}
    nodes = [
        helper.make_node("Reshape", ["clips", "tall"], ["column"]),
        helper.make_node("Reshape", ["clips", "wide"], ["line"]),
        helper.make_node("Mul", ["column", "line"], ["y"]),
    ]
    insert_after_clip(model, *nodes, constants=constants)
    next(node for node in model.graph.node if node.op_type == "Squeeze").input[0] = "clips"


@hostile(r"has node \d+, 'Pad', that makes \d{10,} bytes")
def giant_pads(model: Model, rng: Random) -> None:
    pads = [0, 1, 0, 0, 0, 1, 0, 0]
    for axis in rng.sample([1, 2, 3], 2):
        pads[axis] = rng.randint(50_000, 65_536)
    replace_array(model, "pads", np.array(pads))


@hostile(r"has node \d+, 'Pad', that pads with other than numbers from 0 to 65536 an axis")
def impossible_pads(model: Model, rng: Random) -> None:
    pads = [0, 1, 0, 0, 0, 1, 0, 0]
    pads[rng.choice([0, 2, 3])] = rng.choice([-1, 65_537, 2**31, 2**62, -(2**63)])
    replace_array(model, "pads", np.array(rng.choice([pads, pads[:7]]) if min(pads) < 0 else pads))


@hostile(r"has node \d+, 'DequantizeLinear', that has scales that do not fit")
def scales_of_other_rows(model: Model, rng: Random) -> None:
    rows = rng.choice([2, 5, 7, 100])
    replace_array(model, "ws", np.ones(rows, np.float32))
    replace_array(model, "wz", np.zeros(rows, np.int8))


@hostile(r"has node \d+, 'Reshape', that gives a shape that does not fit")
def shape_constant_that_does_not_fit(model: Model, rng: Random) -> None:
    name = rng.choice(["grid", "shape"])
    old = numpy_helper.to_array(initialiser(model, name)).copy()
    old[rng.randrange(len(old) - 1)] = rng.choice([7, -5, -(2**63), 2**40, 2**62])
    replace_array(model, name, old)


@hostile(r"takes input 1 as \w+ \[.*\]; expected up to 256 constant int64")
def shape_that_is_no_constant(model: Model, rng: Random) -> None:
    way = rng.randrange(3)
    if way == 0:
        node_of(model, "Reshape").input[1] = "F2"
    elif way == 1:
        replace_array(model, "flat", np.array([2, -1], np.int32))
    else:
        replace_array(model, "flat", np.ones(rng.randint(257, 900), np.int64))


@hostile(r"has node \d+, 'Slice', that (gives the shape|slices with|makes)|has node \d+, 'Q|has node \d+, 'Conv'")
def slice_of_nothing(model: Model, rng: Random) -> None:
    replace_array(model, "to", np.array([rng.choice([1, 0, -9, -(2**63)])]))


@hostile(r"has node \d+, '(Conv|MaxPool)', that has \w+ .*; expected \d numbers from [01] to 65536")
def impossible_window(model: Model, rng: Random) -> None:
    node = node_of(model, rng.choice(["Conv", "MaxPool"]))
    name = rng.choice(["strides", "dilations", "pads"])
    for attribute in [attribute for attribute in node.attribute if attribute.name == name]:
        node.attribute.remove(attribute)
    values = [1] * (4 if name == "pads" else 2)
    values[rng.randrange(len(values))] = rng.choice([-1, 2**17, 2**62])
    node.attribute.append(helper.make_attribute(name, rng.choice([values, values * 50])))


@hostile(r"that has the attribute '.*', \w+; (it has|expected)|gives '\w+' the attribute '\w+' twice")
def foreign_attribute(model: Model, rng: Random) -> None:
    node = some_node(model, rng)
    value: Any = rng.choice([1, 2.5, "text", [1, 2]])
    node.attribute.append(helper.make_attribute(rng.choice(["evil", "x" * 500, "body"]), value))


@hostile(r"gives '\w+' the attribute '\w+' twice")
def attribute_twice(model: Model, rng: Random) -> None:
    node = rng.choice([node for node in model.graph.node if node.attribute])
    node.attribute.append(rng.choice(list(node.attribute)))


@hostile(r"has a (tensor|list of \w+) attribute; a bundle's model has none")
def attribute_of_tensors(model: Model, rng: Random) -> None:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32))
    value: Any = rng.choice([tensor, [tensor], ["a", "b"], [0.5, 1.5]])
    some_node(model, rng).attribute.append(helper.make_attribute("value", value))


@hostile(r"has node \d+, '\w+', that has \d+ inputs and \d+ outputs; expected")
def wrong_number_of_inputs_or_outputs(model: Model, rng: Random) -> None:
    node = node_of(model, rng.choice(["Conv", "Relu", "Gemm", "MatMul", "Mul"]))
    if rng.random() < 0.5:
        node.input.extend(["b"] * rng.randint(3, 9))
    else:
        node.output.extend([f"more{i}" for i in range(rng.randint(1, 9))])


@hostile(r"that (has scales that do not fit|takes \w+; expected|mixes the types)")
def quantiser_that_does_not_fit(model: Model, rng: Random) -> None:
    name, array = rng.choice(
        [
            ("ws", np.ones(5, np.float32)),
            ("ws", np.ones((6, 1), np.float32)),
            ("wz", np.zeros(1, np.int8)),
            ("wz", np.zeros(6, np.uint8)),
            ("z", np.float32(0)),
            ("z", np.int64(0)),
            ("s", np.ones(3, np.float32)),
            ("s", np.int32(1)),
        ]
    )
    replace_array(model, name, np.asarray(array))


@hostile(r"that takes|that has|that adds|that does not fit")
def weights_that_do_not_fit(model: Model, rng: Random) -> None:
    name, shape = rng.choice([("w", (6, 3, 3, 3)), ("b", (5,)), ("V", (3, 5)), ("c", (4,)), ("A", (4, 3))])
    kind = np.int8 if name == "w" else np.float32
    replace_array(model, name, np.ones(shape, kind))


@hostile(r"casts to \S+; expected float32|that mixes the types")
def cast_to_a_foreign_type(model: Model, rng: Random) -> None:
    node_of(model, "Cast").attribute[0].i = rng.choice([0, 8, 11, 14, 99, -1, 6])


@hostile(r"keeps initialiser '\w+' in '.*'; expected a data file that the manifest lists")
def external_data_elsewhere(model: Model, rng: Random) -> None:
    places = [
        "/etc/passwd",
        "../outside",
        "model.fp32.onnx",
        "absent",
        "",
        ".",
        "a/b",
        "\\\\host\\x",
        "C:x",
        "W.data\0",
    ]
    _external(some_tensor(model, rng), location=rng.choice([*places, "../" * rng.randint(1, 50) + "etc/shadow"]))


@hostile(r"keeps initialiser '\w+' in 'W\.data' (up to byte \d+; the file has 64|with \d+ bytes; its dims take \d+)")
def external_data_beyond_its_file(model: Model, rng: Random) -> None:
    tensor = some_tensor(model, rng)
    if rng.random() < 0.5:
        _external(tensor, location="W.data", offset=str(rng.randint(64, 10**12 - 1)))
    else:
        _external(tensor, location="W.data", length=str(len(tensor.raw_data or b"0" * 8) + 10**9))


@hostile(r"with external (offset|length) '.*'; expected a number of bytes|with external data \[.*\]; expected location")
def external_data_that_is_no_number(model: Model, rng: Random) -> None:
    fields = [{"offset": "-1"}, {"offset": "1e9"}, {"length": "9" * 400}, {"length": "\u0663"}, {"evil": "x"}]
    _external(some_tensor(model, rng), location="W.data", **rng.choice(fields))


@hostile(r"both inside and outside the file")
def data_inside_and_outside(model: Model, rng: Random) -> None:
    tensor = some_tensor(model, rng)
    content = tensor.raw_data
    _external(tensor, location="W.data")
    tensor.raw_data = content


@hostile(r"has (segments|value_info|quantisation annotations|an overload|device configurations); a bundle's")
def field_that_no_bundle_has(model: Model, rng: Random) -> None:
    way = rng.randrange(4)
    if way == 0:
        some_tensor(model, rng).segment.begin = 1
    elif way == 1:
        model.graph.value_info.append(helper.make_tensor_value_info("x1", TensorProto.FLOAT, [2**60, 2**60]))
    elif way == 2:
        model.graph.quantization_annotation.add().tensor_name = "x1"
    else:
        some_node(model, rng).overload = "x"


def _external(tensor: onnx.TensorProto, **fields: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in fields.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
