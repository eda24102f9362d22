"""From what users write to a client: checks in the call, nothing opened before it is awaited."""

from __future__ import annotations

import asyncio
import gc
import inspect
import ssl
import warnings
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from rain.memcache import (
    Client,
    ClusterManagment,
    MemcachedHostAddress,
    MemcachedUnixSocketPath,
    NodeUnavailable,
    create_client,
    factory,
)
from rain.memcache.addresses import Address
from rain.memcache.options import Options
from rain.memcache.testing import SILENCE, FakeServer
from tests.memcache.test_options import DEFAULTS, Events

HOST = MemcachedHostAddress("localhost", 11211)


class Made:
    """Stands for the client; remembers what it was made of, and how it was used."""

    def __init__(self, addresses: list[Address], options: Options) -> None:
        self.addresses = addresses
        self.options = options
        self.opened = self.closed = 0
        self.failure: BaseException | None = None
        everything_made.append(self)

    async def open(self) -> None:
        self.opened += 1
        await asyncio.sleep(0)
        if failures:
            raise failures.pop()

    async def close(self) -> None:
        self.closed += 1


everything_made: list[Made] = []
failures: list[BaseException] = []


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Made]:
    """The clients made during the test."""
    monkeypatch.setattr(factory, "MemcachedClient", Made)
    everything_made.clear()
    failures.clear()
    return everything_made


async def parts(*arguments: Any, **options: Any) -> Made:
    """What `create_client` hands to the client."""
    client: Any = await create_client(*arguments, **options)
    return client


