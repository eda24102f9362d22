"""What a cluster of nodes does, as a table that is printed every second: health, connections, operations.

    python examples/memcache/watch_nodes.py memcached://cache-1,cache-2 [--seconds N]

Stop a node and start it again to see it become unhealthy and healthy.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from rain.memcache import (
    Client,
    ClusterEvents,
    ClusterManagment,
    MemcachedHostAddress,
    MemcachedUnixSocketPath,
    NodeUnavailable,
    create_client,
)


class Announcer(ClusterEvents):
    """Prints what happens to nodes."""

    async def on_node_healthy(
        self, cluster_managment: ClusterManagment, host: MemcachedHostAddress | MemcachedUnixSocketPath
    ) -> None:
        """It is back."""
        print(f"{host} is healthy again")

    async def on_node_unhealthy(
        self, cluster_managment: ClusterManagment, host: MemcachedHostAddress | MemcachedUnixSocketPath
    ) -> None:
        """It is gone."""
        print(f"{host} is unhealthy; {len(cluster_managment.healthy_nodes())} nodes are left")


async def show(client: Client) -> None:
    """One line per node."""
    management = client.cluster_managment()
    metrics = management.connection_pool_metrics()
    for address in management.nodes():
        try:
            stats = await client.stats(address)
            items = f"{stats['curr_items']} items, memcached {stats['version']}"
        except NodeUnavailable as error:
            items = f"down: {error}"
        node = metrics[address]
        print(f"{address}: {node.cur_connections} connections, {node.operations_executed} operations, {items}")


async def main(url: str, seconds: float) -> None:
    """Write a little, and watch."""
    async with create_client(url, cluster_events=Announcer(), timeout=0.5) as client:
        until = time.monotonic() + seconds
        while True:
            await client.set_many({b"example:watch:%d" % number: b"x" for number in range(100)}, exptime=60)
            await show(client)
            if time.monotonic() >= until:
                return
            await asyncio.sleep(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="memcached://localhost:11211")
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.url, arguments.seconds))
