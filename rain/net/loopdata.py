"""Fetching values over data connections in an event loop, without threads.

Values are read straight into their place, piece by piece; no turn of the loop handles more than a read of the socket
gives, and at most one piece is written to a file.
"""

from __future__ import annotations

import asyncio
import mmap
import os
from collections import deque
from typing import TYPE_CHECKING, Protocol

from rain.common.errors import RainException
from rain.net.channel import open_transport
from rain.net.dataclient import PIECE, DataUnavailable, LocalError, Source, reason_of
from rain.net.places import map_place
from rain.net.silence import SilentAddresses, SilentError
from rain.protocol.data import ANSWER_SIZE, PLACE, WHERE, DataRequest, pack_request, unpack_answer
from rain.protocol.limits import MAX_HANDSHAKE, MAX_PLACE, ProtocolError

if TYPE_CHECKING:
    from pathlib import Path

    from rain.net.address import Address
    from rain.protocol.data import DataAnswer
    from rain.protocol.handshake import Secret

_IN_FLIGHT = 4
_MAX_IDLE = 8
_IN_PLACE_FROM = 1 << 20
"""Smaller values get a bytearray; larger ones memory that need not be cleared first."""


class _Target(Protocol):
    """Where a value goes."""

    def begin(self, size: int) -> None:
        """The size is known; called once, before everything else."""

    def room(self, start: int, length: int) -> memoryview:
        """Where a piece is to be received into."""

    def received(self, start: int, piece: memoryview) -> None:
        """A piece is complete.

        Raises:
            OSError: it cannot be stored.
        """


class _Memory:
    def __init__(self) -> None:
        self.value = memoryview(b"")

    def begin(self, size: int) -> None:
        self.value = memoryview(mmap.mmap(-1, size) if size >= _IN_PLACE_FROM else bytearray(size))

    def room(self, start: int, length: int) -> memoryview:
        return self.value[start : start + length]

    def received(self, start: int, piece: memoryview) -> None:
        pass


class _File:
    def __init__(self, descriptor: int, piece: int) -> None:
        self._descriptor = descriptor
        self._piece = piece
        self._buffer = memoryview(b"")

    def begin(self, size: int) -> None:
        self._buffer = memoryview(bytearray(min(size, self._piece)))

    def room(self, start: int, length: int) -> memoryview:
        return self._buffer[:length]

    def received(self, start: int, piece: memoryview) -> None:
        while piece:
            written = os.pwrite(self._descriptor, piece, start)
            start, piece = start + written, piece[written:]


