"""Arguments of many calls with one number each: a column of numbers instead of packed arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast, overload

import msgpack

from rain.common.number_columns import WIDTH, column_values, is_column, pack_column, sizes_in_column

if TYPE_CHECKING:
    from array import array

_NO_KEYWORDS: dict[str, Any] = {}


class NumberArguments(Sequence[bytes]):
    """The arguments of calls that get one number, all an int of 64 bits, or all a float; in order.

    Args:
        code, data: of the column (`number_columns`).
    """

    __slots__ = ("code", "data")

    def __init__(self, code: str, data: bytes) -> None:
        self.code = code
        self.data = data

    def __len__(self) -> int:
        return len(self.data) // WIDTH

    @overload
    def __getitem__(self, position: int) -> bytes: ...
    @overload
    def __getitem__(self, position: slice) -> NumberArguments: ...
    def __getitem__(self, position: int | slice) -> bytes | NumberArguments:
        """The packed arguments of a call; those of some neighbours as a column."""
        if isinstance(position, slice):
            start, stop, _ = position.indices(len(self))
            return NumberArguments(self.code, self.data[WIDTH * start : WIDTH * stop])
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        start = WIDTH * (position % len(self))
        (value,) = column_values(self.code, self.data[start : start + WIDTH])
        return cast("bytes", msgpack.packb(([value], _NO_KEYWORDS)))

    @property
    def sizes(self) -> array[int]:
        """Bytes of each in the column."""
        return sizes_in_column(self.data)

    def marked(self) -> bytes:
        """The column as executors get it instead of a packed list of arguments."""
        return self.code.encode() + self.data


def number_arguments(values: Sequence[Any]) -> NumberArguments | None:
    """Arguments of calls with these values; None if they are not all ints of 64 bits, or all floats."""
    column = pack_column(values)
    return None if column is None else NumberArguments(*column)


def read_marked(args: bytes) -> list[Any] | None:
    """The numbers of a marked column; None if these are packed arguments: no packed list begins like a code."""
    code = args[:1].decode("latin-1")
    return column_values(code, args[1:]) if is_column(code, args[1:]) else None
