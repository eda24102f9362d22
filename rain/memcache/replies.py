"""Replies of a node."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rain.memcache.base import Item
    from rain.memcache.requests import Request

_ERROR_WORDS = frozenset({b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR"})
_ERROR_STARTS = (b"ERROR ", b"CLIENT_ERROR ", b"SERVER_ERROR ")


class Mark(Enum):
    """Replies that carry nothing."""

    MISS = "miss"
    UNSUPPORTED = "unsupported"


MISS: Final = Mark.MISS
"""A fetch of one key found nothing."""
UNSUPPORTED: Final = Mark.UNSUPPORTED
"""The dialect of the connection has no such request; nothing was sent."""


class Items:
    """Reply to a fetch of many keys: one column per field, in the order of answers; iterates over rows.

    Attributes:
        keys: of the hits.
        values: their values.
        flags: their flags, also where they were not asked for.
        cas: their tokens, or None where the reply has none.
    """

    __slots__ = ("cas", "flags", "keys", "values")

    def __init__(
        self,
        keys: list[bytes] | None = None,
        values: list[bytes] | None = None,
        flags: list[int] | None = None,
        cas: list[int | None] | None = None,
    ) -> None:
        self.keys = [] if keys is None else keys
        self.values = [] if values is None else values
        self.flags = [] if flags is None else flags
        self.cas = [] if cas is None else cas

    def add(self, key: bytes, value: bytes, flags: int, cas: int | None) -> None:
        """Append a row."""
        self.keys.append(key)
        self.values.append(value)
        self.flags.append(flags)
        self.cas.append(cas)

    def extend(self, rows: Items) -> None:
        """Append the rows of another."""
        self.keys += rows.keys
        self.values += rows.values
        self.flags += rows.flags
        self.cas += rows.cas

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[tuple[bytes, bytes, int, int | None]]:
        return zip(self.keys, self.values, self.flags, self.cas, strict=True)


class MetaItem:
    """Reply to a meta command.

    Attributes:
        code: `VA` (item with value), `HD` (done), `EN` (no item), `NF` (not found), `EX` (token differs), `MN`.
        value: of a `VA`, else empty.
        flags: or None where the reply has none.
        cas: or None where the reply has none.
        won: the caller shall produce the value.
        pending: somebody else does.
        stale: the item was marked as stale.
    """

    __slots__ = ("cas", "code", "flags", "pending", "stale", "value", "won")

    def __init__(
        self,
        code: str,
        value: bytes = b"",
        flags: int | None = None,
        cas: int | None = None,
        won: bool = False,
        pending: bool = False,
        stale: bool = False,
    ) -> None:
        self.code = code
        self.value = value
        self.flags = flags
        self.cas = cas
        self.won = won
        self.pending = pending
        self.stale = stale


class Fault:
    """A reply that is no regular one: `isinstance(reply, Fault)` tells whether `outcomes.breach` is due.

    Attributes:
        line: the line received, or the bytes at fault.
    """

    __slots__ = ("line",)

    def __init__(self, line: bytes) -> None:
        self.line = line

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.line[:200]!r}>"


def is_error(line: bytes) -> bool:
    """True for what stands in an `ErrorLine`."""
    return line.startswith(_ERROR_STARTS) or line in _ERROR_WORDS


class ErrorLine(Fault):
    """`ERROR`, `CLIENT_ERROR ...` or `SERVER_ERROR ...`."""

    __slots__ = ()


class UnknownLine(Fault):
    """A line that is no answer to the command, where one line was due."""

    __slots__ = ()


class Violation(Fault):
    """Something that breaks the protocol: nothing after it can be understood.

    Attributes:
        reason: what is wrong.
    """

    __slots__ = ("reason",)

    def __init__(self, line: bytes, reason: str) -> None:
        super().__init__(line)
        self.reason = reason


Reply: TypeAlias = "bytes | Item | Items | MetaItem | dict[str, str] | Fault | Mark"
"""A line; what a fetch of one key gave (`Item`, `MISS`, or `MetaItem` where a lease is involved); and so on."""

Answer: TypeAlias = "tuple[Request | None, Reply]"
"""A reply with its request, or a `Violation` that nobody asked for."""
