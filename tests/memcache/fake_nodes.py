"""Nodes without connections, for tests of the layers above them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from rain.memcache.addresses import Address, MemcachedHostAddress
from rain.memcache.base import ConnectionPoolMetrics
from rain.memcache.options import Options
from rain.memcache.requests import Request


def host(number: int) -> MemcachedHostAddress:
    """Address of the node with this number."""
    return MemcachedHostAddress("cache", 11210 + number)


class FakeNode:
    """Remembers what is done to it; requests wait until a test answers them."""

    def __init__(self, address: Address, options: Options, *, on_health: Callable[[Any], None]) -> None:
        self.address = address
        self.options = options
        self.on_health = on_health
        self.healthy = True
        self.started = self.closed = self.drained = False
        self.requests: list[Request] = []
        self.script: list[Any] = []
        self.move: Callable[[Request], None] | None = None

    def __repr__(self) -> str:
        return f"<FakeNode {self.address}>"

    def flip(self) -> None:
        self.healthy = not self.healthy
        self.on_health(self)

    def start(self) -> None:
        assert not self.started
        self.started = True

    def submit(self, request: Request) -> asyncio.Future[Any]:
        request.waiter = asyncio.get_running_loop().create_future()
        self.resubmit(request)
        waiter: asyncio.Future[Any] = request.waiter
        return waiter

    def resubmit(self, request: Request) -> None:
        self.requests.append(request)
        if self.script:
            play(request, self.script.pop(0))

    async def execute(self, request: Request) -> Any:
        if self.closed:
            raise RuntimeError("client is closed")
        return await self.submit(request)

    def metrics(self) -> ConnectionPoolMetrics:
        return ConnectionPoolMetrics(len(self.requests), 0, 0, 0, 0, 0, 0, 0, None, None, None, None)

    def drain(self, move: Callable[[Request], None]) -> None:
        self.closed = True
        moved, self.requests = self.requests, []
        for request in moved:
            move(request)

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.closed = self.drained = True
        for request in self.requests:
            if not request.waiter.done():
                request.waiter.set_exception(RuntimeError("client is closed"))


def play(request: Request, outcome: Any) -> None:
    """End a request with a reply or an exception."""
    if isinstance(outcome, Exception):
        request.waiter.set_exception(outcome)
    else:
        request.waiter.set_result(outcome)


class Nodes(dict[Address, FakeNode]):
    """A factory of fake nodes that remembers the last one of each address, and all of them in `made`."""

    def __init__(self) -> None:
        self.made: list[FakeNode] = []

    def __call__(self, address: Address, options: Options, *, on_health: Callable[[Any], None]) -> Any:
        node = FakeNode(address, options, on_health=on_health)
        self.made.append(node)
        self[address] = node
        return node
