"""Is an ONNX file one that this program would have written? Answered before an engine sees a byte of it.

Refused: whatever engines could be made to misuse. Nested graphs, functions, foreign operators, data outside the bundle,
shapes and constants that make much out of little, values that nobody makes.
"""

from __future__ import annotations

import mmap
from collections import Counter
from dataclasses import dataclass
from typing import Any, BinaryIO, Dict, List, Mapping, Optional, Sequence, Tuple

from edgelip.runtime.clip import ClipSpec
from edgelip.runtime.errors import BundleError
from edgelip.runtime.vetting.onnx_file import read_onnx, shown
from edgelip.runtime.vetting.onnx_messages import FLOAT, MAX_RANK, Node, OnnxFile, Tensor, Value, num_bytes
from edgelip.runtime.vetting.onnx_operators import OPERATORS
from edgelip.runtime.vetting.onnx_shapes import Call, Known, size_of, type_name
from edgelip.runtime.vetting.protobuf import Content

_OPSETS, _IR_VERSIONS = (13, 23), (7, 13)
_MAX_NODES, _MAX_INITIALISERS = 20_000, 20_000
_MAX_STATIC_BATCH = 16
# Of the published nets the largest take 41 MiB of values a clip, 240 MiB while weights are built, 14e9 multiply-adds.
_MAX_VALUE_BYTES, _MAX_LIVE_BYTES, _MAX_MORE_BYTES, _MAX_WORK = 256 << 20, 768 << 20, 64 << 20, 1 << 38
_MANY_CLIPS = 16  # the recogniser's batch


@dataclass(frozen=True)
class OnnxSummary:
    """A vetted file. live_bytes: the most that values made from one clip, and weights made at load, take at a time.

    multiply_adds: of one clip, weights made at load included; an upper bound, operators that only move data aside.
    """

    ir_version: int
    opset: int
    batch: Optional[int]  # None: any
    input: Value
    output: Value
    operators: Mapping[str, int]
    initialisers: Tuple[Tensor, ...]
    metadata: Mapping[str, str]
    live_bytes: int
    multiply_adds: int


def vet_file(file: BinaryIO, *, name: str, clip: ClipSpec, num_words: int, files: Mapping[str, int]) -> OnnxSummary:
    """`vet_model` of an opened file, through a memory map: weights are not read."""
    try:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise BundleError(f"{name} is empty; expected an ONNX file. Export the bundle again.") from None
    except OSError as error:
        raise BundleError(f"{name} cannot be read ({error.strerror}).") from error
    with mapped:
        return vet_model(mapped, name=name, clip=clip, num_words=num_words, files=files)


def vet_model(content: Content, *, name: str, clip: ClipSpec, num_words: int, files: Mapping[str, int]) -> OnnxSummary:
    """What the ONNX file `name` is, if it is one that a bundle may hold.

    content: bytes or a memory map; no weight is read or copied. files: bytes of each file that the manifest lists.
    Raises BundleError in one line: what, got, expected, remedy.
    """
    try:
        model = read_onnx(content)
        _check_versions(model)
        _check_external(model, files)
        batch = _check_ends(model, clip, num_words)
        flow = _Flow(model, batch or 1, {})
        if flow.output.axes != (batch or 1, num_words) or flow.output.elem_type != FLOAT:
            got = f"{type_name(flow.output.elem_type)} {list(flow.output.axes)}"
            raise ValueError(f"computes {got} from {batch or 1} clip; expected float32 {[batch or 1, num_words]}")
        if batch is None:
            _check_growth(flow, _Flow(model, _MANY_CLIPS, flow.known), num_words)
    except ValueError as error:
        raise BundleError(f"{name} {error}. Export the bundle again.") from error
    return OnnxSummary(
        ir_version=model.ir_version,
        opset=model.opset,
        batch=batch,
        input=model.inputs[0],
        output=model.outputs[0],
        operators=dict(sorted(Counter(node.op_type for node in model.nodes).items())),
        initialisers=model.initialisers,
        metadata=model.metadata,
        live_bytes=flow.live_bytes,
        multiply_adds=flow.work,
    )


