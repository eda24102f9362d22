"""Real servers: many keys, delays, autobatching, nodes that are not there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from rain.memcache.base import Client, Item
from rain.memcache.client_errors import NodeUnavailable, NotFoundCommandError
from rain.memcache.factory import create_client
from rain.memcache.testing import MemcachedServer
from tests.memcache.conftest import OpenClient, Setup

SECONDS = 20.0
Servers = tuple[MemcachedServer, MemcachedServer]


@pytest.mark.parametrize("noreply", [False, True])
async def test_ten_thousand_keys(setup: Setup, open_client: OpenClient, noreply: bool):
    client = await open_client(*setup.servers, timeout=SECONDS, **setup.options)
    values = {b"some:key:%d" % number: b"%d" % number for number in range(10_000)}
    assert await client.set_many(values, noreply=noreply) == {}
    fetched = await client.get_many(values)
    assert fetched.keys() == values.keys()
    assert all(fetched[key].value == value for key, value in values.items())
    assert await client.touch_many(values, 1000, noreply=noreply) == {}
    for fetch in (client.gets_many(values), client.gat_many(1000, values), client.gats_many(1000, values)):
        assert {key: item.value for key, item in (await fetch).items()} == values
    assert await client.delete_many(values, noreply=noreply) == {}
    assert await client.get_many(values) == {}
    if not noreply:
        failed = await client.delete_many(values)
        assert failed.keys() == values.keys()
        assert {type(error) for error in failed.values()} == {NotFoundCommandError}


async def test_long_keys(setup: Setup, open_client: OpenClient):
    client = await open_client(*setup.servers, timeout=SECONDS, **setup.options)
    values = {b"%05d" % number + b"\xff" * 245: b"%d" % number for number in range(300)}
    assert await client.set_many(values) == {}
    for fetch in (client.get_many(values), client.gat_many(1000, values)):
        assert {key: item.value for key, item in (await fetch).items()} == values


async def test_flush_with_a_delay(servers: Servers, open_client: OpenClient):
    client = await open_client(servers[0])
    await client.set(b"k", b"v")
    start = time.monotonic()
    await client.flush_all(servers[0].address, 2)
    item = await client.get(b"k")
    # The server counts whole seconds of its own.
    assert item == Item(b"v", None, None) or time.monotonic() - start > 1
    async with asyncio.timeout(SECONDS):
        while await client.get(b"k") is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("keys", [1, 32, 64])
async def test_autobatching(setup: Setup, open_client: OpenClient, keys: int):
    client = await open_client(*setup.servers, autobatching=True, autobatching_max_keys=keys, **setup.options)
    values = {b"key:%d" % number: b"value of %d END\r\n" % number for number in range(200)}
    assert await client.set_many(values, flags=3) == {}
    tokens = await client.gets_many(values)
    asked = [*values, b"missing", *values]
    plain, flagged, tokened, both = await asyncio.gather(
        asyncio.gather(*map(client.get, asked)),
        asyncio.gather(*(client.get(key, return_flags=True) for key in asked)),
        asyncio.gather(*map(client.gets, asked)),
        asyncio.gather(*(client.gets(key, True) for key in asked)),
    )
    for number, key in enumerate(asked):
        value = values.get(key)
        assert plain[number] == (value and Item(value, None, None))
        assert flagged[number] == (value and Item(value, 3, None))
        assert tokened[number] == (value and Item(value, None, tokens[key].cas))
        assert both[number] == (value and Item(value, 3, tokens[key].cas))
    assert plain[0] is not plain[201]


async def test_unreachable_nodes(servers: Servers, start_server: Callable[..., MemcachedServer]):
    """One node of three is not there: its keys fail at once, and so does what needs all of them."""
    gone = start_server()
    absent = gone.address
    gone.kill()
    addresses = [*(server.address for server in servers), absent]
    async with create_client(addresses, timeout=0.5) as client:
        keys = [b"key:%d" % number for number in range(60)]
        failed = await client.set_many({key: key for key in keys})
        assert 0 < len(failed) < len(keys)
        assert all(isinstance(error, NodeUnavailable) and error.address == absent for error in failed.values())
        for key in keys:
            if key in failed:
                with pytest.raises(TimeoutError):
                    await client.get(key)
            else:
                assert await client.get(key) == Item(key, None, None)
        with pytest.raises(TimeoutError):
            await client.get_many(keys)
        assert len(await client.get_many([key for key in keys if key not in failed])) == len(keys) - len(failed)


async def test_nodes_that_do_not_answer(
    servers: Servers, start_server: Callable[..., MemcachedServer], open_client: OpenClient
):
    """A paused server accepts and is silent: the timeout ends what waits for it, other nodes are not affected."""
    third = start_server()
    client = await open_client(*servers, third, timeout=0.5)
    keys = [b"key:%d" % number for number in range(60)]
    assert await client.set_many({key: key for key in keys}) == {}
    third.pause()
    start = time.monotonic()
    results = await asyncio.gather(*(client.get(key) for key in keys), return_exceptions=True)
    with pytest.raises(TimeoutError):
        await client.get_many(keys)
    assert time.monotonic() - start < 5.0
    failed = {key for key, result in zip(keys, results, strict=True) if isinstance(result, BaseException)}
    assert 0 < len(failed) < len(keys)
    assert all(isinstance(result, TimeoutError | Item) for result in results)
    assert len(await client.get_many([key for key in keys if key not in failed])) == len(keys) - len(failed)
    third.resume()
    async with asyncio.timeout(SECONDS):
        await until_all_are_back(client, keys)


async def until_all_are_back(client: Client, keys: list[bytes]) -> None:
    while True:
        try:
            found = await client.get_many(keys)
        except (TimeoutError, NodeUnavailable):
            await asyncio.sleep(0.05)
        else:
            assert {key: item.value for key, item in found.items()} == {key: key for key in keys}
            return
