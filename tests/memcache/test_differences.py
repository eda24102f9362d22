"""Where emcache 1.3.3 fails: one test, at least, for each row of the table in docs/memcache/migration.md."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rain.memcache import (
    AuthenticationError,
    Client,
    ClusterNoAvailableNodes,
    CommandError,
    MemcachedHostAddress,
    NodeUnavailable,
    NotStoredStorageCommandError,
    StorageCommandError,
    create_client,
    discovery,
    node,
)
from rain.memcache.client import MemcachedClient
from rain.memcache.cluster import Cluster
from rain.memcache.options import Options
from rain.memcache.testing import CLOSE, SILENCE, Certificates, FakeServer, MemcachedServer, Play, loop_leaks

MODES = ["auto", "classic"]
SECONDS = 10.0

Servers = tuple[MemcachedServer, MemcachedServer]


@asynccontextmanager
async def opened(*servers: FakeServer, **options: Any) -> AsyncIterator[MemcachedClient]:
    """A client of these servers; at the end nothing went wrong in callbacks."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with create_client([server.address for server in servers], **options) as client:
        assert isinstance(client, MemcachedClient)
        yield client
    assert complaints == []


async def outcomes(*calls: Awaitable[Any]) -> list[Any]:
    """What each of some calls that are made together gives or raises."""
    return await asyncio.gather(*calls, return_exceptions=True)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that do not last a second count as good ones, too: they are replaced at once."""
    monkeypatch.setattr(node, "HASTE", 0.0)


def cluster_of(client: MemcachedClient) -> Cluster:
    return client._cluster


# 1


@pytest.mark.parametrize("mode", MODES)
async def test_1_autobatching_with_tokens_and_flags(fake: FakeServer, mode: Any):
    """Every caller of a turn gets its item, in each of the four kinds, hits and misses."""
    async with opened(fake, autobatching=True, protocol=mode) as client:
        keys = [b"a", b"b", b"a", b"missing", b"c"]
        for flags in (False, True):
            for fetch, cas in ((client.get, None), (client.gets, 7)):
                items = await outcomes(*(fetch(key, flags) for key in keys))
                assert [item and (item.value, item.flags, item.cas) for item in items] == [
                    None if key == b"missing" else (b"value of " + key, 0 if flags else None, cas) for key in keys
                ]


# 2, 3


@pytest.mark.parametrize("line", [b"ERROR", b"CLIENT_ERROR why", b"SERVER_ERROR out of memory"])
async def test_2_autobatching_error_lines(fake: FakeServer, line: bytes):
    """Every caller gets the error, none a miss."""
    fake.answer(b"get", line + b"\r\n")
    fake.answer_next(b"get rain:probe", b"END\r\n")
    async with opened(fake, autobatching=True, protocol="classic") as client:
        errors = await outcomes(client.get(b"a"), client.get(b"b"), client.gets(b"a"), client.get(b"c", True))
        assert all(isinstance(error, CommandError) for error in errors)
        assert {error.reply for error in errors} == {line.decode()}
        assert len(set(map(id, errors))) == 4


async def three(client: Client) -> list[Any]:
    """Three batched calls; their failures are objects of their own."""
    errors = await outcomes(client.get(b"a"), client.get(b"b"), client.get(b"a"))
    assert len(set(map(id, errors))) == 3
    return errors


async def test_3_autobatching_lost_connections(fake: FakeServer):
    fake.answer(b"get ", CLOSE)
    async with opened(fake, autobatching=True) as client:
        assert [type(error) for error in await three(client)] == [NodeUnavailable] * 3


async def test_3_autobatching_authentication(fake: FakeServer):
    fake.answer(b"get ", b"CLIENT_ERROR unauthenticated\r\n")
    async with opened(fake, autobatching=True) as client:
        assert [type(error) for error in await three(client)] == [AuthenticationError] * 3


async def test_3_autobatching_no_nodes(fake: FakeServer):
    async with opened(fake, autobatching=True, purge_unhealthy_nodes=True) as client:
        await client.get(b"a")
        [the_node] = cluster_of(client).nodes()
        the_node.healthy = False
        cluster_of(client)._health_changed(the_node)
        assert [type(error) for error in await three(client)] == [ClusterNoAvailableNodes] * 3


async def test_3_autobatching_unexpected_exceptions(fake: FakeServer, monkeypatch: pytest.MonkeyPatch):
    async with opened(fake, autobatching=True) as client:
        with monkeypatch.context() as patch:
            patch.setattr(cluster_of(client), "group", lambda keys: 1 / 0)
            assert [type(error) for error in await three(client)] == [ZeroDivisionError] * 3
        assert await client.get(b"a") is not None


# 4


@pytest.mark.parametrize("mode", MODES)
async def test_4_cas_with_token_0(fake: FakeServer, mode: Any):
    """The token stands in the line, so that the server reads the value as a value."""
    async with opened(fake, protocol=mode) as client:
        await client.cas(b"key", b"flush_all\r\n", 0)
        assert fake.requests[-1] == b"cas key 0 0 11 0\r\nflush_all\r\n\r\n"


async def test_4_cas_with_token_0_at_a_real_server(servers: Servers):
    async with create_client([servers[0].address]) as client:
        await client.set(b"key", b"value")
        with pytest.raises(NotStoredStorageCommandError):
            await client.cas(b"key", b"flush_all\r\nset key 0 0 3\r\nbad", 0)
        assert (await client.get(b"key")).value == b"value"  # type: ignore[union-attr]


# 5


TRICKY = b"END\r\nVALUE x 0 1\r\nEN\r\nERROR\r\nEND\r\n"


@pytest.mark.parametrize("mode", MODES)
async def test_5_values_that_contain_ends(fake: FakeServer, mode: Any):
    """Returned exactly, wherever the network cuts them."""
    answers = {
        b"mg key v": b"VA %d\r\n%b\r\n" % (len(TRICKY), TRICKY),
        b"get key": b"VALUE key 0 %d\r\n%b\r\nEND\r\n" % (len(TRICKY), TRICKY),
    }
    async with opened(fake, protocol=mode, timeout=5) as client:
        for step in (*range(1, 12), len(TRICKY)):
            for prefix, answer in answers.items():
                fake.answer(prefix, Play(answer, step=step))
            item = await client.get(b"key")
            assert item is not None
            assert item.value == TRICKY
            assert (await client.get_many([b"key"]))[b"key"].value == TRICKY


# 6


def fetches(client: Client) -> Iterator[Awaitable[Any]]:
    yield client.get(b"a")
    yield client.gets(b"a")
    yield client.gat(1, b"a")
    yield client.gats(1, b"a")
    yield client.get_many([b"a", b"b"])
    yield client.gets_many([b"a", b"b"])
    yield client.gat_many(1, [b"a", b"b"])
    yield client.gats_many(1, [b"a", b"b"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("line", [b"ERROR", b"SERVER_ERROR out of memory", b"CLIENT_ERROR line is too long"])
async def test_6_error_lines_to_fetches(fake: FakeServer, mode: Any, line: bytes):
    """They are raised at once, also without any limit of time, and the connection goes on."""
    async with opened(fake, protocol=mode, timeout=None) as client:
        await client.get(b"a")
        for prefix in (b"g", b"mg"):
            fake.answer(prefix, line + b"\r\n")
        for call in fetches(client):
            with pytest.raises(CommandError) as caught:
                await asyncio.wait_for(call, SECONDS)
            assert caught.value.reply == line.decode()
        assert len(fake.connections) == 1


# 7


async def test_7_empty_keys(fake: FakeServer):
    """Refused by every operation that has a key; nothing is sent."""
    async with opened(fake) as client:
        await client.get(b"a")
        before = len(fake.requests)
        calls = [
            *(fetch(b"") for fetch in (client.get, client.gets, client.delete, client.get_lease)),
            *(fetch(1, b"") for fetch in (client.gat, client.gats)),
            *(fetch([b"a", b""]) for fetch in (client.get_many, client.gets_many, client.delete_many)),
            *(fetch(1, [b"a", b""]) for fetch in (client.gat_many, client.gats_many)),
            *(store(b"", b"v") for store in (client.set, client.add, client.replace, client.append, client.prepend)),
            client.cas(b"", b"v", 1),
            *(change(b"", 1) for change in (client.increment, client.decrement, client.touch)),
            client.set_many({b"a": b"v", b"": b"v"}),
            client.touch_many([b"a", b""], 1),
            client.get_or_set(b"", lambda: b"v"),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="a key must not be empty"):
                await call
        assert len(fake.requests) == before


# 8


@pytest.mark.parametrize("line", ["CLIENT_ERROR cannot increment or decrement non-numeric value", "ERROR"])
async def test_8_error_lines_to_arithmetic(fake: FakeServer, line: str):
    for prefix in (b"incr", b"decr"):
        fake.answer(prefix, line.encode() + b"\r\n")
    async with opened(fake) as client:
        for change in (client.increment, client.decrement):
            with pytest.raises(CommandError, match=line) as caught:
                await change(b"key", 1)
            assert caught.value.reply == line


async def test_8_arithmetic_with_text(servers: Servers):
    async with create_client([servers[0].address]) as client:
        await client.set(b"key", b"text")
        with pytest.raises(CommandError, match="non-numeric value"):
            await client.increment(b"key", 1)
        assert (await client.get(b"key")).value == b"text"  # type: ignore[union-attr]


# 9


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("mode", MODES)
async def test_9_connections_lost_while_a_reply_is_due(patient: None, fake: FakeServer, mode: Any, end: str):
    """Without any limit of time: writes fail at once, reads are sent once more, lost twice they fail, too."""
    async with opened(fake, protocol=mode, timeout=None) as client:
        fake.answer_next(b"set key", Play(b"STO", end=end))
        with pytest.raises(NodeUnavailable) as caught:
            await asyncio.wait_for(client.set(b"key", b"v"), SECONDS)
        assert caught.value.sent
        assert caught.value.address == fake.address
        prefix = b"mg key" if mode == "auto" else b"get key"
        fake.answer_next(prefix, Play(end=end))
        item = await asyncio.wait_for(client.get(b"key"), SECONDS)
        assert item is not None
        assert item.value == b"value of key"
        fake.answer(prefix, Play(end=end))
        with pytest.raises(NodeUnavailable):
            await asyncio.wait_for(client.get(b"key"), SECONDS)


# 10


async def test_10_authentication_that_is_refused_once(fake: FakeServer):
    """All who wait are told; later operations try again."""
    gate = asyncio.Event()
    fake.answer_next(b"set _ _ _", Play(b"CLIENT_ERROR authentication failure\r\n", after=gate))
    async with opened(fake, username="user", password="secret") as client:
        waiting = [asyncio.ensure_future(client.get(b"key")) for _ in range(5)]
        await fake.until_requests(1)
        gate.set()
        errors = await outcomes(*waiting)
        assert [type(error) for error in errors] == [AuthenticationError] * 5
        assert "secret" not in str(errors)
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    assert await client.get(b"key") is not None
                    break
                except AuthenticationError:
                    await asyncio.sleep(0.05)


# 11


async def test_11_unexpected_exceptions_while_connecting():
    """An impossible port is no error of the network, but a failed attempt like any other."""
    impossible = MemcachedHostAddress("127.0.0.1", 70_000)
    async with create_client([impossible]) as client:
        for _ in range(2):
            with pytest.raises(NodeUnavailable) as caught:
                await client.get(b"key")
            assert isinstance(caught.value.__cause__, OverflowError)
        assert client.cluster_managment().connection_pool_metrics()[impossible].connections_created_with_error == 1


# 12


async def test_12_stats_in_segments(fake: FakeServer):
    fake.answer(b"stats\r\n", Play(b"STAT pid 7\r\nSTAT name two words \r\nSTAT empty \r\nEND\r\n", step=1))
    fake.answer(b"stats reset", Play(b"RESET\r\n", step=1))
    async with opened(fake) as client:
        assert await client.stats(fake.address) == {"pid": "7", "name": "two words ", "empty": ""}
        assert await client.stats(fake.address, "reset") == {}


async def test_12_stats_of_a_real_server(servers: Servers):
    async with create_client([servers[0].address]) as client:
        assert int((await client.stats(servers[0].address))["pid"]) > 0
        assert await client.stats(servers[0].address, "reset") == {}


# 13, 14


def configuration(version: int, *servers: FakeServer) -> bytes:
    """What an endpoint tells about nodes."""
    hosts = [server.address for server in servers]
    entries = " ".join(f"{host.address}||{host.port}" for host in hosts if isinstance(host, MemcachedHostAddress))
    text = f"{version}\n{entries}\n".encode()
    return b"CONFIG cluster 0 %d\r\n%b\r\nEND\r\n" % (len(text), text)


async def test_13_discovery_in_segments(fakes: list[FakeServer]):
    endpoint, *nodes = fakes
    endpoint.answer(b"config get cluster", Play(configuration(1, *nodes), step=3))
    async with opened(endpoint, autodiscovery=True) as client:
        assert client.cluster_managment().nodes() == [each.address for each in nodes]
        assert len(await client.get_many([b"key:%d" % number for number in range(20)])) == 20


@pytest.mark.parametrize("answer", [configuration(1), SILENCE, CLOSE, b"SERVER_ERROR busy\r\n"])
async def test_14_discovery_without_nodes(fake: FakeServer, answer: Any, monkeypatch: pytest.MonkeyPatch):
    """There is no client then, and nothing is left of it."""
    monkeypatch.setattr(discovery, "DEFAULT_STARTUP_WAIT_AUTODISCOVERY", 0.3)
    fake.answer(b"config get cluster", answer)
    with pytest.raises(NodeUnavailable, match="autodiscovery found no nodes within"):
        await create_client([fake.address], autodiscovery=True)
    await fake.until_connections(0)
    assert loop_leaks() == set()


# 15


async def test_15_gat_of_thousands_of_keys(servers: Servers):
    keys = [b"a key of some length, number:%06d".replace(b" ", b"_") % number for number in range(5000)]
    async with create_client([server.address for server in servers], timeout=SECONDS) as client:
        assert await client.set_many(dict.fromkeys(keys, b"v")) == {}
        assert (await client.gat_many(60, keys)).keys() == set(keys)
        assert (await client.gats_many(60, keys)).keys() == set(keys)


# 16


async def test_16_negative_flags(fake: FakeServer):
    async with opened(fake) as client:
        await client.get(b"a")
        before = len(fake.requests)
        for call in (
            client.set(b"key", b"v", flags=-1),
            client.add(b"key", b"v", flags=-1),
            client.replace(b"key", b"v", flags=-1),
            client.cas(b"key", b"v", 1, flags=-1),
            client.set_many({b"key": b"v"}, flags=-1),
            client.get_or_set(b"key", lambda: b"v", flags=-1),
        ):
            with pytest.raises(ValueError, match="flags must be from 0 to 4294967295, not -1"):
                await call
        assert len(fake.requests) == before


# 17


@pytest.mark.parametrize("autobatching", [False, True])
async def test_17_timers_after_close(fake: FakeServer, autobatching: bool):
    """None, at once; whatever ran before."""
    for prefix in (b"mg slow", b"get slow"):
        fake.answer(prefix, SILENCE)
    down = FakeServer()
    await down.start()
    await down.close()
    before = loop_leaks()
    async with create_client([fake.address, down.address], autobatching=autobatching) as client:
        await outcomes(*(client.get(b"key:%d" % number) for number in range(20)))
        running = asyncio.ensure_future(client.get(b"slow"))
        await asyncio.sleep(0.05)
    [error] = await outcomes(running)
    assert isinstance(error, (RuntimeError, NodeUnavailable))
    assert {leak for leak in loop_leaks() - before if leak.startswith("timer")} == set()


# 18


async def test_18_nothing_open_and_the_connection_breaks(patient: None, fake: FakeServer):
    """Operations that wait for it fail at once, or get a new one."""
    gate = asyncio.Event()
    fake.answer_next(b"version", Play(after=gate, end="close"))
    async with opened(fake, min_connections=0, timeout=None) as client:
        assert fake.connections == []
        waiting = [asyncio.ensure_future(client.get(b"key")) for _ in range(3)]
        await fake.until_requests(1)
        gate.set()
        errors = await asyncio.wait_for(outcomes(*waiting), SECONDS)
        assert [type(error) for error in errors] == [NodeUnavailable] * 3
        assert await until_answered(lambda: client.get(b"key")) is not None
        fake.answer_next(b"mg lost", CLOSE)
        items = await asyncio.wait_for(outcomes(client.get(b"lost"), client.get(b"other")), SECONDS)
        assert [item.value for item in items] == [b"value of lost", b"value of other"]


async def until_answered(call: Callable[[], Awaitable[Any]]) -> Any:
    """What a call gives when its node is back."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return await call()
            except NodeUnavailable:
                await asyncio.sleep(0.05)


