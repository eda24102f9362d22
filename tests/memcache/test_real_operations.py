"""All operations against real servers: over TCP, unix sockets, TLS, with passwords and SASL, without meta."""

from __future__ import annotations

import asyncio
import time

import pytest

from rain.memcache.base import Client, Item
from rain.memcache.client_errors import (
    CommandError,
    NotFoundCommandError,
    NotStoredStorageCommandError,
    StorageCommandError,
)
from tests.memcache.conftest import OpenClient, Setup

KEYS = [b"key:%d" % number for number in range(20)]
"""Enough that both servers have some."""
HOSTILE = b"END\r\nVALUE a 0 1\r\nx\r\nEND\r\nERROR\r\n\x80\x81\x00"
SECONDS = 10.0


def value_of(key: bytes) -> bytes:
    return b"value of " + key + HOSTILE


async def fill(client: Client, keys: list[bytes]) -> None:
    assert await client.set_many({key: value_of(key) for key in keys}, flags=5) == {}


async def token_of(client: Client, key: bytes) -> int:
    item = await client.gets(key)
    assert item is not None
    assert item.cas is not None
    return item.cas


async def value_now(client: Client, key: bytes) -> bytes | None:
    item = await client.get(key)
    return None if item is None else item.value


# -------------------------------------------------------------------------------------------------------------- fetches


async def test_get_and_set(client: Client):
    for key in KEYS:
        assert await client.set(key, value_of(key), flags=2**32 - 1) is None
    for key in KEYS:
        assert await client.get(key) == Item(value_of(key), None, None)
        assert await client.get(key, return_flags=True) == Item(value_of(key), 2**32 - 1, None)
    assert await client.get(b"missing") is None
    assert await client.gets(b"missing", return_flags=True) is None


async def test_gets_and_cas(client: Client):
    await client.set(b"k", b"one", flags=3)
    item = await client.gets(b"k", True)
    assert item is not None
    assert (item.value, item.flags) == (b"one", 3)
    assert item.cas is not None
    with pytest.raises(NotStoredStorageCommandError):
        await client.cas(b"k", b"two", item.cas + 1)
    with pytest.raises(NotStoredStorageCommandError):
        await client.cas(b"k", b"two", 0)
    await client.cas(b"k", b"two", item.cas, flags=4)
    assert await client.get(b"k", return_flags=True) == Item(b"two", 4, None)
    with pytest.raises(NotStoredStorageCommandError):
        await client.cas(b"k", b"three", item.cas)
    with pytest.raises(StorageCommandError) as caught:
        await client.cas(b"missing", b"v", item.cas)
    assert not isinstance(caught.value, NotStoredStorageCommandError)
    assert caught.value.reply == "NOT_FOUND"


async def test_gat_and_gats(client: Client):
    await client.set(b"k", b"v", flags=6)
    assert await client.gat(1000, b"k") == Item(b"v", None, None)
    assert await client.gat(1000, b"k", return_flags=True) == Item(b"v", 6, None)
    item = await client.gats(1000, b"k", True)
    assert item == Item(b"v", 6, await token_of(client, b"k"))
    assert await client.gat(0, b"missing") is None
    assert await client.gats(0, b"missing") is None


async def test_many_keys(client: Client):
    await fill(client, KEYS)
    asked = [b"no:1", *KEYS[:10], b"no:2", *KEYS[10:], KEYS[0], b"no:3"]
    plain = {key: Item(value_of(key), None, None) for key in KEYS}
    flagged = {key: Item(value_of(key), 5, None) for key in KEYS}
    assert await client.get_many(asked) == plain
    assert await client.get_many(iter(asked), return_flags=True) == flagged
    assert await client.gat_many(1000, asked) == plain
    assert await client.gat_many(1000, asked, return_flags=True) == flagged
    for with_tokens in (await client.gets_many(asked), await client.gats_many(1000, asked)):
        assert {key: item.value for key, item in with_tokens.items()} == {key: value_of(key) for key in KEYS}
        for key, item in with_tokens.items():
            assert (item.flags, item.cas) == (None, await token_of(client, key))
    with_both = await client.gets_many(KEYS, return_flags=True)
    assert {item.flags for item in with_both.values()} == {5}
    assert await client.get_many([b"no:1"]) == {}
    assert await client.get_many([]) == {}


