"""Message channels of an event loop, and how one is opened."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Protocol

from rain.common.errors import RainConnectionError
from rain.net.handshaking import HandshakeProtocol
from rain.net.sockets import as_address, cannot_connect, client_handshake, format_name, tune
from rain.protocol import codec
from rain.protocol.framing import FrameReader
from rain.protocol.limits import ProtocolError

if TYPE_CHECKING:
    from rain.net.address import Address
    from rain.protocol.handshake import PeerHello, Role, Secret
    from rain.protocol.messages import Message

_log = logging.getLogger("rain.net")

READ_BUFFER = 256 << 10
"""Most bytes of one read. The buffer is kept: a fresh one per read costs a system call for its memory."""

_CLOSE_TIMEOUT = 10.0
"""How long `close` waits for the peer to take what is queued, seconds."""


class Channel(Protocol):
    """A connection after its handshake, seen from an event loop.

    Attributes:
        peer: `IP:PORT` of the other side.
        local: `IP:PORT` of this side.
    """

    peer: str
    local: str

    def send(self, message: Message) -> None:
        """Queue a message; all messages of one turn of the loop leave in one write. Ignored once closed."""

    def close(self) -> None:
        """Close after writing what is queued."""

    def abort(self) -> None:
        """Close at once."""


class ChannelHandler(Protocol):
    """What a channel reports to. A handler that raises loses this channel, nothing else."""

    def messages_received(self, channel: Channel, messages: list[Message]) -> None:
        """All messages of one read, in order, at least one."""

    def channel_closed(self, channel: Channel, reason: str) -> None:
        """The connection ended, by whichever side; called exactly once, nothing is received afterwards."""


class TcpChannel(asyncio.BufferedProtocol):
    """A Channel over TCP.

    Args:
        transport: of the connection, after its handshake.
        buffer: to read into; may be shared by all channels of a loop.
    """

    def __init__(self, transport: asyncio.Transport, buffer: bytearray) -> None:
        self.peer = format_name(transport.get_extra_info("peername"))
        self.local = format_name(transport.get_extra_info("sockname"))
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._buffer = memoryview(buffer)
        self._reader = FrameReader()
        self._handler: ChannelHandler | None = None
        self._queue: list[Message] = []
        self._reason: str | None = None  # why it ends, once this side ends it
        self._closer: asyncio.TimerHandle | None = None

    def start(self, handler: ChannelHandler, leftover: bytes = b"") -> None:
        """Report to this handler from now on, first what came with the end of the handshake."""
        self._handler = handler
        if leftover:
            self._take(memoryview(leftover))

    def send(self, message: Message) -> None:
        """Queue a message."""
        if self._reason is None:
            if not self._queue:
                self._loop.call_soon(self._flush)
            self._queue.append(message)

    def close(self) -> None:
        """Close after writing what is queued; at once if the peer takes nothing for ten seconds."""
        if self._reason is None:
            self._flush()
            self._closer = self._loop.call_later(_CLOSE_TIMEOUT, self._transport.abort)
            self._end("closed by this side", at_once=False)

    def abort(self) -> None:
        """Close at once."""
        self._end("closed by this side")

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport is to read into."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """The transport has read."""
        self._take(self._buffer[:nbytes])

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        if self._closer is not None:
            self._closer.cancel()
        if self._reason is None:
            self._reason = "closed by the other side" if exc is None else f"the connection broke: {exc}"
        handler, self._handler = self._handler, None
        self._queue.clear()
        if handler is not None:
            try:
                handler.channel_closed(self, self._reason)
            except Exception:
                _log.exception("%s: the handler failed at the end of the connection", self.peer)

    def _flush(self) -> None:
        messages, self._queue = self._queue, []
        if not messages or self._reason is not None:
            return
        try:
            data = codec.encode(messages)
        except ProtocolError as error:
            _log.error("%s: closed: %s", self.peer, error)
            self._end(str(error))
            return
        self._transport.write(data)

    def _take(self, data: memoryview) -> None:
        handler = self._handler
        if self._reason is not None or handler is None:
            return
        try:
            messages = [codec.decode(frame) for frame in self._reader.feed(data)]
        except ProtocolError as error:
            _log.warning("%s: closed: %s", self.peer, error)
            self._end(str(error))
            return
        if messages:
            try:
                handler.messages_received(self, messages)
            except Exception as error:
                _log.exception("%s: closed: the handler failed", self.peer)
                self._end(f"internal error: {error!r}")

    def _end(self, reason: str, *, at_once: bool = True) -> None:
        if self._reason is None:
            self._reason = reason
        if at_once:
            self._transport.abort()
        else:
            self._transport.close()


async def connect(
    address: Address | str, role: Role, secret: Secret, handler: ChannelHandler, *, timeout: float
) -> TcpChannel:
    """Open a channel.

    Args:
        address: of the listening side.
        role: what this side is.
        secret: what both sides know.
        handler: gets what is received, possibly before this coroutine returns.
        timeout: seconds for connecting and the handshake together.

    Raises:
        RainConnectionError: no connection, or another protocol.
        AuthenticationError: no secret, or a wrong one.
    """
    address = as_address(address)
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[TcpChannel] = loop.create_future()
    buffer = bytearray(READ_BUFFER)

    def established(transport: asyncio.Transport, peer: PeerHello, leftover: bytes) -> None:
        channel = TcpChannel(transport, buffer)
        transport.set_protocol(channel)
        if opened.done():  # the caller gave up
            channel.abort()
            return
        opened.set_result(channel)
        channel.start(handler, leftover)

    def failed(transport: asyncio.Transport, error: Exception) -> None:
        if not opened.done():
            opened.set_exception(error)

    def protocol() -> HandshakeProtocol:
        return HandshakeProtocol(client_handshake(address, role, secret), buffer, established, failed)

    transport: asyncio.Transport | None = None
    try:
        async with asyncio.timeout(timeout):
            transport, _ = await loop.create_connection(protocol, address.host, address.port)
            sock = transport.get_extra_info("socket")
            if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
                tune(sock)
            return await opened
    except RainConnectionError:
        raise
    except OSError as error:  # TimeoutError is one
        raise cannot_connect(address, error, timeout) from error
    finally:
        if transport is not None and (not opened.done() or opened.cancelled() or opened.exception() is not None):
            transport.abort()
        opened.cancel()