# 19


async def test_19_a_further_authority_and_the_host_name(
    certificates: Certificates, start_server: Callable[..., MemcachedServer]
):
    """The name is checked although the authority is known."""
    authority = str(certificates.authority.certificate)
    wrong = start_server(tls=certificates.foreign)
    async with create_client([wrong.address], ssl=True, ssl_extra_ca=authority) as client:
        with pytest.raises(NodeUnavailable) as caught:
            await client.set(b"key", b"v")
        assert "certificate is not valid for '127.0.0.1'" in str(caught.value.__cause__)
    for options in ({"ssl_check_hostname": False}, {"ssl_server_hostname": "example.org"}):
        async with create_client([wrong.address], ssl=True, ssl_extra_ca=authority, **options) as client:
            await client.set(b"key", b"v")


# 20


@pytest.mark.parametrize("mode", MODES)
async def test_20_late_replies(fake: FakeServer, mode: Any):
    """Dropped: the next caller gets its own, on the same connection."""
    gate = asyncio.Event()
    late = Play(b"VA 4\r\nlate\r\n" if mode == "auto" else b"VALUE slow 0 4\r\nlate\r\nEND\r\n", after=gate)
    async with opened(fake, protocol=mode, timeout=0.3) as client:
        await client.get(b"a")
        fake.answer_next(b"mg slow" if mode == "auto" else b"get slow", late)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.get(b"slow"), 0.05)
        other = asyncio.ensure_future(client.get(b"other"))
        await asyncio.sleep(0)
        gate.set()
        item = await other
        assert item is not None
        assert item.value == b"value of other"
        assert len(fake.connections) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_20_replies_to_noreply(patient: None, fake: FakeServer, mode: Any, caplog: pytest.LogCaptureFixture):
    """Nobody asked for them: one warning, a new connection, and every caller gets its own reply."""
    async with opened(fake, protocol=mode) as client:
        await client.get(b"a")
        fake.answer_next(b"set key", b"SERVER_ERROR out of memory storing object\r\n")
        with caplog.at_level(logging.WARNING):
            await client.set(b"key", b"v", noreply=True)
            await fake.until(lambda: len(fake.open_connections) == 1 and len(fake.connections) == 2)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        for key in (b"b", b"c"):
            item = await client.get(key)
            assert item is not None
            assert item.value == b"value of " + key


