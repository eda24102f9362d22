"""Blocks: consecutive members of a task array that are assigned, run and reported as one.

The arguments of a block are those of its members, each packed as usual, one after the other; `joined` makes one
packed list of them. What a run of a block reports is a `BlockResult`.
"""

from __future__ import annotations

import math
import struct
from array import array
from dataclasses import field
from typing import Any, cast

import msgpack

from rain.common.number_columns import WIDTH, column_sizes, column_value, is_column
from rain.common.structs import dataclass

LATE = "late"
"""The block took too long; the members behind did not run."""
FULL = "full"
"""The values together reached the limit of a report; the members behind did not run."""
STORED = "stored"
"""The member behind the reported ones succeeded and its output lies in the worker's store like that of any task; the
members behind it did not run."""

_END_FORMS = (type(None), str, dict)


def joined(count: int, args: bytes) -> bytes:
    """One packed list of `count` packed arguments."""
    return struct.pack(">BI", 0xDD, count) + args


@dataclass(slots=True)
class BlockResult:
    """What a run of a block gave.

    Attributes:
        durations: seconds of each member that succeeded, the first ones of the block, in order.
        sizes, values: size of each of their values; the values one after the other.
        column: code of a column of numbers (`number_columns`), which `values` is then; "" = it is not.
        infos: the different packed object infos among them (None = nothing to tell).
        kinds: position in `infos` of each member's; empty = all have the first, or there is none.
        end: None = all members succeeded. LATE, FULL, STORED, or the failure map of the member behind the reported
            ones: that member, or for LATE and FULL nothing more, ran.
        start, duration: of the member named by `end` (unix seconds, seconds); 0.0 without one.
        seconds: sum of the durations if it was known without a look at each, else 0.0.
    """

    durations: array[float] = field(default_factory=lambda: array("f"))
    sizes: array[int] = field(default_factory=lambda: array("I"))
    values: bytes = b""
    infos: list[bytes | None] = field(default_factory=list)
    kinds: bytes = b""
    end: str | dict[str, Any] | None = None
    start: float = 0.0
    duration: float = 0.0
    column: str = ""
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """Number of members that are reported as succeeded."""
        return len(self.durations)

    def total(self) -> float:
        """Sum of the durations."""
        return self.seconds or sum(self.durations)

    def value(self, position: int, start: int) -> bytes:
        """One of the values, which begins at `start` unless they are a column."""
        if self.column:
            return column_value(self.column, self.values, position)
        return self.values[start : start + self.sizes[position]]

    def pack(self) -> bytes:
        """To bytes."""
        columns = self.durations.tobytes(), b"" if self.column else self.sizes.tobytes(), self.values
        ending = self.end, self.start, self.duration
        packed = msgpack.packb((*columns, self.infos, self.kinds, *ending, self.column, self.seconds))
        return cast("bytes", packed)

    @classmethod
    def unpack(cls, packed: bytes) -> BlockResult:
        """From bytes.

        Raises:
            ValueError: not well formed.
        """
        try:
            durations, sizes, values, infos, kinds, end, start, duration, column, seconds = msgpack.unpackb(packed)
            columns = array("f", durations), array("I", sizes), values
            result = cls(*columns, infos, kinds, end, start, duration, column, seconds)
            if is_column(column, values) and len(values) == WIDTH * result.done:
                result.sizes = column_sizes(column, values)
            elif column or len(result.sizes) != result.done or sum(result.sizes) != len(values):
                raise ValueError("columns of different lengths")
            fits = (
                type(infos) is list
                and set(map(type, infos)) <= {bytes, type(None)}
                and type(kinds) is bytes
                and len(kinds) in (0, result.done)
                and max(kinds, default=-1) < len(infos)
                and isinstance(end, _END_FORMS)
                and type(start) is type(duration) is type(seconds) is float
                and 0.0 <= seconds < math.inf
            )
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ValueError(f"a malformed result of a block: {error}") from error
        if not fits or (isinstance(end, str) and end not in (LATE, FULL, STORED)):
            raise ValueError("a malformed result of a block")
        return result
