"""What operators that move values without computing give: type, shape and, for small integers, the values.

No weight is read. Axes are lengths throughout: the batch has been given a number.
"""

from __future__ import annotations

from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from edgelip.runtime.vetting.onnx_file import shown
from edgelip.runtime.vetting.onnx_messages import (
    FLOAT,
    FLOAT16,
    INT32,
    INT64,
    MAX_RANK,
    MAX_SHAPE_VALUES,
    TYPE_BYTES,
    TYPE_NAMES,
    AttributeValue,
)

Axes = Tuple[int, ...]
REAL_TYPES = (FLOAT, FLOAT16)
MAX_STEP = 1 << 16  # pads, strides, dilations, kernel sides


class Known(NamedTuple):
    """What is known of a value before anything runs. constant: it does not depend on the clip."""

    elem_type: int
    axes: Axes
    values: Optional[Axes] = None
    constant: bool = False


class Call:
    """One node at work: its inputs (None: left out), its attributes, and how many outputs are read."""

    def __init__(
        self,
        inputs: Sequence[Optional[Known]],
        attributes: Mapping[str, AttributeValue],
        num_outputs: int,
    ) -> None:
        self.inputs, self.attributes, self.num_outputs = inputs, attributes, num_outputs
        self.work = 0  # multiply-adds or comparisons beyond one an output

    def given(self, position: int) -> Known:
        value = self.optional(position)
        if value is None:
            raise ValueError(f"lacks input {position}")
        return value

    def optional(self, position: int) -> Optional[Known]:
        return self.inputs[position] if position < len(self.inputs) else None

    def integers(self, position: int) -> Axes:
        """The integers of an input that says a shape, axes or pads; they must be known now."""
        value = self.given(position)
        if value.elem_type != INT64 or len(value.axes) > 1 or value.values is None:
            got = f"{type_name(value.elem_type)} {list(value.axes)}"
            raise ValueError(f"takes input {position} as {got}; expected up to {MAX_SHAPE_VALUES} constant int64")
        return value.values

    def integer(self, name: str, default: int) -> int:
        value: Any = self.attributes.get(name, default)  # its kind was compared with the table
        return int(value)

    def list_of(self, name: str, default: Axes, *, low: int) -> Axes:
        """A list of numbers, as long as `default`, from `low` to MAX_STEP each."""
        values: Any = self.attributes.get(name, default)
        if len(values) != len(default) or min(values) < low or max(values) > MAX_STEP:
            wanted = f"{len(default)} numbers from {low} to {MAX_STEP}"
            raise ValueError(f"has {name} {shown(list(values))}; expected {wanted}")
        return tuple(values)

    def axis(self, name: str, default: int, rank: int) -> int:
        return axis_of(self.integer(name, default), rank)


def type_name(elem_type: int) -> str:
    return TYPE_NAMES.get(elem_type, str(elem_type))


def size_of(axes: Axes) -> int:
    count = 1
    for length in axes:
        count *= length
    return count