# 21


async def test_21_the_same_node_on_every_machine(monkeypatch: pytest.MonkeyPatch):
    """What this machine is has no part in it, unless that is asked for."""
    addresses = [MemcachedHostAddress("127.0.0.1", port) for port in (11211, 11212, 11213)]
    for machine in ("x86_64", "aarch64"):
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        for hashing, ports in {"emcache": (11212, 11211, 11211), "emcache-aarch64": (11213, 11211, 11212)}.items():
            cluster = Cluster(addresses, Options(hashing=hashing))  # type: ignore[arg-type]
            found = [cluster.node_for(key).address for key in (b"a", b"key:0", b"key:1")]
            assert found == [MemcachedHostAddress("127.0.0.1", port) for port in ports]


# 22


async def test_22_limits(servers: Servers):
    """The largest numbers are taken, larger ones refused by their own names."""
    async with create_client([servers[0].address]) as client:
        await client.set(b"key", b"v", flags=2**32 - 1)
        item = await client.gets(b"key", return_flags=True)
        assert item is not None
        assert item.flags == 2**32 - 1
        with pytest.raises(NotStoredStorageCommandError):
            await client.cas(b"key", b"v", 2**64 - 1)
        await client.set(b"number", b"0")
        assert await client.increment(b"number", 2**64 - 1) == 2**64 - 1
        for name, call in {
            "flags": client.set(b"key", b"v", flags=2**32),
            "cas": client.cas(b"key", b"v", 2**64),
            "value": client.increment(b"number", 2**64),
            "exptime": client.touch(b"key", 2**31),
        }.items():
            with pytest.raises(ValueError, match=f"^{name} must be from .* not {2**32}|^{name} must be from"):
                await call


