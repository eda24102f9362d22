"""An asyncio client of Memcached.

    from rain.memcache import create_client

    async with create_client("memcached://localhost:11211") as client:
        await client.set(b"key", b"value", exptime=60)
        item = await client.get(b"key")

It stands on its own: nothing else of Rain is needed or imported. Programs written for emcache work after changing the
import.
"""

from rain.memcache.addresses import MemcachedHostAddress, MemcachedUnixSocketPath
from rain.memcache.base import (
    Client,
    ClusterEvents,
    ClusterManagement,
    ClusterManagment,
    ConnectionPoolMetrics,
    Item,
    Lease,
)
from rain.memcache.client_errors import (
    AuthenticationError,
    ClientError,
    ClusterNoAvailableNodes,
    CommandError,
    NodeUnavailable,
    NotFoundCommandError,
    NotStoredStorageCommandError,
    ServerError,
    StorageCommandError,
)
from rain.memcache.default_values import (
    DEFAULT_AUTOBATCHING_ENABLED,
    DEFAULT_AUTOBATCHING_MAX_KEYS,
    DEFAULT_AUTODISCOVERY_POLL_INTERVAL,
    DEFAULT_AUTODISCOVERY_TIMEOUT,
    DEFAULT_CONNECTION_TIMEOUT,
    DEFAULT_MAX_CONNECTIONS,
    DEFAULT_MIN_CONNECTIONS,
    DEFAULT_PURGE_UNHEALTHY_NODES,
    DEFAULT_PURGE_UNUSED_CONNECTIONS_AFTER,
    DEFAULT_SSL,
    DEFAULT_SSL_VERIFY,
    DEFAULT_STARTUP_WAIT_AUTODISCOVERY,
    DEFAULT_TIMEOUT,
)
from rain.memcache.factory import create_client

__all__ = [
    "DEFAULT_AUTOBATCHING_ENABLED",
    "DEFAULT_AUTOBATCHING_MAX_KEYS",
    "DEFAULT_AUTODISCOVERY_POLL_INTERVAL",
    "DEFAULT_AUTODISCOVERY_TIMEOUT",
    "DEFAULT_CONNECTION_TIMEOUT",
    "DEFAULT_MAX_CONNECTIONS",
    "DEFAULT_MIN_CONNECTIONS",
    "DEFAULT_PURGE_UNHEALTHY_NODES",
    "DEFAULT_PURGE_UNUSED_CONNECTIONS_AFTER",
    "DEFAULT_SSL",
    "DEFAULT_SSL_VERIFY",
    "DEFAULT_STARTUP_WAIT_AUTODISCOVERY",
    "DEFAULT_TIMEOUT",
    "AuthenticationError",
    "Client",
    "ClientError",
    "ClusterEvents",
    "ClusterManagement",
    "ClusterManagment",
    "ClusterNoAvailableNodes",
    "CommandError",
    "ConnectionPoolMetrics",
    "Item",
    "Lease",
    "MemcachedHostAddress",
    "MemcachedUnixSocketPath",
    "NodeUnavailable",
    "NotFoundCommandError",
    "NotStoredStorageCommandError",
    "ServerError",
    "StorageCommandError",
    "create_client",
]
