"""What operators that compute give, and OPERATORS: the list of what the exporter writes. Another one is refused.

No weight is read. Axes are lengths throughout: the batch has been given a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from edgelip.runtime.vetting.onnx_messages import FLOAT, FLOAT8E4M3FN, FLOAT8E5M2, FLOAT16, INT8, INT32, INT64, UINT8
from edgelip.runtime.vetting.onnx_shapes import (
    REAL_TYPES,
    Axes,
    Call,
    Known,
    axis_of,
    broadcast,
    cast_result,
    concat_result,
    pad_result,
    require,
    reshape_result,
    same_type,
    shape_result,
    size_of,
    slice_result,
    split_result,
    squeeze_result,
    transpose_result,
    typed,
    unsqueeze_result,
)

_NUMBERS = (FLOAT, FLOAT16, INT32, INT64)
_LEVELS = (UINT8, INT8, FLOAT8E4M3FN, FLOAT8E5M2)


def _unary(call: Call) -> List[Known]:
    x = typed(call.given(0), REAL_TYPES)
    return [Known(x.elem_type, x.axes)]


def _arithmetic(call: Call) -> List[Known]:
    first, second = call.given(0), call.given(1)
    return [Known(same_type((first, second), _NUMBERS), broadcast(first.axes, second.axes))]


def _prelu(call: Call) -> List[Known]:
    x, slope = call.given(0), call.given(1)
    kind = same_type((x, slope))
    require(broadcast(x.axes, slope.axes) == x.axes, "takes slopes that do not fit", x.axes, slope.axes)
    return [Known(kind, x.axes)]


def _clip(call: Call) -> List[Known]:
    x = call.given(0)
    bounds = [bound for bound in call.inputs[1:] if bound is not None]
    require(all(not bound.axes for bound in bounds), "takes bounds that are no scalars", *(b.axes for b in bounds))
    return [Known(same_type((x, *bounds), (*_NUMBERS, UINT8)), x.axes)]


def _softmax(call: Call) -> List[Known]:
    call.axis("axis", -1, len(call.given(0).axes))
    return _unary(call)


def _window(call: Call, axes: Axes, kernel: Axes) -> Axes:
    """Lengths that a sliding window leaves of the spatial `axes`."""
    num = len(axes)
    if call.attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise ValueError("has auto_pad; expected explicit pads")
    strides = call.list_of("strides", (1,) * num, low=1)
    dilations = call.list_of("dilations", (1,) * num, low=1)
    pads = call.list_of("pads", (0,) * (2 * num), low=0)
    if call.integer("ceil_mode", 0):
        raise ValueError("has ceil_mode 1; expected 0: engines disagree on the last window")
    result = []
    for i, length in enumerate(axes):
        room = length + pads[i] + pads[num + i] - dilations[i] * (kernel[i] - 1) - 1
        require(room >= 0, "has a kernel larger than its padded input", kernel, axes)
        result.append(room // strides[i] + 1)
    return tuple(result)


def _conv(call: Call) -> List[Known]:
    x, weight, bias = call.given(0), call.given(1), call.optional(2)
    kind, group = same_type((x, weight, bias)), call.integer("group", 1)
    fits = len(x.axes) == len(weight.axes) > 2 and group > 0 and weight.axes[0] % group == 0
    require(fits and x.axes[1] == weight.axes[1] * group, "takes shapes that do not fit", x.axes, weight.axes)
    require(bias is None or bias.axes == weight.axes[:1], "has a bias that does not fit", weight.axes)
    kernel = call.list_of("kernel_shape", weight.axes[2:], low=1)
    require(kernel == weight.axes[2:], "has a kernel_shape that is not its weight's", kernel, weight.axes)
    axes = (x.axes[0], weight.axes[0], *_window(call, x.axes[2:], kernel))
    call.work = size_of(axes) * size_of(weight.axes[1:])
    return [Known(kind, axes)]


def _pool(call: Call) -> List[Known]:
    x = typed(call.given(0), (*REAL_TYPES, UINT8, INT8))
    require(len(x.axes) > 2, "takes no image", x.axes)
    if "kernel_shape" not in call.attributes or call.integer("storage_order", 0):
        raise ValueError("lacks kernel_shape, or stores columns first")
    num = len(x.axes) - 2
    kernel, pads = call.list_of("kernel_shape", (1,) * num, low=1), call.list_of("pads", (0,) * (2 * num), low=0)
    require(all(pad < side for pad, side in zip(pads, kernel * 2)), "pads as much as its kernel", pads, kernel)
    axes = (*x.axes[:2], *_window(call, x.axes[2:], kernel))
    call.work = size_of(axes) * size_of(kernel)
    return [Known(x.elem_type, axes)]


def _gemm(call: Call) -> List[Known]:
    first, second, third = call.given(0), call.given(1), call.optional(2)
    kind = same_type((first, second, third))
    require(len(first.axes) == len(second.axes) == 2, "takes no matrices", first.axes, second.axes)
    rows, inner = first.axes[::-1] if call.integer("transA", 0) else first.axes
    inner2, columns = second.axes[::-1] if call.integer("transB", 0) else second.axes
    require(inner == inner2, "takes matrices that do not fit", first.axes, second.axes)
    axes = (rows, columns)
    if third is not None:
        require(broadcast(axes, third.axes) == axes, "adds what does not fit", axes, third.axes)
    call.work = rows * columns * inner
    return [Known(kind, axes)]


def _matmul(call: Call) -> List[Known]:
    first, second = call.given(0), call.given(1)
    kind, a, b = same_type((first, second)), first.axes, second.axes
    require(len(a) > 1 and len(b) > 1 and a[-1] == b[-2], "takes matrices that do not fit", a, b)
    axes = (*broadcast(a[:-2], b[:-2]), a[-2], b[-1])
    call.work = size_of(axes) * a[-1]
    return [Known(kind, axes)]


def _batch_norm(call: Call) -> List[Known]:
    x = call.given(0)
    kind = same_type(call.inputs)
    rows = [call.given(position).axes for position in range(1, 5)]
    require(len(x.axes) > 1 and all(axes == x.axes[1:2] for axes in rows), "does not fit its input", x.axes, *rows)
    if call.integer("training_mode", 0):
        raise ValueError("is in training mode")
    return [Known(kind, x.axes)]


def _layer_norm(call: Call) -> List[Known]:
    x, scale, bias = call.given(0), call.given(1), call.optional(2)
    kind = same_type((x, scale, bias))
    tail = x.axes[call.axis("axis", -1, len(x.axes)) :]
    require(scale.axes == tail and (bias is None or bias.axes == tail), "does not fit its input", x.axes, scale.axes)
    return [Known(kind, x.axes)]


def _reduce(call: Call) -> List[Known]:
    x = typed(call.given(0), REAL_TYPES)
    rank = len(x.axes)
    if call.optional(1) is not None:
        named: Any = call.integers(1)
    else:
        named = call.attributes.get("axes", ())
    if not named and call.integer("noop_with_empty_axes", 0):
        return [Known(x.elem_type, x.axes)]
    axes = {axis_of(axis, rank) for axis in named} if named else set(range(rank))
    if call.integer("keepdims", 1):
        return [Known(x.elem_type, tuple(1 if i in axes else length for i, length in enumerate(x.axes)))]
    return [Known(x.elem_type, tuple(length for i, length in enumerate(x.axes) if i not in axes))]


def _parameters_fit(call: Call, x: Known, scale: Known, zero: Optional[Known]) -> None:
    """One scale for all, or one for each row of the axis; the zero point alike."""
    axis = call.axis("axis", 1, len(x.axes)) if scale.axes and size_of(scale.axes) > 1 else 0
    fits = size_of(scale.axes) == 1 or scale.axes == x.axes[axis : axis + 1]
    require(fits and (zero is None or zero.axes == scale.axes), "has scales that do not fit", x.axes, scale.axes)


def _quantise(call: Call) -> List[Known]:
    x, scale, zero = typed(call.given(0), REAL_TYPES), call.given(1), call.optional(2)
    same_type((x, scale))
    _parameters_fit(call, x, scale, zero)
    named = call.integer("output_dtype", 0)
    kind = zero.elem_type if zero is not None else named or UINT8
    typed(Known(kind, ()), _LEVELS)
    require(named in (0, kind), "gives other levels than its zero point", ())
    return [Known(kind, x.axes)]


def _dequantise(call: Call) -> List[Known]:
    x, scale, zero = typed(call.given(0), (*_LEVELS, INT32)), typed(call.given(1), REAL_TYPES), call.optional(2)
    if zero is not None:
        same_type((x, zero), (*_LEVELS, INT32))
    _parameters_fit(call, x, scale, zero)
    return [Known(scale.elem_type, x.axes)]


@dataclass(frozen=True)
class Operator:
    """num_inputs: from, to. attributes: name -> type of its value. max_outputs: how many a node may name."""

    result: Callable[[Call], List[Known]]
    num_inputs: Tuple[int, int]
    attributes: Mapping[str, type]
    max_outputs: int = 1


_WINDOW: Dict[str, type] = {
    "auto_pad": bytes,
    "strides": tuple,
    "dilations": tuple,
    "pads": tuple,
    "kernel_shape": tuple,
}
_POOL: Dict[str, type] = {**_WINDOW, "ceil_mode": int}
_REDUCE: Dict[str, type] = {"keepdims": int, "noop_with_empty_axes": int, "axes": tuple}
_GEMM: Dict[str, type] = {"alpha": float, "beta": float, "transA": int, "transB": int}
_BATCH_NORM: Dict[str, type] = {"epsilon": float, "momentum": float, "training_mode": int}
_LEVELS_MADE: Dict[str, type] = {"axis": int, "saturate": int, "output_dtype": int}
_MANY = 512

OPERATORS: Dict[str, Operator] = {
    "Add": Operator(_arithmetic, (2, 2), {}),
    "BatchNormalization": Operator(_batch_norm, (5, 5), _BATCH_NORM),
    "Cast": Operator(cast_result, (1, 1), {"to": int, "saturate": int}),
    "Clip": Operator(_clip, (1, 3), {}),
    "Concat": Operator(concat_result, (1, _MANY), {"axis": int}),
    "Conv": Operator(_conv, (2, 3), {**_WINDOW, "group": int}),
    "DequantizeLinear": Operator(_dequantise, (2, 3), {"axis": int}),
    "Gemm": Operator(_gemm, (2, 3), _GEMM),
    "LayerNormalization": Operator(_layer_norm, (2, 3), {"axis": int, "epsilon": float, "stash_type": int}),
    "LeakyRelu": Operator(_unary, (1, 1), {"alpha": float}),
    "LogSoftmax": Operator(_softmax, (1, 1), {"axis": int}),
    "MatMul": Operator(_matmul, (2, 2), {}),
    "MaxPool": Operator(_pool, (1, 1), {**_POOL, "storage_order": int}),
    "Mul": Operator(_arithmetic, (2, 2), {}),
    "PRelu": Operator(_prelu, (2, 2), {}),
    "Pad": Operator(pad_result, (2, 4), {"mode": bytes}),
    "QuantizeLinear": Operator(_quantise, (2, 3), _LEVELS_MADE),
    "ReduceMean": Operator(_reduce, (1, 2), _REDUCE),
    "Relu": Operator(_unary, (1, 1), {}),
    "Reshape": Operator(reshape_result, (2, 2), {"allowzero": int}),
    "Shape": Operator(shape_result, (1, 1), {"start": int, "end": int}),
    "Sigmoid": Operator(_unary, (1, 1), {}),
    "Slice": Operator(slice_result, (3, 5), {}),
    "Softmax": Operator(_softmax, (1, 1), {"axis": int}),
    "Split": Operator(split_result, (1, 2), {"axis": int, "num_outputs": int}, _MANY),
    "Squeeze": Operator(squeeze_result, (1, 2), {}),
    "Sub": Operator(_arithmetic, (2, 2), {}),
    "Transpose": Operator(transpose_result, (1, 1), {"perm": tuple}),
    "Unsqueeze": Operator(unsqueeze_result, (2, 2), {}),
}
