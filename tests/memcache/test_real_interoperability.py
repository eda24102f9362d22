"""Values and the choice of nodes, exchanged with other clients through real servers."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiomcache
import pymemcache
import pytest

from rain.memcache.addresses import MemcachedHostAddress
from rain.memcache.base import Client
from rain.memcache.testing import MemcachedServer
from tests.memcache.conftest import OpenClient

emcache = pytest.importorskip("emcache", reason="emcache has no wheel for this Python")

HASHING = "emcache-aarch64" if platform.machine() == "aarch64" else "emcache"
VALUES = {
    b"empty": b"",
    b"short": b"x",
    b"hostile": b"END\r\nVALUE a 0 1\r\nx\r\nEND\r\n",
    b"bytes": bytes(range(256)),
    b"large": bytes(range(256)) * 2000,
    b"k" * 250: b"long key",
}
MANY_KEYS = [b"key:%d" % number for number in range(500)] + [b"\xc3\xb1", b"x" * 250, b"rain:task:42"]
Servers = tuple[MemcachedServer, MemcachedServer]


@pytest.fixture
async def ours(servers: Servers, open_client: OpenClient) -> Client:
    return await open_client(servers[0])


@pytest.fixture
async def theirs(servers: Servers) -> AsyncIterator[Any]:
    """emcache's client of one server."""
    async with open_emcache(servers[0]) as client:
        yield client


class open_emcache:
    """emcache leaves timers behind when it is closed; they are cancelled here."""

    def __init__(self, *servers: MemcachedServer, **options: object) -> None:
        self._addresses = [emcache.MemcachedHostAddress(*host(server)) for server in servers]
        self._options = options

    async def __aenter__(self) -> Any:
        self._timers = set(asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]
        self._client = await emcache.create_client(self._addresses, **self._options)
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        for timer in asyncio.get_running_loop()._scheduled:  # type: ignore[attr-defined]
            if timer not in self._timers:
                timer.cancel()


def host(server: MemcachedServer) -> tuple[str, int]:
    address = server.address
    assert isinstance(address, MemcachedHostAddress)
    return address.address, address.port


async def test_values_of_emcache(ours: Client, theirs: Any):
    for key, value in VALUES.items():
        await theirs.set(key, value, flags=7)
        item = await ours.gets(key, return_flags=True)
        assert item is not None
        other = await theirs.gets(key, return_flags=True)
        assert (item.value, item.flags, item.cas) == (value, 7, other.cas)
        await ours.cas(key, value[::-1], other.cas, flags=8)
        item = await theirs.get(key, return_flags=True)
        assert (item.value, item.flags) == (value[::-1], 8)
    found = await theirs.get_many(list(VALUES))
    assert {key: item.value for key, item in found.items()} == {key: value[::-1] for key, value in VALUES.items()}


async def test_exceptions_are_those_of_emcache(ours: Client, theirs: Any):
    await ours.set(b"k", b"v")
    calls = (
        lambda client: client.add(b"k", b"v"),
        lambda client: client.replace(b"missing", b"v"),
        lambda client: client.append(b"missing", b"v"),
        lambda client: client.cas(b"k", b"v", 12345),
        lambda client: client.delete(b"missing"),
        lambda client: client.touch(b"missing", 1),
        lambda client: client.increment(b"missing", 1),
        lambda client: client.set(b"k", bytes(2**20 + 1)),
        lambda client: client.set(b"a blank", b"v"),
    )
    for call in calls:
        raised = []
        for client in (theirs, ours):
            with pytest.raises(Exception) as caught:  # noqa: PT011
                await call(client)
            raised.append(type(caught.value).__name__)
        assert raised[0] == raised[1]


async def test_nodes_of_emcache(
    servers: Servers, start_server: Callable[..., MemcachedServer], open_client: OpenClient
):
    """Both put each key on the same of three servers."""
    all_servers = [*servers, start_server()]
    ours = await open_client(*all_servers, hashing=HASHING)
    async with open_emcache(*all_servers) as theirs:
        for key in MANY_KEYS:
            await theirs.set(key, b"theirs")
        found = await ours.get_many(MANY_KEYS)
        assert {key: item.value for key, item in found.items()} == dict.fromkeys(MANY_KEYS, b"theirs")
        assert await ours.set_many(dict.fromkeys(MANY_KEYS, b"ours")) == {}
        found = await theirs.get_many(MANY_KEYS)
        assert {key: item.value for key, item in found.items()} == dict.fromkeys(MANY_KEYS, b"ours")
    items = [int(server.stats()["curr_items"]) for server in all_servers]
    assert sum(items) == len(MANY_KEYS)  # none was stored twice
    assert min(items) > 0


async def test_values_of_aiomcache(servers: Servers, ours: Client):
    theirs = aiomcache.Client(*host(servers[0]))
    try:
        for key, value in VALUES.items():
            await ours.set(key, value)
            assert await theirs.get(key) == value
            await theirs.set(key, value[::-1])
            assert (await ours.get(key)).value == value[::-1]  # type: ignore[union-attr]
        await ours.set(b"number", b"41")
        assert await theirs.incr(b"number", 1) == 42
        assert await ours.increment(b"number", 1) == 43
    finally:
        await theirs.close()


@pytest.fixture
def plain(servers: Servers) -> Iterator[pymemcache.Client]:
    client = pymemcache.Client(host(servers[0]), timeout=5.0)
    yield client
    client.close()


async def test_values_of_pymemcache(plain: pymemcache.Client, ours: Client):
    for key, value in VALUES.items():
        await ours.set(key, value, flags=3)
        assert plain.get(key) == value
        token = plain.gets(key)[1]
        assert (await ours.gets(key)).cas == int(token)  # type: ignore[union-attr]
        assert plain.cas(key, value[::-1], token, noreply=False)
        assert (await ours.get(key)).value == value[::-1]  # type: ignore[union-attr]
    plain.set_many({b"a": b"1", b"b": b"2"}, noreply=False)
    found = await ours.get_many([b"a", b"b", b"c"])
    assert {key: item.value for key, item in found.items()} == {b"a": b"1", b"b": b"2"}
    assert await ours.delete_many([b"a", b"b"]) == {}
    assert plain.get_many([b"a", b"b"]) == {}


async def test_placeholders_seen_by_others(plain: pymemcache.Client, ours: Client):
    """A lease is an empty item to clients that know nothing of it, and their values end it."""
    lease = await ours.get_lease(b"k")
    assert lease.won
    assert plain.get(b"k") == b""
    assert plain.add(b"k", b"v", noreply=False) is False
    assert plain.set(b"k", b"theirs", noreply=False)
    assert await lease.fulfil(b"ours") is False
    assert plain.get(b"k") == b"theirs"
