"""What an ONNX file says, read without onnx, without an engine and without copying its weights.

The reading is strict where engines differ: a field that stands twice, has another wire type than ONNX gives it, or is
not known here is refused, so that no engine can see another model than the one that was vetted.
"""

from __future__ import annotations

import struct
from typing import Any, Dict, List, Optional, Tuple, Union

from edgelip.runtime.vetting.onnx_messages import (
    BOOL,
    FLOAT,
    FLOAT8E4M3FN,
    FLOAT8E5M2,
    FLOAT16,
    INT,
    INT8,
    INT32,
    INT64,
    INTS,
    MAX_RANK,
    MAX_SHAPE_VALUES,
    MODEL,
    NUMBERS4,
    NUMBERS8,
    RANGE,
    REAL,
    REFUSE,
    REPEATED,
    SKIP,
    STORED_TYPES,
    TEXT,
    TEXTS,
    TYPE_BYTES,
    TYPE_NAMES,
    UINT8,
    VARINTS,
    AttributeValue,
    External,
    Message,
    Node,
    OnnxFile,
    Tensor,
    Value,
    num_bytes,
)
from edgelip.runtime.vetting.protobuf import BYTES, FIXED32, FIXED64, VARINT, Content, WireError, WireReader, signed

MAX_TEXT = 4096
_MAX_DIM = 1 << 40
_MAX_ENTRIES = 100_000  # nodes, and initialisers
_MAX_CACHED = 256


def read_onnx(content: Content) -> OnnxFile:
    """Read a file's bytes or its memory map. Raises ValueError (short: the caller adds the file's name)."""
    return _Reader(content).model()


