"""The concrete client: one-key and administration operations; the rest goes to many, batching, leases and flights."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any, Final

from rain.memcache import outcomes, requests
from rain.memcache.base import Client, Item
from rain.memcache.batching import Batcher
from rain.memcache.chunking import Chunking
from rain.memcache.cluster import Cluster
from rain.memcache.flights import Flights, Wish
from rain.memcache.leases import Leases
from rain.memcache.many import ManyKeys, drop_placeholders, give_win_back
from rain.memcache.replies import MISS
from rain.memcache.requests import Request
from rain.memcache.validation import (
    MAX_EXPTIME,
    MAX_FLAGS,
    check_cas,
    check_delta,
    check_exptime,
    check_flags,
    check_key,
    check_keys,
    check_lease,
    check_range,
    check_stale,
    check_stats_arguments,
    check_ttl,
    check_value,
    check_wait,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from _typeshed import ReadableBuffer as Buffer

    from rain.memcache.addresses import Address
    from rain.memcache.base import ClusterManagment, Lease
    from rain.memcache.node import Node
    from rain.memcache.options import Options

_ZERO: Final = 0
"""The object 0: arguments left at their default need no check."""

_CLOSING_LIMIT = 1.0
"""Seconds that `close` waits for cancelled factories."""


class MemcachedClient(Client):
    """A client of a cluster of nodes, to be made while its loop runs; `open` starts it.

    Args:
        addresses: of the nodes.
        options: checked.
        cluster_factory: makes the cluster; for tests.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        options: Options,
        *,
        cluster_factory: Callable[[Sequence[Address], Options], Cluster] = Cluster,
    ) -> None:
        self._closed = True  # until all is there: a client half made needs no closing
        timeout = options.timeout
        self._timeout = timeout
        self._time = asyncio.get_running_loop().time
        self._cluster = cluster_factory(addresses, options)
        self._chunking = Chunking(self._cluster, options.chunk_size) if options.chunking else None
        self._many = ManyKeys(self._cluster, self._chunking)
        self._leases = Leases(self._cluster, timeout, self._chunking)
        self._flights = Flights(self._cluster, self._leases)
        self._batchers: dict[tuple[str, bool], Batcher] = {}
        if options.autobatching:
            self._batchers = {
                (command, flags): Batcher(
                    self._cluster, f"{command}_many", flags, options.autobatching_max_keys, timeout
                )
                for command in ("get", "gets")
                for flags in (False, True)
            }
        self._store_is_special = options.chunking
        self._get_is_special = options.chunking or options.autobatching
        self._closed = False

    async def open(self) -> None:
        """Start the nodes; with autodiscovery wait for the first list of them."""
        await self._cluster.open()

    def __repr__(self) -> str:
        nodes = ", ".join(str(address) for address in self.cluster_managment().nodes())
        return f"<{type(self).__name__} of {nodes} closed={self._closed}>"

    def __del__(self) -> None:
        if not self._closed:
            warnings.warn(f"{self!r} was not closed; await its close()", ResourceWarning, source=self, stacklevel=1)

    @property
    def closed(self) -> bool:
        return self._closed

    async def close(self) -> None:
        self._closed = self._store_is_special = self._get_is_special = True
        for batcher in self._batchers.values():
            batcher.close()
        self._leases.close()
        tasks = self._flights.close()
        await self._cluster.close()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSING_LIMIT)

    def cluster_managment(self) -> ClusterManagment:
        return self._cluster.management

    # `get` and `set` are written out: a coroutine more would cost a tenth of each.

    async def get(self, key: bytes, return_flags: bool = False) -> Item | None:
        if self._get_is_special:
            return await self._fetch("get", key, return_flags)
        check_key(key)
        request = Request("get", key)  # a fifth faster than with all arguments
        if return_flags:
            request.return_flags = True
        node = self._cluster.node_for(key)
        shortcut = node.shortcut
        reply = None if shortcut is None else shortcut.ask(request)
        if reply is None:
            if request.deadline is None and self._timeout is not None:
                request.deadline = self._time() + self._timeout
            try:
                reply = await (request.waiter or node.submit(request))
            except asyncio.CancelledError:
                node.abandon(request)
                raise
        if reply.__class__ is Item:
            return reply
        if reply is MISS:
            return None
        give_win_back(node, request, reply)
        return outcomes.item(request, reply, node.address)

    async def gets(self, key: bytes, return_flags: bool = False) -> Item | None:
        return await self._fetch("gets", key, return_flags)

    async def gat(self, exptime: int, key: bytes, return_flags: bool = False) -> Item | None:
        return await self._fetch("gat", key, return_flags, exptime)

    async def gats(self, exptime: int, key: bytes, return_flags: bool = False) -> Item | None:
        return await self._fetch("gats", key, return_flags, exptime)

    async def _fetch(self, command: str, key: bytes, return_flags: bool, exptime: int = 0) -> Item | None:
        self._check_open()
        check_exptime(exptime)
        check_key(key)
        chunking = self._chunking
        ask_flags = bool(return_flags) or chunking is not None
        batcher = self._batchers.get((command, ask_flags))
        if batcher is not None:
            fetched = await batcher.fetch(key)
            item, deadline = fetched.item, fetched.deadline
            if item is not None and not item.value and not item.flags:
                items = {key: item}
                await drop_placeholders([(fetched.node, key)], items, deadline)
                item = items.get(key)
        else:
            node = self._cluster.node_for(key)
            request = requests.fetch(command, key, ask_flags, exptime)
            deadline = request.deadline = self._deadline()
            reply = await node.execute(request)
            give_win_back(node, request, reply)
            item = outcomes.item(request, reply, node.address)
        if chunking is not None and item is not None:
            item = await chunking.resolve(key, item, deadline, exptime if command in ("gat", "gats") else None)
            if item is not None and not return_flags:
                item.flags = None
        return item

    async def get_many(self, keys: Iterable[bytes], return_flags: bool = False) -> dict[bytes, Item]:
        return await self._fetch_many("get_many", keys, return_flags)

    async def gets_many(self, keys: Iterable[bytes], return_flags: bool = False) -> dict[bytes, Item]:
        return await self._fetch_many("gets_many", keys, return_flags)

    async def gat_many(self, exptime: int, keys: Iterable[bytes], return_flags: bool = False) -> dict[bytes, Item]:
        return await self._fetch_many("gat_many", keys, return_flags, exptime)

    async def gats_many(self, exptime: int, keys: Iterable[bytes], return_flags: bool = False) -> dict[bytes, Item]:
        return await self._fetch_many("gats_many", keys, return_flags, exptime)

    async def _fetch_many(
        self, command: str, keys: Iterable[bytes], return_flags: bool, exptime: int = 0
    ) -> dict[bytes, Item]:
        self._check_open()
        check_exptime(exptime)
        checked = check_keys(keys)
        if not checked:
            return {}
        return await self._many.fetch(command, checked, bool(return_flags), exptime, self._deadline())

    async def set(self, key: bytes, value: Buffer, *, flags: int = 0, exptime: int = 0, noreply: bool = False) -> None:
        if self._store_is_special:
            return await self._store("set", key, value, flags, exptime, noreply)
        if flags is not _ZERO:
            check_flags(flags)
        if exptime is not _ZERO:
            check_exptime(exptime)
        if value.__class__ is not bytes:
            value = check_value(value)
        check_key(key)
        request = Request("set", key, (), value, flags, exptime)
        if noreply:
            request.noreply = True
        node = self._cluster.node_for(key)
        shortcut = node.shortcut
        reply = None if shortcut is None else shortcut.ask(request)
        if reply is None:
            if request.deadline is None and self._timeout is not None:
                request.deadline = self._time() + self._timeout
            try:
                reply = await (request.waiter or node.submit(request))
            except asyncio.CancelledError:
                node.abandon(request)
                raise
        if reply != b"STORED" and reply is not None:
            outcomes.stored(request, reply, node.address)

    async def add(self, key: bytes, value: Buffer, *, flags: int = 0, exptime: int = 0, noreply: bool = False) -> None:
        await self._store("add", key, value, flags, exptime, noreply)

    async def replace(
        self, key: bytes, value: Buffer, *, flags: int = 0, exptime: int = 0, noreply: bool = False
    ) -> None:
        await self._store("replace", key, value, flags, exptime, noreply)

    async def append(self, key: bytes, value: Buffer, *, noreply: bool = False) -> None:
        await self._store("append", key, value, 0, 0, noreply)

    async def prepend(self, key: bytes, value: Buffer, *, noreply: bool = False) -> None:
        await self._store("prepend", key, value, 0, 0, noreply)

    async def cas(
        self, key: bytes, value: Buffer, cas: int, *, flags: int = 0, exptime: int = 0, noreply: bool = False
    ) -> None:
        await self._store("cas", key, value, flags, exptime, noreply, cas)

    async def _store(
        self, command: str, key: bytes, value: Buffer, flags: int, exptime: int, noreply: bool, token: int = 0
    ) -> None:
        self._check_open()
        check_cas(token)
        self._leases.check_flags(flags)
        check_exptime(exptime)
        data = check_value(value)
        check_key(key)
        request = requests.store(command, key, data, flags, exptime, token, noreply)
        if self._chunking is not None and self._chunking.is_large(request):
            request.deadline = self._deadline()
            await self._chunking.store(request)
        else:
            await self._ask(self._cluster.node_for(key), request)

    async def set_many(
        self, items: Mapping[bytes, Buffer], *, flags: int = 0, exptime: int = 0, noreply: bool = False
    ) -> dict[bytes, Exception]:
        self._check_open()
        self._leases.check_flags(flags)
        check_exptime(exptime)
        checked = {key: value if value.__class__ is bytes else check_value(value) for key, value in items.items()}
        check_keys(checked)
        if self._chunking is not None:
            for data in checked.values():
                self._chunking.check_length(len(data))
        if not checked:
            return {}
        return await self._many.store(checked, flags, exptime, noreply, self._deadline())

    async def delete_many(self, keys: Iterable[bytes], *, noreply: bool = False) -> dict[bytes, Exception]:
        self._check_open()
        checked = check_keys(keys)
        if not checked:
            return {}
        return await self._many.delete(checked, noreply, self._deadline())

    async def touch_many(self, keys: Iterable[bytes], exptime: int, *, noreply: bool = False) -> dict[bytes, Exception]:
        self._check_open()
        check_exptime(exptime)
        checked = check_keys(keys)
        if not checked:
            return {}
        return await self._many.touch(checked, exptime, noreply, self._deadline())

    async def increment(self, key: bytes, value: int, *, noreply: bool = False) -> int | None:
        return await self._count("increment", key, value, noreply)

    async def decrement(self, key: bytes, value: int, *, noreply: bool = False) -> int | None:
        return await self._count("decrement", key, value, noreply)

    async def _count(self, command: str, key: bytes, value: int, noreply: bool) -> int | None:
        self._check_open()
        check_delta(value)
        check_key(key)
        request = requests.arithmetic(command, key, value, noreply)
        number: int | None = await self._ask(self._cluster.node_for(key), request)
        return number

    async def touch(self, key: bytes, exptime: int, *, noreply: bool = False) -> None:
        self._check_open()
        check_exptime(exptime)
        check_key(key)
        if self._chunking is not None:
            await self._chunking.touch(key, exptime, self._deadline(), noreply=noreply)
        else:
            await self._ask(self._cluster.node_for(key), requests.touch(key, exptime, noreply))

    async def delete(self, key: bytes, *, noreply: bool = False) -> None:
        self._check_open()
        check_key(key)
        await self._ask(self._cluster.node_for(key), requests.delete(key, noreply))

    async def get_lease(self, key: bytes, *, lease: int = 30, stale: int = 0) -> Lease:
        self._check_open()
        check_lease(lease)
        check_stale(stale)
        check_key(key)
        return await self._leases.take(key, lease, stale)

    async def get_or_set(
        self,
        key: bytes,
        factory: Callable[[], Buffer | Awaitable[Buffer]],
        *,
        ttl: int = 0,
        flags: int = 0,
        lease: int = 30,
        stale: int = 0,
        wait: float | None = None,
    ) -> bytes:
        self._check_open()
        check_ttl(ttl)
        self._leases.check_flags(flags)
        check_lease(lease)
        check_stale(stale)
        check_wait(wait)
        if stale and not ttl:
            raise ValueError("stale needs a ttl: a value that never expires is never refreshed")
        check_key(key)
        return await self._flights.get_or_set(Wish(key, factory, ttl, flags, lease, stale, wait))

    async def flush_all(self, memcached_host_address: Address, delay: int = 0, *, noreply: bool = False) -> None:
        self._check_open()
        check_range("delay", delay, 0, MAX_EXPTIME)
        await self._ask(self._cluster.node_at(memcached_host_address), requests.flush_all(delay, noreply))

    async def version(self, memcached_host_address: Address) -> str | None:
        self._check_open()
        version: str = await self._ask(self._cluster.node_at(memcached_host_address), requests.version())
        return version

    async def stats(self, memcached_host_address: Address, *args: str) -> dict[str, str]:
        self._check_open()
        check_stats_arguments(args)
        figures: dict[str, str] = await self._ask(self._cluster.node_at(memcached_host_address), requests.stats(args))
        return figures

    async def cache_memlimit(self, memcached_host_address: Address, value: int, *, noreply: bool = False) -> None:
        self._check_open()
        check_range("value", value, 0, MAX_FLAGS)
        await self._ask(self._cluster.node_at(memcached_host_address), requests.cache_memlimit(value, noreply))

    async def verbosity(self, memcached_host_address: Address, level: int, *, noreply: bool = False) -> None:
        self._check_open()
        check_range("level", level, 0, MAX_FLAGS)
        await self._ask(self._cluster.node_at(memcached_host_address), requests.verbosity(level, noreply))

    async def quit(self, memcached_host_address: Address) -> None:
        self._check_open()
        await self._cluster.node_at(memcached_host_address).quit()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("client is closed")

    def _deadline(self) -> float | None:
        return None if self._timeout is None else self._time() + self._timeout

    async def _ask(self, node: Node, request: Request) -> Any:
        request.deadline = self._deadline()
        reply = await node.execute(request)
        return None if reply is None else outcomes.judge(request, reply, node.address)