def test_signature():
    """Names, order, defaults and kinds are part of the API."""
    parameters = inspect.signature(create_client).parameters
    assert list(parameters) == ["node_addresses", *DEFAULTS]
    assert {name: parameter.default for name, parameter in list(parameters.items())[1:]} == DEFAULTS
    kinds = {parameter.kind for parameter in list(parameters.values())[1:]}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}
    assert parameters["node_addresses"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert not inspect.iscoroutinefunction(create_client)


async def test_addresses(made: list[Made]):
    """Order kept, repetitions kept, texts read; any sequence."""
    socket = MemcachedUnixSocketPath("run/mc")
    client = await parts((HOST, socket, "cache:1", HOST, "/run/mc", "[::1]"))
    assert client.addresses == [
        HOST,
        socket,
        MemcachedHostAddress("cache", 1),
        HOST,
        MemcachedUnixSocketPath("/run/mc"),
        MemcachedHostAddress("::1", 11211),
    ]
    assert client.options == Options()
    assert (await parts(node_addresses=[HOST])).addresses == [HOST]


async def test_urls(made: list[Made]):
    """Options in the URL, over which keyword arguments win, also those that say the default."""
    client = await parts("memcached://u:p@a,b:2/?timeout=3&max_connections=7&retry_reads=0")
    assert client.addresses == [MemcachedHostAddress("a", 11211), MemcachedHostAddress("b", 2)]
    assert client.options == Options(timeout=3, max_connections=7, retry_reads=False, username="u", password="p")
    client = await parts("memcacheds://u:p@a/?timeout=3&max_connections=7", timeout=1.0, ssl=False, password="q")
    assert client.options == Options(timeout=1.0, max_connections=7, username="u", password="q")
    client = await parts("memcached:///run/mc.sock?timeout=none", max_connections=1, min_connections=None)
    assert client.options == Options(timeout=None, max_connections=1)


async def test_all_options_are_handed_on(made: list[Made]):
    events = Events()
    given: dict[str, Any] = {
        "timeout": 2,
        "max_connections": 9,
        "min_connections": 3,
        "purge_unused_connections_after": None,
        "connection_timeout": 4,
        "cluster_events": events,
        "purge_unhealthy_nodes": True,
        "autobatching": True,
        "autobatching_max_keys": 2,
        "username": "u",
        "password": "p",
        "autodiscovery": True,
        "autodiscovery_poll_interval": 5,
        "autodiscovery_timeout": 6,
        "protocol": "classic",
        "hashing": "rendezvous",
        "retry_reads": False,
        "chunking": True,
        "chunk_size": 4096,
    }
    client = await parts([HOST], **given)
    assert client.options == Options(**given)


async def test_tls_contexts(made: list[Made], tmp_path: Path):
    """Made in the call, from files that are read there."""
    assert (await parts([HOST])).options.ssl_context is None
    context = (await parts([HOST], ssl=True)).options.ssl_context
    assert context is not None
    assert context.check_hostname
    ready = ssl.create_default_context()
    assert (await parts([HOST], ssl=ready)).options.ssl_context is ready
    with pytest.raises(FileNotFoundError):
        create_client([HOST], ssl=True, ssl_extra_ca=str(tmp_path / "missing.pem"))
    with pytest.raises(ValueError, match="TLS over the unix socket"):
        create_client([HOST, "/run/mc.sock"], ssl=True)


@pytest.mark.parametrize(
    ("addresses", "options", "error", "text"),
    [
        ([], {}, ValueError, "node_addresses is empty"),
        ("memcached://", {}, ValueError, "names no node"),
        ("cache:11211", {}, ValueError, "begins with memcached://"),
        (["memcached://cache"], {}, ValueError, "a URL stands alone"),
        (["cache:x"], {}, ValueError, "the port of 'cache'"),
        ([("cache", 11211)], {}, TypeError, "a node address must be .*, not a tuple"),
        ([HOST, None], {}, TypeError, "a node address must be .*, not a NoneType"),
        ([HOST], {"time_out": 1}, TypeError, r"create_client\(\) has no option 'time_out'"),
        ([HOST], {"ssl_context": None}, TypeError, r"create_client\(\) has no option 'ssl_context'"),
        ([HOST], {"max_connections": 0}, ValueError, "max_connections"),
        ("memcached://cache?max_connections=0", {}, ValueError, "max_connections"),
        ("memcached://cache?size=0", {}, ValueError, "unknown option 'size'"),
    ],
)
def test_wrong_arguments(addresses: Any, options: dict[str, Any], error: type[Exception], text: str):
    """All checks happen in the call, without a loop."""
    with pytest.raises(error, match=text):
        create_client(addresses, **options)


def test_made_before_a_loop_runs(made: list[Made]):
    """Nothing happens until it is awaited; then in any way that a coroutine can be run."""

    async def wait_for(opening: Coroutine[Any, Any, Client]) -> Client:
        return await asyncio.wait_for(opening, 5)

    async def task(opening: Coroutine[Any, Any, Client]) -> Client:
        return await asyncio.create_task(opening)

    async def gather(opening: Coroutine[Any, Any, Client]) -> Client:
        return (await asyncio.gather(opening))[0]

    async def plain(opening: Coroutine[Any, Any, Client]) -> Client:
        return await opening

    for way in (lambda opening: opening, wait_for, task, gather, plain):
        opening = create_client([HOST])
        assert isinstance(opening, Coroutine)
        assert asyncio.iscoroutine(opening)
        assert "not yet open" in repr(opening)
        assert "localhost:11211" in repr(opening)
        assert not made
        client: Any = asyncio.run(way(opening), debug=True)
        assert made == [client]
        assert (client.opened, client.closed) == (1, 0)
        made.clear()


def test_never_awaited(made: list[Made]):
    """No warning, as nothing was opened."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        create_client([HOST])
        opening = create_client([HOST])
        opening.close()
        del opening
        gc.collect()
    assert not made
    assert not caught


async def test_used_once(made: list[Made]):
    opening = create_client([HOST])
    await opening
    with pytest.raises(RuntimeError, match="was used before; call create_client"):
        await opening
    with pytest.raises(RuntimeError, match="was used before; call create_client"):
        async with opening:
            pass
    with pytest.raises(RuntimeError, match="cannot reuse"):
        await asyncio.create_task(opening)
    assert len(made) == 1
    closed = create_client([HOST])
    closed.close()
    with pytest.raises(RuntimeError, match="was used before"):
        await closed


async def test_async_with(made: list[Made]):
    """The client is closed at the end, also after a failure."""
    async with create_client([HOST]) as client:
        assert made == [client]
        assert made[0].closed == 0
    assert made[0].closed == 1
    with pytest.raises(ZeroDivisionError):
        async with create_client([HOST]):
            1 / 0  # noqa: B018
    assert made[1].closed == 1


async def test_opening_fails(made: list[Made]):
    """What was opened is closed."""
    for failure in (NodeUnavailable("no nodes"), asyncio.CancelledError()):
        failures.append(failure)
        with pytest.raises(type(failure)):
            await create_client([HOST])
        assert made[-1].closed == 1


async def test_opening_is_cancelled(made: list[Made]):
    """In the middle, and before it begins."""
    for turns in (0, 1):
        made.clear()
        task = asyncio.create_task(create_client([HOST]))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [client.closed for client in made] == [1] * turns


async def test_a_real_client(fake: FakeServer):
    """It opens its connections in the background."""
    async with create_client([fake.address]) as client:
        assert isinstance(client, Client)
        assert isinstance(client.cluster_managment(), ClusterManagment)
        assert client.cluster_managment() is client.cluster_managment()
        assert client.cluster_managment().nodes() == [fake.address]
        await fake.until_connections(1)
        item = await client.get(b"key")
        assert item is not None
        assert item.value == b"value of key"
        assert not client.closed
        async with client as itself:
            assert itself is client
        assert client.closed
    assert client.cluster_managment().nodes() == [fake.address]


async def test_dead_nodes_do_not_fail_it(fake: FakeServer):
    fake.stop_listening()
    async with create_client([fake.address]) as client:
        with pytest.raises(NodeUnavailable):
            await client.get(b"key")


async def test_discovery_that_is_cancelled_leaves_nothing(fake: FakeServer):
    fake.answer(b"config", SILENCE)
    opening = asyncio.create_task(create_client([fake.address], autodiscovery=True))
    await fake.until_requests(3)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
