"""What users hold: items, leases, the abstract client and its cluster, events, metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from _typeshed import ReadableBuffer as Buffer

    from rain.memcache.addresses import Address


@dataclass(slots=True)
class Item:
    """A value as a node holds it.

    Attributes:
        value: the bytes stored.
        flags: the number stored along with them; None unless `return_flags=True` was passed.
        cas: token of this version of the item; None except from `gets`, `gats`, `gets_many`, `gats_many`.
    """

    value: bytes
    flags: int | None
    cas: int | None


class Lease(ABC):
    """What `Client.get_lease` found, and for the winner the right to produce the value.

    Attributes:
        item: the value with flags and cas, also an old one that waits for its refresh, or None.
        won: True if this caller shall produce the value.
        pending: True if somebody else does.
    """

    item: Item | None
    won: bool
    pending: bool

    @abstractmethod
    async def fulfil(self, value: Buffer, *, flags: int = 0, exptime: int = 0) -> bool:
        """Store the value that was produced.

        Returns:
            True if it was stored, False if it was overtaken: somebody stored or deleted the key meanwhile.

        Raises:
            RuntimeError: the lease was not won, or is fulfilled already.
        """

    @abstractmethod
    async def release(self) -> None:
        """Give a won lease back, so that the next caller wins at once; without effect otherwise."""


@dataclass
class ConnectionPoolMetrics:
    """Counters of the connections to one node.

    Attributes:
        cur_connections: open now.
        connections_created: attempts that succeeded.
        connections_created_with_error: attempts that failed.
        connections_purged: closed because they were not used.
        connections_closed: closed for whatever reason, purged ones included.
        operations_executed: requests answered, error lines included, and `noreply` requests handed over.
        operations_executed_with_error: requests handed over that ended without an answer for their caller.
        operations_waited: requests that had to wait because no connection was open.
        create_connection_avg: seconds per successful attempt, average of the last 100; None before the first.
        create_connection_p50: median of the same.
        create_connection_p99: 99th percentile of the same.
        create_connection_upper: the largest of the same.
    """

    cur_connections: int
    connections_created: int
    connections_created_with_error: int
    connections_purged: int
    connections_closed: int
    operations_executed: int
    operations_executed_with_error: int
    operations_waited: int
    create_connection_avg: float | None
    create_connection_p50: float | None
    create_connection_p99: float | None
    create_connection_upper: float | None


class ClusterManagment(ABC):
    """The nodes of a client; `Client.cluster_managment()` gives it."""

    @abstractmethod
    def nodes(self) -> list[Address]:
        """Addresses of all nodes, healthy ones first."""

    @abstractmethod
    def healthy_nodes(self) -> list[Address]:
        """Addresses of the healthy nodes."""

    @abstractmethod
    def unhealthy_nodes(self) -> list[Address]:
        """Addresses of the nodes that cannot be reached."""

    @abstractmethod
    def connection_pool_metrics(self) -> dict[Address, ConnectionPoolMetrics]:
        """Counters of every node as they are now; of equal addresses those of the first."""


ClusterManagement = ClusterManagment


class ClusterEvents(ABC):
    """Hooks that are told what happens to the nodes, one at a time, in order.

    Pass an instance as `cluster_events=`. `cluster_managment` is what `Client.cluster_managment()` returns, already up
    to date. What a hook raises is logged.
    """

    @abstractmethod
    async def on_node_healthy(self, cluster_managment: ClusterManagment, host: Address) -> None:
        """A node that was unhealthy can be reached again."""

    @abstractmethod
    async def on_node_unhealthy(self, cluster_managment: ClusterManagment, host: Address) -> None:
        """No connection to a node is open and the last attempts failed."""

    async def on_node_added(self, cluster_managment: ClusterManagment, host: Address) -> None:  # noqa: B027 - optional
        """Autodiscovery found a new node."""

    async def on_node_removed(self, cluster_managment: ClusterManagment, host: Address) -> None:  # noqa: B027 - optional
        """Autodiscovery no longer lists a node."""


class Client(ABC):
    """A client of a cluster of Memcached nodes; `create_client` makes one.

    Keys are `bytes` of 1 to 250 bytes without blanks and control characters. Values are any contiguous buffers.
    `exptime` is 0 for never, 1 to 2 592 000 seconds from now, a unix time above that, negative for expired at once.
    With `noreply=True` an operation returns None as soon as it is handed over, and what the node answers is never
    known. All operations of nodes may raise:

    * `ValueError`, `TypeError`: a wrong argument; nothing was sent.
    * `asyncio.TimeoutError`: no answer within the `timeout` of the client.
    * `NodeUnavailable` (which is an `asyncio.TimeoutError`, too): the node is down, or the connection was lost.
    * `ClusterNoAvailableNodes`: there is no node to ask.
    * `CommandError` and its subclasses: the node refused.
    * `RuntimeError`: the client is closed.
    """

    @property
    @abstractmethod
    def closed(self) -> bool:
        """True after `close()`."""

    @abstractmethod
    async def close(self) -> None:
        """Fail the operations that run, flush what was handed over, close all connections. May be called again."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    def cluster_managment(self) -> ClusterManagment:
        """The nodes of this client, their health and metrics; the same object at each call."""

    @abstractmethod
    async def get(self, key: bytes, return_flags: bool = False) -> Item | None:
        """The item of a key, or None if there is none."""

    @abstractmethod
    async def gets(self, key: bytes, return_flags: bool = False) -> Item | None:
        """Like `get`, with the token for `cas`."""

    @abstractmethod
    async def gat(self, exptime: int, key: bytes, return_flags: bool = False) -> Item | None:
        """Like `get`, and the item expires at `exptime` from now on."""

    @abstractmethod
    async def gats(self, exptime: int, key: bytes, return_flags: bool = False) -> Item | None:
        """Like `gat`, with the token for `cas`."""

    @abstractmethod
    async def get_many(self, keys: Iterable[bytes], return_flags: bool = False) -> dict[bytes, Item]:
        """The items of those keys that have one; the first failure is raised and there are no partial results."""

    @abstractmethod
    async def gets_many(self, keys: Iterable[bytes], return_flags: bool = False) -> dict[bytes, Item]:
        """Like `get_many`, with the tokens for `cas`."""

    @abstractmethod
    async def gat_many(self, exptime: int, keys: Iterable[bytes], return_flags: bool = False) -> dict[bytes, Item]:
        """Like `get_many`, and the items expire at `exptime` from now on."""

    @abstractmethod
    async def gats_many(self, exptime: int, keys: Iterable[bytes], return_flags: bool = False) -> dict[bytes, Item]:
        """Like `gat_many`, with the tokens for `cas`."""

    @abstractmethod
    async def set(self, key: bytes, value: Buffer, *, flags: int = 0, exptime: int = 0, noreply: bool = False) -> None:
        """Store a value.

        Raises:
            StorageCommandError: it was not stored, for instance because it is too large.
        """

    @abstractmethod
    async def add(self, key: bytes, value: Buffer, *, flags: int = 0, exptime: int = 0, noreply: bool = False) -> None:
        """Store a value if the key has none.

        Raises:
            NotStoredStorageCommandError: it has one.
        """

    @abstractmethod
    async def replace(
        self, key: bytes, value: Buffer, *, flags: int = 0, exptime: int = 0, noreply: bool = False
    ) -> None:
        """Store a value if the key has one.

        Raises:
            NotStoredStorageCommandError: it has none.
        """

    @abstractmethod
    async def append(self, key: bytes, value: Buffer, *, noreply: bool = False) -> None:
        """Add bytes behind the value; flags and expiry stay.

        Raises:
            NotStoredStorageCommandError: the key has no value.
        """

    @abstractmethod
    async def prepend(self, key: bytes, value: Buffer, *, noreply: bool = False) -> None:
        """Add bytes in front of the value; flags and expiry stay.

        Raises:
            NotStoredStorageCommandError: the key has no value.
        """

    @abstractmethod
    async def cas(
        self, key: bytes, value: Buffer, cas: int, *, flags: int = 0, exptime: int = 0, noreply: bool = False
    ) -> None:
        """Store a value if nobody changed the item since `cas` was read.

        Raises:
            NotStoredStorageCommandError: somebody did.
            StorageCommandError: the key has no value any more.
        """

    @abstractmethod
    async def increment(self, key: bytes, value: int, *, noreply: bool = False) -> int | None:
        """Add to a decimal number; from 2^64-1 it wraps to 0.

        Returns:
            The new number; None with `noreply`.

        Raises:
            NotFoundCommandError: the key has no value.
            CommandError: the value is no number.
        """

    @abstractmethod
    async def decrement(self, key: bytes, value: int, *, noreply: bool = False) -> int | None:
        """Subtract from a decimal number; it stops at 0. See `increment`."""

    @abstractmethod
    async def touch(self, key: bytes, exptime: int, *, noreply: bool = False) -> None:
        """Give an item another expiry.

        Raises:
            NotFoundCommandError: the key has no value.
        """

    @abstractmethod
    async def delete(self, key: bytes, *, noreply: bool = False) -> None:
        """Remove an item.

        Raises:
            NotFoundCommandError: the key has no value.
        """

    @abstractmethod
    async def flush_all(self, memcached_host_address: Address, delay: int = 0, *, noreply: bool = False) -> None:
        """Drop all items of a node, at once or `delay` seconds later."""

    @abstractmethod
    async def version(self, memcached_host_address: Address) -> str | None:
        """Version of a node's server."""

    @abstractmethod
    async def stats(self, memcached_host_address: Address, *args: str) -> dict[str, str]:
        """Statistics of a node; `args` choose which, as in memcached's `stats` command."""

    @abstractmethod
    async def cache_memlimit(self, memcached_host_address: Address, value: int, *, noreply: bool = False) -> None:
        """Set the memory of a node, in megabytes."""

    @abstractmethod
    async def verbosity(self, memcached_host_address: Address, level: int, *, noreply: bool = False) -> None:
        """Set how much a node logs."""

    async def quit(self, memcached_host_address: Address) -> None:
        """Have a node close its connections once it has answered what is in flight; new ones open as at the start."""
        raise NotImplementedError

    async def set_many(
        self, items: Mapping[bytes, Buffer], *, flags: int = 0, exptime: int = 0, noreply: bool = False
    ) -> dict[bytes, Exception]:
        """Store many values.

        Returns:
            The keys that failed, each with what `set` would have raised; empty if all are stored.
        """
        raise NotImplementedError

    async def delete_many(self, keys: Iterable[bytes], *, noreply: bool = False) -> dict[bytes, Exception]:
        """Remove many items.

        Returns:
            The keys that failed, each with what `delete` would have raised.
        """
        raise NotImplementedError

    async def touch_many(self, keys: Iterable[bytes], exptime: int, *, noreply: bool = False) -> dict[bytes, Exception]:
        """Give many items another expiry.

        Returns:
            The keys that failed, each with what `touch` would have raised.
        """
        raise NotImplementedError

    async def get_lease(self, key: bytes, *, lease: int = 30, stale: int = 0) -> Lease:
        """The item of a key, and on a miss the right to produce it, for one caller of all clients.

        Args:
            key: the key.
            lease: seconds for which the winner alone has the right, 1 to 2 592 000.
            stale: also ask for the right if less than this number of seconds remain of the item.
        """
        raise NotImplementedError

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
        """The value of a key; on a miss one caller of all clients produces it and the others wait.

        A cache that fails never makes this fail: the value is then produced here and not stored.

        Args:
            key: the key.
            factory: makes the value; a function without arguments, async or not.
            ttl: seconds from now until the value expires; 0: never.
            flags: number stored along with the value.
            lease: seconds within which a factory should be ready; after that another caller may start.
            stale: seconds after `ttl` during which the old value is served while one caller makes a new one.
            wait: seconds to wait for the factory of another process; None: `2 * (lease + 2)`.

        Raises:
            Exception: whatever the factory raises.
        """
        raise NotImplementedError
