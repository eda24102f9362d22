"""As much of CBOR (RFC 8949) as the executor protocol needs, with the names of the library `cbor2`.

Tests take it where the library is not installed, and to build what the library would not write.
"""

from __future__ import annotations

import struct
from typing import Any

UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE = range(8)


class CBOREncodeError(Exception):
    pass


class CBORDecodeError(Exception):
    pass


def dumps(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if value is None:
        return b"\xf6"
    if isinstance(value, int):
        return head(UNSIGNED, value) if value >= 0 else head(NEGATIVE, -1 - value)
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, bytes):
        return head(BYTES, len(value)) + value
    if isinstance(value, str):
        data = value.encode()
        return head(TEXT, len(data)) + data
    if isinstance(value, list | tuple):
        return head(ARRAY, len(value)) + b"".join(map(dumps, value))
    if isinstance(value, dict):
        return head(MAP, len(value)) + b"".join(dumps(key) + dumps(item) for key, item in value.items())
    raise CBOREncodeError(f"cannot serialize type {type(value).__name__}")


def head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for code, form in enumerate(("B", "H", "I", "Q")):
        if number < 1 << 8 * struct.calcsize(form):
            return bytes([major << 5 | 24 + code]) + struct.pack(">" + form, number)
    raise CBOREncodeError("the number is too large")


def loads(data: bytes) -> Any:
    value, _ = _item(data, 0)
    return value


def _take(data: bytes, at: int, count: int) -> tuple[bytes, int]:
    if len(data) - at < count:
        raise CBORDecodeError("premature end of stream")
    return data[at : at + count], at + count


def _item(data: bytes, at: int) -> tuple[Any, int]:
    (first,), at = _take(data, at, 1)
    major, number = first >> 5, first & 31
    if first == 0xFB:
        raw, at = _take(data, at, 8)
        return struct.unpack(">d", raw)[0], at
    if 24 <= number <= 27:
        raw, at = _take(data, at, 1 << number - 24)
        number = int.from_bytes(raw, "big")
    elif number > 27:
        raise CBORDecodeError(f"unknown head {first:#x}")
    if major in (BYTES, TEXT):
        raw, at = _take(data, at, number)
        return (raw if major == BYTES else raw.decode()), at
    if major in (ARRAY, MAP):
        items = []
        for _ in range(number * (2 if major == MAP else 1)):
            item, at = _item(data, at)
            items.append(item)
        return (dict(zip(items[::2], items[1::2], strict=True)) if major == MAP else items), at
    if major == SIMPLE and number in (20, 21, 22):
        return {20: False, 21: True, 22: None}[number], at
    if major in (UNSIGNED, NEGATIVE):
        return (number if major == UNSIGNED else -1 - number), at
    raise CBORDecodeError(f"unknown head {first:#x}")
