"""Which nodes there are, which one has a key, and what is known about them."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from rain.memcache import cluster as cluster_module, hashing, requests
from rain.memcache.addresses import Address, MemcachedHostAddress, MemcachedUnixSocketPath, node_id
from rain.memcache.base import ClusterEvents, ClusterManagment
from rain.memcache.client_errors import ClusterNoAvailableNodes, NodeUnavailable
from rain.memcache.cluster import Cluster
from rain.memcache.options import Options
from rain.memcache.replies import ErrorLine, Items
from tests.memcache.fake_nodes import Nodes, host, play

KEYS = [b"key:%d" % number for number in range(60)]


class Events(ClusterEvents):
    """Notes events together with the lists as they are then."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Address, list[Address], list[Address]]] = []
        self.managements: set[int] = set()

    def note(self, event: str, management: ClusterManagment, address: Address) -> None:
        self.managements.add(id(management))
        self.seen.append((event, address, management.healthy_nodes(), management.unhealthy_nodes()))

    async def on_node_healthy(self, cluster_managment: ClusterManagment, host: Address) -> None:
        self.note("healthy", cluster_managment, host)

    async def on_node_unhealthy(self, cluster_managment: ClusterManagment, host: Address) -> None:
        self.note("unhealthy", cluster_managment, host)

    async def on_node_added(self, cluster_managment: ClusterManagment, host: Address) -> None:
        self.note("added", cluster_managment, host)

    async def on_node_removed(self, cluster_managment: ClusterManagment, host: Address) -> None:
        self.note("removed", cluster_managment, host)


def make(count: int | list[Any] = 3, **given: Any) -> tuple[Cluster, Nodes]:
    """A cluster of fake nodes."""
    nodes = Nodes()
    addresses = [host(number) for number in range(1, count + 1)] if isinstance(count, int) else count
    return Cluster(addresses, Options(**given), node_factory=nodes), nodes


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_nodes_are_made_and_then_started():
    cluster, nodes = make(3, timeout=7)
    assert [node.address for node in nodes.made] == [host(1), host(2), host(3)]
    assert not any(node.started for node in nodes.made)
    assert {node.options.timeout for node in nodes.made} == {7}
    await cluster.open()
    assert all(node.started for node in nodes.made)
    await cluster.close()
    await cluster.close()
    assert all(node.closed for node in nodes.made)
    assert cluster.management.nodes() == [host(1), host(2), host(3)]


async def test_keys_go_where_hashing_says():
    """In every way of hashing, by the ids of the nodes."""
    addresses: list[Any] = [host(1), MemcachedUnixSocketPath("/run/mc"), MemcachedHostAddress("::1", 11211)]
    for kind in ("emcache", "emcache-aarch64", "rendezvous"):
        cluster, _ = make(addresses, hashing=kind)
        choose = hashing.chooser(kind, [node_id(address) for address in addresses])
        assert [cluster.node_for(key).address for key in KEYS] == [addresses[choose(key)] for key in KEYS]
        assert {cluster.node_for(key).address for key in KEYS} == set(addresses)


async def test_one_node_needs_no_hashing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hashing, "chooser", None)
    cluster, nodes = make(1)
    assert cluster.node_for(b"key") is nodes.made[0]
    assert cluster.group(iter([b"a", b"b"])) == {nodes.made[0]: [b"a", b"b"]}
    assert cluster.group([]) == {}


async def test_choices_are_remembered(monkeypatch: pytest.MonkeyPatch):
    """The keys last used, until the list changes."""
    hashed = []
    chooser = hashing.chooser

    def counting(kind: str, ids: list[bytes]) -> Any:
        choose = chooser(kind, ids)
        return lambda key: (hashed.append(key), choose(key))[1]

    monkeypatch.setattr(hashing, "chooser", counting)
    monkeypatch.setattr(cluster_module, "MEMO_SIZE", 3)
    cluster, nodes = make(3)
    for key in (b"a", b"b", b"a", b"c", b"a", b"b"):
        cluster.node_for(key)
    assert hashed == [b"a", b"b", b"c"]
    cluster.node_for(b"d")
    cluster.node_for(b"c")
    assert hashed == [b"a", b"b", b"c", b"d", b"c"]
    hashed.clear()
    nodes.made[0].flip()
    cluster.node_for(b"a")
    assert hashed == [b"a"]