def _check_versions(model: OnnxFile) -> None:
    for what, got, (low, high) in (
        ("operator set", model.opset, _OPSETS),
        ("IR version", model.ir_version, _IR_VERSIONS),
    ):
        if not low <= got <= high:
            raise ValueError(f"has {what} {got}; expected {low} to {high}")
    for what, count, limit in (
        ("nodes", len(model.nodes), _MAX_NODES),
        ("initialisers", len(model.initialisers), _MAX_INITIALISERS),
    ):
        if count > limit:
            raise ValueError(f"has {count} {what}; the limit is {limit}")


def _check_external(model: OnnxFile, files: Mapping[str, int]) -> None:
    for tensor in model.initialisers:
        outside = tensor.external
        if outside is None:
            continue
        what = f"keeps initialiser {shown(tensor.name)} in {shown(outside.location)}"
        if outside.location not in files or outside.location.endswith(".onnx"):
            raise ValueError(f"{what}; expected a data file that the manifest lists")
        if outside.length not in (None, tensor.num_bytes):
            raise ValueError(f"{what} with {outside.length} bytes; its dims take {tensor.num_bytes}")
        if outside.offset + tensor.num_bytes > files[outside.location]:
            end = outside.offset + tensor.num_bytes
            raise ValueError(f"{what} up to byte {end}; the file has {files[outside.location]}")


def _check_ends(model: OnnxFile, clip: ClipSpec, num_words: int) -> Optional[int]:
    """The batch of the one input and the one output; None where it is free."""
    if clip.kind == "audio":
        raise ValueError(f"belongs to a manifest whose clips are {clip.kind}; expected video or landmarks")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        counts = f"{len(model.inputs)} inputs and {len(model.outputs)} outputs"
        raise ValueError(f"has {counts}; expected one of each (initialisers are no inputs)")
    wanted = {"takes": clip.input_shape, "gives": (num_words,)}
    batches = []
    for does, value in (("takes", model.inputs[0]), ("gives", model.outputs[0])):
        if value.elem_type != FLOAT or value.axes[1:] != wanted[does] or not value.axes:
            expected = f"float32 (batch, {', '.join(map(str, wanted[does]))})"
            got = f"{type_name(value.elem_type)} {shown(list(value.axes))}"
            raise ValueError(f"{does} {got}; expected {expected} as the manifest says")
        batches.append(value.axes[0])
    fixed = [batch for batch in batches if isinstance(batch, int)]
    if any(not 1 <= batch <= _MAX_STATIC_BATCH for batch in fixed) or len(set(fixed)) > 1 or len(fixed) == 1:
        raise ValueError(f"has batches {shown(batches)}; expected both free, or both from 1 to {_MAX_STATIC_BATCH}")
    return fixed[0] if fixed else None


def _check_growth(one: _Flow, many: _Flow, num_words: int) -> None:
    """No value may grow faster than the batch, so that what one clip needs bounds what any number of them need."""
    if many.output.axes != (_MANY_CLIPS, num_words):
        raise ValueError(f"computes {list(many.output.axes)} from {_MANY_CLIPS} clips")
    for name, value in many.known.items():
        if size_of(value.axes) > _MANY_CLIPS * size_of(one.known[name].axes):
            raise ValueError(f"has value {shown(name)}, which grows faster than the batch")


