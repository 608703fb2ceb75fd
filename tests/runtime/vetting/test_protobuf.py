from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelip.runtime.vetting.protobuf import BYTES, FIXED32, FIXED64, VARINT, WireError, WireReader, signed

NUMBERS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 127, 128, 2**32, 2**63, 2**64 - 1])


def varint(value: int) -> bytes:
    """Seven bits a byte, lowest first, the top bit of all but the last set."""
    groups = []
    while True:
        groups.append(value & 127)
        value >>= 7
        if not value:
            return bytes(group | 128 for group in groups[:-1]) + bytes(groups[-1:])


def field(number: int, kind: int, value: Any) -> bytes:
    tag = varint(number << 3 | kind)
    if kind == VARINT:
        return tag + varint(value)
    return tag + (varint(len(value)) if kind == BYTES else b"") + bytes(value)


FIELDS = st.integers(1, 2**29 - 1).flatmap(
    lambda number: st.one_of(
        st.tuples(st.just(number), st.just(VARINT), NUMBERS),
        st.tuples(st.just(number), st.just(BYTES), st.binary(max_size=300)),
        st.tuples(st.just(number), st.just(FIXED32), st.binary(min_size=4, max_size=4)),
        st.tuples(st.just(number), st.just(FIXED64), st.binary(min_size=8, max_size=8)),
    )
)


def read(content: bytes, **limits: int) -> list[tuple[int, int, Any]]:
    fields = WireReader(content, **limits).fields(0, len(content))
    return [(number, kind, a if kind == VARINT else content[a:b]) for number, kind, a, b in fields]


def google_read(content: bytes) -> list[tuple[int, int, Any]]:
    """The same by Google's library, to which every field of an empty message is unknown."""
    message = Empty.FromString(content)
    width = {FIXED32: 4, FIXED64: 8}
    return [
        (f.field_number, f.wire_type, f.data.to_bytes(width[f.wire_type], "little") if f.wire_type in width else f.data)
        for f in UnknownFieldSet(message)
    ]


@given(st.lists(FIELDS, max_size=20))
@settings(max_examples=100)
def test_what_is_written_is_read_and_google_reads_the_same(fields: list[tuple[int, int, Any]]) -> None:
    content = b"".join(field(*entry) for entry in fields)
    assert read(content) == fields
    assert sorted(map(repr, google_read(content))) == sorted(map(repr, fields))


@given(st.binary(max_size=60) | st.lists(st.sampled_from(list(b"\x08\x0a\x0d\x09\x80\x01\x02\xff")), max_size=30))
@settings(max_examples=400)
def test_nothing_is_read_that_google_refuses_or_reads_otherwise(content: bytes | list[int]) -> None:
    content = bytes(content)
    try:
        fields = read(content)
    except WireError:
        return
    assert sorted(map(repr, google_read(content))) == sorted(map(repr, fields))


@given(st.lists(FIELDS, min_size=1, max_size=5), st.data())
def test_a_message_cut_inside_a_field_is_refused_as_google_does(fields: list[Any], data: st.DataObject) -> None:
    last = field(*fields[-1])
    content = b"".join(field(*entry) for entry in fields[:-1]) + last[: data.draw(st.integers(1, len(last) - 1))]
    with pytest.raises(WireError, match="is cut short"):
        read(content)
    with pytest.raises(DecodeError):
        Empty.FromString(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x0b\x0c", r"uses wire type 3 at byte 1; expected 0, 1, 2 or 5"),  # a group
        (b"\x0e", r"uses wire type 6 at byte 1"),
        (b"\x00\x00", r"has the impossible field number 0 at byte 1"),
        (varint(2**29 << 3) + b"\x00", r"has the impossible field number 536870912"),
        (b"\x08" + b"\xff" * 10 + b"\x01", r"has a number of more than 10 bytes at byte 11"),
        (b"\x08" + b"\xff" * 9 + b"\x02", r"has a number beyond 64 bits before byte 11"),
        (b"\x08\x80", r"is cut short inside a number at byte 2"),
        (b"\x0a\xff\xff\xff\xff\x0f", r"is cut short: 4294967295 bytes are due at byte 6, 0 remain"),
        (b"\x0d\x00\x00", r"is cut short at byte 1"),
    ],
)
def test_damage_is_named(content: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message):
        read(content)


def test_fields_are_counted_over_all_messages_and_lists() -> None:
    content = b"\x08\x01" * 5
    assert len(read(content, max_fields=5)) == 5
    with pytest.raises(WireError, match="has too many fields"):
        read(content, max_fields=4)
    reader = WireReader(b"\x01\x02\x03", max_fields=4)
    assert reader.packed_varints(0, 3) == [1, 2, 3]
    with pytest.raises(WireError, match="has too many fields"):
        reader.packed_varints(0, 3)


def test_a_field_beyond_its_message_is_refused() -> None:
    content = b"\x0a\x03\x0a\x02abc"  # the inner message is 3 bytes long and holds one of 4
    ((_, _, start, end),) = WireReader(content).fields(0, 5)
    with pytest.raises(WireError, match="is cut short: 2 bytes are due at byte 4, 1 remain"):
        list(WireReader(content).fields(start, end))


def test_numbers_have_a_sign_in_64_bits() -> None:
    assert [signed(value) for value in (0, 2**63 - 1, 2**63, 2**64 - 1)] == [0, 2**63 - 1, -(2**63), -1]
