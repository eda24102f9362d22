"""Fetching values over data connections, blocking: used in threads."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import threading
from typing import TYPE_CHECKING, Literal, NamedTuple

from rain.common.errors import RainException
from rain.net.places import map_place
from rain.net.silence import SilentAddresses
from rain.net.sockets import as_address, is_same_machine, open_connection
from rain.protocol.data import (
    ANSWER_SIZE,
    NOT_HERE,
    OK,
    PLACE,
    WHERE,
    DataAnswer,
    DataRequest,
    pack_request,
    unpack_answer,
)
from rain.protocol.limits import MAX_PLACE, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rain.net.address import Address
    from rain.protocol.handshake import Secret

PIECE = 4 << 20
"""Bytes per request."""

_IN_FLIGHT = 4
_MAX_IDLE = 32

FailureReason = Literal["missing", "unreadable", "connection"]


class DataUnavailable(RainException):
    """A value cannot be had from an address.

    Attributes:
        address: as it was given.
        reason: `missing` it is not there, `unreadable` its copy there is damaged, `connection` could not be reached.
    """

    def __init__(self, text: str, address: str, reason: FailureReason) -> None:
        super().__init__(text)
        self.address = address
        self.reason = reason


class _Connection:
    """A data connection, used by one thread at a time.

    Attributes:
        fresh: no transfer was done.
        tells_places: the other side is on this machine and may know files to map.
    """

    def __init__(self, sock: socket.socket, leftover: bytes, timeout: float) -> None:
        if leftover:
            sock.close()
            raise ProtocolError("bytes came on a data connection before any request")
        self.fresh = True
        self.tells_places = is_same_machine(sock)
        self._socket = sock
        self._header = bytearray(ANSWER_SIZE)
        sock.settimeout(timeout)

    def close(self) -> None:
        """Close; a thread that uses it gets an OSError."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def ask(self, requests: list[DataRequest]) -> None:
        """Send requests."""
        self._socket.sendall(b"".join(map(pack_request, requests)))

    def read_header(self, tag: int) -> DataAnswer:
        """Receive the header of the answer with this tag."""
        self.read_into(memoryview(self._header))
        answer = unpack_answer(self._header)
        if answer.tag != tag:
            raise ProtocolError("answers on a data connection are out of step")
        return answer

    def read_into(self, view: memoryview) -> None:
        """Fill the view."""
        while view:
            count = self._socket.recv_into(view)
            if count == 0:
                raise ConnectionResetError("the other side closed the connection")
            view = view[count:]


class Source(NamedTuple):
    """What is fetched, and from where."""

    address: str
    session: int
    object_id: int

    def unavailable(self, text: str, reason: FailureReason) -> DataUnavailable:
        """The error that it cannot be had."""
        what = f"object {self.session}/{self.object_id} from {self.address}"
        return DataUnavailable(f"cannot fetch {what}: {text}", self.address, reason)

    def check(self, answer: DataAnswer) -> None:
        """Raise DataUnavailable if the answer says so."""
        if answer.status == NOT_HERE:
            raise self.unavailable("it is not there", "missing")
        if answer.status != OK:
            raise self.unavailable("its copy there cannot be read", "unreadable")


