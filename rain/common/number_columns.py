"""Columns of numbers: what many members of a block gave, as numbers of 8 bytes, one after the other.

Each stands for the number encoded as `pickle5`, which is made only for those values that somebody wants by themselves.
`q`: int of 64 bits, `d`: float.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from rain.common.pickle5 import encode_pickle5

if TYPE_CHECKING:
    from collections.abc import Sequence

_CODES: dict[type, str] = {int: "q", float: "d"}
CODES = tuple(_CODES.values())
WIDTH = 8
"""Bytes of a number."""
_SIZES_BY_BITS = bytes(len(encode_pickle5((1 << bits) - 1)) for bits in range(64)).ljust(256)
"""Of an int that is not negative, by its number of bits."""
_SIZE_OF_FLOAT = len(encode_pickle5(0.0))


def pack_column(values: Sequence[Any]) -> tuple[str, bytes] | None:
    """Code and bytes of a column of these values; None if they are not all ints of 64 bits, or all floats."""
    kinds = set(map(type, values))
    code = _CODES.get(kinds.pop()) if len(kinds) == 1 else None
    if code is None:
        return None
    try:
        return code, array(code, values).tobytes()
    except OverflowError:
        return None


def is_column(code: Any, data: bytes) -> bool:
    """Whether this can be a column of numbers."""
    return code in CODES and len(data) % WIDTH == 0


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
    numbers = array("q", data)
    if not count or min(numbers) < 0:
        return array("I", [len(encode_pickle5(number)) for number in numbers])
    return array("I", list(bytes(map(int.bit_length, numbers)).translate(_SIZES_BY_BITS)))