class _Reader:
    def __init__(self, content: Content) -> None:
        self.content = content
        self.wire = WireReader(content)
        self.seen: Dict[Tuple[str, bytes], Dict[str, Any]] = {}

    def message(self, message: Message, start: int, end: int) -> Dict[str, Any]:
        """Its fields by name; depth is that of the tables above, which hold no cycle."""
        if not (message.cached and end - start <= _MAX_CACHED):
            return self.fresh(message, start, end)
        key = (message.title, self.content[start:end])  # attributes repeat a thousand times in one file
        found = self.seen.get(key)
        if found is None:
            found = self.seen[key] = self.fresh(message, start, end)
        return found

    def fresh(self, message: Message, start: int, end: int) -> Dict[str, Any]:
        found: Dict[str, Any] = {}
        for number, wire_type, a, b in self.wire.fields(start, end):
            field = message.fields.get(number)
            if field is None:
                raise ValueError(f"has field {number} in a {message.title}, which this edgelip does not know")
            name, kind = field[0], field[1]
            if kind == SKIP:
                continue
            if kind == REFUSE:
                raise ValueError(f"has {name}; a bundle's model has none")
            if kind in REPEATED or (len(field) == 3 and field[2]):
                self.append(found.setdefault(name, []), field, wire_type, a, b)
            elif name in found:
                raise ValueError(f"has {name} twice in one {message.title}")
            else:
                found[name] = self.single(field, wire_type, a, b)
        return found

    def single(self, field: Tuple[Any, ...], wire_type: int, a: int, b: int) -> Any:
        kind = field[1]
        expected = VARINT if kind == INT else FIXED32 if kind == REAL else BYTES
        if wire_type != expected:
            raise ValueError(f"stores {field[0]} as wire type {wire_type}; expected {expected}")
        if kind == INT:
            return signed(a)
        if kind == REAL:
            return struct.unpack("<f", self.content[a:b])[0]
        if kind == TEXT:
            return self.text(a, b)
        return (a, b) if kind == RANGE else self.message(kind, a, b)

    def append(self, values: List[Any], field: Tuple[Any, ...], wire_type: int, a: int, b: int) -> None:
        name, kind = field[0], field[1]
        if len(values) >= _MAX_ENTRIES:
            raise ValueError(f"has more than {_MAX_ENTRIES} {name}")
        if kind in (INTS, VARINTS) and wire_type == VARINT:
            values.append(signed(a))
        elif kind in (INTS, VARINTS) and wire_type == BYTES:
            if b - a > 10 * _MAX_ENTRIES:
                raise ValueError(f"has {b - a} bytes of {name}; store them as raw_data")
            values.extend(signed(value) for value in self.wire.packed_varints(a, b))
        elif kind in (NUMBERS4, NUMBERS8) and wire_type in (BYTES, FIXED32 if kind == NUMBERS4 else FIXED64):
            values.append(b - a)
        elif wire_type != BYTES or kind in (NUMBERS4, NUMBERS8):
            raise ValueError(f"stores {name} as wire type {wire_type}; expected {BYTES}")
        else:
            values.append(self.text(a, b) if kind == TEXTS else self.message(kind, a, b))

    def text(self, a: int, b: int) -> str:
        if b - a > MAX_TEXT * 64:
            raise ValueError(f"has a text of {b - a} bytes; the limit is {MAX_TEXT * 64}")
        try:
            return self.content[a:b].decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"has a text at byte {a} that is not UTF-8") from None

    def model(self) -> OnnxFile:
        try:
            model = self.message(MODEL, 0, len(self.content))
        except WireError as error:
            raise ValueError(f"is not readable as ONNX: it {error}") from error
        if "graph" not in model:
            raise ValueError("has no graph")
        graph = model["graph"]
        sets = [(entry.get("domain", ""), entry.get("version", 0)) for entry in model.get("opsets", [])]
        foreign = [domain for domain, _ in sets if domain not in ("", "ai.onnx")]
        if foreign or len(sets) != 1:
            raise ValueError(
                f"uses the operator sets {shown([d or 'ai.onnx' for d, _ in sets])}; expected ai.onnx alone"
            )
        names = [entry["name"] for entry in graph.get("nodes", []) if entry.get("name")]
        if len(set(names)) != len(names):
            raise ValueError("has two nodes of one name")
        metadata: Dict[str, str] = {}
        for entry in model.get("metadata", []):
            if metadata.setdefault(entry.get("key", ""), entry.get("value", "")) != entry.get("value", ""):
                raise ValueError(f"says metadata {shown(entry.get('key', ''))} twice")
        return OnnxFile(
            ir_version=model.get("ir_version", 0),
            opset=sets[0][1],
            inputs=tuple(_value(entry) for entry in graph.get("inputs", [])),
            outputs=tuple(_value(entry) for entry in graph.get("outputs", [])),
            nodes=tuple(self.node(entry) for entry in graph.get("nodes", [])),
            initialisers=tuple(self.tensor(entry) for entry in graph.get("initialisers", [])),
            metadata=metadata,
        )

    def node(self, entry: Dict[str, Any]) -> Node:
        operator = entry.get("op_type", "")
        if entry.get("domain", "") not in ("", "ai.onnx"):
            raise ValueError(
                f"has operator {shown(operator)} of domain {shown(entry['domain'])}; expected ai.onnx alone"
            )
        attributes: Dict[str, AttributeValue] = {}
        for attribute in entry.get("attributes", []):
            name = attribute.get("name", "")
            if name in attributes:
                raise ValueError(f"gives {shown(operator)} the attribute {shown(name)} twice")
            attributes[name] = self.attribute(attribute)
        return Node(operator, tuple(entry.get("inputs", [])), tuple(entry.get("outputs", [])), attributes)

    def attribute(self, entry: Dict[str, Any]) -> AttributeValue:
        """Its value, kept in `entry`: equal attributes are read once."""
        if "value" not in entry:
            entry["value"] = self.converted(entry)
        value: AttributeValue = entry["value"]
        return value

    def converted(self, entry: Dict[str, Any]) -> AttributeValue:
        kind = entry.get("type", 0)
        field = {1: "f", 2: "i", 3: "s", 7: "ints"}.get(kind, "")
        if not field or {"f", "i", "s", "ints"} & set(entry) - {field}:
            raise ValueError(f"has attribute {shown(entry.get('name', ''))} of type {kind} that it does not hold")
        empty: Dict[str, Any] = {"f": 0.0, "i": 0, "s": (0, 0), "ints": ()}  # protobuf may leave out a zero
        value = entry.get(field, empty[field])
        if field == "ints":
            return tuple(value)
        if field != "s":
            return value  # type: ignore[no-any-return]
        if value[1] - value[0] > MAX_TEXT:
            raise ValueError(f"has an attribute of {value[1] - value[0]} bytes; the limit is {MAX_TEXT}")
        return self.content[value[0] : value[1]]

    def tensor(self, entry: Dict[str, Any]) -> Tensor:
        name, kind, dims = entry.get("name", ""), entry.get("data_type", 0), tuple(entry.get("dims", ()))
        what = f"initialiser {shown(name)}"
        if kind not in STORED_TYPES:
            allowed = ", ".join(TYPE_NAMES[known] for known in STORED_TYPES)
            raise ValueError(f"has {what} of type {TYPE_NAMES.get(kind, kind)}; expected {allowed}")
        if len(dims) > MAX_RANK or not all(0 < length < _MAX_DIM for length in dims):
            raise ValueError(f"has {what} of shape {shown(list(dims))}; expected up to {MAX_RANK} lengths above 0")
        count = 1
        for length in dims:
            count *= length
        fields = [field for field in ("raw_data", *_DATA_FIELDS) if field in entry]
        external = _external(entry, what)
        if external is not None:
            if fields:
                raise ValueError(f"has {what} both inside and outside the file")
            return Tensor(name, kind, dims, num_bytes(kind, count), None, external)
        if len(fields) != 1 or (fields[0] != "raw_data" and kind not in _DATA_FIELDS[fields[0]]):
            raise ValueError(f"has {what} ({TYPE_NAMES[kind]}) with data in {fields}; expected raw_data")
        held, values = self.held(entry[fields[0]], fields[0], kind, count)
        if held != num_bytes(kind, count):
            said = f"{list(dims)} of {TYPE_NAMES[kind]} are {num_bytes(kind, count)}"
            raise ValueError(f"has {what} with {held} bytes; its dims {said}")
        return Tensor(name, kind, dims, held, values, None)

    def held(self, data: Any, field: str, kind: int, count: int) -> Tuple[int, Optional[Tuple[int, ...]]]:
        """Bytes that the data takes in memory, and its integers where they may serve as a shape."""
        small = kind in (INT32, INT64) and count <= MAX_SHAPE_VALUES
        if field == "raw_data":
            start, end = data
            if not small or end - start != count * TYPE_BYTES[kind]:
                return end - start, None
            return end - start, struct.unpack(f"<{count}{'i' if kind == INT32 else 'q'}", self.content[start:end])
        if field == "float_data":
            return sum(data), None
        return len(data) * TYPE_BYTES[kind], tuple(data) if small else None


