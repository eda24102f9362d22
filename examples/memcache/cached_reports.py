"""Reports that are slow to make, cached with `get_or_set`: many readers, one computation, and no wait for a refresh.

    python examples/memcache/cached_reports.py [memcached://host:port]

The readers ask without pause for three seconds. Each report lives one second and may be served for one more while it is
made anew in the background. Expected: the number of computations is about one per report and second, and no reader but
the very first ones ever waits.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from rain.memcache import Client, create_client

REPORTS = [b"example:sales", b"example:visits", b"example:errors"]
SECONDS_TO_MAKE = 0.3


class Reports:
    """Makes reports and reads them through the cache."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.made = 0
        self.waits: list[float] = []

    async def make(self) -> bytes:
        """The slow part, in real life a query."""
        self.made += 1
        await asyncio.sleep(SECONDS_TO_MAKE)
        return f"report number {self.made}".encode()

    async def read(self, name: bytes, until: float) -> None:
        """One reader."""
        while time.monotonic() < until:
            start = time.monotonic()
            await self.client.get_or_set(name, self.make, ttl=1, lease=5, stale=1)
            self.waits.append(time.monotonic() - start)
            await asyncio.sleep(0.01)


async def main(url: str, seconds: float) -> None:
    """Run 20 readers per report."""
    async with create_client(url) as client:
        await client.delete_many(REPORTS)
        reports = Reports(client)
        until = time.monotonic() + seconds
        await asyncio.gather(*(reports.read(name, until) for name in REPORTS for _ in range(20)))
        slow = sum(wait > SECONDS_TO_MAKE / 2 for wait in reports.waits)
        print(f"{len(reports.waits)} reads, {reports.made} reports made, {slow} reads had to wait")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="memcached://localhost:11211")
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.url, arguments.seconds))
