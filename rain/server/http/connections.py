"""The open connections of the HTTP port: how many there may be, and whose they are."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from rain.server.http.peers import parse_ip, peer_uid

if TYPE_CHECKING:
    from tornado.iostream import IOStream

MOST = 200
"""Connections at the same time."""


class Connection:
    """One of them.

    Attributes:
        peer, local: IP address and port of both ends.
        is_admitted: a request of it was served.
        requests: number of requests so far.
    """

    def __init__(self, peer: tuple[str, int], local: tuple[str, int]) -> None:
        self.peer = peer
        self.local = local
        self.is_admitted = False
        self.requests = 0
        self._is_local_user: bool | None = None

    async def is_local_user(self) -> bool:
        """Whether a process of our user, or root, on this machine opened it. The table is read outside the loop: it
        may be long."""
        if self._is_local_user is None:
            self._is_local_user = parse_ip(self.peer[0]).is_loopback and await asyncio.to_thread(self._look)
        return self._is_local_user

    def _look(self) -> bool:
        return peer_uid(self.peer, self.local) in (os.geteuid(), 0)


class Connections:
    """All of them. When there are too many the oldest one ends of which nothing was served: others cannot keep those
    out who may come in.

    Args:
        most: so many.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._open: dict[IOStream, Connection] = {}

    def __len__(self) -> int:
        return len(self._open)

    def get(self, stream: IOStream) -> Connection | None:
        """One of them; None if it ended."""
        return self._open.get(stream)

    def opened(self, stream: IOStream) -> bool:
        """A connection was accepted; False if there is no room for it, or it has ended."""
        try:
            peer, local = stream.socket.getpeername()[:2], stream.socket.getsockname()[:2]
        except OSError:
            return False
        if len(self._open) >= self._most:
            oldest = next((stream for stream, other in self._open.items() if not other.is_admitted), None)
            if oldest is None:
                return False
            del self._open[oldest]
            oldest.close()
        self._open[stream] = Connection(peer, local)
        return True

    def closed(self, stream: IOStream) -> None:
        """It ended."""
        self._open.pop(stream, None)

    def close_all(self) -> None:
        """End them."""
        for stream in list(self._open):
            stream.close()
