"""Where a coroutine waits for answers that somebody listens for."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any


class LoopMailbox:
    """See `rain.client.front.Mailbox`; made in the loop in which it is read."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, item: Any) -> None:
        """From any thread; never waits."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    async def next(self, timeout: float | None) -> Any:
        """The next item.

        Raises:
            TimeoutError: none came in `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            return await self._items.get()
