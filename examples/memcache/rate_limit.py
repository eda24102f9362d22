"""A limit of requests per user and second that all processes of a service share: `add`, `increment`, `exptime`.

    python examples/memcache/rate_limit.py [memcached://host:port]

A hundred requests of each of three users arrive at once; ten of each may pass. When the cache is down, all pass: a
service should not fail because its counter does.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter

from rain.memcache import Client, CommandError, NotFoundCommandError, NotStoredStorageCommandError, create_client

LIMIT = 10


async def may_pass(client: Client, user: str, window: int) -> bool:
    """Count a request; True while the user is within the limit."""
    key = f"example:rate:{user}:{window}".encode()
    try:
        try:
            await client.add(key, b"1", exptime=10)
            return True
        except NotStoredStorageCommandError:
            return (await client.increment(key, 1) or 0) <= LIMIT
    except NotFoundCommandError:
        return True  # the counter expired between the two
    except (asyncio.TimeoutError, CommandError):  # noqa: UP041 - the name that users of asyncio know
        return True


async def main(url: str) -> None:
    """Three users, a hundred requests each."""
    async with create_client(url, timeout=0.5) as client:
        users = ["ada", "grace", "edsger"] * 100
        window = int(asyncio.get_running_loop().time())
        answers = await asyncio.gather(*(may_pass(client, user, window) for user in users))
        passed = Counter(user for user, answer in zip(users, answers, strict=True) if answer)
        print(", ".join(f"{user}: {passed[user]} of 100" for user in sorted(passed)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="memcached://localhost:11211")
    asyncio.run(main(parser.parse_args().url))
