"""Autobatching: fetches of one turn of the loop travel as commands with many keys."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from rain.memcache import outcomes, requests
from rain.memcache.base import Item
from rain.memcache.exchanges import duplicate

if TYPE_CHECKING:
    from rain.memcache.cluster import Cluster
    from rain.memcache.node import Node
    from rain.memcache.replies import Reply
    from rain.memcache.requests import Request


class Fetched:
    """What a batch gives to one caller: the item, and where and until when the rest of the operation may ask."""

    __slots__ = ("deadline", "item", "node")

    def __init__(self, node: Node, deadline: float | None, item: Item | None) -> None:
        self.node = node
        self.deadline = deadline
        self.item = item


class _Asked:
    """A key of one turn, those who asked for it, and the command in which it travels; None until it is sent."""

    __slots__ = ("callers", "command")

    def __init__(self) -> None:
        self.callers: list[asyncio.Future[Fetched]] = []
        self.command: _Command | None = None

    def is_deserted(self) -> bool:
        return all(caller.done() for caller in self.callers)

    def fail(self, error: Exception) -> None:
        for caller in self.callers:
            if not caller.done():
                caller.set_exception(duplicate(error))


class _Command:
    """A request and the keys in it."""

    __slots__ = ("asked", "request")

    def __init__(self, request: Request, asked: dict[bytes, _Asked]) -> None:
        self.request = request
        self.asked = asked


class Batcher:
    """Collects the keys of one turn for one command; the end of the turn sends them.

    Args:
        cluster: the nodes.
        command: `get_many` or `gets_many`.
        return_flags: whether items have flags.
        max_keys: most keys of one command.
        timeout: seconds from the sending until callers are told that there was no answer.
    """

    def __init__(
        self, cluster: Cluster, command: str, return_flags: bool, max_keys: int, timeout: float | None
    ) -> None:
        self._cluster = cluster
        self._command = command
        self._return_flags = return_flags
        self._max_keys = max_keys
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._queued: dict[bytes, _Asked] = {}
        self._closed = False

    async def fetch(self, key: bytes) -> Fetched:
        """What the node of the key answers; each caller gets an object and an item of its own.

        Raises:
            Exception: whatever went wrong with the command in which the key travelled; an object of its own, too.
        """
        if not self._queued:
            self._loop.call_soon(self._send)
        asked = self._queued.get(key)
        if asked is None:
            asked = self._queued[key] = _Asked()
        caller: asyncio.Future[Fetched] = self._loop.create_future()
        asked.callers.append(caller)
        try:
            return await caller
        except asyncio.CancelledError:
            command = asked.command
            if command is not None and all(each.is_deserted() for each in command.asked.values()):
                command.request.waiter.cancel()
            raise

    def close(self) -> None:
        """Fail those whose keys were not sent yet; the others learn it from their node."""
        self._closed = True

    def _send(self) -> None:
        queued, self._queued = self._queued, {}
        try:
            if self._closed:
                raise RuntimeError("client is closed")
            groups = self._cluster.group([key for key, asked in queued.items() if not asked.is_deserted()])
        except Exception as error:
            for asked in queued.values():
                asked.fail(error)
            return
        for node, group in groups.items():
            for part in node.parts(group):
                for start in range(0, len(part), self._max_keys):
                    self._send_command(node, {key: queued[key] for key in part[start : start + self._max_keys]})

    def _send_command(self, node: Node, asked: dict[bytes, _Asked]) -> None:
        request = requests.fetch_many(self._command, tuple(asked), self._return_flags)
        if self._timeout is not None:
            request.deadline = self._loop.time() + self._timeout
        command = _Command(request, asked)
        for each in asked.values():
            each.command = command
        node.submit(request).add_done_callback(partial(self._answered, node, command))

    def _answered(self, node: Node, command: _Command, future: asyncio.Future[Reply]) -> None:
        request = command.request
        if future.cancelled():
            node.abandon(request)
            return
        try:
            items = outcomes.judge(request, future.result(), node.address)
        except Exception as error:
            for asked in command.asked.values():
                asked.fail(error)
            return
        for key, asked in command.asked.items():
            item = items.get(key)
            for caller in asked.callers:
                if not caller.done():
                    own = None if item is None else Item(item.value, item.flags, item.cas)
                    caller.set_result(Fetched(node, request.deadline, own))