async def test_memo_size():
    assert cluster_module.MEMO_SIZE == 65_536


async def test_grouping():
    """Every key at its node, in order; nodes in the order of the list; none without keys."""
    cluster, nodes = make(3)
    groups = cluster.group(key for key in KEYS)
    assert list(groups) == nodes.made
    for node, keys in groups.items():
        assert keys == [key for key in KEYS if cluster.node_for(key) is node]
    assert list(cluster.group(KEYS[:1])) == [cluster.node_for(KEYS[0])]
    assert cluster.group([]) == {}


async def test_node_of_an_address():
    """Healthy or not; of equal ones the first."""
    cluster, nodes = make([host(1), host(2), host(1)])
    assert cluster.node_at(host(1)) is nodes.made[0]
    nodes.made[1].flip()
    assert cluster.node_at(MemcachedHostAddress("cache", 11212)) is nodes.made[1]
    with pytest.raises(ValueError, match="cache:11213 is no node of this cluster; its nodes are cache:11211, cache"):
        cluster.node_at(host(3))


async def test_order_of_lists():
    """Healthy ones first; who recovers goes to the end of the healthy ones."""
    cluster, nodes = make(4)
    one, two, three, four = nodes.made
    management = cluster.management
    assert management.nodes() == management.healthy_nodes() == [host(1), host(2), host(3), host(4)]
    assert management.unhealthy_nodes() == []
    one.flip()
    three.flip()
    assert management.nodes() == [host(2), host(4), host(1), host(3)]
    assert management.healthy_nodes() == [host(2), host(4)]
    assert management.unhealthy_nodes() == [host(1), host(3)]
    one.flip()
    assert cluster.nodes() == [two, four, one, three]
    three.flip()
    assert management.nodes() == [host(2), host(4), host(1), host(3)]
    assert management.unhealthy_nodes() == []
    management.nodes().clear()
    assert len(management.nodes()) == 4


async def test_unhealthy_nodes_keep_their_keys():
    cluster, nodes = make(3)
    before = {key: cluster.node_for(key) for key in KEYS}
    nodes.made[1].flip()
    assert {key: cluster.node_for(key) for key in KEYS} == before


async def test_unhealthy_nodes_lose_their_keys():
    """With `purge_unhealthy_nodes`, until they are healthy again."""
    cluster, nodes = make(3, purge_unhealthy_nodes=True)
    one, two, three = nodes.made
    before = {key: cluster.node_for(key) for key in KEYS}
    two.flip()
    after = {key: cluster.node_for(key) for key in KEYS}
    assert all(after[key] is before[key] for key in KEYS if before[key] is not two)
    assert set(after.values()) == {one, three}
    one.flip()
    assert set(map(cluster.node_for, KEYS)) == {three}
    three.flip()
    for call in (cluster.node_for, lambda key: cluster.group([key])):
        with pytest.raises(ClusterNoAvailableNodes, match=r"no node for b'k': all 3 nodes are unhealthy"):
            call(b"k")
    assert cluster.node_at(host(3)) is three
    for node in nodes.made:
        node.flip()
    assert {key: cluster.node_for(key) for key in KEYS} == before


async def test_equal_addresses():
    """The first one has the keys, and is shown in the metrics."""
    cluster, nodes = make([host(1), host(1)])
    nodes.made[0].requests = [requests.version()] * 5
    assert set(map(cluster.node_for, KEYS)) == {nodes.made[0]}
    assert cluster.management.nodes() == [host(1), host(1)]
    assert {address: m.cur_connections for address, m in cluster.management.connection_pool_metrics().items()} == {
        host(1): 5
    }
    nodes.made[0].requests = []


async def test_events_of_health():
    """One per flip, whatever is done with unhealthy nodes; the lists are up to date."""
    for purge in (True, False):
        events = Events()
        cluster, nodes = make(2, cluster_events=events, purge_unhealthy_nodes=purge)
        nodes.made[0].flip()
        await turns()
        nodes.made[0].flip()
        await turns()
        assert events.seen == [
            ("unhealthy", host(1), [host(2)], [host(1)]),
            ("healthy", host(1), [host(2), host(1)], []),
        ]
        assert events.managements == {id(cluster.management)}
        await cluster.close()


