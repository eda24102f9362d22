"""A connection between two parts of one process that share an event loop: no socket, no bytes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rain.net.channel import ChannelHandler
    from rain.protocol.messages import Message

_log = logging.getLogger("rain.net")

_CLOSED_HERE, _CLOSED_THERE = "closed by this side", "closed by the other side"


class PairedChannel:
    """A Channel (`rain.net.channel`) to another part of this process. Messages are handed over as they are, so neither
    side may change what it has sent or received. They arrive while `send` runs, which saves a turn of the loop; only
    what is sent while one of the sides handles what has arrived comes in the next turn.

    Args:
        local, peer: what both sides are called, `IP:PORT`.
    """

    def __init__(self, local: str, peer: str) -> None:
        self.local = local
        self.peer = peer
        self._loop = asyncio.get_running_loop()
        self._handler: ChannelHandler | None = None
        self._other: PairedChannel | None = None
        self._arrived: list[Message] = []
        self._end: str | None = None  # why nothing arrives any more after what has
        self._handling = False

    def start(self, handler: ChannelHandler) -> None:
        """Report to this handler from now on, first what has arrived."""
        self._handler = handler
        if self._arrived or self._end is not None:
            self._loop.call_soon(self._take)

    def send(self, message: Message) -> None:
        """Send a message."""
        self.send_all([message])

    def send_all(self, messages: list[Message]) -> None:
        """Send messages."""
        other = self._other
        if other is None or not messages:
            return
        planned = bool(other._arrived)
        other._arrived += messages
        if planned or other._handler is None:
            return
        if self._handling or other._handling:
            self._loop.call_soon(other._take)
        else:
            other._take()

    def close(self) -> None:
        """Close after what was sent; what has arrived and was not reported yet is lost."""
        other, self._other = self._other, None
        if other is not None:
            other._other = None
            other._finish(_CLOSED_THERE)
            self._arrived.clear()
            self._finish(_CLOSED_HERE)

    abort = close

    def _finish(self, reason: str) -> None:
        self._end = reason
        if self._handler is not None and not self._arrived:
            self._loop.call_soon(self._take)

    def _take(self) -> None:
        """Report what has arrived, and the end."""
        messages, self._arrived = self._arrived, []
        handler = self._handler
        if handler is None:
            return
        if messages:
            self._handling = True
            try:
                handler.messages_received(self, messages)
            except Exception:
                _log.exception("%s: closed: the handler failed", self.peer)
                self.close()
            finally:
                self._handling = False
        if self._end is not None:
            self._handler = None
            try:
                handler.channel_closed(self, self._end)
            except Exception:
                _log.exception("%s: the handler failed at the end of the connection", self.peer)


def pair(one: str, other: str) -> tuple[PairedChannel, PairedChannel]:
    """The two ends of a new connection.

    Args:
        one, other: what the sides are called, `IP:PORT`.
    """
    ends = PairedChannel(one, other), PairedChannel(other, one)
    ends[0]._other, ends[1]._other = ends[1], ends[0]
    return ends
