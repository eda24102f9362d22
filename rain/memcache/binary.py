"""The binary protocol, for servers with SASL: packets out, and packets in turned into the replies of the text protocol.

A reply carries the number of its request. Requests that want no reply are sent in their quiet form and answered only
when they fail; such answers are recognised by the number and dropped.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from rain.memcache.base import Item
from rain.memcache.replies import MISS, ErrorLine, Items, MetaItem, Violation
from rain.memcache.requests import WITH_CAS, is_abandoned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rain.memcache.dialects import Lone
    from rain.memcache.replies import Answer, Reply
    from rain.memcache.requests import Request

REQUEST, REPLY = 0x80, 0x81
LARGE_VALUE = 1 << 16
"""A value of so many bytes stays a buffer of its own and is not copied."""
MOST_BODY = 1 << 30
LONG_AGO = 30 * 24 * 3600 + 1
"""Sent for a negative expiry: times are unsigned here, and this one is a date in 1970."""
LAST_NUMBER = 0xFFFFFFFF

SUCCESS, NOT_FOUND, EXISTS, NOT_STORED, REFUSED = 0x00, 0x01, 0x02, 0x05, 0x20
_ERRORS: Final = {
    0x03: b"SERVER_ERROR object too large for cache",
    0x04: b"CLIENT_ERROR invalid arguments",
    0x06: b"CLIENT_ERROR cannot increment or decrement non-numeric value",
    REFUSED: b"CLIENT_ERROR unauthenticated",
    0x81: b"ERROR",
    0x82: b"SERVER_ERROR out of memory",
}

_HEADER = struct.Struct("!BBHBBHIIQ")
_FLAGS_AND_TIME = struct.Struct("!II")
_NUMBER = struct.Struct("!I")
_ARITHMETIC = struct.Struct("!QQI")
_NOOP = 0x0A

Buffer: TypeAlias = "bytes | memoryview"


def _no_extras(request: Request) -> bytes:
    return b""


def _time(request: Request) -> bytes:
    return _NUMBER.pack(request.exptime if request.exptime >= 0 else LONG_AGO)


def _flags_and_time(request: Request) -> bytes:
    return _NUMBER.pack(request.flags) + _time(request)


def _delta(request: Request) -> bytes:
    return _ARITHMETIC.pack(request.token, 0, 0xFFFFFFFF)  # the last number: never create the item


_FORMS: Final[dict[str, tuple[int, int, Callable[[Request], bytes]]]] = {
    "get": (0x00, 0x00, _no_extras),
    "gets": (0x00, 0x00, _no_extras),
    "gat": (0x1D, 0x1D, _time),
    "gats": (0x1D, 0x1D, _time),
    "get_many": (0x0D, 0x0D, _no_extras),
    "gets_many": (0x0D, 0x0D, _no_extras),
    "gat_many": (0x24, 0x24, _time),
    "gats_many": (0x24, 0x24, _time),
    "set": (0x01, 0x11, _flags_and_time),
    "add": (0x02, 0x12, _flags_and_time),
    "replace": (0x03, 0x13, _flags_and_time),
    "cas": (0x01, 0x11, _flags_and_time),
    "append": (0x0E, 0x19, _no_extras),
    "prepend": (0x0F, 0x1A, _no_extras),
    "increment": (0x05, 0x15, _delta),
    "decrement": (0x06, 0x16, _delta),
    "delete": (0x04, 0x14, _no_extras),
    "touch": (0x1C, 0x1C, _time),  # has no quiet form: its answer is dropped
    "flush_all": (0x08, 0x18, _time),
    "version": (0x0B, 0x0B, _no_extras),
    "stats": (0x10, 0x10, _no_extras),
    "quit": (0x07, 0x07, _no_extras),
    "authenticate": (0x21, 0x21, _no_extras),
    "barrier": (_NOOP, _NOOP, _no_extras),
}
"""Opcode, quiet opcode and extras by command; commands that are missing do not exist here."""
_DONE: Final = {
    **dict.fromkeys(("set", "add", "replace", "cas", "append", "prepend", "authenticate"), b"STORED"),
    "delete": b"DELETED",
    "touch": b"TOUCHED",
    "flush_all": b"OK",
}
"""Line that success means, by command."""
_ONE, _MANY = {"get", "gets", "gat", "gats"}, {"get_many", "gets_many", "gat_many", "gats_many"}
_ARITHMETICS = {"increment", "decrement"}
_NOT_STORED: Final = {("add", EXISTS), *((name, NOT_FOUND) for name in ("replace", "append", "prepend"))}
"""Commands and statuses that mean the same as NOT_STORED."""


class _Expected:
    """A request that waits for its reply, or a run of quiet requests (`request` is None), which may fail."""

    __slots__ = ("error", "first", "items", "last", "opcode", "request", "stats", "unseen")

    def __init__(self, request: Request | None, number: int) -> None:
        self.request = request
        self.first = self.last = number
        self.opcode = -1
        self.error: ErrorLine | None = None
        if request is not None:
            self.opcode = _FORMS[request.command][0]
            if request.command in _MANY:
                self.items = Items()
                self.unseen = set(request.keys)
            elif request.command == "stats":
                self.stats: dict[str, str] = {}


class _Packet:
    """A packet received; its parts are views of the receive buffer."""

    __slots__ = ("cas", "extras", "key", "opcode", "status", "value")

    def __init__(self, opcode: int, status: int, cas: int, body: memoryview, extras_size: int, key_size: int) -> None:
        self.opcode = opcode
        self.status = status
        self.cas = cas
        self.extras = body[:extras_size]
        self.key = body[extras_size : extras_size + key_size]
        self.value = body[extras_size + key_size :]


class _Broken(Exception):
    """The protocol is violated; the text says how."""


class BinaryDialect:
    """The binary protocol on one connection, which is authenticated; a `Dialect`.

    `cas` with token 0 counts as a command that does not exist here: 0 would mean "no token".
    """

    name: Literal["classic", "meta", "binary"] = "binary"

    def __init__(self) -> None:
        self.unanswered = 0
        self.lone: Lone | None = None
        self._expected: deque[_Expected] = deque()
        self._number = 0
        self._rest = bytearray()
        self._broken = False

    def encode(self, requests: Sequence[Request]) -> tuple[list[Buffer], list[Request]]:
        """Write the requests of one turn; see `Dialect`."""
        buffers: list[Buffer] = []
        small: list[Buffer] = []
        unsupported: list[Request] = []
        for request in requests:
            if request.command not in _FORMS or (request.command == "cas" and not request.token):
                unsupported.append(request)
                continue
            for part in _packets(request, self._expect(request)):
                if len(part) < LARGE_VALUE:
                    small.append(part)
                    continue
                buffers += (b"".join(small), part)
                small.clear()
        if small:
            buffers.append(b"".join(small))
        return buffers, unsupported

    def feed(self, data: bytes | bytearray | memoryview) -> list[Answer]:
        """Take the next bytes received; see `Dialect`."""
        answers: list[Answer] = []
        if self._broken:
            return answers
        if not self._rest:
            with memoryview(data) as view:
                used = self._parse(view, answers)
                self._rest += view[used:]
            return answers
        self._rest += data
        with memoryview(self._rest) as view:
            used = self._parse(view, answers)
        del self._rest[:used]
        return answers

    def oldest(self) -> Request | None:
        """Return the request that has waited longest for its reply."""
        return next(self.pending(), None)

    def pending(self) -> Iterator[Request]:
        """Give all requests that still want a reply, in order."""
        return (expected.request for expected in self._expected if expected.request is not None)

    def missing(self) -> int:
        """Return how many bytes of the packet being received are known to be missing."""
        if self._broken or len(self._rest) < _HEADER.size:
            return 0
        size: int = _HEADER.unpack_from(self._rest)[6]
        return _HEADER.size + size - len(self._rest)

    def take_unanswered(self) -> list[Request]:
        """Return all requests that still want a reply, in order; and take nothing any more."""
        requests = list(self.pending())
        self._expected.clear()
        self._broken = True
        self.unanswered = 0
        return requests

    def _expect(self, request: Request) -> int:
        number = self._number
        self._number = (number + 1) & LAST_NUMBER
        if not request.noreply:
            self._expected.append(_Expected(request, number))
            self.unanswered += 1
        elif self._expected and self._expected[-1].request is None and number:
            self._expected[-1].last = number
        else:
            self._expected.append(_Expected(None, number))
        return number

    def _parse(self, view: memoryview, answers: list[Answer]) -> int:
        """Append what the whole packets of the data answer; give the number of bytes they take."""
        at, size = 0, len(view)
        try:
            while at < size:
                if view[at] != REPLY:
                    raise _Broken("it is no packet of the binary protocol")
                if size - at < _HEADER.size:
                    break
                _, opcode, key, extras, _, status, body, number, cas = _HEADER.unpack_from(view, at)
                if body > MOST_BODY or key + extras > body:
                    raise _Broken("the lengths of a packet are wrong")
                expected = self._due(opcode, number)
                end = at + _HEADER.size + body
                if end > size:
                    break
                packet = _Packet(opcode, status, cas, view[at + _HEADER.size : end], extras, key)
                self._take(expected, packet, answers)
                at = end
        except _Broken as error:
            self._broken = True
            request = next(self.pending(), None)
            answers.append((request, Violation(bytes(view[at : at + 200]), str(error))))
        return at

    def _due(self, opcode: int, number: int) -> _Expected:
        """The requests to which a packet belongs; quiet ones before it went well and are forgotten."""
        while self._expected:
            head = self._expected[0]
            if head.first <= number <= head.last:
                if head.request is not None and opcode not in (head.opcode, _end_of(head)):
                    raise _Broken("a reply to another command than the one asked")
                return head
            if head.request is not None:
                raise _Broken("a reply out of turn")
            self._expected.popleft()
        raise _Broken("nothing was asked")

    def _take(self, expected: _Expected, packet: _Packet, answers: list[Answer]) -> None:
        request = expected.request
        if request is None:
            return  # a quiet request failed
        reply = _reply(expected, request, packet)
        if reply is not None:
            self._expected.popleft()
            self.unanswered -= 1
            answers.append((request, reply))


def _packets(request: Request, number: int) -> tuple[Buffer, Buffer]:
    """What is sent for a request, in two parts, of which the second may be large."""
    command = request.command
    opcode, quiet, make_extras = _FORMS[command]
    extras = make_extras(request)
    if command in _MANY:
        parts = [_head(opcode, number, key, extras, 0) + key for key in request.keys]
        return b"".join(parts), _head(_NOOP, number, b"", b"", 0)
    key, value = request.key, request.value or b""
    if command == "stats":
        key = " ".join(request.arguments).encode()
    elif command == "authenticate":
        username, password = request.arguments
        key, value = b"PLAIN", f"\0{username}\0{password}".encode()
    elif command == "barrier":
        key = b""
    cas = request.token if command == "cas" else 0
    return _head(quiet if request.noreply else opcode, number, key, extras, len(value), cas) + key, value


def _head(opcode: int, number: int, key: bytes, extras: bytes, value_size: int, cas: int = 0) -> bytes:
    size = len(extras) + len(key) + value_size
    return _HEADER.pack(REQUEST, opcode, len(key), len(extras), 0, 0, size, number, cas) + extras


def _end_of(expected: _Expected) -> int:
    """The opcode that ends the reply of a request."""
    return _NOOP if expected.request is not None and expected.request.command in _MANY else expected.opcode


def _reply(expected: _Expected, request: Request, packet: _Packet) -> Reply | None:
    """What a packet answers; None: more packets of the same reply follow."""
    command = request.command
    if command in _MANY:
        return _part_of_many(expected, request, packet)
    if packet.status != SUCCESS:
        return _failure(command, packet)
    if command in _ONE:
        flags = _flags(packet)
        cas = packet.cas if command in WITH_CAS else None
        return Item(bytes(packet.value), flags if request.return_flags else None, cas)
    if command == "stats":
        if not packet.key:
            return expected.stats
        expected.stats[bytes(packet.key).decode(errors="replace")] = bytes(packet.value).decode(errors="replace")
        return None
    if command in _ARITHMETICS:
        if len(packet.value) != 8:
            raise _Broken("a number of a wrong length")
        return b"%d" % int.from_bytes(packet.value, "big")
    if command == "version":
        return b"VERSION " + packet.value
    if command == "barrier":
        return MetaItem("MN")
    return _DONE[command]


def _part_of_many(expected: _Expected, request: Request, packet: _Packet) -> Reply | None:
    if packet.status == REFUSED:
        return _failure(request.command, packet)
    if packet.opcode == _NOOP:
        return expected.error or (expected.items if packet.status == SUCCESS else _failure(request.command, packet))
    if packet.status == SUCCESS:
        key, flags = bytes(packet.key), _flags(packet)
        if key not in expected.unseen:
            raise _Broken("a key that was not asked, or came before")
        expected.unseen.remove(key)
        if not is_abandoned(request):
            cas = packet.cas if request.command in WITH_CAS else None
            expected.items.add(key, bytes(packet.value), flags, cas)
    elif packet.status != NOT_FOUND and expected.error is None:
        expected.error = _error(packet)
    return None


def _flags(packet: _Packet) -> int:
    if len(packet.extras) != _NUMBER.size:
        raise _Broken("an item without flags")
    flags: int = _NUMBER.unpack(packet.extras)[0]
    return flags


def _failure(command: str, packet: _Packet) -> Reply:
    status = packet.status
    if status == REFUSED and command == "authenticate":
        return ErrorLine(b"CLIENT_ERROR authentication failure")
    if status == NOT_STORED or (command, status) in _NOT_STORED:
        return b"NOT_STORED"
    if status == NOT_FOUND:
        return MISS if command in _ONE else b"NOT_FOUND"
    return b"EXISTS" if status == EXISTS else _error(packet)


def _error(packet: _Packet) -> ErrorLine:
    line = _ERRORS.get(packet.status)
    return ErrorLine(b"SERVER_ERROR " + packet.value[:200] if line is None else line)
