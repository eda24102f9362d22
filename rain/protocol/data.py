"""The protocol of data connections, pure: fixed requests, fixed answer headers, raw bytes between them.

The asking side writes requests, many at a time if it likes; answers come in the order asked. All integers are little
endian. An answer's bytes follow its header directly.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from rain.protocol.limits import MAX_DATA_READ, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Awaitable

OK, NOT_HERE, UNREADABLE = 0, 1, 2
"""Status of an answer."""

TAR = 1
"""Flag of an answer: the bytes are the tar of a directory."""

PLACE = 2
"""Flag of an answer to a request with the offset `WHERE`: this side tells places, though not of each value."""

WHERE = (1 << 64) - 1
"""Offset that asks where the value lies: the answer's bytes are a packed place (`rain.net.places`), none if it lies in
no file or this side does not tell."""

REQUEST_MAGIC = b"RQ01"
ANSWER_MAGIC = b"RA01"

_REQUEST = struct.Struct("<4sQIIQQ")
_ANSWER = struct.Struct("<4sQIIQQ")
REQUEST_SIZE = _REQUEST.size
ANSWER_SIZE = _ANSWER.size


class DataRequest(NamedTuple):
    """Ask for a piece of a value.

    Attributes:
        tag: chosen by the asking side, comes back in the answer.
        session, object_id: the object.
        offset, length: the piece, in bytes; length 0 is the whole rest.
    """

    tag: int
    session: int
    object_id: int
    offset: int
    length: int


class DataAnswer(NamedTuple):
    """Header of an answer.

    Attributes:
        tag: of the request.
        status: OK, NOT_HERE or UNREADABLE.
        flags: TAR or 0.
        total: size of the whole value in bytes.
        length: number of bytes that follow this header.
    """

    tag: int
    status: int
    flags: int
    total: int
    length: int


def pack_request(request: DataRequest) -> bytes:
    """Encode a request."""
    return _REQUEST.pack(REQUEST_MAGIC, *request)


def pack_answer(answer: DataAnswer) -> bytes:
    """Encode an answer header."""
    return _ANSWER.pack(ANSWER_MAGIC, *answer)


def unpack_answer(data: bytes | bytearray | memoryview) -> DataAnswer:
    """Decode the ANSWER_SIZE bytes of an answer header.

    Raises:
        ProtocolError: they are not one.
    """
    magic, tag, status, flags, total, length = _ANSWER.unpack(data)
    if magic != ANSWER_MAGIC:
        raise ProtocolError("an answer on a data connection does not begin with its magic")
    if status not in (OK, NOT_HERE, UNREADABLE):
        raise ProtocolError(f"an answer on a data connection has the unknown status {status}")
    if length > total or (length and status != OK):
        raise ProtocolError(f"an answer on a data connection has {length} bytes of a value of {total}, status {status}")
    return DataAnswer(tag, status, flags, total, length)


Piece: TypeAlias = "tuple[int, int, int, bytes | bytearray | memoryview]"
"""What a source answers: status, flags, total size, and the bytes asked for (none unless the status is OK)."""


class DataSource(Protocol):
    """Where a data port takes values from; called from many threads at once."""

    def read(self, session: int, object_id: int, offset: int, length: int) -> Piece:
        """Read a piece; length 0 is the whole rest. A piece beyond the end is cut, or empty."""


class LoopDataSource(Protocol):
    """Where a listener of an event loop takes values from; called in the loop."""

    def read(self, session: int, object_id: int, offset: int, length: int) -> Piece | Awaitable[Piece]:
        """Like `DataSource.read`; may be a coroutine function, which must end in bounded time."""


class RequestReader:
    """Cuts a stream of bytes into requests. After a ProtocolError it must not be used again."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    @property
    def pending(self) -> int:
        """Bytes of an unfinished request."""
        return len(self._rest)

    def feed(self, data: bytes | bytearray | memoryview) -> list[DataRequest]:
        """Take the next bytes of the stream and return the requests that are now complete.

        Raises:
            ProtocolError: not a request, or one for more than MAX_DATA_READ bytes.
        """
        buffered = self._rest + bytes(data)
        whole = len(buffered) // REQUEST_SIZE * REQUEST_SIZE
        requests = []
        for magic, *fields in _REQUEST.iter_unpack(memoryview(buffered)[:whole]):
            if magic != REQUEST_MAGIC:
                raise ProtocolError("a request on a data connection does not begin with its magic")
            request = DataRequest(*fields)
            if request.length > MAX_DATA_READ:
                raise ProtocolError(f"a request for {request.length} bytes, at most {MAX_DATA_READ} are allowed")
            requests.append(request)
        self._rest = buffered[whole:]
        magic_begin = self._rest[: len(REQUEST_MAGIC)]
        if not REQUEST_MAGIC.startswith(magic_begin):
            raise ProtocolError("a request on a data connection does not begin with its magic")
        return requests
