"""Values the server hands out on data connections: its own, and for who cannot reach a worker those of workers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from rain.net.dataclient import DataClient, DataUnavailable
from rain.protocol.data import NOT_HERE, OK, Piece
from rain.server.constants import read_piece
from rain.server.core.events import CopyUnreadable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rain.server.constants import ConstantStore
    from rain.server.core.core import ServerCore

KEEP_SECONDS = 10.0
"""How long a relayed value is kept after its last read."""


class ServerValues:
    """The data source of the server's port.

    Args:
        core: knows small values and who holds the others.
        constants: large constants.
        directory: for values on their way from a worker to a client.
        client: reads from workers.
        unreadable: told when a worker's copy cannot be read.
    """

    def __init__(
        self,
        core: ServerCore,
        constants: ConstantStore,
        directory: Path,
        client: DataClient,
        unreadable: Callable[[CopyUnreadable], None],
    ) -> None:
        self._core = core
        self._constants = constants
        self._directory = directory
        self._client = client
        self._unreadable = unreadable
        self._relayed: dict[tuple[int, int], asyncio.Future[Path | None]] = {}
        self._expiry: dict[tuple[int, int], asyncio.TimerHandle] = {}

    async def read(self, session: int, object_id: int, offset: int, length: int) -> Piece:
        """(status, flags, total size, bytes from `offset`); length 0 = the whole rest."""
        value = self._core.value(session, object_id)
        if value is not None:
            return OK, 0, len(value), value[offset : offset + length if length else None]
        piece = self._constants.read(session, object_id, offset, length)
        if piece is not None:
            return OK, 0, piece[0], piece[1]
        path = await self._relay(session, object_id)
        if path is None:
            return NOT_HERE, 0, 0, b""
        return OK, 0, *read_piece(path, offset, length)

    async def _relay(self, session: int, object_id: int) -> Path | None:
        """A file with the value, fetched once for all who ask."""
        key = (session, object_id)
        loop = asyncio.get_running_loop()
        fetching = self._relayed.get(key)
        if fetching is None:
            fetching = self._relayed[key] = asyncio.ensure_future(self._fetch(session, object_id))
        try:
            path = await asyncio.shield(fetching)
        except OSError:  # e.g. the disk is full; who asks next tries anew
            self._relayed.pop(key, None)
            raise
        if key in self._expiry:
            self._expiry[key].cancel()
        self._expiry[key] = loop.call_later(KEEP_SECONDS if path else 0.0, self._forget, key)
        return path

    async def _fetch(self, session: int, object_id: int) -> Path | None:
        self._directory.mkdir(exist_ok=True, mode=0o700)
        path = self._directory / f"{session}-{object_id}"
        for incarnation, address in self._core.holders(session, object_id):
            try:
                await asyncio.to_thread(self._client.fetch_file, address, session, object_id, path)
            except DataUnavailable:
                self._unreadable(CopyUnreadable(session, object_id, incarnation))
            else:
                return path
        return None

    def _forget(self, key: tuple[int, int]) -> None:
        self._expiry.pop(key, None)
        self._relayed.pop(key, None)
        with contextlib.suppress(FileNotFoundError):
            (self._directory / f"{key[0]}-{key[1]}").unlink()
