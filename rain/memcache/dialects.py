"""The languages that a connection may speak."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol

from rain.memcache.forms import CLASSIC_LINES, CLASSIC_SHAPES, CRLF, FETCH, META_LINES, META_SHAPES, set_tail
from rain.memcache.parsing import Merged, Parser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rain.memcache.replies import Answer, Reply
    from rain.memcache.requests import Request, Shape

LARGE: Final = 64 << 10
"""Bytes from which a value is a buffer of its own instead of being copied."""
MOST_MERGED: Final = 32
"""Most keys of one command that several fetches were merged into."""


class Lone(Protocol):
    """What a dialect can do for a request while nothing is unanswered."""

    def encode_lone(self, request: Request) -> bytes | None:
        """Write the request, without expecting its reply.

        Returns:
            What to send, or None if it is large, has no reply, or does not exist in this dialect.
        """
        ...

    def lone_reply(self, request: Request, data: bytes) -> Reply | None:
        """Return the reply that was not expected, if the data are all of it and it is a simple one."""
        ...

    def expect(self, request: Request) -> None:
        """Expect the reply after all."""
        ...


class Dialect(Protocol):
    """Turns the requests of one connection into bytes, and what comes back into replies.

    Attributes:
        unanswered: requests that were encoded and still want a reply.
        lone: a shorter way for lone requests, or None.
    """

    lone: Lone | None

    @property
    def name(self) -> Literal["classic", "meta", "binary"]:
        """The language."""
        ...

    unanswered: int

    def encode(self, requests: Sequence[Request]) -> tuple[list[bytes | memoryview], list[Request]]:
        """Write the requests of one turn.

        Returns:
            The buffers to send, in order, and the requests that this dialect does not have (reply `UNSUPPORTED`).
        """
        ...

    def feed(self, data: bytes | bytearray | memoryview) -> list[Answer]:
        """Take the next bytes received; keeps no reference to them.

        Returns:
            What is answered now, in order. Requests with `noreply` never appear, nothing follows a `Violation`.
        """
        ...

    def oldest(self) -> Request | None:
        """Return the request that has waited longest for its reply."""
        ...

    def missing(self) -> int:
        """Return how many bytes of the reply being received are known to be missing."""
        ...

    def pending(self) -> Iterable[Request]:
        """Return all requests that still want a reply, in order."""
        ...

    def take_unanswered(self) -> list[Request]:
        """The same; and take nothing any more, since the connection is lost."""
        ...


class _TextDialect:
    """What classic and meta share."""

    _lines: Mapping[str, Callable[[Request], bytes]]
    _shapes: Mapping[str, Shape]

    def __init__(self) -> None:
        self.unanswered = 0
        self.lone: Lone | None = self
        self._parser = Parser()
        self.lone_reply = self._parser.lone

    def encode(self, requests: Sequence[Request]) -> tuple[list[bytes | memoryview], list[Request]]:
        """Write the requests of one turn; see `Dialect`."""
        buffers: list[bytes | memoryview] = []
        unsupported: list[Request] = []
        parts: list[bytes | memoryview] = []
        expect = self._parser.expected.append
        lines = self._lines
        shapes = self._shapes
        count = 0
        for request in requests:
            command = request.command
            shape = shapes.get(command)
            if shape is None:
                unsupported.append(request)
                continue
            value = request.value
            if shape is FETCH and command == "get" and not request.return_flags:
                parts += (b"mg ", request.key, b" v\r\n")
            elif value is None:
                parts.append(lines[command](request))
            else:
                size = len(value)
                if command == "set" and size < LARGE and not request.noreply:
                    parts += (b"set ", request.key, set_tail(request.flags, request.exptime, size), value, CRLF)
                elif size < LARGE:
                    parts += (lines[command](request), value, CRLF)
                else:
                    parts.append(lines[command](request))
                    buffers += (b"".join(parts), value)
                    parts = [CRLF]
            if not request.noreply:
                request.shape = shape
                expect(request)
                count += 1
        self.unanswered += count
        if parts:
            buffers.append(b"".join(parts))
        return buffers, unsupported

    def encode_lone(self, request: Request) -> bytes | None:
        """Write a request while nothing is unanswered; see `Lone`."""
        command = request.command
        shape = self._shapes.get(command)
        if shape is None or request.noreply:
            return None
        request.shape = shape
        value = request.value
        if value is None:
            if command == "get" and shape is FETCH and not request.return_flags:
                return b"mg %b v\r\n" % request.key
            return self._lines[command](request)
        size = len(value)
        if size >= LARGE:
            return None
        if command == "set":
            return b"".join((b"set ", request.key, set_tail(request.flags, request.exptime, size), value, CRLF))
        return b"".join((self._lines[command](request), value, CRLF))

    def expect(self, request: Request) -> None:
        """Expect the reply after all."""
        self._parser.expected.append(request)
        self.unanswered += 1

    def feed(self, data: bytes | bytearray | memoryview) -> list[Answer]:
        """Take the next bytes received; see `Dialect`."""
        done = self._parser.feed(data)
        if done:
            self.unanswered -= len(done) - (done[-1][0] is None)
        return done

    def oldest(self) -> Request | None:
        """Return the request that has waited longest for its reply."""
        expected = self._parser.expected
        if not expected:
            return None
        first = expected[0]
        return first.requests[0] if isinstance(first, Merged) else first

    def missing(self) -> int:
        """Return how many bytes of the reply being received are known to be missing."""
        return self._parser.missing()

    def pending(self) -> list[Request]:
        """Return all requests that still want a reply, in order."""
        pending: list[Request] = []
        for request in self._parser.expected:
            if isinstance(request, Merged):
                pending += request.requests
            else:
                pending.append(request)
        return pending

    def take_unanswered(self) -> list[Request]:
        """The same; and take nothing any more, since the connection is lost."""
        pending = self.pending()
        self._parser.stop()
        self.unanswered = 0
        return pending


class MetaDialect(_TextDialect):
    """Meta commands for fetches and leases, classic ones for all else."""

    name: Literal["meta"] = "meta"
    _lines = META_LINES
    _shapes = META_SHAPES

    def encode(self, requests: Sequence[Request]) -> tuple[list[bytes | memoryview], list[Request]]:
        """Write the requests of one turn, which are often plain `get`s and nothing else; see `Dialect`."""
        keys: list[bytes] = []
        for request in requests:
            if request.command != "get" or request.return_flags:
                return super().encode(requests)
            request.shape = FETCH
            keys.append(request.key)
        if not keys:
            return [], []
        self._parser.expected.extend(requests)
        self.unanswered += len(keys)
        return [b"mg %b v\r\n" % b" v\r\nmg ".join(keys)], []


class ClassicDialect(_TextDialect):
    """Classic commands; the `get`s of one turn are merged, and so are the `gets`, since servers are slow otherwise."""

    name: Literal["classic"] = "classic"
    _lines = CLASSIC_LINES
    _shapes = CLASSIC_SHAPES

    def encode(self, requests: Sequence[Request]) -> tuple[list[bytes | memoryview], list[Request]]:
        """Write the requests of one turn, its merged fetches last; see `Dialect`."""
        if len(requests) == 1:
            return super().encode(requests)
        fetches: dict[str, list[Request]] = {"get": [], "gets": []}
        turn: list[Request] = []
        for request in requests:
            fetches.get(request.command, turn).append(request)
        for command, group in fetches.items():
            merged = _merge(command + "_many", group)
            turn += merged
            self.unanswered += len(group) - len(merged)
        return super().encode(turn)


def _merge(command: str, fetches: list[Request]) -> list[Request]:
    """Make commands of many keys of fetches of one key; one alone stays as it is."""
    if len(fetches) < 2:
        return fetches
    keys: dict[bytes, None] = {}
    group: list[Request] = []
    merged: list[Request] = []
    for request in fetches:
        if len(keys) == MOST_MERGED and request.key not in keys:
            merged.append(Merged(command, tuple(keys), group))
            keys, group = {}, []
        keys[request.key] = None
        group.append(request)
    merged.append(Merged(command, tuple(keys), group))
    return merged