class Transfer:
    """What is asked and received on a connection for one value; no I/O.

    Args:
        source: of the value.
        target: where it goes.
        piece: bytes per request.

    Attributes:
        received: bytes received so far.
        done: True once all of it is there.
        answer: of the first piece, None before.
    """

    def __init__(self, source: Source, target: _Target, piece: int) -> None:
        self.received = 0
        self.done = False
        self.answer: DataAnswer | None = None
        self._source = source
        self._target = target
        self._piece = piece
        self._asked = 0
        self._number = 0
        self._header = memoryview(bytearray(ANSWER_SIZE))
        self._body: memoryview | None = None
        self._filled = 0

    def room(self) -> memoryview:
        """Where the next bytes belong."""
        return (self._header if self._body is None else self._body)[self._filled :]

    def requests(self) -> bytes:
        """What is to be sent now: the first request, later those ahead of what is being received."""
        last = 0 if self.answer is None else min(self._number + _IN_FLIGHT, self._pieces - 1)
        asked, self._asked = self._asked, max(self._asked, last + 1)
        _, session, object_id = self._source
        return b"".join(
            pack_request(DataRequest(number, session, object_id, number * self._piece, self._piece))
            for number in range(asked, self._asked)
        )

    def take(self, count: int) -> bytes:
        """`count` bytes are where `room` said; returns what is to be sent.

        Raises:
            DataUnavailable: the value is not there.
            ProtocolError: the answers are out of step.
            LocalError: the value cannot be stored.
        """
        self.received += count
        self._filled += count
        if self.room():
            return b""
        self._filled = 0
        if self._body is None:
            self._begin_piece()
        else:
            self._end_piece(self._body)
        return b"" if self.done or self._body is None else self.requests()

    @property
    def _pieces(self) -> int:
        assert self.answer is not None
        return -(-self.answer.total // self._piece)

    def _begin_piece(self) -> None:
        answer = unpack_answer(self._header)
        if answer.tag != self._number:
            raise ProtocolError("answers on a data connection are out of step")
        self._source.check(answer)
        if self.answer is None:
            self.answer = answer
            self._target.begin(answer.total)
            if not answer.total:
                self.done = True
                return
        start = self._number * self._piece
        length = min(self._piece, self.answer.total - start)
        if answer.length != length or answer.total != self.answer.total:
            raise ProtocolError(f"a piece of {answer.length} bytes came instead of {length}")
        self._body = self._target.room(start, length)

    def _end_piece(self, body: memoryview) -> None:
        try:
            self._target.received(self._number * self._piece, body)
        except OSError as error:
            raise LocalError(error) from error
        self._body = None
        self._number += 1
        self.done = self._number == self._pieces


class _Asking:
    """What is asked and received on a connection for the place of a value; like `Transfer`.

    Attributes:
        place: it, empty without one.
        tells: the other side tells places.
        size: bytes of the value.
    """

    def __init__(self, source: Source) -> None:
        self.received = 0
        self.done = False
        self.place = bytearray()
        self.tells = False
        self.size = 0
        self._source = source
        self._header: bytearray | None = bytearray(ANSWER_SIZE)
        self._filled = 0

    def room(self) -> memoryview:
        """Where the next bytes belong."""
        return memoryview(self.place if self._header is None else self._header)[self._filled :]

    def requests(self) -> bytes:
        """What is to be sent."""
        return pack_request(DataRequest(0, self._source.session, self._source.object_id, WHERE, 0))

    def take(self, count: int) -> bytes:
        """`count` bytes are where `room` said; raises as `Transfer.take`."""
        self.received += count
        self._filled += count
        if self._header is not None and self._filled == ANSWER_SIZE:
            answer = unpack_answer(self._header)
            self._source.check(answer)
            if answer.tag or answer.length > MAX_PLACE:
                raise ProtocolError("an answer on a data connection is not the place that was asked for")
            self._header, self._filled = None, 0
            self.place, self.size, self.tells = bytearray(answer.length), answer.total, bool(answer.flags & PLACE)
        self.done = self._header is None and self._filled == len(self.place)
        return b""


class _Connection(asyncio.BufferedProtocol):
    """A data connection, used for one transfer at a time.

    Attributes:
        fresh: no transfer was done.
        tells_places: the other side is on this machine and may know files to map.
        lost: why it ended; None while it is open.
        gone: done when its socket is closed.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.fresh = True
        name, peer = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        self.tells_places = bool(name and peer) and name[0] == peer[0]
        self.transfer: Transfer | _Asking | None = None
        self._ended: asyncio.Future[None] | None = None
        self._transport = transport
        self.lost: BaseException | None = None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, transfer: Transfer | _Asking, timeout: float) -> None:
        """Do a transfer; `timeout` seconds without any progress end it."""
        if self.lost is not None:
            raise self.lost
        loop = asyncio.get_running_loop()
        self.transfer, self._ended = transfer, loop.create_future()
        try:
            self._transport.write(transfer.requests())
            while not self._ended.done():
                before = transfer.received
                await asyncio.wait((self._ended,), timeout=timeout)
                if not self._ended.done() and transfer.received == before:
                    raise TimeoutError
            self._ended.result()
        finally:
            if self._ended.done():
                self._ended.exception()  # a caller that was cancelled does not look at it
            self.transfer = self._ended = None

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def start(self, leftover: bytes) -> None:
        """The handshake is done."""
        if leftover:
            self._end(ProtocolError("bytes came on a data connection before any request"))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport is to read into."""
        if self.transfer is None or self.transfer.done or self._ended is None or self._ended.done():
            return memoryview(bytearray(1))  # nothing may come: whatever does ends the connection
        return self.transfer.room()

    def buffer_updated(self, nbytes: int) -> None:
        """The transport has read."""
        transfer, ended = self.transfer, self._ended
        if transfer is None or ended is None or ended.done():
            self._end(ProtocolError("bytes came on a data connection that nobody asked for"))
            return
        try:
            more = transfer.take(nbytes)
        except (RainException, LocalError) as error:
            self._end(error)
            return
        if more:
            self._transport.write(more)
        if transfer.done:
            ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self._end(exc or ConnectionResetError("the other side closed the connection"))
        self.gone.set_result(None)

    def _end(self, error: BaseException) -> None:
        if self.lost is None:
            self.lost = error
        self._transport.abort()
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)


