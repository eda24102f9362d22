"""A process with several clients that all want the same keys; run by test_real_leases.

    python -m tests.memcache.lease_worker PORT PROTOCOL CLIENTS ROUNDS PROCESSES

Each run of the factory is counted in the server, under `runs:ROUND`.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

from rain.memcache.addresses import MemcachedHostAddress
from rain.memcache.factory import create_client

SECONDS = 60.0


async def main(port: int, protocol: str, number_of_clients: int, rounds: int, processes: int) -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(SECONDS):
        address = MemcachedHostAddress("127.0.0.1", port)
        clients = [
            await stack.enter_async_context(create_client([address], protocol=protocol, timeout=SECONDS))
            for _ in range(number_of_clients)
        ]
        arrived = await clients[0].increment(b"arrived", 1)
        while arrived is not None and arrived < processes:
            await asyncio.sleep(0.01)
            arrived = await clients[0].increment(b"arrived", 0)
        for number in range(rounds):

            async def make(number: int = number) -> bytes:
                await clients[0].increment(b"runs:%d" % number, 1)
                await asyncio.sleep(0.002)
                return b"value %d" % number

            wanted = (client.get_or_set(b"key:%d" % number, make, ttl=1000) for client in clients)
            assert set(await asyncio.gather(*wanted)) == {b"value %d" % number}


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])))