_DATA_FIELDS: Dict[str, Tuple[int, ...]] = {
    "float_data": (FLOAT,),
    "int32_data": (INT32, UINT8, INT8, BOOL, FLOAT16, FLOAT8E4M3FN, FLOAT8E5M2),
    "int64_data": (INT64,),
    "double_data": (),
    "uint64_data": (),
}


def _value(entry: Dict[str, Any]) -> Value:
    name, kind = entry.get("name", ""), entry.get("type", {}).get("tensor")
    if kind is None or "shape" not in kind:
        raise ValueError(f"has input or output {shown(name)} that is no tensor with a shape")
    axes: List[Union[int, str]] = []
    for dim in kind["shape"].get("dim", []):
        if "value" in dim and "param" in dim:
            raise ValueError(f"gives an axis of {shown(name)} both a length and a name")
        axes.append(dim.get("value", dim.get("param", "")))
    return Value(name, kind.get("elem_type", 0), tuple(axes))


def _external(entry: Dict[str, Any], what: str) -> Optional[External]:
    pairs = [(pair.get("key", ""), pair.get("value", "")) for pair in entry.get("external_data", [])]
    location = entry.get("data_location", 0)
    if location == 0 and not pairs:
        return None
    fields = dict(pairs)
    if location != 1 or len(fields) != len(pairs) or not {"location"} <= set(fields) <= _EXTERNAL_KEYS:
        raise ValueError(f"has {what} with external data {shown(sorted(fields))}; expected location, offset and length")
    numbers = {key: fields[key] for key in ("offset", "length") if key in fields}
    for key, text in numbers.items():
        if not (text.isascii() and text.isdigit() and len(text) <= 12):
            raise ValueError(f"has {what} with external {key} {shown(text)}; expected a number of bytes")
    length = int(numbers["length"]) if "length" in numbers else None
    return External(fields["location"], int(numbers.get("offset", "0")), length)


_EXTERNAL_KEYS = {"location", "offset", "length"}


def shown(value: Any) -> str:
    """A value from the file for an error message: ASCII, one line, at most 80 characters."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:76] + "..." + text[-1]
