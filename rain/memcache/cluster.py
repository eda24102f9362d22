"""The nodes of a client: which exist, which are healthy, and which one has a key."""

from __future__ import annotations

import asyncio
import random
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Protocol

from rain.memcache import hashing, requests
from rain.memcache.addresses import node_id
from rain.memcache.base import ClusterManagment, ConnectionPoolMetrics
from rain.memcache.client_errors import ClusterNoAvailableNodes, NodeUnavailable
from rain.memcache.discovery import Discovery
from rain.memcache.events import Dispatcher
from rain.memcache.node import Node
from rain.memcache.replies import UNSUPPORTED, Items
from rain.memcache.requests import StoreRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rain.memcache.addresses import Address
    from rain.memcache.options import Options
    from rain.memcache.replies import Reply
    from rain.memcache.requests import Request

MEMO_SIZE = 65_536
"""Keys whose nodes are remembered."""


class NodeFactory(Protocol):
    """Makes a node; `Node` itself is one."""

    def __call__(self, address: Address, options: Options, *, on_health: Callable[[Node], None]) -> Node:
        """Make a node of this address that has not started."""


class Cluster:
    """The nodes of one client.

    Args:
        addresses: the nodes, or with autodiscovery the configuration endpoints.
        options: of the client.
        node_factory: makes a node, which does nothing before it is started.
        shuffle: puts the configuration endpoints in random order.

    Attributes:
        management: what `Client.cluster_managment()` returns.
        node_for: gives the node of a key, or raises `ClusterNoAvailableNodes`. It is replaced when the nodes change:
            look it up at each use.
    """

    node_for: Callable[[bytes], Node]

    def __init__(
        self,
        addresses: Sequence[Address],
        options: Options,
        *,
        node_factory: NodeFactory = Node,
        shuffle: Callable[[list[Node]], None] = random.shuffle,
    ) -> None:
        self._options = options
        self._node_factory = node_factory
        self._healthy: list[Node] = []
        self._unhealthy: list[Node] = []
        self._only: Node | None = None  # if there is just one
        self._leaving: list[Node] = []
        self._moving: set[asyncio.Task[None]] = set()
        self._closed = False
        self.management: ClusterManagment = _Managment(self)
        self._events = Dispatcher(options.cluster_events, self.management)
        self._discovery: Discovery | None = None
        if options.autodiscovery:
            self._discovery = Discovery(addresses, options, self._apply, node_factory=node_factory, shuffle=shuffle)
        else:
            self._healthy = [self._new_node(address) for address in addresses]
        self._route()

    def _new_node(self, address: Address) -> Node:
        return self._node_factory(address, self._options, on_health=self._health_changed)

    async def open(self) -> None:
        """Start the nodes; with autodiscovery wait for the first list of them.

        Raises:
            NodeUnavailable: autodiscovery found no nodes in time; everything is closed then.
            AuthenticationError: a configuration endpoint refused the credentials; likewise.
        """
        for node in self._healthy:
            node.start()
        if self._discovery is not None:
            try:
                await self._discovery.open()
            except BaseException:
                await self.close()
                raise

    def nodes(self) -> list[Node]:
        """All nodes, healthy ones first."""
        return [*self._healthy, *self._unhealthy]

    def healthy_nodes(self) -> list[Node]:
        """The nodes that can be reached, as far as is known."""
        return list(self._healthy)

    def unhealthy_nodes(self) -> list[Node]:
        """The nodes that cannot be reached."""
        return list(self._unhealthy)

    def node_at(self, address: Address) -> Node:
        """The node of an address; of several the first.

        Raises:
            ValueError: the cluster has none.
        """
        for node in self.nodes():
            if node.address == address:
                return node
        known = ", ".join(str(node.address) for node in self.nodes())
        raise ValueError(f"{address} is no node of this cluster; its nodes are {known or 'none'}")

    def group(self, keys: Iterable[bytes]) -> dict[Node, list[bytes]]:
        """The keys by node, nodes in the order of the list.

        Raises:
            ClusterNoAvailableNodes: there is no node.
        """
        if self._only is not None:
            given = list(keys)
            return {self._only: given} if given else {}
        node_for = self.node_for
        groups: dict[Node, list[bytes]] = {node: [] for node in self.nodes()}
        for key in keys:
            groups[node_for(key)].append(key)
        return {node: its_keys for node, its_keys in groups.items() if its_keys}

    def _route(self) -> None:
        """Make `node_for` anew from the list of nodes."""
        nodes = self._healthy if self._options.purge_unhealthy_nodes else self.nodes()
        self._only = nodes[0] if len(nodes) == 1 else None
        if not nodes:
            self.node_for = self._no_node
        elif len(nodes) == 1:
            only = nodes[0]
            self.node_for = lambda key: only
        else:
            self.node_for = _router(self._options.hashing, tuple(nodes))

    def _no_node(self, key: bytes) -> Node:
        if self._unhealthy:
            raise ClusterNoAvailableNodes(
                f"no node for {key!r}: all {len(self._unhealthy)} nodes are unhealthy and purge_unhealthy_nodes is on"
            )
        raise ClusterNoAvailableNodes(f"no node for {key!r}: no nodes are known")

    def _health_changed(self, node: Node) -> None:
        """Called by a node when `healthy` has flipped."""
        if node not in self._healthy and node not in self._unhealthy:
            return  # removed meanwhile
        come_from, go_to = (self._unhealthy, self._healthy) if node.healthy else (self._healthy, self._unhealthy)
        come_from.remove(node)
        go_to.append(node)
        self._route()
        self._events.put("healthy" if node.healthy else "unhealthy", node.address)

    def _apply(self, addresses: Sequence[Address]) -> bool:
        """Take a list of nodes from discovery into use."""
        known = {node.address for node in self.nodes()}
        added = [self._new_node(address) for address in addresses if address not in known]
        removed = [node for node in self.nodes() if node.address not in addresses]
        if self._closed or not (added or removed):
            return False
        self._healthy = [node for node in self._healthy if node not in removed] + added
        self._unhealthy = [node for node in self._unhealthy if node not in removed]
        self._leaving = [node for node in self._leaving if not node.drained] + removed
        self._route()
        for node in added:
            node.start()
            self._events.put("added", node.address)
        for node in removed:
            node.drain(partial(self._move, node.address))
            self._events.put("removed", node.address)
        return True

    def _move(self, gone: Address, request: Request) -> None:
        """Send a request elsewhere that waited for a node which was removed."""
        if request.waiter.done():
            return
        try:
            if request.key:
                self.node_for(request.key).resubmit(request)
            elif isinstance(request, StoreRun):
                request.waiter.set_result(UNSUPPORTED)  # who made it sends the keys one by one
            elif request.keys:
                self._move_many(request)
            else:
                raise NodeUnavailable(f"{request.command}: autodiscovery removed node {gone}", address=gone)
        except (ClusterNoAvailableNodes, NodeUnavailable) as error:
            request.waiter.set_exception(error)

    def _move_many(self, request: Request) -> None:
        groups = self.group(request.keys)
        if len(groups) == 1:
            next(iter(groups)).resubmit(request)
            return
        task = asyncio.get_running_loop().create_task(_fetch_apart(request, groups))
        self._moving.add(task)
        task.add_done_callback(self._moving.discard)
        request.waiter.add_done_callback(lambda _: task.cancel())

    async def autodiscover(self) -> bool:
        """Poll the configuration endpoints once; True if nodes came or went."""
        return self._discovery is not None and await self._discovery.poll()

    async def close(self) -> None:
        """End discovery and events, close all nodes; may be called again."""
        self._closed = True
        closing = [node.close() for node in (*self.nodes(), *self._leaving)]
        if self._discovery is not None:
            closing.append(self._discovery.close())
        together = asyncio.gather(*closing)  # begun first: a slow hook must not delay the failure of requests
        await self._events.close()
        await together


