"""Tells a `ClusterEvents` what happens to the nodes: one hook at a time, in order."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from rain.memcache.addresses import Address
    from rain.memcache.base import ClusterEvents, ClusterManagment

    Hook: TypeAlias = Callable[[ClusterManagment, Address], Awaitable[None]]

logger = logging.getLogger(__name__)

MAX_QUEUED = 1000
CLOSING_TIME = 1.0
"""Seconds that a cancelled hook has to end."""

Event = Literal["healthy", "unhealthy", "added", "removed"]


class Dispatcher:
    """A queue of events and, while it is not empty, the task that calls the hooks."""

    def __init__(self, hooks: ClusterEvents | None, management: ClusterManagment) -> None:
        self._hooks = hooks
        self._management = management
        self._queue: deque[tuple[Event, Address]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def put(self, event: Event, address: Address) -> None:
        """Queue an event; dropped with a warning when the hooks are too slow."""
        if self._hooks is None or self._closed:
            return
        if len(self._queue) >= MAX_QUEUED:
            logger.warning(
                "event dropped: node %s is %s, but %d events wait for the hooks of cluster_events",
                address,
                event,
                MAX_QUEUED,
            )
            return
        self._queue.append((event, address))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._dispatch(self._hooks))

    async def _dispatch(self, hooks: ClusterEvents) -> None:
        try:
            while self._queue:
                event, address = self._queue.popleft()
                await self._call(getattr(hooks, f"on_node_{event}"), event, address)
        finally:
            self._task = None

    async def _call(self, hook: Hook, event: Event, address: Address) -> None:
        try:
            await hook(self._management, address)
        except (Exception, asyncio.CancelledError) as error:  # whatever a hook raises, the next events are for it, too
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            logger.exception("the hook on_node_%s of cluster_events failed for node %s", event, address)

    async def close(self) -> None:
        """Drop what is queued and cancel the hook that runs."""
        self._closed = True
        self._queue.clear()
        task = self._task
        if task is None or task is asyncio.current_task():
            return
        task.cancel()
        await asyncio.wait([task], timeout=CLOSING_TIME)
        if not task.done():
            logger.warning("a hook of cluster_events goes on although it was cancelled")
