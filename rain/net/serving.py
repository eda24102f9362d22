"""The serving side of a data connection in an event loop."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from typing import TYPE_CHECKING

from rain.net.sockets import format_name
from rain.protocol.data import (
    OK,
    REQUEST_SIZE,
    UNREADABLE,
    WHERE,
    DataAnswer,
    DataRequest,
    RequestReader,
    pack_answer,
)
from rain.protocol.limits import DATA_STALL_TIMEOUT, MAX_DATA_REQUESTS, ProtocolError

if TYPE_CHECKING:
    from rain.protocol.data import LoopDataSource, Piece

_log = logging.getLogger("rain.net")

_READ_BUFFER = 64 * REQUEST_SIZE


class DataServing(asyncio.BufferedProtocol):
    """Answers the requests of one data connection, in order.

    Nothing grows: reading pauses while many requests wait, the next answer is made when the last one is taken.

    Args:
        transport: of the connection, after its handshake.
        source: of the values.
        registry: this object is in it while the connection is open.
    """

    def __init__(self, transport: asyncio.Transport, source: LoopDataSource, registry: set[DataServing]) -> None:
        self._transport = transport
        self._source = source
        self._registry = registry
        self._peer = format_name(transport.get_extra_info("peername"))
        self._buffer = memoryview(bytearray(_READ_BUFFER))
        self._reader = RequestReader()
        self._requests: deque[DataRequest] = deque()
        self._answering: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        registry.add(self)

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport is to read into."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """The transport has read."""
        self.take(self._buffer[:nbytes])

    def take(self, data: memoryview | bytes) -> None:
        """Handle these bytes of the stream of requests."""
        try:
            self._requests += self._reader.feed(data)
        except ProtocolError as error:
            _log.warning("%s: closed: %s", self._peer, error)
            self._transport.abort()
            return
        if self._requests and self._answering is None:
            self._answering = asyncio.get_running_loop().create_task(self._answer_all())
        if len(self._requests) >= MAX_DATA_REQUESTS:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """The peer is slow."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The peer took enough."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self._registry.discard(self)
        if self._answering is not None:
            self._answering.cancel()

    async def _answer_all(self) -> None:
        try:
            while self._requests:
                request = self._requests.popleft()
                status, flags, total, data = await self._read(request)
                length = len(data) if status == OK else 0
                self._transport.write(pack_answer(DataAnswer(request.tag, status, flags, total, length)))
                if length:
                    self._transport.write(data)
                if not self._requests:
                    self._transport.resume_reading()
                async with asyncio.timeout(DATA_STALL_TIMEOUT):
                    await self._writable.wait()
        except TimeoutError:
            _log.warning("%s: closed: it took nothing for %g s", self._peer, DATA_STALL_TIMEOUT)
            self._transport.abort()
        finally:
            self._answering = None

    async def _read(self, request: DataRequest) -> Piece:
        _, session, object_id, offset, length = request
        if offset == WHERE:  # what is read here lies in no file of its own
            return OK, 0, 0, b""
        try:
            piece = self._source.read(session, object_id, offset, length)
            return await piece if inspect.isawaitable(piece) else piece
        except Exception:
            _log.exception("object %d/%d could not be read for %s", session, object_id, self._peer)
            return UNREADABLE, 0, 0, b""