class LocalError(Exception):
    """An OSError of the caller's memory or file, not of the connection."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class DataClient:
    """Fetches values from data ports. Thread-safe; connections are kept and used again.

    Args:
        secret: what both sides know.
        connect_timeout: seconds to connect and shake hands.
        timeout: seconds without any progress after which a transfer fails.
        piece: bytes per request.
        avoid: seconds for which an address is not tried again after nobody answered there.
        maps: ask workers on this machine where values lie, and map these files instead of having them sent.
    """

    def __init__(
        self,
        secret: Secret,
        *,
        connect_timeout: float = 5.0,
        timeout: float = 30.0,
        piece: int = PIECE,
        avoid: float = 0.0,
        maps: bool = False,
    ) -> None:
        self._secret = secret
        self._maps = maps
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._piece = piece
        self._lock = threading.Lock()
        self._idle: list[tuple[str, _Connection]] = []  # least recently used first
        self._busy: set[_Connection] = set()
        self._closed = threading.Event()
        self._silent = SilentAddresses(avoid)

    def fetch(
        self,
        address: Address | str,
        session: int,
        object_id: int,
        *,
        into: Callable[[int, int], memoryview | bytearray | mmap.mmap],
    ) -> tuple[int, int]:
        """Fetch a value into memory of the caller.

        Args:
            address: of the data port.
            session, object_id: the object.
            into: called once with the size and the flags; returns a writable buffer of that size. Not called for an
                empty value.

        Returns:
            Size and flags (`rain.protocol.data.TAR`).

        Raises:
            DataUnavailable: with the reason.
            OSError: from `into`.
        """
        source = Source(str(address), session, object_id)
        try:
            while True:
                connection = self._take(source.address)
                answer = self._first_answer(connection, source)
                if answer is not None:
                    break
            return self._receive(connection, source, answer, into)
        except DataUnavailable:
            raise
        except LocalError as error:
            raise error.error from None
        except (OSError, RainException) as error:
            raise source.unavailable(reason_of(error), "connection") from error

    def fetch_bytes(self, address: Address | str, session: int, object_id: int) -> tuple[bytearray | memoryview, int]:
        """Fetch a value; return it and the flags. A file on this machine is mapped instead: the view is read-only then.

        Raises:
            DataUnavailable: with the reason.
        """
        mapped = self.map_value(address, session, object_id)
        if mapped is not None:
            return mapped, 0
        value = bytearray()

        def into(size: int, flags: int) -> bytearray:
            nonlocal value
            value = bytearray(size)
            return value

        _, flags = self.fetch(address, session, object_id, into=into)
        return value, flags

    def fetch_file(self, address: Address | str, session: int, object_id: int, path: str | Path) -> tuple[int, int]:
        """Fetch a value into a file, which is made or overwritten; return size and flags.

        Raises:
            DataUnavailable: with the reason; the file may hold a part then.
            OSError: the file cannot be written (e.g. the disk is full).
        """
        mapped = self.map_value(address, session, object_id)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        mapping: mmap.mmap | None = None

        def into(size: int, flags: int) -> mmap.mmap:
            nonlocal mapping
            os.posix_fallocate(descriptor, 0, size)  # a full disk is an error here, not a SIGBUS later
            mapping = mmap.mmap(descriptor, size)
            return mapping

        try:
            if mapped is not None:
                return _write_all(descriptor, mapped), 0
            return self.fetch(address, session, object_id, into=into)
        finally:
            if mapping is not None:
                with contextlib.suppress(BufferError):  # the traceback of an error holds views; they end with it
                    mapping.close()
            os.close(descriptor)

    def map_value(self, address: Address | str, session: int, object_id: int) -> memoryview | None:
        """Map the file in which a worker on this machine keeps a value; None if there is none that can be mapped.

        Raises:
            DataUnavailable: with the reason.
        """
        if not self._maps:
            return None
        source = Source(str(address), session, object_id)
        try:
            while True:
                connection = self._take(source.address)
                if not connection.tells_places:
                    self._give_back(connection, source.address)
                    return None
                answer = self._first_answer(connection, source, WHERE)
                if answer is not None:
                    break
            place = self._receive_place(connection, source, answer)
            return map_place(place, answer.total) if place else None
        except DataUnavailable:
            raise
        except (OSError, RainException) as error:
            raise source.unavailable(reason_of(error), "connection") from error

    def close(self) -> None:
        """Close all connections; transfers under way fail."""
        with self._lock:
            self._closed.set()
            connections = [connection for _, connection in self._idle] + list(self._busy)
            self._idle.clear()
            self._busy.clear()
        for connection in connections:
            connection.close()

    def _first_answer(self, connection: _Connection, source: Source, offset: int = 0) -> DataAnswer | None:
        """Ask for the first piece, or the place; None if a kept connection turned out to be dead."""
        try:
            connection.ask([DataRequest(0, source.session, source.object_id, offset, self._piece)])
            return connection.read_header(0)
        except BaseException as error:
            self._drop(connection)
            if isinstance(error, ConnectionError) and not connection.fresh:
                return None
            raise

    def _receive_place(self, connection: _Connection, source: Source, answer: DataAnswer) -> bytearray:
        """The place in an answer, empty without one."""
        try:
            if answer.length > MAX_PLACE:
                raise ProtocolError(f"a place of {answer.length} bytes, at most {MAX_PLACE} are allowed")
            place = bytearray(answer.length)
            connection.read_into(memoryview(place))
        except BaseException:
            self._drop(connection)
            raise
        connection.tells_places = bool(answer.flags & PLACE)
        self._give_back(connection, source.address)
        source.check(answer)
        return place if connection.tells_places else bytearray()

    def _receive(
        self,
        connection: _Connection,
        source: Source,
        first: DataAnswer,
        into: Callable[[int, int], memoryview | bytearray | mmap.mmap],
    ) -> tuple[int, int]:
        try:
            if first.status == OK and first.total:
                try:
                    target = into(first.total, first.flags)
                except OSError as error:
                    raise LocalError(error) from error
                except (MemoryError, OverflowError) as error:
                    text = f"it is said to have {first.total} bytes, more than can be held here"
                    raise source.unavailable(text, "unreadable") from error
                with memoryview(target) as buffer, buffer.cast("B") as view:
                    self._fill(connection, view, first, source)
        except BaseException:
            self._drop(connection)
            raise
        self._give_back(connection, source.address)
        source.check(first)
        return first.total, first.flags

    def _fill(self, connection: _Connection, view: memoryview, first: DataAnswer, source: Source) -> None:
        """Receive the first piece and all others, several of them asked for in advance."""
        starts = range(0, len(view), self._piece)
        asked = 1
        for number, start in enumerate(starts):
            ahead = starts[asked : number + 1 + _IN_FLIGHT]
            if ahead:
                connection.ask(
                    [
                        DataRequest(asked + step, source.session, source.object_id, begin, self._piece)
                        for step, begin in enumerate(ahead)
                    ]
                )
                asked += len(ahead)
            piece = view[start : start + self._piece]
            answer = connection.read_header(number) if number else first
            source.check(answer)
            if answer.length != len(piece) or answer.total != len(view):
                raise ProtocolError(f"a piece of {answer.length} bytes came instead of {len(piece)}")
            connection.read_into(piece)

    def _take(self, key: str) -> _Connection:
        with self._lock:
            if self._closed.is_set():
                raise ConnectionAbortedError("this side is closing")
            for position in range(len(self._idle) - 1, -1, -1):
                if self._idle[position][0] == key:
                    _, connection = self._idle.pop(position)
                    self._busy.add(connection)
                    return connection
        self._silent.check(key)
        try:
            sock, leftover = open_connection(as_address(key), "data", self._secret, self._connect_timeout)
        except RainException as error:
            self._silent.note(key, error)
            raise
        connection = _Connection(sock, leftover, self._timeout)
        with self._lock:
            if not self._closed.is_set():
                self._busy.add(connection)
                return connection
        connection.close()
        raise ConnectionAbortedError("this side is closing")

    def _give_back(self, connection: _Connection, key: str) -> None:
        connection.fresh = False
        surplus = connection
        with self._lock:
            self._busy.discard(connection)
            if not self._closed.is_set():
                self._idle.append((key, connection))
                if len(self._idle) <= _MAX_IDLE:
                    return
                _, surplus = self._idle.pop(0)
        surplus.close()

    def _drop(self, connection: _Connection) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()


def _write_all(descriptor: int, data: memoryview) -> int:
    """Write it to an empty file; returns its length."""
    start = 0
    while start < len(data):
        start += os.write(descriptor, data[start : start + PIECE])
    return start


def reason_of(error: Exception) -> str:
    """Why a transfer failed, in few words."""
    if type(error) is TimeoutError:
        return "nothing came in time"
    return getattr(error, "strerror", None) or str(error)