async def test_writing_many_keys(client: Client):
    await fill(client, KEYS)
    failed = await client.touch_many([*KEYS, b"no:1"], 1000)
    assert {key: type(error) for key, error in failed.items()} == {b"no:1": NotFoundCommandError}
    failed = await client.delete_many([b"no:1", *KEYS, b"no:2"])
    assert {key: type(error) for key, error in failed.items()} == dict.fromkeys(
        (b"no:1", b"no:2"), NotFoundCommandError
    )
    assert await client.get_many(KEYS) == {}
    assert await client.set_many({key: b"v" for key in KEYS}, noreply=True) == {}
    assert len(await client.get_many(KEYS)) == len(KEYS)
    assert await client.touch_many(KEYS, -1, noreply=True) == {}
    assert await client.get_many(KEYS) == {}
    await fill(client, KEYS)
    assert await client.delete_many(KEYS, noreply=True) == {}
    assert await client.get_many(KEYS) == {}


# -------------------------------------------------------------------------------------------------------------- storage


async def test_add_and_replace(client: Client):
    with pytest.raises(NotStoredStorageCommandError):
        await client.replace(b"k", b"v")
    await client.add(b"k", b"one", flags=1)
    with pytest.raises(NotStoredStorageCommandError):
        await client.add(b"k", b"two")
    await client.replace(b"k", b"three", flags=2)
    assert await client.get(b"k", return_flags=True) == Item(b"three", 2, None)


async def test_append_and_prepend(client: Client):
    for change in (client.append, client.prepend):
        with pytest.raises(NotStoredStorageCommandError):
            await change(b"k", b"v")
    await client.set(b"k", b"b", flags=9)
    await client.append(b"k", b"c")
    await client.prepend(b"k", b"a")
    assert await client.get(b"k", return_flags=True) == Item(b"abc", 9, None)


async def test_values_of_all_kinds(client: Client):
    for value in (b"", b"x", HOSTILE, bytearray(b"array"), memoryview(b"a view")[2:], bytes(range(256)) * 300):
        await client.set(b"k", value)
        assert await value_now(client, b"k") == bytes(value)


async def test_increment_and_decrement(client: Client):
    for change in (client.increment, client.decrement):
        with pytest.raises(NotFoundCommandError):
            await change(b"k", 1)
    await client.set(b"k", b"10")
    assert await client.increment(b"k", 5) == 15
    assert await client.decrement(b"k", 6) == 9
    assert await client.decrement(b"k", 100) == 0
    await client.set(b"k", b"%d" % (2**64 - 1))
    assert await client.increment(b"k", 2) == 1
    assert await client.increment(b"k", 2**64 - 2) == 2**64 - 1
    await client.set(b"k", b"no number")
    for change in (client.increment, client.decrement):
        with pytest.raises(CommandError, match="non-numeric") as caught:
            await change(b"k", 1)
        assert not isinstance(caught.value, NotFoundCommandError)


async def test_delete_and_touch(client: Client):
    for missing in (client.delete(b"k"), client.touch(b"k", 0)):
        with pytest.raises(NotFoundCommandError):
            await missing
    await client.set(b"k", b"v")
    await client.touch(b"k", 1000)
    await client.delete(b"k")
    assert await client.get(b"k") is None


