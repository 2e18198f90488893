"""Walks encoded protobuf messages field by field, without their schema and without a copy."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""


class MalformedError(ValueError):
    """Raised for bytes that aren't a protobuf message, or are one that is cut short."""


def fields(data: bytes | mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, field start, value start, value end) of each field between two offsets of a protobuf message."""
    while at < end:
        start = at
        tag, at = varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        value = at
        if wire == VARINT:
            _, at = varint(data, at, end)
        elif wire == BYTES:
            length, value = varint(data, at, end)
            at = value + length
        elif wire in (FIXED64, FIXED32):
            at += 8 if wire == FIXED64 else 4
        else:
            raise MalformedError(f"unknown wire type {wire} at byte {start:,}")
        if number == 0:
            raise MalformedError(f"no field number at byte {start:,}")
        if at > end:
            raise MalformedError(f"a field at byte {start:,} ends at {at:,}, past {end:,}")
        yield number, start, value, at


def varint(data: bytes | mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """(value, offset after it) of the number at an offset."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise MalformedError(f"broken number at byte {at:,}")