class LoopDataClient:
    """Fetches values from data ports, in one event loop; connections are kept and used again.

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
        self._idle: deque[tuple[str, _Connection]] = deque()  # least recently used first
        self._open: set[_Connection] = set()
        self._closed = False
        self._silent = SilentAddresses(avoid)

    async def fetch_bytes(self, address: Address | str, session: int, object_id: int) -> memoryview:
        """Fetch a value; a file on this machine is mapped.

        Raises:
            DataUnavailable: with the reason.
        """
        source = Source(str(address), session, object_id)
        if self._maps:
            mapped = await self._map(source)
            if mapped is not None:
                return mapped
        target = _Memory()
        await self._fetch(source, target)
        return target.value.toreadonly()

    async def fetch_file(self, address: Address | str, session: int, object_id: int, path: str | Path) -> None:
        """Fetch a value into a file, which is made or overwritten.

        Raises:
            DataUnavailable: with the reason; the file may hold a part then.
            OSError: the file cannot be written (e.g. the disk is full).
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            await self._fetch(Source(str(address), session, object_id), _File(descriptor, self._piece))
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close all connections; transfers under way fail. To be called in the loop."""
        self._closed = True
        for connection in self._open:
            connection.abort()
        self._idle.clear()

    async def closed(self) -> None:
        """Close, and wait until all sockets are closed."""
        self.close()
        if self._open:
            await asyncio.wait([connection.gone for connection in self._open])

    async def _fetch(self, source: Source, target: _Target) -> None:
        while True:
            connection = await self._take(source)
            if await self._run(connection, source, Transfer(source, target, self._piece)):
                return

    async def _map(self, source: Source) -> memoryview | None:
        """Map the file in which a worker on this machine keeps a value; None if there is none that can be mapped."""
        while True:
            connection = await self._take(source)
            if not connection.tells_places:
                self._give_back(connection, source.address)
                return None
            asking = _Asking(source)
            if await self._run(connection, source, asking):
                connection.tells_places = asking.tells
                try:
                    return map_place(asking.place, asking.size) if asking.tells and asking.place else None
                except ProtocolError as error:
                    raise source.unavailable(str(error), "connection") from error

    async def _run(self, connection: _Connection, source: Source, transfer: Transfer | _Asking) -> bool:
        """Do it; False if it was a kept connection that turned out to be dead."""
        try:
            await connection.run(transfer, self._timeout)
        except BaseException as error:
            connection.abort()
            if isinstance(error, ConnectionError) and not connection.fresh and not transfer.received:
                return False
            if isinstance(error, LocalError):
                raise error.error from None
            if isinstance(error, (OSError, RainException)) and not isinstance(error, DataUnavailable):
                raise source.unavailable(reason_of(error), "connection") from error
            raise
        self._give_back(connection, source.address)
        return True

    async def _take(self, source: Source) -> _Connection:
        if self._closed:
            raise source.unavailable("this side is closing", "connection")
        for position in range(len(self._idle) - 1, -1, -1):
            address, connection = self._idle[position]
            if address == source.address or connection.lost is not None:
                del self._idle[position]
                if connection.lost is None:
                    return connection
        buffer, timeout = bytearray(MAX_HANDSHAKE), self._connect_timeout
        try:
            self._silent.check(source.address)
            connection = await open_transport(
                source.address, "data", self._secret, buffer, _Connection, _Connection.start, timeout=timeout
            )
        except (RainException, SilentError) as error:
            self._silent.note(source.address, error)
            raise source.unavailable(reason_of(error), "connection") from error
        self._open.add(connection)
        connection.gone.add_done_callback(lambda _: self._open.discard(connection))
        if self._closed:
            connection.abort()
        return connection

    def _give_back(self, connection: _Connection, address: str) -> None:
        connection.fresh = False
        if self._closed:
            connection.abort()
            return
        self._idle.append((address, connection))
        if len(self._idle) > _MAX_IDLE:
            self._idle.popleft()[1].abort()