async def test_expiry(client: Client):
    now = int(time.time())
    for gone in (-1, now - 1000, -(2**31)):
        await client.set(b"k", b"v", exptime=gone)
        assert await client.get(b"k") is None
        await client.add(b"k", b"v", exptime=gone)
        assert await client.get(b"k") is None
        await client.set(b"k", b"v")
        await client.touch(b"k", gone)
        assert await client.get(b"k") is None
        await client.set(b"k", b"v")
        await client.gat(gone, b"k")
        assert await client.get(b"k") is None
        await client.set(b"k", b"v")
        await client.replace(b"k", b"v", exptime=gone)
        with pytest.raises(NotStoredStorageCommandError):
            await client.replace(b"k", b"v")
        await client.set(b"k", b"v")
        await client.cas(b"k", b"v", await token_of(client, b"k"), exptime=gone)
        assert await client.get(b"k") is None
    for there in (0, 1000, 2_592_000, now + 1000, 2**31 - 1):
        await client.set(b"k", b"v", exptime=there)
        assert await value_now(client, b"k") == b"v"


async def test_noreply_is_visible_to_the_next_operation(client: Client):
    for key in KEYS:
        assert await client.set(key, b"one", noreply=True) is None
        assert await value_now(client, key) == b"one"
        assert await client.replace(key, b"b", noreply=True) is None
        assert await client.append(key, b"c", noreply=True) is None
        assert await client.prepend(key, b"a", noreply=True) is None
        assert await value_now(client, key) == b"abc"
        assert await client.cas(key, b"5", await token_of(client, key), noreply=True) is None
        assert await client.increment(key, 7, noreply=True) is None
        assert await client.decrement(key, 2, noreply=True) is None
        assert await value_now(client, key) == b"10"
        assert await client.touch(key, -1, noreply=True) is None
        assert await value_now(client, key) is None
        assert await client.add(key, b"new", noreply=True) is None
        assert await value_now(client, key) == b"new"
        assert await client.delete(key, noreply=True) is None
        assert await value_now(client, key) is None
        # What fails unheard does not put the connection out of step.
        assert await client.increment(key, 1, noreply=True) is None
        assert await client.replace(key, b"x", noreply=True) is None
        assert await value_now(client, key) is None


# ------------------------------------------------------------------------------------------------------- administration


async def test_flush_all(client: Client, setup: Setup):
    await fill(client, KEYS)
    first, second = (server.address for server in setup.servers)
    await client.flush_all(first)
    rest = await client.get_many(KEYS)
    assert 0 < len(rest) < len(KEYS)
    await client.flush_all(second, noreply=True)
    assert await client.get_many(KEYS) == {}
    await fill(client, KEYS)


async def test_version_and_stats(client: Client, setup: Setup):
    for server in setup.servers:
        version = await client.version(server.address)
        assert version.split(".")[0] == "1"
        stats = await client.stats(server.address)
        assert (stats["pid"], stats["version"]) == (str(server.pid), version)
        assert (await client.stats(server.address, "settings"))["verbosity"].isdigit()
        await client.set(b"some", b"item")
        assert isinstance(await client.stats(server.address, "items"), dict)
        if setup.kind != "sasl":  # there the server takes both for one unknown name
            assert isinstance(await client.stats(server.address, "items", "ignored"), dict)
        assert await client.stats(server.address, "reset") == {}


async def test_cache_memlimit_and_verbosity(client: Client, setup: Setup):
    address = setup.servers[0].address
    if setup.kind == "sasl":
        for missing in (client.cache_memlimit(address, 64), client.verbosity(address, 1)):
            with pytest.raises(CommandError):
                await missing
        return
    with pytest.raises(CommandError, match="MEMLIMIT_TOO_SMALL"):
        await client.cache_memlimit(address, 1)
    assert await client.cache_memlimit(address, 64) is None
    assert await client.cache_memlimit(address, 1, noreply=True) is None
    assert await client.verbosity(address, 1) is None
    assert await client.verbosity(address, 0, noreply=True) is None
    assert (await client.stats(address, "settings"))["verbosity"] == "0"


async def test_quit(client: Client, setup: Setup):
    await fill(client, KEYS)
    for server in setup.servers:
        assert await client.quit(server.address) is None
    async with asyncio.timeout(SECONDS):
        assert len(await client.get_many(KEYS)) == len(KEYS)


# ----------------------------------------------------------------------------------------------------- beyond one reply


