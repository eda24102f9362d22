"""Autodiscovery: what endpoints tell, when they are asked, and what becomes of their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rain.memcache.addresses import Address, MemcachedHostAddress
from rain.memcache.base import ClusterEvents
from rain.memcache.client_errors import AuthenticationError, NodeUnavailable
from rain.memcache.cluster import Cluster
from rain.memcache.discovery import Configuration, parse_configuration
from rain.memcache.factory import create_client
from rain.memcache.node import Node
from rain.memcache.options import Options
from rain.memcache.requests import fetch
from rain.memcache.testing import FakeServer, MemcachedServer, success
from tests.memcache.virtual import Network, Script, Wire, seconds, turns, virtually

OLD_FORM = b"get AmazonElastiCache:cluster\r\n"


def host(number: int) -> MemcachedHostAddress:
    return MemcachedHostAddress(f"node-{number}", 11211)


def listing(version: int | str, *numbers: int) -> bytes:
    """The text that names these nodes."""
    return f"{version}\n{' '.join(f'node-{number}|10.0.0.{number}|11211' for number in numbers)}\n".encode()


def told(version: int, *numbers: int) -> bytes:
    """The reply with it."""
    text = listing(version, *numbers)
    return b"CONFIG cluster 0 %d\r\n%b\r\nEND\r\n" % (len(text), text)


@pytest.mark.parametrize(
    ("text", "configuration"),
    [
        ("1\na|10.0.0.1|11211\n", Configuration(1, (MemcachedHostAddress("a", 11211),))),
        (
            "12\na|10.0.0.1|1 |10.0.0.2|2 c||3\n",
            Configuration(
                12, (MemcachedHostAddress("a", 1), MemcachedHostAddress("10.0.0.2", 2), MemcachedHostAddress("c", 3))
            ),
        ),
        (
            "  7 \r\n  a|1|1   b|1|1  \r\n",
            Configuration(7, (MemcachedHostAddress("a", 1), MemcachedHostAddress("b", 1))),
        ),
        ("3\na|1|1 a|2|1 a|1|2", Configuration(3, (MemcachedHostAddress("a", 1), MemcachedHostAddress("a", 2)))),
        ("3\n\n", Configuration(3, ())),
        ("3", Configuration(3, ())),
    ],
)
def test_parse_configuration(text: str, configuration: Configuration):
    assert parse_configuration(text.encode()) == configuration


@pytest.mark.parametrize("text", [b"", b"\n", b"x\na|1|1", b"-1\na|1|1", "²\na|1|1".encode(), b"1.0\n"])
def test_broken_versions(text: bytes):
    with pytest.raises(ValueError, match="the version of the configuration is no number"):
        parse_configuration(text)


@pytest.mark.parametrize("entry", ["a|1", "a|1|1|1", "||1", "a|1|", "a|1|x", "a|1|0", "a|1|65536", "a", "a|1|-1"])
def test_broken_entries(entry: str):
    with pytest.raises(ValueError, match=r"is not HOST\|IP\|PORT: "):
        parse_configuration(f"1\nok|1|1 {entry}\n".encode())


def test_text_that_is_not_utf8():
    with pytest.raises(ValueError, match="utf-8"):
        parse_configuration(b"1\n\xff|1|1")


# In virtual time, with scripted endpoints


class Endpoints(Network):
    """Endpoints `endpoint-N` and all nodes; every endpoint answers what `answers` has for it.

    Attributes:
        answers: by the number of the endpoint: the reply, None for none, or an exception that refuses connections.
        old: by the number of the endpoint: the reply to the old form of the question.
        polls: times and endpoints of all questions.
    """

    def __init__(self, *answers: bytes | Exception | None) -> None:
        super().__init__()
        self.answers = dict(enumerate(answers, 1))
        self.old: dict[int, bytes] = {}
        self.polls: list[tuple[float, int]] = []
        self.connections: list[str] = []

    async def connect(self, address: Any, factory: Callable[[], asyncio.BaseProtocol], options: Options) -> None:
        self.connections.append(address.address)
        kind, _, number = address.address.rpartition("-")
        answer = self.answers[int(number)] if kind == "endpoint" else None
        if isinstance(answer, Exception):
            raise answer
        protocol = factory()
        assert isinstance(protocol, asyncio.BufferedProtocol)
        self.wires.append(Wire(protocol, self.endpoint(int(number)) if kind == "endpoint" else success))
        protocol.connection_made(self.wires[-1])

    def endpoint(self, number: int) -> Script:
        def answer(request: bytes) -> bytes | None:
            if request == b"config get cluster\r\n":
                self.polls.append((asyncio.get_running_loop().time(), number))
                current = self.answers[number]
                assert not isinstance(current, Exception)
                return current
            if request == OLD_FORM:
                return self.old[number]
            assert request in (b"version\r\n", b"mn\r\n", b"set _ _ _ 3\r\na b\r\n")
            return success(request)

        return answer

    def factory(self, address: Address, options: Options, *, on_health: Callable[[Node], None]) -> Node:
        return Node(address, options, on_health=on_health, connect=self.connect, random=lambda: 0.0)

    def cluster(self, **given: Any) -> Cluster:
        addresses = [MemcachedHostAddress(f"endpoint-{number}", 11211) for number in self.answers]
        options = Options(autodiscovery=True, **given)
        return Cluster(addresses, options, node_factory=self.factory, shuffle=lambda nodes: None)


def nodes_of(cluster: Cluster) -> list[Address]:
    return cluster.management.nodes()


def now() -> float:
    return asyncio.get_running_loop().time()


@virtually
async def test_first_answer():
    """The cluster opens with the nodes that it tells; endpoints are no nodes."""
    network = Endpoints(told(1, 1, 2))
    cluster = network.cluster()
    await cluster.open()
    assert now() == 1000
    assert nodes_of(cluster) == [host(1), host(2)]
    await turns()
    assert network.connections == ["endpoint-1", "node-1", "node-2"]
    assert cluster.management.connection_pool_metrics().keys() == {host(1), host(2)}
    await cluster.close()


@virtually
async def test_polls_go_on():
    """One interval after each answer; a new version changes the nodes, an old one and an empty list do not."""
    network = Endpoints(told(1, 1, 2))
    cluster = network.cluster(autodiscovery_poll_interval=7)
    await cluster.open()
    survivor = cluster.node_at(host(2))
    for answer, expected in [
        (told(1, 5, 6), [host(1), host(2)]),
        (told(2), [host(1), host(2)]),
        (told(2, 2, 3), [host(2), host(3)]),
        (told(3, 3, 2), [host(2), host(3)]),
        (told(2, 2), [host(2)]),
    ]:
        network.answers[1] = answer
        await seconds(7.5)
        assert nodes_of(cluster) == expected
    assert cluster.node_at(host(2)) is survivor
    assert [time for time, _ in network.polls] == [1000, 1007, 1014, 1021, 1028, 1035]
    await cluster.close()


@virtually
async def test_endpoints_have_one_connection_that_is_not_purged():
    """Idle ones and those that break are no health of any node."""
    network = Endpoints(told(1, 1))
    cluster = network.cluster(autodiscovery_poll_interval=1000, max_connections=5, min_connections=0)
    await cluster.open()
    await seconds(500)
    assert network.connections == ["endpoint-1"]
    assert len(network.open) == 1
    await cluster.close()


@virtually
async def test_any_endpoint_may_answer():
    """They are asked one after another, each within its time."""
    network = Endpoints(None, ConnectionRefusedError("refused"), b"SERVER_ERROR busy\r\n", told(4, 9))
    cluster = network.cluster(autodiscovery_timeout=2)
    await cluster.open()
    assert nodes_of(cluster) == [host(9)]
    assert network.polls == [(1000, 1), (1002, 3), (1002, 4)]
    await cluster.close()


@virtually
async def test_endpoints_are_asked_in_random_order():
    network = Endpoints(told(1, 1), told(1, 2))
    addresses = [MemcachedHostAddress(f"endpoint-{number}", 11211) for number in network.answers]

    def backwards(endpoints: list[Node]) -> None:
        endpoints.reverse()

    cluster = Cluster(addresses, Options(autodiscovery=True), node_factory=network.factory, shuffle=backwards)
    await cluster.open()
    assert nodes_of(cluster) == [host(2)]
    await cluster.close()


@virtually
async def test_failed_polls():
    """Polling goes on, the nodes stay."""
    network = Endpoints(told(1, 1))
    cluster = network.cluster(autodiscovery_poll_interval=10, autodiscovery_timeout=1)
    await cluster.open()
    for answer in (b"SERVER_ERROR busy\r\n", None, b"CONFIG cluster 0 4\r\nx\nab\r\nEND\r\n", b"garbage\r\n"):
        network.answers[1] = answer
        assert await cluster.autodiscover() is False
        assert nodes_of(cluster) == [host(1)]
        await seconds(2)
    network.answers[1] = told(2, 2)
    await seconds(20)
    assert nodes_of(cluster) == [host(2)]
    await cluster.close()


def test_what_is_logged(caplog: pytest.LogCaptureFixture):
    test_failed_polls()
    lines = [record.getMessage() for record in caplog.records if record.name == "rain.memcache.discovery"]
    assert all(line.startswith("autodiscovery at endpoint-1:11211 failed: ") for line in lines)
    assert "SERVER_ERROR busy" in lines[0]
    assert "config" in lines[1]
    assert "the version of the configuration is no number" in lines[2]


@virtually
async def test_polling_by_hand():
    """It tells whether nodes came or went."""
    network = Endpoints(told(1, 1))
    cluster = network.cluster()
    await cluster.open()
    assert await cluster.autodiscover() is False
    network.answers[1] = told(2, 1, 2)
    assert await cluster.autodiscover() is True
    assert await cluster.autodiscover() is False
    network.answers[1] = told(3, 2, 1)
    assert await cluster.autodiscover() is False
    await cluster.close()


@virtually
async def test_old_engines():
    """The list is the value of a key."""
    network = Endpoints(b"ERROR\r\n")
    text = listing(5, 3, 4)
    network.old[1] = b"VALUE AmazonElastiCache:cluster 0 %d\r\n%b\r\nEND\r\n" % (len(text), text)
    cluster = network.cluster()
    await cluster.open()
    assert nodes_of(cluster) == [host(3), host(4)]
    await cluster.close()


@pytest.mark.parametrize("answer", [b"END\r\n", b"ERROR\r\n"])
def test_servers_without_discovery(answer: bytes, caplog: pytest.LogCaptureFixture):
    """The endpoints are the nodes, until one answers."""

    @virtually
    async def test() -> None:
        network = Endpoints(b"ERROR\r\n", b"ERROR\r\n")
        network.old = {1: answer, 2: answer}
        cluster = network.cluster(autodiscovery_poll_interval=10)
        await cluster.open()
        endpoints = [MemcachedHostAddress(f"endpoint-{number}", 11211) for number in (1, 2)]
        assert nodes_of(cluster) == endpoints
        await seconds(11)
        assert nodes_of(cluster) == endpoints
        network.answers[1] = told(1, 1)
        await seconds(10)
        assert nodes_of(cluster) == [host(1)]
        network.answers[1] = b"ERROR\r\n"
        await seconds(10)
        assert nodes_of(cluster) == [host(1)]
        await cluster.close()

    test()
    warnings = [record.getMessage() for record in caplog.records if "has no autodiscovery" in record.getMessage()]
    assert warnings == ["endpoint-1:11211 has no autodiscovery; the configuration endpoints are used as nodes"]


@virtually
async def test_starting_takes_a_while():
    """Polls that fail, and empty lists, are repeated every second."""
    network = Endpoints(ConnectionRefusedError("refused"))
    cluster = network.cluster()
    opening = asyncio.create_task(cluster.open())
    await seconds(2.5)
    network.answers[1] = told(1)
    await seconds(3)
    assert not opening.done()
    network.answers[1] = told(2, 7)
    await opening
    assert nodes_of(cluster) == [host(7)]
    assert now() < 1008
    await cluster.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ConnectionRefusedError("refused"), "refused"),
        (told(1), "told an empty list of nodes"),
        (b"SERVER_ERROR busy\r\n", "SERVER_ERROR busy"),
        (b"CONFIG cluster 0 5\r\n1\na|b\r\nEND\r\n", "is not HOST|IP|PORT: 'a|b'"),
        (None, ""),
    ],
)
def test_starting_in_vain(answer: Any, reason: str):
    """After 10 s it fails with the last reason, and nothing is left."""

    @virtually
    async def test() -> None:
        network = Endpoints(answer)
        cluster = network.cluster(autodiscovery_timeout=3)
        with pytest.raises(NodeUnavailable) as caught:
            await cluster.open()
        assert isinstance(caught.value, asyncio.TimeoutError)
        assert "autodiscovery found no nodes within 10 s at endpoint-1:11211: " in str(caught.value)
        assert reason in str(caught.value)
        assert caught.value.__cause__ is not None
        assert now() == 1010
        assert network.open == []

    test()


@virtually
async def test_starting_in_vain_without_any_answer():
    """There is no reason then."""
    network = Endpoints(None)
    cluster = network.cluster(autodiscovery_timeout=30, timeout=None)
    with pytest.raises(NodeUnavailable, match="10 s at endpoint-1:11211: no answer; check that these are"):
        await cluster.open()


@virtually
async def test_refused_credentials():
    """While starting they are told at once; later polls that are refused leave the nodes as they are."""
    network = Endpoints(AuthenticationError("refused", reply="CLIENT_ERROR"))
    cluster = network.cluster(username="a", password="b")
    with pytest.raises(AuthenticationError):
        await cluster.open()
    assert now() == 1000
    network.answers[1] = told(1, 1)
    cluster = network.cluster(username="a", password="b")
    await cluster.open()
    network.answers[1] = b"CLIENT_ERROR unauthenticated\r\n"
    assert await cluster.autodiscover() is False
    assert nodes_of(cluster) == [host(1)]
    await cluster.close()


@virtually
async def test_opening_is_cancelled():
    """Everything is closed."""
    network = Endpoints(None)
    opening = asyncio.create_task(network.cluster().open())
    await seconds(0.5)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert network.open == []


@virtually
async def test_closing_during_a_poll():
    network = Endpoints(told(1, 1))
    cluster = network.cluster(autodiscovery_poll_interval=5)
    await cluster.open()
    network.answers[1] = None
    await seconds(6)
    by_hand = asyncio.create_task(cluster.autodiscover())
    await turns()
    await cluster.close()
    with pytest.raises(RuntimeError, match="client is closed"):
        await by_hand
    assert network.open == []


@virtually
async def test_a_removed_node_answers_what_it_has():
    """What was handed over finishes; then its connections close; events tell in order."""
    seen = []

    class Events(ClusterEvents):
        async def on_node_healthy(self, cluster_managment: Any, host: Address) -> None: ...

        async def on_node_unhealthy(self, cluster_managment: Any, host: Address) -> None: ...

        async def on_node_added(self, cluster_managment: Any, host: Address) -> None:
            seen.append(("added", host))

        async def on_node_removed(self, cluster_managment: Any, host: Address) -> None:
            seen.append(("removed", host))

    network = Endpoints(told(1, 1))
    cluster = network.cluster(cluster_events=Events())
    await cluster.open()
    await turns()
    wire = network.wires[1]
    wire.script = lambda request: None
    node = cluster.node_at(host(1))
    request = fetch("get", b"key")
    answer = node.submit(request)
    await turns()
    assert wire.requests[-1] == b"mg key v\r\n"
    network.answers[1] = told(2, 2)
    assert await cluster.autodiscover()
    await turns()
    assert (wire.state, answer.done(), node.drained) == ("open", False, False)
    wire.answer(b"VA 5\r\nvalue\r\n")
    assert (await answer).value == b"value"
    await turns()
    assert (wire.state, node.drained) != ("open", False)
    assert seen == [("added", host(1)), ("added", host(2)), ("removed", host(1))]
    await cluster.close()


def segments(data: bytes, size: int) -> Sequence[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@virtually
async def test_answers_in_segments():
    """Cut anywhere."""
    for size in (1, 2, 7):
        network = Endpoints(None)
        cluster = network.cluster()
        opening = asyncio.create_task(cluster.open())
        await turns()
        wire: Wire = network.wires[0]
        for piece in segments(told(1, 1, 2, 3), size):
            wire.answer(piece)
            await turns(2)
        await opening
        assert nodes_of(cluster) == [host(1), host(2), host(3)]
        await cluster.close()


async def test_over_a_real_connection(fakes: list[FakeServer]):
    """An endpoint and two nodes, with a reply in small pieces."""
    endpoint, *servers = fakes
    entries = " ".join(f"{server.address.address}||{server.address.port}" for server in servers)
    text = f"1\n{entries}\n".encode()
    endpoint.answer(b"config get cluster", b"CONFIG cluster 0 %d\r\n%b\r\nEND\r\n" % (len(text), text))
    cluster = Cluster([endpoint.address], Options(autodiscovery=True))
    await cluster.open()
    assert nodes_of(cluster) == [server.address for server in servers]
    await servers[0].until_connections(1)
    await cluster.close()


async def test_a_real_server_without_discovery(servers: tuple[MemcachedServer, MemcachedServer]):
    """memcached itself has none: the endpoints are the nodes."""
    addresses = [server.address for server in servers]
    async with create_client(addresses, autodiscovery=True) as client:
        assert client.cluster_managment().nodes() == addresses
        await client.set(b"key", b"value")
        item = await client.get(b"key")
        assert item is not None
        assert item.value == b"value"
