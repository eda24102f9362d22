"""Listening for channels and data connections in an event loop."""

from __future__ import annotations

import asyncio
import errno
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from rain.net.address import Address
from rain.net.channel import READ_BUFFER, Channel, ChannelHandler, TcpChannel
from rain.net.handshaking import HandshakeProtocol
from rain.net.serving import DataServing
from rain.net.sockets import (
    BACKLOG,
    as_address,
    bind_listening,
    cannot_listen,
    format_name,
    listening_secret,
    server_handshake,
    tune,
)
from rain.protocol.limits import HANDSHAKE_TIMEOUT, MAX_UNPROVEN

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection

    from rain.protocol.data import LoopDataSource
    from rain.protocol.handshake import PeerHello, Role, Secret

_log = logging.getLogger("rain.net")

_BIND_INTERVAL = 0.1


class Listener:
    """What `listen` returns.

    Attributes:
        address: where it listens, with the actual port.
    """

    def __init__(
        self,
        host: str,
        secret: Secret,
        accept: Callable[[Channel, PeerHello], ChannelHandler],
        roles: Collection[Role],
        data_source: LoopDataSource | None,
        handshake_timeout: float,
    ) -> None:
        self.address = Address(host, 0)
        self._secret = secret
        self._accept = accept
        self._roles = roles
        self._data_source = data_source
        self._handshake_timeout = handshake_timeout
        self._buffer = bytearray(READ_BUFFER)
        self._unproven: dict[asyncio.Transport, HandshakeProtocol] = {}  # oldest first
        self._serving: set[DataServing] = set()
        self._server: asyncio.Server | None = None

    async def start(self, sock: socket.socket) -> None:
        """Begin to accept."""
        self.address = Address(self.address.host, sock.getsockname()[1])
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._new_connection, sock=sock, backlog=BACKLOG)

    def close(self) -> None:
        """Listen no more, end handshakes and data connections; channels stay."""
        if self._server is not None:
            self._server.close()
        for transport in list(self._unproven):
            transport.abort()
        for serving in self._serving:
            serving.abort()

    def _new_connection(self) -> HandshakeProtocol:
        return HandshakeProtocol(
            server_handshake(self._secret, self._roles),
            self._buffer,
            self._established,
            self._refused,
            admit=self._admit,
            timeout=self._handshake_timeout,
        )

    def _admit(self, transport: asyncio.Transport, handshake: HandshakeProtocol) -> None:
        tune(transport.get_extra_info("socket"))
        self._unproven[transport] = handshake
        if len(self._unproven) > MAX_UNPROVEN:
            # An honest peer needs milliseconds: it gets through while others hold connections open in silence.
            oldest = next(iter(self._unproven.values()))
            oldest.give_up(f"{MAX_UNPROVEN} newer connections have not finished their handshake either")

    def _refused(self, transport: asyncio.Transport, error: Exception) -> None:
        self._unproven.pop(transport, None)
        if self._server is not None and self._server.is_serving():
            _log_refusal(transport, str(error))

    def _established(self, transport: asyncio.Transport, peer: PeerHello, leftover: bytes) -> None:
        self._unproven.pop(transport, None)
        if peer.role == "data":
            assert self._data_source is not None
            serving = DataServing(transport, self._data_source, self._serving)
            transport.set_protocol(serving)
            serving.take(leftover)
            return
        channel = TcpChannel(transport, self._buffer)
        transport.set_protocol(channel)
        try:
            handler = self._accept(channel, replace(peer, local=channel.local))
        except Exception:
            _log.exception("%s: closed: the connection could not be accepted", channel.peer)
            channel.abort()
            return
        channel.start(handler, leftover)


async def listen(
    address: Address | str,
    secret: Secret,
    accept: Callable[[Channel, PeerHello], ChannelHandler],
    *,
    roles: Collection[Role],
    insecure: bool = False,
    bind_retry: float = 0.0,
    data_source: LoopDataSource | None = None,
    handshake_timeout: float = HANDSHAKE_TIMEOUT,
    sock: socket.socket | None = None,
) -> Listener:
    """Accept connections.

    Args:
        address: to listen on; port 0 takes a free one.
        secret: what the other side must know.
        accept: called with each channel after its handshake; returns its handler.
        roles: which channels are served, of `client` and `worker`.
        insecure: demand no secret; the only way to listen without one.
        bind_retry: for how many seconds a port that is taken is tried again.
        data_source: serves data connections on the same port; None: there are none.
        handshake_timeout: seconds.
        sock: listens on that address already; None: it is bound.

    Raises:
        AuthenticationError: there is no secret and `insecure` is not set.
        RainException: the address cannot be bound.
    """
    address = as_address(address)
    demanded = listening_secret(address, secret, insecure)
    if sock is None:
        sock = await bind(address, bind_retry)
    served: set[Role] = {*roles, "data"} if data_source is not None else {*roles} - {"data"}
    listener = Listener(address.host, demanded, accept, served, data_source, handshake_timeout)
    try:
        await listener.start(sock)
    except BaseException:
        sock.close()
        raise
    return listener


async def bind(address: Address, retry: float) -> socket.socket:
    """A listening socket; a port that is taken is tried again for `retry` seconds.

    Raises:
        RainException: the address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + retry
    while True:
        try:
            return bind_listening(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or loop.time() >= deadline:
                raise cannot_listen(address, error) from error
        await asyncio.sleep(_BIND_INTERVAL)


def _log_refusal(transport: asyncio.Transport, reason: str) -> None:
    _log.warning("refused connection from %s: %s", format_name(transport.get_extra_info("peername")), reason)
