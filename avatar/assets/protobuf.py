"""Just enough of protocol buffers to read two files and to add a field to one: no schema, no dependency."""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _EIGHT_BYTES, _DELIMITED, _FOUR_BYTES = 0, 1, 2, 5


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a serialised message, in order; varints as int, everything else as bytes.

    Raises:
        ValueError: It is not a message.
    """
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(message):
                raise ValueError("the message ends within a number")
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        kind = key & 7
        if kind == _VARINT:
            yield key >> 3, varint()
            continue
        if kind not in (_EIGHT_BYTES, _DELIMITED, _FOUR_BYTES):
            raise ValueError(f"wire type {kind} is not read")
        size = varint() if kind == _DELIMITED else 8 if kind == _EIGHT_BYTES else 4
        yield key >> 3, message[at : at + size]
        at += size


def blobs(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that are not integers."""
    return ((number, value) for number, value in fields(message) if isinstance(value, bytes))


def delimited(number: int, payload: bytes) -> bytes:
    """A length-delimited field, serialised."""
    return encoded(number << 3 | _DELIMITED) + encoded(len(payload)) + payload


def encoded(value: int) -> bytes:
    """A whole number as a varint: seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
