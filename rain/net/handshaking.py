"""The handshake on a transport of an event loop, for both sides."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from rain.common.errors import RainConnectionError
from rain.protocol.handshake import ClientHandshake, PeerHello, ServerHandshake
from rain.protocol.limits import HANDSHAKE_TIMEOUT, MAX_HANDSHAKE

if TYPE_CHECKING:
    from collections.abc import Callable


class HandshakeProtocol(asyncio.BufferedProtocol):
    """Runs a handshake in bounded time and hands the transport on.

    Args:
        handshake: the state machine.
        buffer: to read into.
        established: called with the transport, the peer's hello and leftover bytes; it sets the next protocol.
        failed: called with the transport and the reason; the transport is being closed.
        admit: called with the transport and this protocol at the beginning.
        timeout: seconds the handshake may take.

    Exactly one of `established` and `failed` is called.
    """

    def __init__(
        self,
        handshake: ClientHandshake | ServerHandshake,
        buffer: bytearray,
        established: Callable[[asyncio.Transport, PeerHello, bytes], None],
        failed: Callable[[asyncio.Transport, Exception], None],
        *,
        admit: Callable[[asyncio.Transport, HandshakeProtocol], None] | None = None,
        timeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        self._handshake = handshake
        self._buffer = memoryview(buffer)[:MAX_HANDSHAKE]
        self._established = established
        self._failed = failed
        self._admit = admit
        self._timeout = timeout
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._finished = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the connecting side speaks first."""
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(self._timeout, self._too_slow)
        if self._admit is not None:
            self._admit(self._transport, self)
        if isinstance(self._handshake, ClientHandshake):
            self._transport.write(self._handshake.start())

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport is to read into."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """The transport has read."""
        transport, handshake = self._transport, self._handshake
        if self._finished or transport is None:
            return
        output = handshake.feed(self._buffer[:nbytes])
        if output:
            transport.write(output)
        if handshake.error is not None:
            self._fail(handshake.error)
        elif handshake.done:
            assert handshake.peer is not None
            self._finish()
            self._established(transport, handshake.peer, handshake.leftover)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        if not self._finished:
            reason = "" if exc is None else f": {exc}"
            self._fail(RainConnectionError(f"the connection was closed during the handshake{reason}"))

    def give_up(self, reason: str) -> None:
        """End the handshake and the connection."""
        self._fail(RainConnectionError(reason))
        if self._transport is not None:
            self._transport.abort()

    def _too_slow(self) -> None:
        self.give_up(f"the handshake took more than {self._timeout:g} s")

    def _fail(self, error: Exception) -> None:
        if self._finished or self._transport is None:
            return
        self._finish()
        self._transport.close()
        self._failed(self._transport, error)

    def _finish(self) -> None:
        self._finished = True
        if self._timer is not None:
            self._timer.cancel()