async def test_nothing_is_left_after_closing():
    """The cluster and its nodes can be collected."""
    cluster, nodes = make(3, cluster_events=Events())
    await cluster.open()
    nodes.made[0].flip()
    await cluster.close()
    assert len(asyncio.all_tasks()) == 1
    assert await cluster.autodiscover() is False
    references = [weakref.ref(each) for each in (cluster, *nodes.made)]
    del cluster, nodes
    gc.collect()
    assert [reference() for reference in references] == [None] * 4


# Changes of the list, as discovery makes them


def discovering(count: int = 3, **given: Any) -> tuple[Cluster, Nodes]:
    """A cluster that has got its nodes from discovery."""
    nodes = Nodes()
    cluster = Cluster([host(0)], Options(autodiscovery=True, **given), node_factory=nodes)
    assert cluster._apply([host(number) for number in range(1, count + 1)])
    return cluster, nodes


async def test_without_nodes():
    """Before the first answer of discovery."""
    cluster = Cluster([host(0)], Options(autodiscovery=True), node_factory=Nodes())
    assert cluster.management.nodes() == []
    with pytest.raises(ClusterNoAvailableNodes, match="no nodes are known"):
        cluster.node_for(b"key")
    with pytest.raises(ValueError, match="its nodes are none"):
        cluster.node_at(host(1))
    await cluster.close()


async def test_survivors_stay():
    """New nodes are started at the end of the healthy ones, removed ones drained; events tell, added before removed."""
    events = Events()
    cluster, nodes = discovering(3, cluster_events=events, timeout=3)
    survivor, unhealthy = nodes[host(2)], nodes[host(3)]
    unhealthy.flip()
    await turns()
    events.seen.clear()
    assert cluster._apply([host(4), host(3), host(2)])
    assert cluster.management.nodes() == [host(2), host(4), host(3)]
    assert cluster.nodes()[0] is survivor
    assert nodes[host(4)].started
    assert nodes[host(4)].options.timeout == 3
    assert nodes[host(1)].closed
    assert not survivor.closed
    assert not cluster._apply([host(2), host(3), host(4)])
    assert cluster._apply([host(4)])
    assert cluster.management.nodes() == [host(4)]
    await turns()
    assert [event[:2] for event in events.seen] == [
        ("added", host(4)),
        ("removed", host(1)),
        ("removed", host(2)),
        ("removed", host(3)),
    ]
    await cluster.close()
    assert all(node.drained for node in nodes.made if node.address != host(0))


async def test_removed_nodes_are_forgotten_when_drained():
    """Until then closing the client closes them, too."""
    cluster, nodes = discovering(3)
    cluster._apply([host(3)])
    nodes[host(1)].drained = True
    cluster._apply([host(4)])
    assert cluster._leaving == [nodes[host(2)], nodes[host(3)]]
    nodes[host(2)].flip()  # of no interest any more
    assert cluster.management.nodes() == [host(4)]
    await cluster.close()
    assert nodes[host(2)].drained


async def test_no_change_after_closing():
    """A late answer opens nothing."""
    cluster, nodes = discovering(1)
    await cluster.close()
    assert not cluster._apply([host(1), host(2)])
    assert not nodes[host(2)].started


async def test_requests_move_from_a_removed_node():
    """Those with a key go where the key is now; finished ones nowhere; those for the node fail."""
    cluster, nodes = discovering(2)
    gone = nodes[host(1)]
    waiting = [requests.fetch("get", b"a"), requests.store("set", b"b", b"v")]
    ended, cancelled = requests.fetch("get", b"c"), requests.fetch("get", b"d")
    futures = [gone.submit(request) for request in (*waiting, ended, cancelled)]
    version = gone.submit(requests.version())
    play(ended, b"x")
    futures[3].cancel()
    assert cluster._apply([host(2)])
    assert nodes[host(2)].requests == waiting
    with pytest.raises(NodeUnavailable, match="version: autodiscovery removed node cache:11211") as caught:
        await version
    assert caught.value.address == host(1)
    assert not caught.value.sent
    await cluster.close()
    for future in futures[:2]:
        with pytest.raises(RuntimeError):
            await future


