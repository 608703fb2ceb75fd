"""Plain values out of a pickle, without running anything: numbers, text, lists, tuples, dicts and numpy arrays.

A pickle may import and call anything, and Python's reader can be made to reserve memory by a short file. Here its
operations are followed one by one on plain values, and nothing may be called but what rebuilds a numpy array.
"""

from __future__ import annotations

import math
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_OPERATIONS = 1_500_000  # 3,000 frames as lists of lists take 1,200,000
_MAX_AXES = 4
_MAX_SIZE = 1 << 40
_BROKEN = (
    *(ValueError, KeyError, TypeError, AttributeError, OverflowError, AssertionError),
    *(MemoryError, RecursionError, struct.error, Warning),
)
# Operations that put their argument on the stack.
_PLAIN = frozenset(
    {
        *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
_CONSTANTS: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_SHORT_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CODES = {f"{kind}{size}" for kind in "fiu" for size in (1, 2, 4, 8)} - {"f1"} | {"b1", "O8"}


class RefusedPickle(ValueError):
    """A pickle that asks for something to be called; `wanted` names it. Nothing of it was run."""

    def __init__(self, wanted: str) -> None:
        self.wanted = "".join(letter if letter.isprintable() else "?" for letter in wanted[:80])
        super().__init__(f"asks to run {self.wanted}")


class OddContent(ValueError):
    """A whole file of things that are not landmarks."""


class Stored:
    """An array while it is read, then its `value`: a numeric array, or nested lists where it held objects."""

    def __init__(self) -> None:
        self.value: Any = None


@dataclass
class _Dtype:
    code: str
    order: str = "<"

    def numeric(self) -> np.dtype[Any]:
        return np.dtype(self.order.replace("|", "=") + self.code)


@dataclass(frozen=True)
class _Name:
    full: str


class _Mark:
    """Where a group of values on the stack begins."""


def plain_value(content: bytes) -> Any:
    """What the pickle holds; arrays are `Stored`. Raises RefusedPickle if it wants code, else ValueError."""
    machine = _Machine(limit_bytes=len(content))
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count > MAX_OPERATIONS:
                raise OddContent(f"takes more than {MAX_OPERATIONS} operations to read")
            if opcode.name == "STOP":
                break
            machine.step(opcode.name, argument)
        (value,) = machine.stack
    except (RefusedPickle, OddContent):
        raise
    except IndexError as error:
        raise ValueError("is no whole pickle, .npy or .npz (an operation lacks its values)") from error
    except _BROKEN as error:
        detail = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"is no whole pickle, .npy or .npz ({detail})") from error
    return value


class _Machine:
    def __init__(self, *, limit_bytes: int) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._bytes_left = limit_bytes

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _PLAIN:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            if argument not in self._memo:
                raise ValueError(f"nothing was stored as number {argument}")
            stack.append(self._memo[argument])
        elif name in _SHORT_TUPLES:
            size = _SHORT_TUPLES[name]
            values = tuple(stack[len(stack) - size :])
            del stack[len(stack) - size :]
            stack.append(values)
        elif name in ("GLOBAL", "INST", "STACK_GLOBAL"):
            module, _, attribute = argument.partition(" ") if argument else (stack.pop(-2), "", stack.pop())
            self._know(module, attribute, called=name == "INST")
        elif name in _STEPS:
            _STEPS[name](self)
        elif name not in ("PROTO", "FRAME"):
            raise RefusedPickle(f"an object by {name}")

    def _know(self, module: Any, attribute: Any, *, called: bool) -> None:
        if type(module) is not str or type(attribute) is not str:
            raise TypeError("a name that is no text")
        full = f"{module}.{attribute}"
        if (full not in _CALLS and full not in _TYPES) or called:
            raise RefusedPickle(full)
        self.stack.append(_Name(full))

    def group(self) -> list[Any]:
        stack = self.stack
        start = next((i for i in range(len(stack) - 1, -1, -1) if isinstance(stack[i], _Mark)), None)
        if start is None:
            raise ValueError("a group without its mark")
        values = stack[start + 1 :]
        del stack[start:]
        return values

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise TypeError("items for what is no list")
        target.extend(values)

    def fill(self, values: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(target) is not dict or type(key) not in (str, int):
                raise TypeError("a dict whose keys are not text")
            target[key] = value

    def fill_new(self) -> None:
        values = self.group()
        self.stack.append({})
        self.fill(values)

    def call(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, _Name) or name.full not in _CALLS:
            raise RefusedPickle(name.full if isinstance(name, _Name) else "a value that is no function")
        self.stack.append(_CALLS[name.full](self, *arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Dtype):
            if type(state[1]) is not str or state[1] not in ("<", ">", "|", "="):
                raise ValueError("a kind of number in no byte order")
            target.order = state[1]
        elif isinstance(target, Stored):
            _, shape, dtype, by_columns, content = state
            target.value = self.array(content, dtype, shape, by_columns)
        else:
            raise RefusedPickle(f"the state of a {type(target).__name__}")

    def encoded(self, text: Any, encoding: Any = "latin1") -> bytes:
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            raise TypeError("text in another encoding")
        self._bytes_left -= len(text)
        if self._bytes_left < 0:
            raise ValueError("unpacks to more than its own size")
        return text.encode("latin-1")

    def array(self, content: Any, dtype: _Dtype, shape: Any, by_columns: Any) -> Any:
        if type(shape) is not tuple or len(shape) > _MAX_AXES or not all(_is_size(n) for n in shape):
            raise ValueError("an array without a usable shape")
        if dtype.code == "O8":
            if type(content) is not list or len(content) != math.prod(shape) or (by_columns and len(shape) > 1):
                raise ValueError("an array of objects that is not whole")
            return _nested(content, shape)
        raw = self.encoded(content) if type(content) is str else content
        if not isinstance(raw, (bytes, bytearray)) or len(raw) != math.prod(shape) * dtype.numeric().itemsize:
            raise ValueError("an array whose bytes do not fill its shape")
        return np.frombuffer(raw, dtype.numeric()).reshape(shape, order="F" if by_columns else "C")


def _is_size(length: Any) -> bool:
    return type(length) is int and 0 <= length <= _MAX_SIZE


def _nested(items: list[Any], shape: tuple[int, ...]) -> Any:
    if not items or len(shape) <= 1:
        return items
    step = len(items) // shape[0]
    return [_nested(items[i : i + step], shape[1:]) for i in range(0, len(items), step)]


def _new_array(machine: _Machine, kind: Any, shape: Any, code: Any) -> Stored:
    return Stored()


def _new_dtype(machine: _Machine, code: Any, align: Any = False, copy: Any = True) -> _Dtype:
    if type(code) is not str or code not in _CODES:
        raise OddContent("holds an array of neither numbers nor objects")
    return _Dtype(code)


def _scalar(machine: _Machine, dtype: _Dtype, content: Any) -> Any:
    return machine.array(content, dtype, (), False).item()


def _from_buffer(machine: _Machine, content: Any, dtype: _Dtype, shape: Any, order: Any, axes: Any = None) -> Stored:
    stored = Stored()
    stored.value = machine.array(content, dtype, shape, order == "F")
    return stored


_STEPS: dict[str, Callable[[_Machine], Any]] = {
    "MARK": lambda m: m.stack.append(_Mark()),
    "POP": lambda m: m.stack.pop(),
    "POP_MARK": lambda m: m.group(),
    "DUP": lambda m: m.stack.append(m.stack[-1]),
    "EMPTY_LIST": lambda m: m.stack.append([]),
    "EMPTY_DICT": lambda m: m.stack.append({}),
    "LIST": lambda m: m.stack.append(m.group()),
    "TUPLE": lambda m: m.stack.append(tuple(m.group())),
    "APPEND": lambda m: m.extend([m.stack.pop()]),
    "APPENDS": lambda m: m.extend(m.group()),
    "DICT": _Machine.fill_new,
    "SETITEM": lambda m: m.fill([m.stack.pop(-2), m.stack.pop()]),
    "SETITEMS": lambda m: m.fill(m.group()),
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}
_TYPES = {"numpy.ndarray"}
_CALLS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _new_dtype,
    "_codecs.encode": _Machine.encoded,
    **{f"numpy.{core}.multiarray._reconstruct": _new_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
}
