"""Values in parts, on real servers."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable

import pytest

from rain.memcache.base import Client, Item
from rain.memcache.client_errors import NotStoredStorageCommandError, StorageCommandError
from rain.memcache.options import Options
from rain.memcache.testing import MemcachedServer
from tests.memcache.conftest import OpenClient

SECONDS = 60.0
MANIFEST = struct.Struct("<4sIQII16s16s")
MANIFEST_FLAGS = 0xC4A17E55
SIZE = 1024
"""Of the parts, where the test does not say otherwise."""
Servers = tuple[MemcachedServer, MemcachedServer]


def value_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture(params=["auto", "classic"])
def protocol(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def client(servers: Servers, open_client: OpenClient, protocol: str) -> Client:
    return await open_client(*servers, protocol=protocol, chunking=True, chunk_size=SIZE, timeout=SECONDS)


@pytest.fixture
async def plain(servers: Servers, open_client: OpenClient) -> Client:
    """A client that knows nothing of parts."""
    return await open_client(*servers, timeout=SECONDS)


async def manifest_of(plain: Client, key: bytes) -> tuple[int, ...]:
    """Flags, length, size of the parts, their number, and the id, after a check of the rest."""
    item = await plain.get(key, return_flags=True)
    assert item is not None
    assert item.flags == MANIFEST_FLAGS
    magic, *rest, _ = MANIFEST.unpack(item.value)
    assert magic == b"RMC1"
    return tuple(rest)


async def parts_of(plain: Client, key: bytes) -> list[bytes]:
    """The keys of its parts."""
    *_, count, name = await manifest_of(plain, key)
    return [b"rmc1:%b:%d" % (name.hex().encode(), number) for number in range(count)]  # type: ignore[attr-defined]


async def value_now(client: Client, key: bytes) -> bytes | None:
    item = await client.get(key)
    return None if item is None else item.value


async def test_sizes_around_the_borders(client: Client, plain: Client):
    for parts in (1, 2, 3, 8):
        for size in (parts * SIZE - 1, parts * SIZE, parts * SIZE + 1):
            value = value_of(size)
            await client.set(b"k", value, flags=7)
            assert await client.get(b"k", return_flags=True) == Item(value, 7, None)
            if size > SIZE:
                assert (await manifest_of(plain, b"k"))[:4] == (7, size, SIZE, -(-size // SIZE))
            else:
                assert await plain.get(b"k", return_flags=True) == Item(value, 7, None)


async def test_sizes_up_to_64_mebibytes(start_server: Callable[..., MemcachedServer], open_client: OpenClient):
    server = start_server(options=["-m", "512"])
    client = await open_client(server, chunking=True, timeout=SECONDS)
    default = Options().chunk_size
    for size in (default, default + 1, 2**20, 2**20 + 1, 3 * default + 1, 64 * 2**20):
        value = value_of(size)
        await client.set(b"k", value)
        assert await value_now(client, b"k") == value
        await client.delete(b"k")


async def test_too_many_parts(client: Client):
    await client.set(b"k", bytes(4096 * SIZE))
    assert await value_now(client, b"k") == bytes(4096 * SIZE)
    with pytest.raises(ValueError, match="4096"):
        await client.set(b"k", bytes(4096 * SIZE + 1))


async def test_broken_parts_are_a_miss(client: Client, plain: Client):
    value = value_of(5 * SIZE)

    async def parts() -> list[bytes]:
        await client.set(b"k", value)
        assert await value_now(client, b"k") == value
        return await parts_of(plain, b"k")

    async def missed() -> None:
        assert await client.get(b"k") is None
        assert await client.get_many([b"k", b"other"]) == {b"other": Item(b"v", None, None)}
        assert await client.gat(0, b"k") is None

    await client.set(b"other", b"v")
    for number in range(5):
        await plain.delete((await parts())[number])
        await missed()
    keys = await parts()
    first, second = [await value_now(plain, key) for key in keys[:2]]
    assert first
    assert second
    await plain.set(keys[0], second)
    await plain.set(keys[1], first)
    await missed()
    await plain.set((await parts())[4], value[4 * SIZE : -1])
    await missed()
    await plain.append((await parts())[2], b"x")
    await missed()
    await client.set(b"k", value)
    for change in (client.append, client.prepend):
        await client.set(b"k", value)
        await change(b"k", b"x")
        await missed()


async def test_operations(client: Client):
    one, two = value_of(3 * SIZE, 1), value_of(4 * SIZE, 2)
    with pytest.raises(NotStoredStorageCommandError):
        await client.replace(b"k", one)
    await client.add(b"k", one, flags=3)
    with pytest.raises(NotStoredStorageCommandError):
        await client.add(b"k", two)
    item = await client.gets(b"k", return_flags=True)
    assert item is not None
    assert (item.value, item.flags) == (one, 3)
    assert item.cas is not None
    with pytest.raises(NotStoredStorageCommandError):
        await client.cas(b"k", two, item.cas + 1)
    assert await value_now(client, b"k") == one
    await client.cas(b"k", two, item.cas)
    assert await value_now(client, b"k") == two
    with pytest.raises(StorageCommandError):
        await client.cas(b"missing", one, item.cas)
    await client.replace(b"k", one, noreply=True)
    assert await value_now(client, b"k") == one
    await client.delete(b"k")
    assert await client.get(b"k") is None


async def test_parts_of_refused_values_are_removed(client: Client, plain: Client, servers: Servers):
    await client.set(b"k", b"v")
    with pytest.raises(NotStoredStorageCommandError):
        await client.add(b"k", value_of(20 * SIZE))
    await client.get(b"k")
    async with asyncio.timeout(SECONDS):
        while sum(int(server.stats()["curr_items"]) for server in servers) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_touch_and_gat_reach_the_parts(client: Client, plain: Client, servers: Servers):
    async def seconds_left() -> list[int]:
        left = []
        for key in [b"k", *await parts_of(plain, b"k")]:
            told = [server.ask(b"mg %b t\r\n" % key) for server in servers]
            [line] = [line for line in told if line != b"EN\r\n"]
            left.append(int(line.split()[1][1:]))
        return left

    await client.set(b"k", value_of(3 * SIZE), exptime=1000)
    assert all(990 < left <= 1001 for left in await seconds_left())
    await client.touch(b"k", 2000)
    assert all(1990 < left <= 2001 for left in await seconds_left())
    assert await client.gat(3000, b"k") == Item(value_of(3 * SIZE), None, None)
    assert all(2990 < left <= 3001 for left in await seconds_left())
    assert await client.gat_many(4000, [b"k"]) == {b"k": Item(value_of(3 * SIZE), None, None)}
    assert all(3990 < left <= 4001 for left in await seconds_left())
    assert await client.touch_many([b"k"], 5000) == {}
    assert all(4990 < left <= 5001 for left in await seconds_left())


async def test_many_values(client: Client, servers: Servers, open_client: OpenClient, protocol: str):
    values = {b"key:%d" % number: value_of(number * 700, number) for number in range(30)}
    assert await client.set_many(values, flags=5) == {}
    found = await client.get_many(values, return_flags=True)
    assert found == {key: Item(value, 5, None) for key, value in values.items()}
    batching = await open_client(
        *servers, protocol=protocol, chunking=True, chunk_size=SIZE, timeout=SECONDS, autobatching=True
    )
    items = await asyncio.gather(*(batching.get(key) for key in values))
    assert items == [Item(value, None, None) for value in values.values()]
    assert await client.delete_many(values) == {}
    assert await client.get_many(values) == {}


async def test_computed_values(client: Client):
    value = value_of(10 * SIZE)
    assert await client.get_or_set(b"k", lambda: value, ttl=1000) == value
    assert await client.get_or_set(b"k", lambda: b"other") == value
    lease = await client.get_lease(b"k")
    assert lease.item is not None
    assert (lease.item.value, lease.won) == (value, False)


async def test_broken_values_are_computed_again(client: Client, plain: Client):
    value = value_of(10 * SIZE)
    await client.get_or_set(b"k", lambda: value)
    await plain.delete((await parts_of(plain, b"k"))[3])
    assert await client.get_or_set(b"k", lambda: value[::-1]) == value[::-1]
    assert await value_now(client, b"k") == value[::-1]


async def test_readers_see_one_version_or_the_other(client: Client, servers: Servers, open_client: OpenClient):
    reader = await open_client(*servers, chunking=True, chunk_size=SIZE, timeout=SECONDS)
    versions = [bytes([number]) * (6 * SIZE + number) for number in range(20)]
    await client.set(b"k", versions[0])
    ended = False

    async def read() -> int:
        reads = 0
        while not ended:
            assert await value_now(reader, b"k") in versions
            reads += 1
        return reads

    readers = [asyncio.create_task(read()) for _ in range(5)]
    for version in versions * 5:
        await client.set(b"k", version)
    ended = True
    assert min(await asyncio.gather(*readers)) > 0


async def test_others_get_in_between(client: Client):
    """A large value does not keep small ones waiting until it is through."""
    large = value_of(3000 * SIZE)
    storing = asyncio.create_task(client.set(b"large", large))
    small = 0
    while not storing.done():
        await client.set(b"small", b"v")
        small += 1
    await storing
    fetching = asyncio.create_task(client.get(b"large"))
    while not fetching.done():
        await client.get(b"small")
        small += 1
    assert (await fetching) == Item(large, None, None)
    assert small > 10


async def test_reserved_flags(client: Client, plain: Client):
    with pytest.raises(ValueError, match="flags"):
        await client.set(b"k", b"v", flags=MANIFEST_FLAGS)
    await plain.set(b"k", b"no manifest", flags=MANIFEST_FLAGS)
    assert await client.get(b"k") is None
