"""Leases: on a miss, one caller of all clients gets the right to produce the value."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING

from rain.memcache import outcomes, requests
from rain.memcache.base import Item, Lease
from rain.memcache.client_errors import (
    ClusterNoAvailableNodes,
    NotStoredStorageCommandError,
    StorageCommandError,
)
from rain.memcache.exchanges import accept, send_and_forget
from rain.memcache.replies import UNSUPPORTED, MetaItem
from rain.memcache.validation import check_exptime, check_flags, check_value

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

    from rain.memcache.chunking import Chunking
    from rain.memcache.cluster import Cluster
    from rain.memcache.node import Node
    from rain.memcache.replies import Reply
    from rain.memcache.requests import Request

_LOCK = b"rain:lease:"


class Leases:
    """Takes leases and stores what was produced for them.

    Args:
        cluster: the nodes.
        timeout: seconds for each operation, or None.
        chunking: stores large values in parts, or None.
    """

    def __init__(self, cluster: Cluster, timeout: float | None, chunking: Chunking | None) -> None:
        self._cluster = cluster
        self._timeout = timeout
        self._chunking = chunking
        self._time = asyncio.get_running_loop().time
        self._closed = False

    def close(self) -> None:
        """Refuse further operations, also those of leases that users hold."""
        self._closed = True

    def check_open(self) -> None:
        """Raise `RuntimeError` when the client is closed."""
        if self._closed:
            raise RuntimeError("client is closed")

    def check_flags(self, flags: int) -> None:
        """Raise unless these can be the flags of a value."""
        check_flags(flags)
        if self._chunking is not None:
            self._chunking.check_flags(flags)

    async def take(self, key: bytes, seconds: int, stale: int) -> TakenLease:
        """Ask for the item of a key, and for the lease if it is missing or in its last `stale` seconds."""
        deadline = self._deadline()
        while True:
            node = self._cluster.node_for(key)
            request = requests.lease(key, seconds, stale)
            request.deadline = deadline
            request.on_late = partial(_release_late, node)
            reply = await node.execute(request)
            if reply is UNSUPPORTED:
                return await self._take_without_meta(key, seconds, deadline)
            found: MetaItem = outcomes.judge(request, reply, node.address)
            lease = MetaLease(self, key, found, runs_out=self._time() + seconds)
            if lease.item is None or self._chunking is None:
                return lease
            try:
                item = await self._chunking.resolve(key, lease.item, deadline)
                if item is not None:
                    lease.item = item
                    return lease
                await self.remove(key, lease.token, deadline)
            except BaseException:
                _release_late(node, request, reply)
                raise

    async def _take_without_meta(self, key: bytes, seconds: int, deadline: float | None) -> TakenLease:
        item = await self._fetch(key, deadline)
        if item is not None:
            return LockLease(self, key, item)
        lock = _LOCK + blake2b(key, digest_size=16).hexdigest().encode()
        node = self._cluster.node_for(lock)
        request = requests.store("add", lock, b"", 0, seconds)
        request.deadline = deadline
        request.on_late = partial(_unlock_late, node)
        try:
            accept(node, request, await node.execute(request))
        except NotStoredStorageCommandError:
            return LockLease(self, key, None, pending=True)
        lease = LockLease(self, key, None, lock=lock)
        try:
            lease.item = await self._fetch(key, deadline)
        except BaseException:
            lease.give_up()
            raise
        if lease.item is not None:
            lease.give_up()
            lease.won = False
        return lease

    async def _fetch(self, key: bytes, deadline: float | None) -> Item | None:
        node = self._cluster.node_for(key)
        request = requests.fetch("gets", key, True)
        request.deadline = deadline
        item = outcomes.item(request, await node.execute(request), node.address)
        if item is None or self._chunking is None:
            return item
        return await self._chunking.resolve(key, item, deadline)

    async def store(
        self, command: str, key: bytes, value: bytes | memoryview, flags: int, exptime: int, token: int = 0
    ) -> None:
        """Store a value by `set`, `add` or `cas`; raises as these do."""
        request = requests.store(command, key, value, flags, exptime, token)
        request.deadline = self._deadline()
        if self._chunking is not None and self._chunking.is_large(request):
            await self._chunking.store(request)
        else:
            node = self._cluster.node_for(key)
            accept(node, request, await node.execute(request))

    async def remove(self, key: bytes, token: int, deadline: float | None = None) -> None:
        """Remove an item if it still has this version."""
        node = self._cluster.node_for(key)
        request = requests.meta_delete(key, token)
        request.deadline = self._deadline() if deadline is None else deadline
        outcomes.judge(request, await node.execute(request), node.address)

    async def unlock(self, lock: bytes) -> None:
        """Remove a lease key."""
        node = self._cluster.node_for(lock)
        request = requests.delete(lock, noreply=True)
        request.deadline = self._deadline()
        await node.execute(request)

    def forget(self, request: Request) -> None:
        """Send a request that gives something back, and do not wait for it."""
        request.own = True
        request.deadline = self._deadline()
        try:
            node = self._cluster.node_for(request.key)
        except ClusterNoAvailableNodes:
            return  # the lease runs out by itself
        send_and_forget(node, request)

    def time(self) -> float:
        """Now, in seconds of the loop."""
        return self._time()

    def _deadline(self) -> float | None:
        return None if self._timeout is None else self._time() + self._timeout


class TakenLease(Lease):
    """What the two kinds of leases have in common.

    Attributes:
        token: version of the placeholder or of the item; 0 where leases are keys of their own.
        can_refresh: such leases can be won while the item is there still.
    """

    token = 0
    can_refresh = False

    def __init__(self, leases: Leases, key: bytes, item: Item | None, *, won: bool, pending: bool) -> None:
        self.item = item
        self.won = won
        self.pending = pending
        self._leases = leases
        self._key = key
        self._held = won

    def __repr__(self) -> str:
        return f"<Lease of {self._key!r} item={self.item is not None} won={self.won} pending={self.pending}>"

    async def fulfil(self, value: Buffer, *, flags: int = 0, exptime: int = 0) -> bool:
        """See `Lease`; an argument error leaves the lease held."""
        self._leases.check_open()
        self._leases.check_flags(flags)
        check_exptime(exptime)
        data = check_value(value)
        if not self._held:
            raise RuntimeError("the lease was not won, or was fulfilled or released before")
        self._held = False
        try:
            return await self._fulfil(data, flags, exptime)
        except BaseException:
            self._give_up()
            raise

    async def release(self) -> None:
        """See `Lease`."""
        if not self._held:
            return
        self._held = False
        await self._release()

    def give_up(self) -> None:
        """Release without waiting for it."""
        if self._held:
            self._held = False
            self._give_up()

    @abstractmethod
    async def _fulfil(self, data: bytes | memoryview, flags: int, exptime: int) -> bool: ...

    @abstractmethod
    async def _release(self) -> None: ...

    @abstractmethod
    def _give_up(self) -> None: ...


class MetaLease(TakenLease):
    """A lease of the server: a placeholder, or the right to refresh an item that is about to expire."""

    can_refresh = True

    def __init__(self, leases: Leases, key: bytes, reply: MetaItem, *, runs_out: float) -> None:
        is_item = reply.code == "VA" and bool(reply.value or reply.stale or not (reply.won or reply.pending))
        item = Item(reply.value, reply.flags, reply.cas) if is_item else None
        super().__init__(leases, key, item, won=reply.won, pending=reply.pending)
        self.token = reply.cas or 0
        self._runs_out = runs_out

    async def _fulfil(self, data: bytes | memoryview, flags: int, exptime: int) -> bool:
        try:
            try:
                await self._leases.store("cas", self._key, data, flags, exptime, self.token)
            except NotStoredStorageCommandError:
                return False
            except StorageCommandError as error:
                if error.reply != "NOT_FOUND":
                    raise
                if self._leases.time() < self._runs_out:
                    return False
                await self._leases.store("add", self._key, data, flags, exptime)
        except NotStoredStorageCommandError:
            return False
        return True

    async def _release(self) -> None:
        if self.item is None:
            await self._leases.remove(self._key, self.token)

    def _give_up(self) -> None:
        if self.item is None:
            self._leases.forget(requests.meta_delete(self._key, self.token))


class LockLease(TakenLease):
    """A lease on nodes without meta commands: whoever could add a key of its own for it has won."""

    def __init__(
        self, leases: Leases, key: bytes, item: Item | None, *, pending: bool = False, lock: bytes = b""
    ) -> None:
        super().__init__(leases, key, item, won=bool(lock), pending=pending)
        self._lock = lock

    async def _fulfil(self, data: bytes | memoryview, flags: int, exptime: int) -> bool:
        await self._leases.store("set", self._key, data, flags, exptime)
        self._give_up()
        return True

    async def _release(self) -> None:
        await self._leases.unlock(self._lock)

    def _give_up(self) -> None:
        self._leases.forget(requests.delete(self._lock, noreply=True))


def _release_late(node: Node, request: Request, reply: Reply) -> None:
    """Nobody took a lease that was won: leave it to the next caller."""
    if not isinstance(reply, MetaItem) or not reply.won:
        return
    if reply.value or reply.stale:
        back = requests.meta_delete_invalid(request.key)
    else:
        back = requests.meta_delete(request.key, reply.cas or 0)
    back.own = True
    send_and_forget(node, back)


def _unlock_late(node: Node, request: Request, reply: Reply) -> None:
    if reply == b"STORED":
        unlock = requests.delete(request.key, noreply=True)
        unlock.own = True
        send_and_forget(node, unlock)
