"""Columns of numbers: what many members of a block gave, as numbers of 8 bytes, one after the other.

Each stands for the number encoded as `pickle5`, which is made only for those values that somebody wants by themselves.
`q`: int of 64 bits, `d`: float.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import TYPE_CHECKING, Any

from rain.common.pickle5 import encode_pickle5

if TYPE_CHECKING:
    from collections.abc import Sequence

_CODES: dict[type, str] = {int: "q", float: "d"}
CODES = tuple(_CODES.values())
WIDTH = 8
"""Bytes of a number."""
_PART = 1024
"""Numbers of a long range that are made at once."""
_LONG = 16 * _PART
_LARGEST = (1 << 63) - 1
_SIZES_BY_BITS = bytes(len(encode_pickle5((1 << bits) - 1)) for bits in range(64)).ljust(256)
"""Of an int that is not negative, by its number of bits."""
_SIZE_OF_FLOAT = len(encode_pickle5(0.0))
_SIZE_OF_ZERO = len(encode_pickle5(0))
_SIGNED_FROM = 3
"""Place of the lowest byte whose highest bit makes a pickle longer."""


def pack_column(values: Sequence[Any], kinds: set[type] | None = None) -> tuple[str, bytes] | None:
    """Code and bytes of a column of these values; None if they are not all ints of 64 bits, or all floats.

    Args:
        values: any.
        kinds: their types, None = not known.
    """
    if kinds is None:
        kinds = {int} if type(values) is range and values else set(map(type, values))
    code = _CODES.get(next(iter(kinds))) if len(kinds) == 1 else None
    if code is None:
        return None
    if type(values) is range:
        if len(values) >= _LONG and values[0] >= 0 < values.step and values[-1] + _PART * values.step <= _LARGEST:
            return code, _pack_rising(values)
        values = list(values)
    try:
        return code, struct.pack(f"{len(values)}{code}", *values)
    except (struct.error, OverflowError):
        return None


def _pack_rising(numbers: range) -> bytes:
    """A column of many, by parts that are one long number each: adding to it adds to all numbers of the part."""
    rising = range(0, _PART * numbers.step, numbers.step)
    part, ones = (int.from_bytes(array("q", column).tobytes(), sys.byteorder) for column in (rising, [1] * _PART))
    size = WIDTH * _PART
    made = bytearray(WIDTH * len(numbers))
    for place, first in enumerate(numbers[::_PART]):
        made[place * size : (place + 1) * size] = (part + first * ones).to_bytes(size, sys.byteorder)
    return bytes(memoryview(made)[: WIDTH * len(numbers)])


def is_column(code: Any, data: bytes) -> bool:
    """Whether this can be a column of numbers."""
    return code in CODES and len(data) % WIDTH == 0


def sizes_in_column(data: bytes) -> array[int]:
    """How many bytes each of the numbers has in the column itself."""
    return array("I", [WIDTH]) * (len(data) // WIDTH)


def column_values(code: str, data: bytes) -> list[Any]:
    """The numbers."""
    return array(code, data).tolist()


def column_value(code: str, data: bytes, position: int) -> bytes:
    """One of the numbers as `pickle5`."""
    (value,) = array(code, data[WIDTH * position : WIDTH * (position + 1)])
    return encode_pickle5(value)


def column_sizes(code: str, data: bytes) -> array[int]:
    """How many bytes each of the numbers has as `pickle5`."""
    count = len(data) // WIDTH
    if code == "d":
        return array("I", [_SIZE_OF_FLOAT]) * count
    if (size := _size_of_each(data)) is not None:
        return array("I", [size]) * count
    numbers = array("q", data)
    if min(numbers) < 0:
        return array("I", [len(encode_pickle5(number)) for number in numbers])
    return array("I", list(bytes(map(int.bit_length, numbers)).translate(_SIZES_BY_BITS)))


def _size_of_each(data: bytes) -> int | None:
    """Bytes that each of some ints has as `pickle5`, if they are easily seen to have as many: the highest byte that is
    not 0 is the same one in all."""
    for place in reversed(range(WIDTH)):
        bytes_there = data[place::WIDTH]
        if zeros := bytes_there.count(0):
            if zeros == len(bytes_there):
                continue
            return None
        is_same = place < _SIGNED_FROM or bytes_there.isascii()
        return len(encode_pickle5(1 << 8 * place)) if is_same else None
    return _SIZE_OF_ZERO
