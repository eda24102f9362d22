"""The backend `memcached://`: results in Memcached servers, which users and clusters may share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rain.cache.backend import CacheError
from rain.memcache import ClusterNoAvailableNodes, CommandError, NodeUnavailable, create_client

if TYPE_CHECKING:
    from rain.memcache import Client, Lease

PREFIX = b"rain:result:"
LEASE_SECONDS = 60
"""How long one who computes a result is alone with it; then, if it is still missing, the next one begins."""
TIMEOUT = 0.5
"""Seconds for one exchange with a server."""

_FAILURES = (NodeUnavailable, ClusterNoAvailableNodes, CommandError, asyncio.TimeoutError)


class MemcachedBackend:
    """Results in Memcached; to be made in a running loop.

    Args:
        client: of the servers, with `chunking`, as results may be larger than an item.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    @classmethod
    async def open(cls, servers: str) -> MemcachedBackend:
        """Connect.

        Args:
            servers: `memcached://HOST:PORT[,HOST:PORT..]`.

        Raises:
            ValueError: the URL is malformed.
        """
        return cls(await create_client(servers, timeout=TIMEOUT, chunking=True, purge_unhealthy_nodes=True))

    async def ask(self, key: bytes) -> bytes | MemcachedTurn | None:
        """See `Backend`."""
        try:
            lease = await self._client.get_lease(PREFIX + key.hex().encode(), lease=LEASE_SECONDS)
        except _FAILURES as error:
            raise _cache_error(error) from error
        if lease.item is not None:
            return lease.item.value
        return MemcachedTurn(lease) if lease.won else None

    async def discard(self, key: bytes) -> None:
        """See `Backend`."""
        try:
            await self._client.delete(PREFIX + key.hex().encode(), noreply=True)
        except _FAILURES as error:
            raise _cache_error(error) from error

    async def close(self) -> None:
        """See `Backend`. Turns end by themselves after a while."""
        await self._client.close()


class MemcachedTurn:
    """See `Turn`."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    async def store(self, entry: bytes) -> None:
        """See `Turn`."""
        try:
            await self._lease.fulfil(entry)
        except _FAILURES as error:
            raise _cache_error(error) from error

    async def give_up(self) -> None:
        """See `Turn`."""
        try:
            await self._lease.release()
        except _FAILURES as error:
            raise _cache_error(error) from error


def _cache_error(error: BaseException) -> CacheError:
    return CacheError(f"Memcached: {str(error) or type(error).__name__}")