# What is different on purpose


async def test_dead_nodes_fail_at_once(fake: FakeServer):
    """Not after the timeout; what asyncio knows as a timeout it is nevertheless."""
    await fake.close()
    async with create_client([fake.address], timeout=60) as client:
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.set(b"key", b"v"), SECONDS)


async def test_unhealthy_nodes_are_asked_for_their_version(fake: FakeServer):
    async with opened(fake, purge_unhealthy_nodes=True) as client:
        await client.get(b"a")
        [the_node] = cluster_of(client).nodes()
        the_node.healthy = False
        cluster_of(client)._health_changed(the_node)
        assert await client.version(fake.address) == "1.6.18"
        assert (await client.stats(fake.address))["pid"] == "1"


async def test_waiting_operations_are_served_in_order(fake: FakeServer):
    gate = asyncio.Event()
    fake.answer_next(b"version", Play(b"VERSION 1.6.18\r\n", after=gate))
    async with opened(fake) as client:
        waiting = [asyncio.ensure_future(client.set(b"key:%d" % number, b"v")) for number in range(20)]
        await fake.until_requests(2)
        gate.set()
        await asyncio.gather(*waiting)
        assert [request.split()[1] for request in fake.asked(b"set")] == [b"key:%d" % number for number in range(20)]


async def test_too_large_values_are_told_apart(servers: Servers):
    async with create_client([servers[0].address]) as client:
        with pytest.raises(StorageCommandError, match="SERVER_ERROR object too large for cache"):
            await client.set(b"key", bytes(2**21))
