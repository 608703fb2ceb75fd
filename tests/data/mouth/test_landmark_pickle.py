"""Pickles that nobody vouches for: plain values are read, everything else is refused before it runs."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelip.data.mouth.landmark_pickle import MAX_OPERATIONS, RefusedPickle, Stored, plain_value

POINTS = np.arange(136.0).reshape(68, 2)
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_of_every_protocol_are_read(protocol: int) -> None:
    value = {"a": [1, 2.5, None, True, (3, "x"), (1, 2, 3, 4), -(10**12)], "b": {}}
    assert plain_value(pickle.dumps(value, protocol=protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "u1", ">i4", "?"])
def test_arrays_of_every_protocol_and_kind_are_read(protocol: int, dtype: str) -> None:
    array = POINTS.astype(dtype)
    for made in (array, np.asfortranarray(array)):
        stored = plain_value(pickle.dumps(made, protocol=protocol))
        assert isinstance(stored, Stored)
        np.testing.assert_array_equal(stored.value, array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_numbers_and_arrays_of_objects_are_read(protocol: int) -> None:
    objects = np.empty((2, 2), object)
    objects[0, 0], objects[1, 1] = {"x": np.float64(1.5)}, "y"
    assert plain_value(pickle.dumps(objects, protocol=protocol)).value == [[{"x": 1.5}, None], [None, "y"]]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_with_code_is_refused_unrun_and_named(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps([POINTS, Trap(tmp_path / "ran")], protocol=protocol)
    with pytest.raises(RefusedPickle, match=r"asks to run (pathlib|builtins|__builtin__)\.(Path|getattr)"):
        plain_value(content)
    assert not (tmp_path / "ran").exists()
    pickle.loads(content)  # the trap works
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x04\x8c\x03a\nb\x8c\x03\x1b[m\x93.", "a?b.?[m"),
        (b"Pname\n.", "an object by PERSID"),
        (b"\x80\x02\x82\x01.", "an object by EXT1"),
        (b"cnumpy\nndarray\n(I3\ntR.", "numpy.ndarray"),
        (b"](I1\ntR.", "a value that is no function"),
        (b"cnumpy\nndarray\n)\x81.", "an object by NEWOBJ"),
        (pickle.dumps(OrderedDict(a=1)), "collections.OrderedDict"),
        (pickle.dumps(np.ma.zeros(2)), "numpy.ma.core._mareconstruct"),
        (pickle.dumps({1, 2}), "an object by EMPTY_SET"),
        (b"\x80\x02]N}b.", "the state of a NoneType"),
    ],
)
def test_whatever_else_is_called_is_refused_by_name(content: bytes, wanted: str) -> None:
    with pytest.raises(RefusedPickle) as refused:
        plain_value(content)
    assert refused.value.wanted == wanted


def said_of(content: bytes) -> str:
    """The refusal, or nothing."""
    try:
        plain_value(content)
    except ValueError as error:
        return str(error)
    return ""


DEEP_KEY = b"\x80\x02})" + b"\x85" * 20_000 + b"Ns."
BUFFER = b"cnumpy.core.numeric\n_frombuffer\n(\x96\x08\0\0\0\0\0\0\0abcdefgh"
FLOATS = b"cnumpy\ndtype\n(X\x02\0\0\0f8tR"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "exhausted"),
        (b"hello", "nothing was stored as number 101"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.", "expected 1099511627776 bytes"),
        (b"\x80\x05\x96" + struct.pack("<Q", 1 << 35) + b"abc.", "expected 34359738368 bytes"),
        (b"\x80\x02e.", "a group without its mark"),
        (b"\x80\x02]N.", "too many values"),
        (b"\x80\x02N(Ne.", "items for what is no list"),
        (b"\x80\x02}(K\x01e.", "items for what is no list"),
        (b"\x80\x02]K\x01K\x02s.", "a dict whose keys are not text"),
        (DEEP_KEY, "a dict whose keys are not text"),
        (b"\x80\x04]]\x93.", "a name that is no text"),
        (b"I" + b"9" * 5000 + b"\n.", "Exceeds the limit"),
        (BUFFER + FLOATS + b"K\x02\x85X\x01\0\0\0CtR.", "bytes do not fill its shape"),
        (BUFFER + FLOATS + b"\x8a\x0f" + b"\x7f" * 15 + b"\x85X\x01\0\0\0CtR.", "without a usable shape"),
        (BUFFER + FLOATS + b"(J\xff\xff\xff\xffJ\xff\xff\xff\xfftX\x01\0\0\0CtR.", "without a usable shape"),
        (b"cnumpy\ndtype\n(X\x02\0\0\0M8tR.", "neither numbers nor objects"),
        (b"cnumpy\ndtype\n(X\x02\0\0\0f8tR(K\x03]tb.", "no byte order"),
        (b"N0" * (MAX_OPERATIONS // 2 + 1) + b"N.", "operations to read"),
    ],
)
def test_what_is_broken_or_out_of_bounds_is_said(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        plain_value(content)


def test_text_is_turned_into_bytes_only_as_often_as_the_file_is_long() -> None:
    text = b"X" + struct.pack("<I", 1000) + b"a" * 1000
    once = b"c_codecs\nencode\n(" + text + b"q\x00tR"
    again = b"c_codecs\nencode\n(h\x00tR"
    assert plain_value(b"(" + once + b"l.") == [b"a" * 1000]
    with pytest.raises(ValueError, match="more than its own size"):
        plain_value(b"(" + once + again * 3 + b"l.")


def test_a_list_that_holds_itself_is_read_without_being_followed() -> None:
    value = plain_value(b"\x80\x02]q\x00h\x00a.")
    assert value[0] is value


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    assert len(said_of(b"\x80\x04" + content).splitlines()) <= 1


@settings(max_examples=300)
@given(st.sampled_from([0, 2, 4, 5]), st.data())
def test_a_pickle_with_a_few_bytes_changed_is_read_or_refused(protocol: int, data: st.DataObject) -> None:
    content = bytearray(pickle.dumps([POINTS[:3], None, [[1.0, 2]], {"a": np.float32(3)}], protocol=protocol))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    assert len(said_of(bytes(content)).splitlines()) <= 1
