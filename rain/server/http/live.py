"""The WebSocket that says when there is something new."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tornado.websocket import WebSocketClosedError, WebSocketHandler

from rain.server.http.handler import BaseHandler

if TYPE_CHECKING:
    import asyncio

PING_SECONDS = 20.0
MOST = 100
"""WebSockets at the same time."""
LONGEST_MESSAGE = 1024

_GOING_AWAY, _TRY_AGAIN_LATER = 1001, 1013


class LiveSockets:
    """The open ones."""

    def __init__(self) -> None:
        self._open: set[LiveHandler] = set()

    def add(self, socket: LiveHandler) -> bool:
        """One opened; False if there are too many."""
        if len(self._open) >= MOST:
            return False
        self._open.add(socket)
        return True

    def discard(self, socket: LiveHandler) -> None:
        """One closed."""
        self._open.discard(socket)

    def tell(self, last_event: int) -> None:
        """Push the id of the newest event to those who take it: a slow one is ended by the next ping."""
        for socket in list(self._open):
            if not socket.stream.writing():
                socket.push(last_event)

    def close(self) -> None:
        """End them."""
        for socket in list(self._open):
            socket.close(_GOING_AWAY, "the server ends")


class LiveHandler(BaseHandler, WebSocketHandler):
    """Pushes the id of the newest event."""

    def check_origin(self, origin: str) -> bool:
        """`prepare` has checked it."""
        return True

    async def open(self, *_: Any) -> None:
        """It begins."""
        if self.site.live.add(self):
            self.site.log.watch(self)
            if self.site.log.last_id:
                self.push(self.site.log.last_id)
        else:
            self.close(_TRY_AGAIN_LATER, "too many connections")

    def push(self, last_event: int) -> None:
        """Tell the page; that the connection has ended meanwhile is told by `on_close`."""
        with suppress(WebSocketClosedError):
            self.write_message({"last_event": last_event}).add_done_callback(_seen)

    def on_message(self, message: str | bytes) -> None:
        """The page has nothing to say."""

    def on_close(self) -> None:
        """It ended."""
        self.site.live.discard(self)
        self.site.log.unwatch(self)


def _seen(written: asyncio.Future[None]) -> None:
    if not written.cancelled():
        written.exception()
