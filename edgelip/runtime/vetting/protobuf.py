"""Protobuf on the wire, read in place: bounded, without recursion, in time linear in what is read.

Only the ranges of texts and data are given, so that a file of 2 GiB is vetted without copying its weights.
"""

from __future__ import annotations

import mmap
from typing import Iterator, List, Tuple, Union

Content = Union[bytes, mmap.mmap]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_FIELDS = 1 << 20
MAX_FIELD_NUMBER = (1 << 29) - 1
_FIXED = {FIXED64: 8, FIXED32: 4}


class WireError(ValueError):
    """Bytes that no protobuf writer makes, or more of them than is read."""


class WireReader:
    """Messages inside `content`. It counts the fields of all of them together: more than `max_fields` are refused."""

    def __init__(self, content: Content, *, max_fields: int = MAX_FIELDS) -> None:
        self.content = content
        self._fields_left = max_fields

    def fields(self, start: int, end: int) -> Iterator[Tuple[int, int, int, int]]:
        """(number, wire type, a, b) of each field of the message in content[start:end].

        VARINT: a is the value, unsigned, 64 bits. The others: content[a:b] is the value. Nested messages are BYTES: the
        caller descends into those that it knows, so depth is the caller's.
        Raises WireError if the message is damaged, uses groups, or there are too many fields.
        """
        content, position = self.content, start
        while position < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise WireError("has too many fields")
            tag = content[position]
            position += 1
            if tag > 127:
                tag, position = self._varint(position - 1, end)
            number, kind = tag >> 3, tag & 7
            if not 1 <= number <= MAX_FIELD_NUMBER:
                raise WireError(f"has the impossible field number {number} at byte {position}")
            if kind == BYTES:
                length, position = self._varint(position, end)
                if length > end - position:
                    raise WireError(f"is cut short: {length} bytes are due at byte {position}, {end - position} remain")
                yield number, kind, position, position + length
                position += length
            elif kind == VARINT:
                value, position = self._varint(position, end)
                yield number, kind, value, position
            elif kind in _FIXED:
                length = _FIXED[kind]
                if length > end - position:
                    raise WireError(f"is cut short at byte {position}")
                yield number, kind, position, position + length
                position += length
            else:
                raise WireError(f"uses wire type {kind} at byte {position}; expected 0, 1, 2 or 5")

    def packed_varints(self, start: int, end: int) -> List[int]:
        """The unsigned numbers that stand one after the other in content[start:end]; each counts as a field."""
        values, position = [], start
        while position < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise WireError("has too many fields")
            value, position = self._varint(position, end)
            values.append(value)
        return values

    def _varint(self, position: int, end: int) -> Tuple[int, int]:
        """The number at `position` and where it ends."""
        content, value, shift = self.content, 0, 0
        while position < end:
            byte = content[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                if value >> 64:
                    raise WireError(f"has a number beyond 64 bits before byte {position}")
                return value, position
            shift += 7
            if shift > 63:
                raise WireError(f"has a number of more than 10 bytes at byte {position}")
        raise WireError(f"is cut short inside a number at byte {end}")


def signed(value: int) -> int:
    """The 64-bit two's complement number that `value` stands for."""
    return value - (1 << 64) if value >> 63 else value