class _Flow:
    """Every value of the graph for one batch size, made in the order of the nodes."""

    def __init__(self, model: OnnxFile, batch: int, before: Mapping[str, Known]) -> None:
        """before: values of another batch size; those that do not depend on the clip are taken over."""
        self.known: Dict[str, Known] = {}
        self.work = self.live_bytes = 0
        for tensor in model.initialisers:
            self._add(tensor.name, Known(tensor.elem_type, tensor.dims, tensor.values, constant=True))
        clip = model.inputs[0]
        self._add(clip.name, Known(clip.elem_type, (batch, *(int(length) for length in clip.axes[1:]))))
        self._run(model.nodes, batch, before)
        if model.outputs[0].name not in self.known:
            raise ValueError(f"names the output {shown(model.outputs[0].name)}, which no node makes")
        self.output = self.known[model.outputs[0].name]

    def _run(self, nodes: Sequence[Node], batch: int, before: Mapping[str, Known]) -> None:
        last = {name: position for position, node in enumerate(nodes) for name in node.inputs}
        alive: Dict[str, int] = {}  # bytes of what nodes made and later ones read
        worked_out: Dict[Tuple[Any, ...], Tuple[List[Known], int]] = {}
        live = 0
        for position, node in enumerate(nodes):
            try:
                inputs = [self._read(name) for name in node.inputs]
                constant = all(value is None or value.constant for value in inputs)
                if constant and before:
                    results = [before[name] for name in node.outputs]
                else:
                    # Deep nets repeat themselves: equal nodes on equal inputs are worked out once.
                    key = (node.op_type, len(node.outputs), *inputs, *node.attributes.items())
                    if key not in worked_out:
                        worked_out[key] = _results(node, inputs)
                    results, work = worked_out[key]
                    self.work += work
                    if constant:
                        results = [value._replace(constant=True) for value in results]
                made = 0
                for name, value in zip(node.outputs, results):
                    self._add(name, value)
                    alive[name] = num_bytes(value.elem_type, size_of(value.axes))
                    made += alive[name]
                live += made
                self.live_bytes = max(self.live_bytes, live)
                live_limit = _MAX_LIVE_BYTES + (batch - 1) * _MAX_MORE_BYTES
                if made > _MAX_VALUE_BYTES * batch or live > live_limit or self.work > _MAX_WORK * batch:
                    limits = f"the limits for {batch} are {_MAX_VALUE_BYTES * batch}, {live_limit}, {_MAX_WORK * batch}"
                    raise ValueError(f"makes {made} bytes, {live} in use, {self.work} multiply-adds so far; {limits}")
            except ValueError as error:
                raise ValueError(f"has node {position}, {shown(node.op_type)}, that {error}") from None
            for name in (*node.inputs, *node.outputs):
                # What is made at load for the clips stays as long as the engine does.
                if name in alive and last.get(name, position) <= position and constant == self.known[name].constant:
                    live -= alive.pop(name)

    def _add(self, name: str, value: Known) -> None:
        if not name or name in self.known:
            raise ValueError(f"makes the value {shown(name)} twice" if name else "makes a value without a name")
        self.known[name] = value

    def _read(self, name: str) -> Optional[Known]:
        if name and name not in self.known:
            raise ValueError(f"reads {shown(name)}, which nothing before it makes")
        return self.known[name] if name else None


def _results(node: Node, inputs: Sequence[Optional[Known]]) -> Tuple[List[Known], int]:
    """What the node gives, and about how many multiply-adds it takes."""
    operator = OPERATORS.get(node.op_type)
    if operator is None:
        raise ValueError(f"is no operator that a bundle's model uses: {', '.join(OPERATORS)}")
    low, high = operator.num_inputs
    if not low <= len(inputs) <= high or not 1 <= len(node.outputs) <= operator.max_outputs:
        counts = f"{len(inputs)} inputs and {len(node.outputs)} outputs"
        raise ValueError(f"has {counts}; expected {low} to {high} and 1 to {operator.max_outputs}")
    for name, attribute in node.attributes.items():
        kind = operator.attributes.get(name)
        if type(attribute) is not kind:
            wanted = f"expected {kind.__name__}" if kind else f"it has {', '.join(operator.attributes) or 'none'}"
            raise ValueError(f"has the attribute {shown(name)}, {type(attribute).__name__}; {wanted}")
    call = Call(inputs, node.attributes, len(node.outputs))
    results = operator.result(call)
    for value in results:
        if len(value.axes) > MAX_RANK or min(value.axes, default=1) < 1:
            raise ValueError(f"gives the shape {list(value.axes)}; expected up to {MAX_RANK} lengths above 0")
    return results, call.work + sum(size_of(value.axes) for value in results)