async def test_large_values(client: Client):
    for size in (65_535, 65_536, 500_000, 2**20 - 1024):
        value = bytes(number * 7 % 251 for number in range(1000)) * (size // 1000 + 1)
        value = value[:size]
        await client.set(b"large", value)
        assert await value_now(client, b"large") == value
    with pytest.raises(StorageCommandError, match="too large"):
        await client.set(b"large", bytes(2**20 + 1))
    # The server drops the old value, and the connection is in step.
    assert await client.get(b"large") is None
    await client.set(b"large", bytes(2**20 + 1), noreply=True)
    await fill(client, KEYS)
    assert len(await client.get_many(KEYS)) == len(KEYS)


async def test_many_callers(client: Client):
    async def one(number: int) -> None:
        key = b"caller:%d" % number
        await client.set(key, value_of(key))
        assert await value_now(client, key) == value_of(key)
        assert (await client.gets(key)).value == value_of(key)  # type: ignore[union-attr]
        await client.delete(key)
        assert await client.get(key) is None

    async with asyncio.timeout(SECONDS):
        await asyncio.gather(*map(one, range(300)))
    metrics = client.cluster_managment().connection_pool_metrics()
    assert sum(entry.operations_executed_with_error for entry in metrics.values()) == 0


async def test_get_or_set(client: Client):
    calls = []

    async def make() -> bytes:
        calls.append(1)
        await asyncio.sleep(0.01)
        return b"made"

    async with asyncio.timeout(SECONDS):
        made = await asyncio.gather(*(client.get_or_set(b"k", make, ttl=100) for _ in range(20)))
    assert made == [b"made"] * 20
    assert len(calls) == 1
    assert await value_now(client, b"k") == b"made"
    assert await client.get_or_set(b"k", make) == b"made"
    assert len(calls) == 1


@pytest.mark.parametrize("chunk_size", [1024, 4000])
async def test_chunks(setup: Setup, open_client: OpenClient, chunk_size: int):
    client = await open_client(*setup.servers, chunking=True, chunk_size=chunk_size, **setup.options)
    for size in (0, chunk_size - 1, chunk_size, chunk_size + 1, 2 * chunk_size, 100_000):
        value = bytes(number % 253 for number in range(size))
        await client.set(b"k", value, flags=3)
        assert await client.get(b"k", return_flags=True) == Item(value, 3, None)
        assert (await client.get_many([b"k"]))[b"k"].value == value
        await client.cas(b"k", value[::-1], await token_of(client, b"k"))
        assert await value_now(client, b"k") == value[::-1]


# ---------------------------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("setup", ["tcp", "classic", "sasl"], indirect=True)
async def test_order_for_one_key_under_load(setup: Setup, open_client: OpenClient):
    """With two connections in use, each operation sees those before it on its key: unheard and cancelled ones too."""
    client = await open_client(setup.servers[0], timeout=SECONDS, **setup.options)
    ended = False

    async def load(number: int) -> None:
        value = bytes(5_000)
        while not ended:
            await client.set(b"load:%d" % number, value)
            await client.get(b"load:%d" % number)

    async def checked(number: int) -> None:
        key = b"checked:%d" % number
        for turn in range(0, 250, 2):
            await client.set(key, b"%d" % turn, noreply=True)
            assert await value_now(client, key) == b"%d" % turn
            write = asyncio.create_task(client.set(key, b"%d" % (turn + 1)))
            for _ in range(turn % 5):
                await asyncio.sleep(0)
            write.cancel()
            await asyncio.gather(write, return_exceptions=True)
            seen = await value_now(client, key)
            assert seen in (b"%d" % turn, b"%d" % (turn + 1))
            assert await value_now(client, key) == seen  # what was cancelled does not come later

    loads = [asyncio.create_task(load(number)) for number in range(250)]
    async with asyncio.timeout(SECONDS * 3):
        await asyncio.gather(*map(checked, range(8)))
    ended = True
    await asyncio.gather(*loads)
    [metrics] = client.cluster_managment().connection_pool_metrics().values()
    assert metrics.cur_connections == 2