def axis_of(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ValueError(f"has axis {axis}; its input has {rank} axes")
    return axis % rank


def require(fits: bool, reason: str, *shapes: Axes) -> None:
    if not fits:
        raise ValueError(f"{reason}: {' and '.join(str(list(axes)) for axes in shapes)}")


def typed(value: Known, allowed: Sequence[int]) -> Known:
    if value.elem_type not in allowed:
        wanted = " or ".join(type_name(kind) for kind in allowed)
        raise ValueError(f"takes {type_name(value.elem_type)}; expected {wanted}")
    return value


def same_type(values: Sequence[Optional[Known]], allowed: Sequence[int] = REAL_TYPES) -> int:
    kinds = {typed(value, allowed).elem_type for value in values if value is not None}
    if len(kinds) != 1:
        raise ValueError(f"mixes the types {', '.join(type_name(kind) for kind in sorted(kinds))}")
    return kinds.pop()


def broadcast(first: Axes, second: Axes) -> Axes:
    if first == second:
        return first
    rank = max(len(first), len(second))
    left, right = (1,) * (rank - len(first)) + first, (1,) * (rank - len(second)) + second
    require(all(a == b or 1 in (a, b) for a, b in zip(left, right)), "takes shapes that do not fit", first, second)
    return tuple(max(a, b) for a, b in zip(left, right))


def concat_result(call: Call) -> List[Known]:
    parts = [call.given(position) for position in range(len(call.inputs))]
    kind, first = same_type(parts, tuple(TYPE_BYTES)), parts[0].axes
    axis = axis_of(call.integer("axis", MAX_RANK), len(first))
    rest = [part.axes[:axis] + part.axes[axis + 1 :] for part in parts]
    fits = all(len(part.axes) == len(first) for part in parts) and len(set(rest)) == 1
    require(fits, "joins shapes that do not fit", *(part.axes for part in parts[:4]))
    axes = (*first[:axis], sum(part.axes[axis] for part in parts), *first[axis + 1 :])
    known = [part.values for part in parts if part.values is not None]
    whole = len(first) == 1 and len(known) == len(parts) and axes[0] <= MAX_SHAPE_VALUES
    return [Known(kind, axes, tuple(value for values in known for value in values) if whole else None)]


def split_result(call: Call) -> List[Known]:
    x = call.given(0)
    axis = call.axis("axis", 0, len(x.axes))
    length, parts = x.axes[axis], call.num_outputs
    if call.optional(1) is not None:
        sizes = call.integers(1)
    else:
        require(call.integer("num_outputs", parts) == parts, "gives another number of parts", (parts,))
        size = -(-length // parts)
        sizes = (size,) * (parts - 1) + (length - size * (parts - 1),)
    require(len(sizes) == parts and sum(sizes) == length and min(sizes) > 0, "splits into", sizes, x.axes)
    return [Known(x.elem_type, (*x.axes[:axis], size, *x.axes[axis + 1 :])) for size in sizes]


def slice_result(call: Call) -> List[Known]:
    x = call.given(0)
    starts, ends, rank = call.integers(1), call.integers(2), len(x.axes)
    named = call.integers(3) if call.optional(3) is not None else tuple(range(len(starts)))
    steps = call.integers(4) if call.optional(4) is not None else (1,) * len(starts)
    axes = [axis_of(axis, rank) for axis in named]
    fits = len(starts) == len(ends) == len(axes) == len(steps) and len(set(axes)) == len(axes)
    require(fits and all(steps), "slices with", starts, ends, tuple(axes), steps)
    lengths, values = list(x.axes), x.values
    for axis, start, end, step in zip(axes, starts, ends, steps):
        span = range(*slice(start, end, step).indices(lengths[axis]))
        lengths[axis] = len(span)
        values = values[start:end:step] if values is not None and rank == 1 else None
    return [Known(x.elem_type, tuple(lengths), values)]


def pad_result(call: Call) -> List[Known]:
    x, filling = call.given(0), call.optional(2)
    pads, rank = call.integers(1), len(x.axes)
    named = call.integers(3) if call.optional(3) is not None else tuple(range(rank))
    axes = [axis_of(axis, rank) for axis in named]
    fits = len(pads) == 2 * len(axes) and len(set(axes)) == len(axes) and all(0 <= pad <= MAX_STEP for pad in pads)
    require(fits, f"pads with other than numbers from 0 to {MAX_STEP} an axis", pads, x.axes)
    mode = call.attributes.get("mode", b"constant")
    if mode not in (b"constant", b"edge"):
        raise ValueError(f"has mode {shown(mode)}; expected constant or edge")
    require(filling is None or (size_of(filling.axes) == 1 and filling.elem_type == x.elem_type), "fills with", x.axes)
    lengths = list(x.axes)
    for position, axis in enumerate(axes):
        lengths[axis] += pads[position] + pads[len(axes) + position]
    return [Known(x.elem_type, tuple(lengths))]


def reshape_result(call: Call) -> List[Known]:
    x, wanted = call.given(0), call.integers(1)
    lengths, count = list(wanted), size_of(x.axes)
    if not call.integer("allowzero", 0):
        lengths = [x.axes[i] if length == 0 and i < len(x.axes) else length for i, length in enumerate(wanted)]
    if lengths.count(-1) == 1:
        rest = -size_of(tuple(lengths))
        if rest > 0:
            lengths[lengths.index(-1)] = count // rest
    fits = all(length > 0 for length in lengths) and size_of(tuple(lengths)) == count
    require(fits and len(lengths) <= MAX_RANK, "gives a shape that does not fit", x.axes, wanted)
    return [Known(x.elem_type, tuple(lengths), x.values)]


def squeeze_result(call: Call) -> List[Known]:
    x, rank = call.given(0), len(call.given(0).axes)
    named = call.integers(1) if call.optional(1) is not None else [i for i, n in enumerate(x.axes) if n == 1]
    axes = {axis_of(axis, rank) for axis in named}
    require(all(x.axes[axis] == 1 for axis in axes), "removes axes that are not 1", x.axes, tuple(axes))
    return [Known(x.elem_type, tuple(n for i, n in enumerate(x.axes) if i not in axes), x.values)]


def unsqueeze_result(call: Call) -> List[Known]:
    x, named = call.given(0), call.integers(1)
    rank = len(x.axes) + len(named)
    require(rank <= MAX_RANK, f"makes more than {MAX_RANK} axes", x.axes, named)
    axes = {axis_of(axis, rank) for axis in named}
    require(len(axes) == len(named), "names an axis twice", named)
    rest = iter(x.axes)
    return [Known(x.elem_type, tuple(1 if i in axes else next(rest) for i in range(rank)), x.values)]


def transpose_result(call: Call) -> List[Known]:
    x = call.given(0)
    rank = len(x.axes)
    order: Any = call.attributes.get("perm", tuple(range(rank))[::-1])
    require(sorted(order) == list(range(rank)), "has a perm that does not fit", tuple(order), x.axes)
    return [Known(x.elem_type, tuple(x.axes[axis] for axis in order), x.values if rank < 2 else None)]


def shape_result(call: Call) -> List[Known]:
    axes = call.given(0).axes
    values = axes[call.integer("start", 0) : call.integer("end", len(axes))]
    return [Known(INT64, (len(values),), values)]


def cast_result(call: Call) -> List[Known]:
    x, to = call.given(0), call.integer("to", 0)
    if to not in TYPE_BYTES:
        raise ValueError(f"casts to {type_name(to)}; expected {', '.join(type_name(kind) for kind in TYPE_BYTES)}")
    return [Known(to, x.axes, x.values if to == INT64 and x.elem_type in (INT32, INT64) else None)]
