"""What an ONNX file may say: types, the frozen form that is read, and the fields of each message on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Tuple, Union

FLOAT, UINT8, INT8, INT32, INT64, BOOL, FLOAT16, DOUBLE = 1, 2, 3, 6, 7, 9, 10, 11
FLOAT8E4M3FN, FLOAT8E5M2, INT4 = 17, 19, 22
_TYPE_NAMES = (
    "undefined float32 uint8 int8 uint16 int16 int32 int64 string bool float16 float64 uint32 uint64 complex64 "
    "complex128 bfloat16 float8e4m3fn float8e4m3fnuz float8e5m2 float8e5m2fnuz uint4 int4 float4e2m1"
)
TYPE_NAMES: Dict[int, str] = dict(enumerate(_TYPE_NAMES.split()))
# What the exporter writes: weights, levels, scales and shapes.
TYPE_BYTES: Dict[int, int] = dict(
    zip((FLOAT, UINT8, INT8, INT32, INT64, BOOL, FLOAT16, FLOAT8E4M3FN, FLOAT8E5M2), (4, 1, 1, 4, 8, 1, 2, 1, 1))
)
STORED_TYPES = (*TYPE_BYTES, INT4)  # INT4 stands in the file alone: no operator gives it
MAX_RANK = 8
MAX_SHAPE_VALUES = 256  # integers that may serve as shapes are read up to this many


def num_bytes(elem_type: int, count: int) -> int:
    """Bytes that so many numbers of a type take."""
    return (count + 1) // 2 if elem_type == INT4 else count * TYPE_BYTES[elem_type]


@dataclass(frozen=True)
class External:
    """Where the bytes of a tensor lie outside the file."""

    location: str
    offset: int
    length: Optional[int]


@dataclass(frozen=True)
class Tensor:
    """An initialiser. num_bytes: what is stored here or outside; values: its integers, if it is small and has any."""

    name: str
    elem_type: int
    dims: Tuple[int, ...]
    num_bytes: int
    values: Optional[Tuple[int, ...]]
    external: Optional[External]


@dataclass(frozen=True)
class Value:
    """An input or output; an axis is a length, or the name of a free one ("" if it has none)."""

    name: str
    elem_type: int
    axes: Tuple[Union[int, str], ...]


AttributeValue = Union[int, float, bytes, Tuple[int, ...]]


@dataclass(frozen=True)
class Node:
    op_type: str
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True)
class OnnxFile:
    """The whole file but for its weights."""

    ir_version: int
    opset: int
    inputs: Tuple[Value, ...]
    outputs: Tuple[Value, ...]
    nodes: Tuple[Node, ...]
    initialisers: Tuple[Tensor, ...]
    metadata: Mapping[str, str]


# Kinds of fields. Repeated ones make lists; the others may stand once.
INT, REAL, TEXT, RANGE, SKIP, REFUSE, TEXTS, INTS, NUMBERS4, NUMBERS8, VARINTS = range(11)
REPEATED = {TEXTS, INTS, NUMBERS4, NUMBERS8, VARINTS}


class Message:
    """The fields of a message by number: (name, kind), or (name, message, repeated)."""

    def __init__(self, title: str, fields: Dict[int, Tuple[Any, ...]], *, cached: bool = False) -> None:
        self.title, self.fields, self.cached = title, fields, cached


_ENTRY = Message("metadata entry", {1: ("key", TEXT), 2: ("value", TEXT)})
_DIM = Message("dimension", {1: ("value", INT), 2: ("param", TEXT), 3: ("denotation", SKIP)}, cached=True)
_SHAPE = Message("shape", {1: ("dim", _DIM, True)})
_TENSOR_TYPE = Message("tensor type", {1: ("elem_type", INT), 2: ("shape", _SHAPE, False)})
_TYPE = Message(
    "type",
    {
        1: ("tensor", _TENSOR_TYPE, False),
        4: ("a sequence type", REFUSE),
        5: ("a map type", REFUSE),
        6: ("a denotation", SKIP),
        7: ("an opaque type", REFUSE),
        8: ("a sparse tensor type", REFUSE),
        9: ("an optional type", REFUSE),
    },
)
_VALUE = Message("value", {1: ("name", TEXT), 2: ("type", _TYPE, False), 3: ("doc", SKIP), 4: ("metadata", SKIP)})
_TENSOR = Message(
    "tensor",
    {
        1: ("dims", INTS),
        2: ("data_type", INT),
        3: ("segments", REFUSE),
        4: ("float_data", NUMBERS4),
        5: ("int32_data", VARINTS),
        6: ("strings", REFUSE),
        7: ("int64_data", VARINTS),
        8: ("name", TEXT),
        9: ("raw_data", RANGE),
        10: ("double_data", NUMBERS8),
        11: ("uint64_data", VARINTS),
        12: ("doc", SKIP),
        13: ("external_data", _ENTRY, True),
        14: ("data_location", INT),
        16: ("metadata", SKIP),
    },
)
_ATTRIBUTE = Message(
    "attribute",
    {
        1: ("name", TEXT),
        2: ("f", REAL),
        3: ("i", INT),
        4: ("s", RANGE),
        5: ("a tensor attribute", REFUSE),
        6: ("a nested graph", REFUSE),
        7: ("a list of numbers attribute", REFUSE),
        8: ("ints", INTS),
        9: ("a list of texts attribute", REFUSE),
        10: ("a list of tensors attribute", REFUSE),
        11: ("nested graphs", REFUSE),
        13: ("doc", SKIP),
        14: ("a type attribute", REFUSE),
        15: ("a list of types attribute", REFUSE),
        20: ("type", INT),
        21: ("a reference to a function's attribute", REFUSE),
        22: ("a sparse tensor", REFUSE),
        23: ("sparse tensors", REFUSE),
    },
    cached=True,
)
_NODE = Message(
    "node",
    {
        1: ("inputs", TEXTS),
        2: ("outputs", TEXTS),
        3: ("name", TEXT),
        4: ("op_type", TEXT),
        5: ("attributes", _ATTRIBUTE, True),
        6: ("doc", SKIP),
        7: ("domain", TEXT),
        8: ("an overload", REFUSE),
        9: ("metadata", SKIP),
        10: ("a device configuration", REFUSE),
    },
)
_GRAPH = Message(
    "graph",
    {
        1: ("nodes", _NODE, True),
        2: ("name", SKIP),
        5: ("initialisers", _TENSOR, True),
        10: ("doc", SKIP),
        11: ("inputs", _VALUE, True),
        12: ("outputs", _VALUE, True),
        13: ("value_info", REFUSE),
        14: ("quantisation annotations", REFUSE),
        15: ("sparse initialisers", REFUSE),
        16: ("metadata", SKIP),
    },
)
_OPSET = Message("operator set", {1: ("domain", TEXT), 2: ("version", INT)})
MODEL = Message(
    "model",
    {
        1: ("ir_version", INT),
        2: ("producer", SKIP),
        3: ("producer_version", SKIP),
        4: ("domain", SKIP),
        5: ("model_version", SKIP),
        6: ("doc", SKIP),
        7: ("graph", _GRAPH, False),
        8: ("opsets", _OPSET, True),
        14: ("metadata", _ENTRY, True),
        20: ("training information", REFUSE),
        25: ("functions", REFUSE),
        26: ("device configurations", REFUSE),
    },
)
