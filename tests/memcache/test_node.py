"""A node under a virtual clock, over a network in memory: connections, health, and the fate of requests."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable
from typing import Any

import pytest

from rain.memcache import requests
from rain.memcache.addresses import MemcachedUnixSocketPath
from rain.memcache.client_errors import AuthenticationError, NodeUnavailable
from rain.memcache.connection import MOST_UNANSWERED
from rain.memcache.node import Node
from rain.memcache.options import Options
from rain.memcache.replies import MISS, ErrorLine
from rain.memcache.requests import Request
from rain.memcache.testing import FakeServer, success
from tests.memcache.virtual import ADDRESS, Network, Wire, outcome, seconds, silent, turns, virtually

CLOSED = "client is closed"


class Place:
    """A node, its network and what it told about its health."""

    def __init__(
        self, script: Callable[[bytes], bytes | None] = success, *, jitter: float = 0.0, **options: Any
    ) -> None:
        self.network = Network(script)
        self.health: list[bool] = []
        self.node = Node(
            ADDRESS,
            Options(**options),
            on_health=lambda node: self.health.append(node.healthy),
            connect=self.network.connect,
            random=lambda: jitter,
        )
        self.start = asyncio.get_running_loop().time()

    async def __aenter__(self) -> Place:
        self.node.start()
        await turns()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.node.close()
        await turns(2)
        assert self.network.open == []
        assert self.node.drained

    @property
    def wires(self) -> list[Wire]:
        return self.network.wires

    def submit(self, request: Request, seconds: float | None = 1.0) -> asyncio.Future[Any]:
        if seconds is not None:
            request.deadline = asyncio.get_running_loop().time() + seconds
        waiter: asyncio.Future[Any] = self.node.submit(request)
        waiter.add_done_callback(lambda done: done.cancelled() or done.exception())  # most tests do not look at all
        return waiter

    def get(self, key: bytes, seconds: float | None = 1.0) -> asyncio.Future[Any]:
        return self.submit(Request("get", key), seconds)

    def set(self, key: bytes, noreply: bool = False) -> asyncio.Future[Any]:
        return self.submit(requests.store("set", key, b"v", noreply=noreply))

    def cancel(self, request: Request) -> None:
        """What happens when the task of a caller is cancelled."""
        request.waiter.cancel()
        self.node.abandon(request)

    def refuse(self) -> None:
        """Nobody listens any more, and the connections break."""
        self.network.error = ConnectionRefusedError("refused")
        for wire in self.network.open:
            wire.reset()

    @property
    def attempts(self) -> list[float]:
        """Times of the attempts, from the start."""
        return [round(time - self.start, 3) for time in self.network.attempts]

    async def second_connection(self) -> None:
        """Make the node open one more, as traffic does."""
        count = len(self.network.open)
        for wire in self.network.open:
            wire.protocol.pause_writing()
        await outcome(self.get(b"for growth", 0.1))
        await turns()
        for wire in self.network.open[:count]:
            wire.protocol.resume_writing()
        assert len(self.network.open) == count + 1

    def counted(self) -> tuple[int, int, int]:
        metrics = self.node.metrics()
        return metrics.operations_executed, metrics.operations_executed_with_error, metrics.operations_waited

    def connections(self) -> tuple[int, int, int, int]:
        metrics = self.node.metrics()
        return (
            metrics.cur_connections,
            metrics.connections_created,
            metrics.connections_created_with_error,
            metrics.connections_closed,
        )


# Opening


@virtually
async def test_opens_the_minimum_one_after_the_other():
    place = Place(min_connections=3, max_connections=5)
    place.network.delay = 0.5
    async with place:
        assert place.node.meta is None
        await seconds(5)
        assert place.attempts == [0.0, 0.5, 1.0]
        assert place.network.most_running == 1
        assert place.connections() == (3, 3, 0, 0)
        assert place.node.meta is True
        metrics = place.node.metrics()
        assert metrics.create_connection_avg == pytest.approx(0.5)
        assert metrics.create_connection_upper == pytest.approx(0.5)


@virtually
async def test_repr():
    place = Place()
    assert repr(place.node) == "<Node host=cache port=11211 closed=False>"
    unix = Node(MemcachedUnixSocketPath("/run/mc"), Options(), on_health=lambda node: None)
    await unix.close()
    assert repr(unix) == "<Node path=/run/mc closed=True>"
    assert unix.drained


@virtually
async def test_without_minimum_it_connects_on_first_use():
    async with Place(min_connections=0) as place:
        await seconds(100)
        assert place.attempts == []
        assert (await place.get(b"k")).value == b"value of k"
        assert place.attempts == [100.0]
        assert place.counted() == (1, 0, 1)
        await seconds(2)
        place.wires[0].reset()
        await seconds(100)
        assert len(place.attempts) == 1
        assert (await place.get(b"k")).value == b"value of k"


@virtually
async def test_requests_wait_in_order_for_the_first_connection():
    place = Place()
    place.network.delay = 0.5
    async with place:
        waiters = [place.get(b"%d" % number) for number in range(5)]
        assert [(await waiter).value for waiter in waiters] == [b"value of %d" % number for number in range(5)]
        assert place.counted() == (5, 0, 5)
        assert place.wires[0].requests[2:] == [b"mg %d v\r\n" % number for number in range(5)]


@virtually
async def test_a_waiter_that_is_cancelled_is_never_sent():
    place = Place()
    place.network.delay = 0.5
    async with place:
        before, other = Request("get", b"before"), Request("get", b"other")
        place.submit(before)
        waiter = place.submit(other)
        late = Request("get", b"late")
        place.submit(late)
        place.cancel(before)
        await seconds(0.49)
        late.waiter.cancel()  # in the turn in which the connection becomes ready
        await waiter
        assert place.wires[0].requests[2:] == [b"mg other v\r\n"]
        place.node.abandon(late)
        assert place.counted() == (1, 0, 3)


@virtually
async def test_a_waiter_cancelled_right_after_the_connection_became_ready():
    async with Place(silent) as place:
        request = Request("get", b"k")
        place.submit(request)
        place.cancel(request)
        assert place.counted() == (0, 1, 0)
        assert place.connections()[0] == 1


@virtually
async def test_deadlines_of_those_who_wait():
    place = Place(timeout=None)
    place.network.delay = 3.0
    async with place:
        first, second = place.get(b"1", 1.0), place.get(b"2", 2.0)
        endless = place.get(b"3", None)
        shorter = place.get(b"4", 0.5)
        for waiter, when in ((shorter, 0.5), (first, 1.0), (second, 2.0)):
            assert isinstance(await outcome(waiter), TimeoutError)
            assert asyncio.get_running_loop().time() - place.start == pytest.approx(when)
        assert (await endless).value == b"value of 3"
        assert place.counted() == (1, 0, 4)


# Growing and choosing


@virtually
async def test_grows_one_by_one_only_when_all_are_congested():
    async with Place(silent, max_connections=3, timeout=100.0) as place:
        for number in range(MOST_UNANSWERED):
            place.get(b"%d" % number, 100)
        await turns()
        assert len(place.wires) == 1
        place.network.delay = 0.5
        for number in range(50):
            place.get(b"more %d" % number, 100)
        await turns()
        assert len(place.network.attempts) == 2
        assert len(place.wires[0].requests) == 2 + MOST_UNANSWERED + 50  # they do not wait for it
        await seconds(0.6)
        assert len(place.network.open) == 2
        for number in range(MOST_UNANSWERED):
            place.get(b"again %d" % number, 100)
        await turns()
        assert len(place.wires[1].requests) == 2 + MOST_UNANSWERED
        for _ in range(3):
            place.get(b"k", 100)
            await seconds(0.6)
        assert len(place.network.open) == 3
        for _ in range(MOST_UNANSWERED):
            place.get(b"k", 100)
        await turns()
        assert len(place.network.attempts) == 3


@virtually
async def test_with_all_congested_the_least_loaded_is_chosen():
    async with Place(silent, max_connections=2) as place:
        for _ in range(MOST_UNANSWERED + 20):
            place.get(b"k", 100)
        await turns()
        for _ in range(MOST_UNANSWERED + 10):
            place.get(b"k", 100)
        await turns()
        assert [len(wire.requests) - 2 for wire in place.wires] == [MOST_UNANSWERED + 20, MOST_UNANSWERED + 10]


@virtually
async def test_growth_waits_for_the_back_off():
    async with Place(max_connections=2) as place:
        place.network.error = ConnectionRefusedError("refused")
        place.wires[0].protocol.pause_writing()
        place.get(b"k", 100)
        await turns()
        assert len(place.attempts) == 2
        place.get(b"k", 100)
        await seconds(0.9)
        assert len(place.attempts) == 2
        await seconds(0.2)
        place.network.error = None
        assert len(place.attempts) == 2  # it is not wanted for itself
        place.get(b"k", 100)
        await turns()
        assert place.connections() == (2, 2, 1, 0)


# Purging


@virtually
async def test_purges_one_unused_connection_per_period():
    async with Place(max_connections=3, purge_unused_connections_after=10.0) as place:
        await seconds(1)
        await place.second_connection()
        await place.second_connection()
        await seconds(5)
        assert len(place.network.open) == 3
        await place.get(b"k")  # on the first
        await seconds(5)
        assert place.node.metrics().connections_purged == 0
        await seconds(10)
        assert place.node.metrics().connections_purged == 1
        await seconds(10)
        assert place.node.metrics().connections_purged == 2
        await seconds(100)
        assert place.connections() == (1, 3, 0, 2)
        assert place.wires[0].state == "open"  # it was used last


@virtually
async def test_a_connection_in_use_is_not_purged():
    def script(request: bytes) -> bytes | None:
        return None if request.startswith(b"mg slow") else success(request)

    async with Place(script, min_connections=0, timeout=None, purge_unused_connections_after=10.0) as place:
        waiter = place.get(b"slow", None)
        await seconds(50)
        assert place.connections() == (1, 1, 0, 0)
        place.wires[0].answer(b"EN\r\n")
        assert await waiter is MISS
        await seconds(9)
        assert place.connections()[0] == 1
        await seconds(11)
        assert place.connections() == (0, 1, 0, 1)
        assert (await place.get(b"k")).value == b"value of k"


@virtually
async def test_never_purging():
    async with Place(min_connections=0, purge_unused_connections_after=None) as place:
        await place.get(b"k")
        await seconds(1e5)
        assert place.connections()[0] == 1


# Failing, backing off, health


@virtually
async def test_back_off():
    place = Place()
    place.network.error = ConnectionRefusedError("refused")
    async with place:
        await seconds(250)
        assert place.attempts == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
        assert place.health == [False]
        assert not place.node.healthy
        place.network.error = None
        await seconds(60)
        assert place.health == [False, True]
        place.refuse()
        await seconds(4)
        assert place.attempts[-3:] == [310.0, 311.0, 313.0]
        assert place.connections() == (0, 1, 13, 1)


@virtually
async def test_waits_are_shortened_at_random():
    place = Place(jitter=0.5)
    place.network.error = ConnectionRefusedError("refused")
    async with place:
        await seconds(7)
        assert place.attempts == [0, 0.95, 2.85, 6.65]


@virtually
async def test_all_who_wait_fail_with_the_attempt():
    place = Place()
    place.network.error = ConnectionRefusedError("refused")
    place.network.delay = 0.1
    place.node.start()
    waiters = [place.get(b"k"), place.set(b"k"), place.set(b"k", noreply=True)]
    place.get(b"cancelled").cancel()
    errors = [await outcome(waiter) for waiter in waiters]
    assert asyncio.get_running_loop().time() - place.start == pytest.approx(0.1)
    for error in errors:
        assert isinstance(error, NodeUnavailable)
        assert error.__cause__ is place.network.error
        assert error.address == ADDRESS
        assert not error.sent
    hint = "check that a server runs there; connecting is tried again"
    assert str(errors[0]) == f"get of b'k' was not sent to cache:11211: refused ({hint})"
    assert len({id(error) for error in errors}) == 3
    assert place.counted() == (0, 0, 4)
    await place.node.close()


@virtually
async def test_a_node_that_is_down_fails_at_once():
    place = Place()
    place.network.error = OSError()
    async with place:
        error = await outcome(place.get(b"k"))
        assert isinstance(error, NodeUnavailable)
        assert str(error).startswith("get of b'k' was not sent to cache:11211: OSError (")
        place.network.delay = 10
        await seconds(1.5)  # also while the next attempt runs
        assert place.network.running == 1
        assert isinstance(place.get(b"k").exception(), NodeUnavailable)
        assert place.counted() == (0, 0, 0)


@virtually
async def test_any_exception_is_a_failed_attempt():
    place = Place()
    place.network.error = ZeroDivisionError("a defect")
    async with place:
        assert isinstance(place.get(b"k").exception(), NodeUnavailable)
        place.network.error = None
        await seconds(1.1)
        assert (await place.get(b"k")).value == b"value of k"


def refusing(request: bytes) -> bytes:
    """A server that wants credentials."""
    return b"CLIENT_ERROR unauthenticated\r\n"


@virtually
async def test_refused_authentication():
    async with Place(refusing) as place:
        first, second = await outcome(place.get(b"k")), await outcome(place.get(b"k"))
        assert isinstance(first, AuthenticationError)
        assert first.reply == "CLIENT_ERROR unauthenticated"
        assert first.command == "get"
        assert first.address == ADDRESS
        assert isinstance(second, AuthenticationError)
        assert first is not second
        await seconds(100)
        assert place.node.healthy  # it answers
        assert place.attempts == [0, 1, 3, 7, 15, 31, 63]
        place.network.script = success
        assert isinstance(await outcome(place.get(b"k")), AuthenticationError)
        await turns()
        assert (await place.get(b"k")).value == b"value of k"


@virtually
async def test_traffic_speeds_up_recovery():
    place = Place()
    place.network.error = ConnectionRefusedError("refused")
    async with place:
        await seconds(3.5)
        assert place.attempts == [0, 1, 3]
        assert not place.node.healthy
        place.get(b"k")
        place.get(b"k")
        await seconds(1)
        assert place.attempts == [0, 1, 3, 4]
        await seconds(3)
        place.network.error = None
        place.get(b"k")
        await turns()
        assert place.attempts == [0, 1, 3, 4, 7.5]
        assert place.health == [False, True]


@virtually
async def test_traffic_leaves_the_back_off_of_a_healthy_node_alone():
    place = Place()
    place.network.error = ConnectionRefusedError("refused")
    async with place:
        for _ in range(29):
            await seconds(0.1)
            place.get(b"k")
        assert place.attempts == [0, 1]


@virtually
async def test_traffic_during_an_attempt_changes_nothing():
    place = Place()
    place.network.error = ConnectionRefusedError("refused")
    async with place:
        await seconds(6.9)
        place.network.delay = 2.0
        await seconds(1)
        assert place.network.running == 1
        place.get(b"k")
        await seconds(0.5)
        assert place.attempts == [0, 1, 3, 7]


@virtually
async def test_a_paused_server_is_unhealthy_soon_under_traffic():
    async with Place() as place:
        place.network.script = lambda request: None
        place.wires[0].script = lambda request: None
        await seconds(10)
        begin = asyncio.get_running_loop().time()
        while place.node.healthy:
            place.get(b"k")
            await seconds(0.05)
        assert asyncio.get_running_loop().time() - begin <= 5.0
        assert place.health == [False]


@virtually
async def test_overdue_connections_count_for_health():
    def script(request: bytes) -> bytes | None:
        return None if request.startswith(b"mg") else success(request)

    async with Place(script, max_connections=3) as place:
        await place.second_connection()
        await place.second_connection()
        connections = list(place.node._connections)
        for connection in connections:
            request = Request("delete", b"k")
            request.waiter = asyncio.get_running_loop().create_future()
            request.waiter.add_done_callback(lambda done: done.exception())
            connection.send(request)
        for wire in place.wires:
            wire.script = lambda request: None
        for connection in connections:
            request = Request("get", b"k")
            request.waiter = asyncio.get_running_loop().create_future()
            request.waiter.add_done_callback(lambda done: done.exception())
            connection.send(request)
        await seconds(1.5)
        assert place.health == [False, True]  # an attempt started at once, and succeeded
        assert place.connections()[1:] == (4, 0, 3)


# Losing connections


@virtually
async def test_a_lost_connection_is_replaced_at_once():
    async with Place() as place:
        await seconds(2)
        place.wires[0].reset()
        waiter = place.get(b"k")
        assert (await waiter).value == b"value of k"
        assert place.attempts == [0, 2]
        assert place.connections() == (1, 2, 0, 1)
        assert place.counted() == (1, 0, 1)


@virtually
async def test_a_connection_that_does_not_last_makes_the_node_down():
    async with Place() as place:
        await seconds(0.9)
        place.wires[0].reset()
        await turns()
        assert place.attempts == [0]
        error = await outcome(place.get(b"k"))
        assert isinstance(error, NodeUnavailable)
        assert "reset by peer" in str(error)
        await seconds(0.99)
        assert place.attempts == [0]
        await seconds(0.02)
        assert place.attempts == [0, 1.9]
        assert (await place.get(b"k")).value == b"value of k"
        assert place.health == []


@virtually
async def test_a_connection_that_does_not_last_beside_another():
    async with Place(max_connections=2, min_connections=2) as place:
        place.wires[1].reset()
        assert (await place.get(b"k")).value == b"value of k"  # the node is not down
        await seconds(0.9)
        assert place.connections() == (1, 2, 0, 1)
        await seconds(0.2)
        assert place.connections() == (2, 3, 0, 1)


@virtually
async def test_a_connection_that_does_not_last_while_an_attempt_is_held_back():
    async with Place(max_connections=2) as place:
        place.network.error = ConnectionRefusedError("refused")
        place.wires[0].protocol.pause_writing()
        place.get(b"k", 100)
        await seconds(0.5)
        place.wires[0].reset()
        place.network.error = None
        await seconds(0.6)
        assert place.attempts == [0, 0, 1]
        assert place.connections() == (1, 2, 1, 1)


@pytest.mark.parametrize("retry", [True, False])
@virtually
async def test_requests_of_a_lost_connection(retry: bool):
    def script(request: bytes) -> bytes | None:
        return success(request) if request in (b"version\r\n", b"mn\r\n") else None

    async with Place(script, retry_reads=retry) as place:
        await seconds(2)
        read, write, dropped = Request("get", b"1"), requests.delete(b"2"), Request("get", b"3")
        for request in (read, write, dropped):
            place.submit(request)
        await turns()
        place.cancel(dropped)
        place.wires[0].protocol.pause_writing()
        queued, queued_write, cancelled = Request("get", b"4"), requests.delete(b"5"), Request("get", b"6")
        for request in (queued, queued_write, cancelled):
            place.submit(request)
        place.network.script = success
        cancelled.waiter.cancel()
        place.wires[0].reset()
        lost = write.waiter.exception()
        assert isinstance(lost, NodeUnavailable)
        assert lost.sent
        assert str(lost).startswith("delete of b'2' was lost with its connection to cache:11211: ")
        assert str(lost).endswith("(it may have been executed)")
        if retry:
            assert (await read.waiter).value == b"value of 1"
        else:
            assert isinstance(read.waiter.exception(), NodeUnavailable)
        assert (await queued.waiter).value == b"value of 4"
        assert await queued_write.waiter == b"DELETED"
        expected = [b"mg 1 v\r\n", b"mg 4 v\r\n", b"delete 5\r\n"]
        assert place.wires[1].requests[2:] == expected[0 if retry else 1 :]
        assert place.counted() == ((3, 2, 3) if retry else (2, 3, 2))


@virtually
async def test_a_read_is_sent_once_more_and_no_oftener():
    async with Place(silent) as place:
        await seconds(2)
        waiter = place.get(b"k", 100)
        for count in (1, 2):
            await seconds(1.5)
            assert not waiter.done() or count == 2
        error = waiter.exception()
        assert isinstance(error, NodeUnavailable)
        assert error.sent
        assert [wire.requests[2:] for wire in place.wires[:2]] == [[b"mg k v\r\n"]] * 2
        assert place.counted() == (0, 1, 1)


@virtually
async def test_a_read_that_waits_to_be_sent_once_more_may_fail_or_end():
    async with Place(silent, connection_timeout=100.0) as place:
        await seconds(2)
        late, cancelled, failing = (Request("get", b"%d" % number) for number in range(3))
        place.submit(late, 0.5)
        place.submit(cancelled, 10)
        place.submit(failing, 10)
        await turns()
        place.network.delay = 1.0
        place.network.error = ConnectionRefusedError("refused")
        place.wires[0].reset()
        place.cancel(cancelled)
        await seconds(0.6)
        assert isinstance(late.waiter.exception(), TimeoutError)
        await seconds(0.6)
        error = failing.waiter.exception()
        assert isinstance(error, NodeUnavailable)
        assert error.sent
        assert place.counted() == (0, 3, 3)


@virtually
async def test_the_other_connection_takes_over():
    async with Place(silent, max_connections=2) as place:
        await place.second_connection()
        await seconds(2)
        read = place.get(b"k")
        place.wires[1].script = success
        place.wires[0].reset()
        assert (await read).value == b"value of k"
        assert place.wires[1].requests[-1] == b"mg k v\r\n"


@virtually
async def test_a_breaking_reply_moves_the_others():
    async with Place(silent) as place:
        await seconds(2)
        own, read, write = place.set(b"1"), place.get(b"2"), place.submit(requests.delete(b"3"))
        await turns()
        place.network.script = success
        place.wires[0].answer(b"CLIENT_ERROR bad data chunk\r\n")
        assert isinstance(await own, ErrorLine)
        assert (await read).value == b"value of 2"
        assert isinstance(write.exception(), NodeUnavailable)


@virtually
async def test_a_server_that_begins_to_want_credentials():
    async with Place(silent) as place:
        await seconds(2)
        own, other = place.get(b"1"), place.submit(requests.delete(b"2"))
        await turns()
        place.wires[0].protocol.pause_writing()
        queued = place.get(b"3")
        place.network.script = refusing
        place.wires[0].answer(b"CLIENT_ERROR unauthenticated\r\n")
        for waiter in (own, other, queued):
            error = await outcome(waiter)
            assert isinstance(error, AuthenticationError)
        await turns()
        assert isinstance(await outcome(place.get(b"k")), AuthenticationError)


@virtually
async def test_bytes_nobody_asked_for(caplog: pytest.LogCaptureFixture):
    async with Place() as place:
        await seconds(2)
        place.wires[0].answer(b"HELLO\r\n")
        await turns()
        assert place.connections() == (1, 2, 0, 1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "HELLO" in caplog.text


# Order


async def two_connections(script: Callable[[bytes], bytes | None] = silent, **options: Any) -> Place:
    """A node with two open connections; the second is used while the first is paused."""
    place = await Place(script, max_connections=2, **options).__aenter__()
    await place.second_connection()
    await seconds(2)
    return place


@virtually
async def test_requests_for_a_key_follow_its_loose_write():
    place = await two_connections()
    await place.set(b"k", noreply=True)
    place.wires[0].protocol.pause_writing()
    bound, free = place.get(b"k"), place.get(b"free")
    assert place.node.parts([b"a", b"k", b"b"]) == [[b"a", b"b"], [b"k"]]
    many = place.submit(requests.fetch_many("get_many", (b"k",)))
    await turns()
    assert place.wires[1].requests[2:] == [b"mg free v\r\n"]
    place.wires[0].protocol.resume_writing()
    place.wires[0].answer(b"EN\r\nEND\r\n")
    assert await bound is MISS
    assert len(await many) == 0
    assert place.node.parts([b"a", b"k"]) == [[b"a", b"k"]]
    free.cancel()
    await place.node.close()


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
@virtually
async def test_an_abandoned_write_is_followed_too(how: str):
    place = await two_connections(timeout=10.0)
    write = requests.store("set", b"k", b"v")
    place.submit(write, 0.5)
    if how == "cancelled":
        place.cancel(write)
    else:
        assert isinstance(await outcome(write.waiter), TimeoutError)
    place.wires[0].protocol.pause_writing()
    place.get(b"k")
    await turns()
    assert place.wires[1].requests[2:] == []
    await place.node.close()


@virtually
async def test_a_lost_connection_binds_nothing():
    place = await two_connections()
    await place.set(b"k", noreply=True)
    place.wires[0].reset()
    place.get(b"k")
    await turns()
    assert place.wires[1].requests[2:] == [b"mg k v\r\n"]
    await place.node.close()


@virtually
async def test_writes_and_reads_of_one_key_with_two_connections():
    """Each server holds back its answers and effects for a random time; together they are one store."""
    store: dict[bytes, bytes] = {}
    chance = random.Random(1)
    loop = asyncio.get_running_loop()
    free_at: dict[int, float] = {}

    def server(number: int) -> Callable[[bytes], None]:
        def script(request: bytes) -> None:
            free_at[number] = max(free_at.get(number, 0.0), loop.time()) + chance.random() * 0.01
            loop.call_at(free_at[number], effect, number, request)

        return script

    def effect(number: int, request: bytes) -> None:
        line, _, rest = request.partition(b"\r\n")
        words = line.split()
        if words[0] == b"set":
            store[words[1]] = rest[:-2]
            answer = b"" if words[-1] == b"noreply" else b"STORED\r\n"
        elif words[0] == b"mn":
            answer = b"MN\r\n"
        else:
            value = store[words[1]]
            answer = b"VA %d\r\n%b\r\n" % (len(value), value)
        place.wires[number].answer(answer)

    place = await two_connections(timeout=100.0)
    for number, wire in enumerate(place.wires):
        wire.script = server(number)
    for turn in range(1000):
        key, value = b"%d" % (turn % 7), b"%d" % turn
        wire = place.wires[chance.randrange(2)]
        wire.protocol.pause_writing()
        if chance.random() < 0.5:
            write = requests.store("set", key, value, noreply=True)
            await place.submit(write, 100)
        else:
            write = requests.store("set", key, value)
            place.submit(write, 100)
            await turns(2)
            if write.carrier is None:
                wire.protocol.resume_writing()
                await turns(2)
            place.cancel(write)
        wire.protocol.resume_writing()
        place.wires[chance.randrange(2)].protocol.pause_writing()
        read = place.get(key, 100)
        for each in place.wires:
            each.protocol.resume_writing()
        assert (await read).value == value
    assert place.connections()[:2] == (2, 2)
    await place.node.close()


@virtually
async def test_a_command_for_the_whole_node_waits_for_loose_writes():
    place = await two_connections()
    place.wires[0].script = lambda request: None
    await place.set(b"k", noreply=True)
    flush = asyncio.create_task(place.node.execute(requests.flush_all()))
    await turns()
    assert place.wires[0].requests[-1] == b"mn\r\n"
    place.wires[0].answer(b"MN\r\n")
    await turns()
    assert place.wires[0].requests[-1] == b"flush_all 0\r\n"
    place.wires[0].answer(b"OK\r\n")
    assert await flush == b"OK"
    flush = asyncio.create_task(place.node.execute(requests.flush_all(noreply=True)))
    assert await flush is None
    place.wires[0].protocol.pause_writing()
    place.get(b"anything")
    await turns()
    assert place.wires[1].requests[2:] == []
    assert place.counted()[:2] == (3, 0)
    await place.node.close()


@virtually
async def test_execute_with_one_connection():
    async with Place() as place:
        await place.set(b"k", noreply=True)
        assert await place.node.execute(requests.flush_all()) == b"OK"
        assert await place.node.execute(requests.delete(b"k")) == b"DELETED"
        assert place.wires[0].requests.count(b"mn\r\n") == 1


@virtually
async def test_execute_cancelled():
    async with Place(silent) as place:
        task = asyncio.create_task(place.node.execute(requests.delete(b"k")))
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert place.counted() == (0, 1, 0)


# Abandoning


@virtually
async def test_a_caller_cancelled_before_it_could_learn_the_reply():
    async with Place() as place:
        late = []
        request = Request("lease", b"k")
        request.on_late = lambda request, reply: late.append(reply.code)
        place.submit(request)
        while not request.waiter.done():
            await turns(1)
        place.node.abandon(request)
        assert late == ["VA"]
        plain = Request("get", b"k")
        await place.submit(plain)
        place.node.abandon(plain)
        assert place.counted() == (2, 0, 0)


@virtually
async def test_a_caller_cancelled_before_it_could_learn_the_failure():
    place = Place()
    place.network.error = ConnectionRefusedError("refused")
    async with place:
        request = Request("lease", b"k")
        request.on_late = lambda request, reply: pytest.fail("there was none")
        place.submit(request)
        place.node.abandon(request)


COMMANDS: list[Callable[[bytes], Request]] = [
    *(lambda key, name=name: requests.fetch(name, key) for name in ("get", "gets", "gat", "gats")),
    *(lambda key, name=name: requests.fetch_many(name, (key, key + b"2")) for name in ("get_many", "gets_many")),
    *(lambda key, name=name: requests.fetch_many(name, (key,)) for name in ("gat_many", "gats_many")),
    *(
        lambda key, name=name: requests.store(name, key, b"v")
        for name in ("set", "add", "replace", "append", "prepend", "cas")
    ),
    lambda key: requests.arithmetic("increment", key, 1),
    lambda key: requests.arithmetic("decrement", key, 1),
    lambda key: requests.touch(key, 1),
    lambda key: requests.delete(key),
    lambda key: requests.flush_all(),
    lambda key: requests.version(),
    lambda key: requests.stats(),
    lambda key: requests.cache_memlimit(1),
    lambda key: requests.verbosity(1),
    lambda key: requests.meta_delete(key, 1),
    lambda key: requests.meta_delete_invalid(key),
    lambda key: requests.lease(key, 30),
    lambda key: requests.placeholder(key),
    lambda key: requests.touch_fetch(key, 1),
]


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
@pytest.mark.parametrize("protocol", ["auto", "classic"])
@pytest.mark.parametrize("state", ["waiting", "queued", "in flight", "partial", "complete"])
@virtually
async def test_any_command_abandoned_at_any_moment(state: str, protocol: str, how: str):
    for number, made in enumerate(COMMANDS):
        place = Place(protocol=protocol, timeout=50.0, max_connections=1)
        answers, share = b"", 0
        if state == "waiting":
            place.network.delay = 0.5
        async with place:
            if state != "waiting":
                place.wires[0].script = lambda request: None
                if state == "queued":
                    place.wires[0].protocol.pause_writing()
            request = made(b"%d" % number)
            before = place.get(b"before", 100)
            waiter = place.submit(request, 0.1 if how == "timed out" else 100)
            behind = place.get(b"behind", 100)
            await turns(3)
            expected_error = 0
            if state in ("in flight", "partial", "complete"):
                expected_error = 0 if waiter.done() else int(not request.own)  # done: there is no such request
                answers = b"".join(success(each) for each in place.wires[0].requests[1 + (protocol == "auto") :])
                share = {"in flight": 0, "partial": len(answers) * 2 // 3, "complete": len(answers)}[state]
                place.wires[0].answer(answers[:share])
                if state == "complete" or waiter.done():
                    expected_error = 0
            if how == "cancelled":
                place.cancel(request)
            else:
                await seconds(0.2)
            if state == "waiting":
                await seconds(1)
            elif state == "queued":
                place.wires[0].script = success
                place.wires[0].protocol.resume_writing()
            else:
                place.wires[0].answer(answers[share:])
            assert (await before).value == b"value of before"
            assert (await behind).value == b"value of behind"
            assert waiter.done()
            assert place.connections() == (1, 1, 0, 0)
            assert place.counted()[1] == expected_error, (number, state)


# Quit, drain, close


@virtually
async def test_quit():
    async with Place(max_connections=2) as place:
        await place.second_connection()
        in_flight = place.get(b"k")
        quitting = asyncio.create_task(place.node.quit())
        await turns(3)
        assert (await in_flight).value == b"value of k"
        assert [wire.requests[-1] for wire in place.wires] == [b"quit\r\n"] * 2
        assert not quitting.done()
        for wire in place.wires:
            wire.end()
        await quitting
        await turns()
        assert place.connections() == (1, 3, 0, 2)
        assert place.counted()[:2] == (1, 0)


@virtually
async def test_quit_with_nothing_open():
    async with Place(min_connections=0) as place:
        await place.node.quit()
        assert place.attempts == []


@virtually
async def test_quit_that_the_server_ignores():
    async with Place(silent) as place:
        with pytest.raises(TimeoutError, match="quit: cache:11211 did not close its connections within the timeout"):
            await place.node.quit()
        await turns()
        assert place.connections() == (1, 2, 0, 1)


@virtually
async def test_requests_during_quit_use_a_new_connection():
    async with Place() as place:
        quitting = asyncio.create_task(place.node.quit())
        await turns(1)
        assert (await place.get(b"k")).value == b"value of k"
        assert len(place.wires) == 2
        place.wires[0].end()
        await quitting


@virtually
async def test_drain():
    async with Place(silent, max_connections=2) as place:
        await place.second_connection()
        moved: list[Request] = []
        in_flight, write = place.get(b"1"), place.submit(requests.delete(b"2"))
        await turns()
        place.wires[0].protocol.pause_writing()
        place.wires[1].protocol.pause_writing()
        queued, cancelled = Request("get", b"3"), Request("get", b"4")
        place.submit(queued)
        place.submit(cancelled).cancel()
        place.node.drain(moved.append)
        assert moved == [queued]
        assert place.node.closed
        await turns()
        assert [wire.state for wire in place.wires] == ["open", "closed"]
        assert not place.node.drained
        place.wires[0].answer(b"EN\r\nDELETED\r\n")
        assert await in_flight is MISS
        assert await write == b"DELETED"
        await turns()
        assert place.node.drained
        late = Request("get", b"5")
        place.submit(late)
        assert moved == [queued, late]
        queued.waiter.cancel()
        late.waiter.cancel()


@virtually
async def test_drain_while_connecting():
    place = Place()
    place.network.delay = 1.0
    async with place:
        moved: list[Request] = []
        waiting = Request("get", b"k")
        place.submit(waiting)
        place.node.drain(moved.append)
        assert moved == [waiting]
        waiting.waiter.cancel()
        await turns()
        assert place.network.running == 0


@virtually
async def test_a_connection_lost_while_draining():
    async with Place(silent) as place:
        moved: list[Request] = []
        read, write = Request("get", b"1"), requests.delete(b"2")
        place.submit(read)
        place.submit(write)
        await turns()
        place.node.drain(moved.append)
        place.wires[0].reset()
        assert moved == [read]
        assert isinstance(write.waiter.exception(), NodeUnavailable)
        read.waiter.cancel()
        await turns()
        assert place.node.drained
        assert place.connections() == (0, 1, 0, 1)
        assert place.attempts == [0]


@virtually
async def test_close():
    place = await Place(silent).__aenter__()
    in_flight, abandoned = place.get(b"1"), requests.store("set", b"2", b"v")
    place.submit(abandoned)
    await turns()
    place.cancel(abandoned)
    await place.set(b"3", noreply=True)
    place.wires[0].protocol.pause_writing()
    queued = place.get(b"4")
    await place.node.close()
    for waiter in (in_flight, queued):
        with pytest.raises(RuntimeError, match=CLOSED):
            await waiter
    assert place.wires[0].requests[-1] == b"set 3 0 0 1 noreply\r\nv\r\n"
    assert place.node.drained
    with pytest.raises(RuntimeError, match=CLOSED):
        await place.get(b"5")
    assert place.counted() == (1, 2, 0)
    await place.node.close()


@virtually
async def test_close_waits_until_the_server_has_read_loose_writes():
    place = await Place(silent).__aenter__()
    await place.node.close()
    assert not place.wires[0].half_closed
    place = await Place(silent).__aenter__()
    await place.set(b"k", noreply=True)
    await place.node.close()
    assert place.wires[0].half_closed


@virtually
async def test_close_while_connecting():
    place = Place()
    place.network.delay = 1.0
    place.node.start()
    waiting = place.get(b"k")
    await turns()
    await place.node.close()
    with pytest.raises(RuntimeError, match=CLOSED):
        await waiting
    assert asyncio.get_running_loop().time() == place.start
    assert place.node.drained


@virtually
async def test_close_before_start():
    place = Place()
    await place.node.close()
    assert place.attempts == []


@virtually
async def test_close_while_waiting_for_the_next_attempt():
    place = Place()
    place.network.error = ConnectionRefusedError("refused")
    async with place:
        await seconds(0.5)
    await seconds(100)
    assert place.attempts == [0]


@virtually
async def test_a_server_that_does_not_close_is_given_a_second():
    place = await Place(silent).__aenter__()
    place.get(b"k")
    place.wires[0].end = lambda: None  # type: ignore[method-assign]
    before = asyncio.get_running_loop().time()
    await place.node.close()
    assert asyncio.get_running_loop().time() - before == pytest.approx(1.0)
    assert place.wires[0].state == "closed"


@virtually
async def test_close_while_quitting_and_purging():
    place = await Place(silent, min_connections=0, max_connections=2).__aenter__()
    place.get(b"k")
    await turns()
    quitting = asyncio.create_task(place.node.quit())
    await turns(3)
    await place.node.close()
    await quitting
    assert place.network.open == []


@virtually
async def test_nobody_needs_to_look_at_the_failure_of_an_own_request():
    place = Place()
    place.network.error = ConnectionRefusedError("refused")
    async with place:
        place.node.submit(requests.barrier())
        gc.collect()  # asyncio does not complain


async def test_over_a_real_socket(fake: FakeServer):
    node = Node(fake.address, Options(), on_health=lambda node: None)
    node.start()
    assert (await node.submit(Request("get", b"k"))).value == b"value of k"
    assert await node.submit(requests.store("set", b"k", b"x" * 300_000)) == b"STORED"
    assert await node.submit(requests.store("set", b"k", b"v", noreply=True)) is None
    await node.close()
    assert fake.requests[-1] == b"set k 0 0 1 noreply\r\nv\r\n"