async def _fetch_apart(request: Request, groups: dict[Node, list[bytes]]) -> None:
    """Answer a fetch of many keys that belong to several nodes by now."""
    parts = []
    for node, keys in groups.items():
        part = requests.fetch_many(request.command, tuple(keys), request.return_flags, request.exptime)
        part.deadline = request.deadline
        parts.append(asyncio.ensure_future(node.execute(part)))
    try:
        reply = _joined(await asyncio.gather(*parts))
    except Exception as error:  # whatever a node makes of it is for who waits
        if not request.waiter.done():
            request.waiter.set_exception(error)
    else:
        if not request.waiter.done():
            request.waiter.set_result(reply)
    finally:
        for running in parts:
            running.cancel()


def _joined(replies: Sequence[Reply]) -> Reply:
    """All items in one reply, or the first reply that is something else."""
    items = Items()
    for reply in replies:
        if not isinstance(reply, Items):
            return reply
        for row in reply:
            items.add(*row)
    return items


def _router(kind: str, nodes: tuple[Node, ...]) -> Callable[[bytes], Node]:
    choose = hashing.chooser(kind, [node_id(node.address) for node in nodes])

    @lru_cache(MEMO_SIZE)
    def node_for(key: bytes) -> Node:
        return nodes[choose(key)]

    return node_for


class _Managment(ClusterManagment):
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def nodes(self) -> list[Address]:
        return [node.address for node in self._cluster.nodes()]

    def healthy_nodes(self) -> list[Address]:
        return [node.address for node in self._cluster.healthy_nodes()]

    def unhealthy_nodes(self) -> list[Address]:
        return [node.address for node in self._cluster.unhealthy_nodes()]

    def connection_pool_metrics(self) -> dict[Address, ConnectionPoolMetrics]:
        found: dict[Address, ConnectionPoolMetrics] = {}
        for node in self._cluster.nodes():
            if node.address not in found:
                found[node.address] = node.metrics()
        return found
