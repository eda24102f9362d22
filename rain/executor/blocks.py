"""What the members of a block gave, gathered until the block ends."""

from __future__ import annotations

import struct
from array import array
from itertools import repeat
from typing import TYPE_CHECKING, Any

import msgpack

from rain.common.blocks import STORED, BlockResult
from rain.common.errors import RainException
from rain.common.number_arguments import read_marked
from rain.common.number_columns import pack_column
from rain.common.packing import load_extension
from rain.common.pickle5 import encode_pickle5
from rain.executor.results import SCALARS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.executor.results import Encoded
    from rain.executor.templates import Template

QUICK = 2.5e-6
"""A call of at most so many seconds cannot have changed a directory: a single system call for it takes longer. Decoding
of its arguments and encoding of its result are not counted; after each batch there is a look in any case."""

BLOCK_SECONDS = 0.25
"""A block that runs longer ends: what it gave so far shall not wait."""

BLOCK_BYTES = 4 << 20
"""A block ends when its values together are longer."""

LARGE_INT = 1 << 63
"""Ints below are encoded when the block has ended. They do not count for `BLOCK_BYTES`: all those of a block are far
from it."""

_NO_TYPES: frozenset[Any] = frozenset()
_MOST_INFOS = 256
_LIST_HEADER = 5


class Gathered:
    """What a block gave so far.

    Args:
        members: of the block.
        offset: what makes unix seconds of a time of the monotonic clock.

    Attributes:
        members: as given.
        durations, values: of the members that succeeded, in order; values are bytes, or of a type of `SCALARS` and not
            yet encoded.
        stored: the encoded output of the member behind them that does not ride in the report, None without.
        kinds: types of all values, None = not known.
        seconds: sum of the durations, 0.0 = not known.
        info: packed task info of that member.
        end: as in `BlockResult`.
    """

    __slots__ = ("_changes", "_duration", "_infos", "_offset", "_start", "durations", "end", "info", "kinds",
                 "members", "seconds", "stored", "values")  # fmt: skip

    def __init__(self, members: int, offset: float) -> None:
        self.durations: list[float] = []
        self.values: list[bytes | float | None] = []
        self.kinds: set[type] | None = None
        self.seconds = 0.0
        self.stored: Encoded | None = None
        self.info: bytes | None = None
        self.end: str | dict[str, Any] | None = None
        self.members = members
        self._offset = offset
        self._start = self._duration = 0.0
        self._infos: dict[bytes | None, int] = {}
        self._changes: list[tuple[int, int]] = []

    @property
    def ran(self) -> int:
        """How many members ran, the one that ended the block included."""
        return self.done + (self._start > 0.0)

    @property
    def done(self) -> int:
        """How many members are behind the one that runs."""
        return len(self.durations)

    def check_complete(self) -> None:
        """All that was sent ran.

        Raises:
            RainException: the arguments of a member are missing.
        """
        if self.done != self.members:
            raise RainException(f"{self.members} members were announced, arguments of {self.done} came")

    def end_stored(self, output: Encoded, info: bytes | None, start: float, end: float) -> None:
        """The member that runs succeeded, but what it gave does not ride in the report."""
        self.end, self.stored, self.info = STORED, output, info
        self._start, self._duration = start + self._offset, end - start

    def end_failed(self, failure: dict[str, Any], start: float, end: float) -> None:
        """The member that runs failed."""
        self.end = failure
        self._start, self._duration = start + self._offset, end - start

    def changes_to(self, info: bytes | None) -> bool:
        """The next value has another object info than the one before; False if a report cannot tell so many."""
        number = self._infos.setdefault(info, len(self._infos))
        if number >= _MOST_INFOS:
            return False
        self._changes.append((len(self.durations), number))
        return True

    def result(self) -> BlockResult:
        """The report."""
        column, joined = pack_column(self.values, self.kinds) or ("", b"")
        values = [] if column else [as_bytes(value) for value in self.values]
        return BlockResult(
            durations=array("f", struct.pack(f"{len(self.durations)}f", *self.durations)),
            sizes=array("I", map(len, values)),
            values=joined or b"".join(values),
            infos=list(self._infos)[:_MOST_INFOS],
            kinds=self._kinds() if len(self._infos) > 1 else b"",
            end=None if self.done == self.members else self.end,
            start=self._start,
            duration=self._duration,
            column=column,
            seconds=self.seconds,
        )

    def _kinds(self) -> bytes:
        ends = [position for position, _ in self._changes[1:]]
        ends.append(len(self.durations))
        return b"".join(
            [bytes([number]) * (end - start) for (start, number), end in zip(self._changes, ends, strict=True)]
        )


def as_bytes(value: bytes | float | None) -> bytes:
    """A value as it is reported by itself."""
    return value if type(value) is bytes else encode_pickle5(value)


def as_encoded(value: bytes | float | None, info: bytes | None) -> Encoded:
    """A value as an output of a call."""
    data = as_bytes(value)
    return data, info, len(data)


def bare_types(template: Template) -> frozenset[Any]:
    """Exact types of results that need not be encoded before the block has ended: they will be `pickle5`."""
    plan = template.outputs[0]
    natural = (template.plain and not plan.encode) or plan.encode == "pickle5"
    return SCALARS if natural and not plan.directory else _NO_TYPES


def unpack_members(args: bytes) -> Iterable[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The arguments of the members; where one cannot be decoded, the iteration raises when it comes to it."""
    numbers = read_marked(args)
    if numbers is not None:
        return zip(zip(numbers, strict=True), repeat({}), strict=False)
    try:
        members: Iterable[Any] = msgpack.unpackb(args, ext_hook=load_extension, use_list=False)
    except Exception:  # whatever unpickling raises; only the member to blame must fail
        unpacker = msgpack.Unpacker(ext_hook=load_extension, use_list=False, max_buffer_size=len(args))
        unpacker.feed(memoryview(args)[_LIST_HEADER:])
        return unpacker  # type: ignore[no-any-return]
    return members
