"""Message channels of an event loop, and how one is opened."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Protocol, TypeVar

from rain.common.errors import RainConnectionError
from rain.net.handshaking import HandshakeProtocol
from rain.net.sockets import as_address, cannot_connect, client_handshake, format_name, tune
from rain.protocol import codec
from rain.protocol.framing import FrameReader
from rain.protocol.limits import HANDSHAKE_TIMEOUT, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.net.address import Address
    from rain.protocol.handshake import PeerHello, Role, Secret
    from rain.protocol.messages import Message

P = TypeVar("P", bound=asyncio.BufferedProtocol)

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

    def send_all(self, messages: list[Message]) -> None:
        """Write what is queued and these messages now. Ignored once closed."""

    def close(self) -> None:
        """Close after writing what is queued."""

    def abort(self) -> None:
        """Close at once."""


class ChannelHandler(Protocol):
    """What a channel reports to. A handler that raises loses this channel, nothing else."""

    def messages_received(self, channel: Channel, messages: list[Message]) -> None:
        """All messages of one read, in order. None: a part of a long one came, which also is a sign of life."""

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
        self._waiters: list[asyncio.Future[None]] = []
        self._is_paused = False

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

    def send_all(self, messages: list[Message]) -> None:
        """Write what is queued and these messages now."""
        if self._reason is None:
            self._queue += messages
            self._flush()

    def send_checked(self, *messages: Message) -> None:
        """Send at once; ignored once closed.

        Raises:
            ProtocolError: a message cannot be encoded; nothing was sent.
        """
        if self._reason is None:
            data = codec.encode(messages)
            self._flush()
            if self._reason is None:
                self._transport.write(data)

    async def drained(self) -> None:
        """Wait while the peer is behind: until what is queued is written, or nearly so, or the connection ends."""
        self._flush()
        if self._is_paused and self._reason is None:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def pause_writing(self) -> None:
        """Much is unwritten."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Little is unwritten."""
        self._is_paused = False
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

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
        self._wake()
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
        try:
            handler.messages_received(self, messages)
        except Exception as error:
            _log.exception("%s: closed: the handler failed", self.peer)
            self._end(f"internal error: {error!r}")

    def _end(self, reason: str, *, at_once: bool = True) -> None:
        if self._reason is None:
            self._reason = reason
        self._wake()
        if at_once:
            self._transport.abort()
        else:
            self._transport.close()


async def connect(
    address: Address | str, role: Role, secret: Secret, handler: ChannelHandler, *, timeout: float | None
) -> TcpChannel:
    """Open a channel.

    Args:
        address: of the listening side.
        role: what this side is.
        secret: what both sides know.
        handler: gets what is received, possibly before this coroutine returns.
        timeout: seconds for connecting and the handshake together; None = no limit but that of the handshake.

    Raises:
        RainConnectionError: no connection, or another protocol.
        AuthenticationError: no secret, or a wrong one.
    """
    buffer = bytearray(READ_BUFFER)

    def begin(transport: asyncio.Transport) -> TcpChannel:
        return TcpChannel(transport, buffer)

    def start(channel: TcpChannel, leftover: bytes) -> None:
        channel.start(handler, leftover)

    return await open_transport(address, role, secret, buffer, begin, start, timeout=timeout)


async def open_transport(
    address: Address | str,
    role: Role,
    secret: Secret,
    buffer: bytearray,
    begin: Callable[[asyncio.Transport], P],
    start: Callable[[P, bytes], None],
    *,
    timeout: float | None,
) -> P:
    """Connect and shake hands, then hand the transport to a protocol of the caller's.

    Args:
        address, role, secret, timeout: as for `connect`.
        buffer: to read the handshake into.
        begin: makes the protocol.
        start: called with the protocol and the bytes that came with the end of the handshake.

    Raises:
        RainConnectionError, AuthenticationError: as `connect`.
    """
    address = as_address(address)
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[P] = loop.create_future()

    def established(transport: asyncio.Transport, peer: PeerHello, leftover: bytes) -> None:
        made = begin(transport)
        transport.set_protocol(made)
        if opened.done():  # the caller gave up
            transport.abort()
            return
        opened.set_result(made)
        start(made, leftover)

    def failed(transport: asyncio.Transport, error: Exception) -> None:
        if not opened.done():
            opened.set_exception(error)

    def protocol() -> HandshakeProtocol:
        handshake = client_handshake(address, role, secret)
        seconds = HANDSHAKE_TIMEOUT if timeout is None else timeout
        return HandshakeProtocol(handshake, buffer, established, failed, timeout=seconds)

    transport: asyncio.Transport | None = None
    made: P | None = None
    try:
        async with asyncio.timeout(timeout):
            transport, _ = await loop.create_connection(protocol, address.host, address.port)
            sock = transport.get_extra_info("socket")
            if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
                tune(sock)
            made = await opened
            return made
    except RainConnectionError:
        raise
    except OSError as error:  # TimeoutError is one
        raise cannot_connect(address, error, timeout) from error
    finally:
        if made is None and transport is not None:  # failed, or cancelled, be it this very moment
            transport.abort()
            if opened.done() and not opened.cancelled():
                opened.exception()  # seen
        opened.cancel()
