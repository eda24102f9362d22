"""Clients on a virtual loop, with real clusters, nodes and connections; their servers are scripts in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from rain.memcache.addresses import MemcachedHostAddress
from rain.memcache.client import MemcachedClient
from rain.memcache.cluster import Cluster
from rain.memcache.node import Node
from rain.memcache.options import Options
from rain.memcache.testing.answers import success
from tests.memcache.virtual import Network, Script, Wire, turns

PROBE = [b"version\r\n", b"mn\r\n", b"get rain:probe\r\n"]


def address(number: int) -> MemcachedHostAddress:
    """Address of a scripted node."""
    return MemcachedHostAddress("cache", 11211 + number)


class Rig:
    """A client and the networks of its nodes.

    Attributes:
        client: the client, all of whose nodes have a connection.
        networks: one for each node.
    """

    def __init__(self, scripts: list[Script], options: dict[str, Any]) -> None:
        self.networks = [Network(script) for script in scripts]
        by_address = {address(number): network for number, network in enumerate(self.networks)}

        def make_node(where: Any, options: Options, *, on_health: Callable[[Node], None]) -> Node:
            return Node(where, options, on_health=on_health, connect=by_address[where].connect)

        self.client = MemcachedClient(
            list(by_address), Options(**options), cluster_factory=partial(Cluster, node_factory=make_node)
        )

    @property
    def wires(self) -> list[Wire]:
        """Of the first node."""
        return self.networks[0].wires

    def asked(self, number: int = 0) -> list[bytes]:
        """What a node was asked on all its connections, the probe apart."""
        return [each for wire in self.networks[number].wires for each in wire.requests if each not in PROBE]

    def forget(self) -> None:
        """Begin a new record of what was asked."""
        for network in self.networks:
            for wire in network.wires:
                wire.requests.clear()
                wire.chunks.clear()

    def silence(self) -> None:
        """No server answers any more on the connections that are open."""
        for network in self.networks:
            for wire in network.wires:
                wire.script = lambda request: None

    def node_of(self, key: bytes) -> int:
        """Number of the node that has a key."""
        where = self.client._cluster.node_for(key).address
        return next(number for number in range(len(self.networks)) if address(number) == where)


@asynccontextmanager
async def rig(*scripts: Script, **options: Any) -> AsyncIterator[Rig]:
    """A rig of one node for each script, or of one where all goes well; to be used under `virtually`."""
    made = Rig(list(scripts) or [success], options)
    await made.client.open()
    await turns()
    made.forget()
    try:
        yield made
    finally:
        await made.client.close()


def classic(script: Script) -> Script:
    """The same server without meta commands."""
    return lambda request: b"ERROR\r\n" if request[:3] in (b"mn\r", b"mg ", b"md ") else script(request)


async def cancelled(task: asyncio.Task[Any]) -> bool:
    """Cancel a task and tell whether it was."""
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


Operation = Callable[[MemcachedClient, bytes], Coroutine[Any, Any, Any]]

FETCHES: dict[str, Operation] = {
    "get": lambda client, key: client.get(key),
    "gets": lambda client, key: client.gets(key),
    "gat": lambda client, key: client.gat(0, key),
    "gats": lambda client, key: client.gats(0, key),
    "get_many": lambda client, key: client.get_many([key]),
    "gets_many": lambda client, key: client.gets_many([key]),
    "gat_many": lambda client, key: client.gat_many(0, [key]),
    "gats_many": lambda client, key: client.gats_many(0, [key]),
}

WRITES: dict[str, Callable[..., Coroutine[Any, Any, Any]]] = {
    "set": lambda client, key, **more: client.set(key, b"value", **more),
    "add": lambda client, key, **more: client.add(key, b"value", **more),
    "replace": lambda client, key, **more: client.replace(key, b"value", **more),
    "append": lambda client, key, **more: client.append(key, b"value", **more),
    "prepend": lambda client, key, **more: client.prepend(key, b"value", **more),
    "cas": lambda client, key, **more: client.cas(key, b"value", 7, **more),
    "increment": lambda client, key, **more: client.increment(key, 1, **more),
    "decrement": lambda client, key, **more: client.decrement(key, 1, **more),
    "touch": lambda client, key, **more: client.touch(key, 1, **more),
    "delete": lambda client, key, **more: client.delete(key, **more),
    "set_many": lambda client, key, **more: client.set_many({key: b"value"}, **more),
    "delete_many": lambda client, key, **more: client.delete_many([key], **more),
    "touch_many": lambda client, key, **more: client.touch_many([key], 1, **more),
}

LEASED: dict[str, Operation] = {
    "get_lease": lambda client, key: client.get_lease(key),
    "get_or_set": lambda client, key: client.get_or_set(key, lambda: b"made"),
}

WITH_KEY: dict[str, Operation] = {**FETCHES, **WRITES, **LEASED}

OF_NODES: dict[str, Callable[..., Coroutine[Any, Any, Any]]] = {
    "flush_all": lambda client, where, **more: client.flush_all(where, **more),
    "version": lambda client, where: client.version(where),
    "stats": lambda client, where: client.stats(where),
    "cache_memlimit": lambda client, where, **more: client.cache_memlimit(where, 64, **more),
    "verbosity": lambda client, where, **more: client.verbosity(where, 1, **more),
}