async def test_requests_cannot_move_without_nodes():
    cluster, nodes = discovering(2, purge_unhealthy_nodes=True)
    nodes[host(2)].flip()
    future = nodes[host(1)].submit(requests.fetch("get", b"a"))
    many = nodes[host(1)].submit(requests.fetch_many("get_many", (b"a", b"b")))
    cluster._apply([host(2)])
    for failed in (future, many):
        with pytest.raises(ClusterNoAvailableNodes):
            await failed
    await cluster.close()


def split_request(cluster: Cluster, nodes: Nodes, command: str = "gat_many") -> tuple[Any, asyncio.Future[Any]]:
    """A fetch of many keys that waits for a node which is removed then, so that its keys go to two others."""
    request = requests.fetch_many(command, tuple(KEYS), True, 77)
    request.deadline = 1e9
    future = nodes[host(1)].submit(request)
    cluster._apply([host(2), host(3)])
    return request, future


def items(keys: Any, cas: int | None = None) -> Items:
    """A reply with all the keys."""
    found = Items()
    for key in keys:
        found.add(key, b"value of " + key, 5, cas)
    return found


async def test_fetches_of_many_keys_move_to_one_node():
    cluster, nodes = discovering(2)
    request = requests.fetch_many("get_many", tuple(KEYS))
    future = nodes[host(1)].submit(request)
    cluster._apply([host(2)])
    assert nodes[host(2)].requests == [request]
    play(request, items(KEYS))
    assert len(await future) == len(KEYS)
    await cluster.close()


@pytest.mark.parametrize(("command", "cas"), [("gat_many", None), ("gats_many", 9)])
async def test_fetches_of_many_keys_move_to_several_nodes(command: str, cas: int | None):
    """Each gets its part of the keys; the answers are one again."""
    cluster, nodes = discovering(3)
    _, future = split_request(cluster, nodes, command)
    await turns()
    parts = [nodes[host(2)].requests[0], nodes[host(3)].requests[0]]
    assert {part.command for part in parts} == {command}
    assert {(part.return_flags, part.exptime, part.deadline) for part in parts} == {(True, 77, 1e9)}
    assert sorted(parts[0].keys + parts[1].keys) == sorted(KEYS)
    for part in parts:
        play(part, items(part.keys, cas))
    reply = await future
    assert sorted(reply) == sorted((key, b"value of " + key, 5, cas) for key in KEYS)
    await cluster.close()


async def test_a_part_of_a_moved_fetch_fails():
    """So does the whole; the other parts are abandoned."""
    cluster, nodes = discovering(3)
    _, future = split_request(cluster, nodes)
    await turns()
    parts = [nodes[host(2)].requests[0], nodes[host(3)].requests[0]]
    play(parts[1], NodeUnavailable("lost"))
    with pytest.raises(NodeUnavailable, match="lost"):
        await future
    await turns()
    assert parts[0].waiter.cancelled()
    await cluster.close()


async def test_an_error_line_to_a_part_of_a_moved_fetch():
    """It is the reply to the whole."""
    cluster, nodes = discovering(3)
    _, future = split_request(cluster, nodes)
    await turns()
    error = ErrorLine(b"SERVER_ERROR x")
    play(nodes[host(2)].requests[0], items([b"a"]))
    play(nodes[host(3)].requests[0], error)
    assert await future is error
    await cluster.close()


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("replies", [0, 2])
async def test_the_caller_of_a_moved_fetch_goes_away(replies: int, failing: bool):
    """Its parts are abandoned, whenever that happens."""
    for between in range(5):
        cluster, nodes = discovering(3)
        _, future = split_request(cluster, nodes)
        await turns()
        parts = [nodes[host(2)].requests[0], nodes[host(3)].requests[0]]
        for part in parts[:replies]:
            play(part, NodeUnavailable("lost") if failing else items(part.keys))
        await turns(between)
        future.cancel()
        await turns()
        assert all(part.waiter.done() for part in parts)
        assert not cluster._moving
        await cluster.close()


async def test_closing_while_a_fetch_moves():
    """It fails like all others."""
    cluster, nodes = discovering(3)
    _, future = split_request(cluster, nodes)
    await turns()
    await cluster.close()
    assert len(asyncio.all_tasks()) == 1
    assert future.done()
    with pytest.raises(RuntimeError, match="client is closed"):
        await future
