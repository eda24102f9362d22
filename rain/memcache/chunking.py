"""Values stored in parts: storing, fetching and touching them."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from rain.memcache import manifest, outcomes, requests
from rain.memcache.base import Item
from rain.memcache.client_errors import ClusterNoAvailableNodes, NotFoundCommandError
from rain.memcache.exchanges import accept, run, send_and_forget
from rain.memcache.manifest import IDENTITY_SIZE, MANIFEST_FLAGS, Assembly, Cutting, Manifest
from rain.memcache.replies import UNSUPPORTED, MetaItem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rain.memcache.cluster import Cluster
    from rain.memcache.exchanges import Exchange
    from rain.memcache.node import Node
    from rain.memcache.replies import Reply
    from rain.memcache.requests import Request

logger = logging.getLogger(__name__)

_AHEAD = 4
"""Parts of one value that may be under way at any moment, so that other operations get in between."""

_STORED_IN_PARTS = frozenset({"set", "add", "replace", "cas"})


class Chunking:
    """Stores values longer than `part_size` in parts, and finds them again.

    Args:
        cluster: the nodes; each part is routed like any other key.
        part_size: bytes per part.
        random_bytes: makes the ids of values.

    Attributes:
        broken: how many values were found incomplete or damaged, which made them misses.
    """

    def __init__(self, cluster: Cluster, part_size: int, *, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._cluster = cluster
        self._part_size = part_size
        self._random_bytes = random_bytes
        self.broken = 0

    def check_flags(self, flags: int) -> None:
        """Raise `ValueError` for the flags that mark manifests."""
        if flags == MANIFEST_FLAGS:
            raise ValueError(f"flags must not be {flags:#x} with chunking=True: they mark values stored in parts")

    def is_large(self, request: Request) -> bool:
        """True if the value of this storage request must be stored in parts."""
        value = request.value
        return value is not None and len(value) > self._part_size and request.command in _STORED_IN_PARTS

    def check_length(self, length: int) -> None:
        """Raise `ValueError` for a value of too many parts."""
        manifest.count_parts(length, self._part_size)

    async def store(self, request: Request) -> None:
        """Store the value of a request in parts, and by the request itself the manifest.

        Raises:
            Exception: what storing any part or the manifest raised; the parts are deleted again then.
        """
        assert request.value is not None
        cutting = Cutting(request.value, request.flags, self._part_size, self._random_bytes(IDENTITY_SIZE))
        try:
            await run(self._parts_to_store(request, cutting), accept, _fail, most_requests=_AHEAD)
            request.value = cutting.manifest().encode()
            request.flags = MANIFEST_FLAGS
            node = self._cluster.node_for(request.key)
            accept(node, request, await node.execute(request))
        except BaseException:
            self._delete(cutting.given())
            raise

    def _parts_to_store(self, request: Request, cutting: Cutting) -> Iterator[Exchange]:
        for key, data in cutting:
            part = requests.store("set", key, data, 0, request.exptime, 0, request.noreply)
            part.deadline = request.deadline
            yield self._cluster.node_for(key), part

    def _delete(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            try:
                node = self._cluster.node_for(key)
            except ClusterNoAvailableNodes:
                return  # expiry and eviction are left
            send_and_forget(node, requests.delete(key, noreply=True))

    async def resolve(self, key: bytes, item: Item, deadline: float | None, exptime: int | None = None) -> Item | None:
        """The item that another one stands for if that is a manifest, else the item itself.

        Args:
            key: under which the item was found, for the log.
            item: with flags.
            deadline: of the operation, in time of the loop.
            exptime: expiry that the parts shall have from now on; None: as before.

        Returns:
            The item with the user's flags; None if parts are missing or damaged.
        """
        if item.flags != MANIFEST_FLAGS:
            return item
        told = manifest.decode(item.value)
        value = None if told is None else await self._fetch(told, deadline, exptime)
        if told is None or value is None:
            self.broken += 1
            logger.debug("the parts of the value of %r are missing or damaged: a miss", key)
            return None
        return Item(value, told.flags, item.cas)

    async def _fetch(self, told: Manifest, deadline: float | None, exptime: int | None) -> bytes | None:
        assembly = Assembly(told)

        def take(node: Node, request: Request, reply: Reply) -> None:
            part = outcomes.item(request, reply, node.address)
            if part is None or not assembly.add(part.value):
                raise _Broken

        try:
            await run(self._parts_to_fetch(told, deadline, exptime), take, _fail, most_requests=_AHEAD)
        except _Broken:
            return None
        return assembly.value()

    def _parts_to_fetch(self, told: Manifest, deadline: float | None, exptime: int | None) -> Iterator[Exchange]:
        for key in told.part_keys():
            request = requests.fetch("get", key) if exptime is None else requests.fetch("gat", key, exptime=exptime)
            request.deadline = deadline
            yield self._cluster.node_for(key), request

    def touch_request(self, node: Node, key: bytes, exptime: int, deadline: float | None) -> Request:
        """The request that touches an item and tells its flags."""
        if node.meta is False:
            request = requests.fetch("gat", key, True, exptime)
        else:
            request = requests.touch_fetch(key, exptime)
        request.deadline = deadline
        return request

    async def touch(self, key: bytes, exptime: int, deadline: float | None, *, noreply: bool) -> None:
        """Give an item another expiry, and its parts if it has any."""
        node = self._cluster.node_for(key)
        request = self.touch_request(node, key, exptime, deadline)
        await self.touch_rest(node, request, await node.execute(request), noreply=noreply)

    async def touch_rest(self, node: Node, request: Request, reply: Reply, *, noreply: bool) -> None:
        """Go on when the request of `touch_request` was answered: the parts are left, if there are any.

        Raises:
            NotFoundCommandError: there is no item; not with `noreply`.
        """
        deadline = request.deadline
        if reply is UNSUPPORTED:
            request = requests.fetch("gat", request.key, True, request.exptime)
            request.deadline = deadline
            reply = await node.execute(request)
        item = self._touched(node, request, reply)
        if item is None:
            if noreply:
                return
            raise NotFoundCommandError(command="touch", address=node.address)
        if item.flags != MANIFEST_FLAGS:
            return
        if request.command == "touch_fetch":
            again = requests.fetch("get", request.key, True)
            again.deadline = deadline
            item = outcomes.item(again, await node.execute(again), node.address)
        told = manifest.decode(item.value) if item is not None and item.flags == MANIFEST_FLAGS else None
        if told is not None:
            await run(self._parts_to_touch(told, request.exptime, deadline, noreply), _judge_touch, _fail)

    def _touched(self, node: Node, request: Request, reply: Reply) -> Item | None:
        """What a request of `touch_request` found; the value is not always there."""
        if request.command == "gat":
            return outcomes.item(request, reply, node.address)
        found: MetaItem = outcomes.judge(request, reply, node.address)
        return Item(b"", found.flags, None) if found.code == "HD" else None

    def _parts_to_touch(
        self, told: Manifest, exptime: int, deadline: float | None, noreply: bool
    ) -> Iterator[Exchange]:
        for key in told.part_keys():
            request = requests.touch(key, exptime, noreply)
            request.deadline = deadline
            yield self._cluster.node_for(key), request


class _Broken(Exception):
    """A part is missing or not as long as it must be."""


def _judge_touch(node: Node, request: Request, reply: Reply) -> None:
    try:
        accept(node, request, reply)
    except NotFoundCommandError:
        logger.debug("the part %r could not be touched: it is missing", request.key)


def _fail(request: Request, error: Exception) -> None:
    raise error
