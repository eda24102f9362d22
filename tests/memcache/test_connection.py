"""One connection over a transport in memory: writes, replies, deadlines, abandoned requests, ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rain.memcache import requests
from rain.memcache.base import Item
from rain.memcache.client_errors import AuthenticationError
from rain.memcache.connection import MOST_BOUND, MOST_UNANSWERED, Connection, ConnectionEnded, Overdue
from rain.memcache.dialects import ClassicDialect, MetaDialect
from rain.memcache.metrics import Counters
from rain.memcache.ordering import Bindings
from rain.memcache.replies import MISS, UNSUPPORTED, ErrorLine, UnknownLine, Violation
from rain.memcache.requests import Request
from rain.memcache.testing import success
from tests.memcache.virtual import ADDRESS, Wire, outcome, seconds, turns, virtually, with_waiter


class Owner:
    """Records the end."""

    def __init__(self) -> None:
        self.ends: list[tuple[Exception, list[Request], list[Request]]] = []

    def connection_ended(
        self, connection: Connection, reason: Exception, in_flight: list[Request], queued: list[Request]
    ) -> None:
        self.ends.append((reason, in_flight, queued))


class Line:
    """A connection, the wire under it, and its owner; with `script=None` the test gives the answers."""

    def __init__(
        self,
        script: Callable[[bytes], bytes | None] | None = None,
        *,
        timeout: float | None = 1.0,
        dialect: Any = None,
        can_write_eof: bool = True,
        tls: bool = False,
    ) -> None:
        self.owner = Owner()
        self.bindings: Bindings[Connection] = Bindings()
        self.counters = Counters()
        self.connection = Connection(
            ADDRESS, timeout, dialect or MetaDialect(), self.owner, self.bindings, self.counters
        )
        self.connection.lenient = False
        self.wire = Wire(self.connection, script or (lambda request: None), can_write_eof=can_write_eof, tls=tls)
        self.connection.connection_made(self.wire)

    def send(self, request: Request, deadline: float | None = None) -> asyncio.Future[Any]:
        with_waiter(request, deadline)
        self.connection.send(request)
        waiter: asyncio.Future[Any] = request.waiter
        waiter.add_done_callback(lambda done: done.cancelled() or done.exception())  # most tests do not look at all
        return waiter

    def get(self, key: bytes, deadline: float | None = None) -> asyncio.Future[Any]:
        return self.send(Request("get", key), deadline)

    def set(self, key: bytes, noreply: bool = False) -> asyncio.Future[Any]:
        return self.send(requests.store("set", key, b"v", noreply=noreply))

    def end(self) -> None:
        """What tests that are not about the end do last."""
        self.connection.abort()

    @property
    def executed(self) -> tuple[int, int]:
        return self.counters.operations_executed, self.counters.operations_executed_with_error


def value(key: bytes) -> bytes:
    """The answer to `mg KEY v`."""
    return b"VA 1\r\n" + key + b"\r\n"


@virtually
async def test_a_lone_request_is_handed_over_at_once():
    line = Line(success)
    for _ in range(3):
        waiter = line.get(b"k")
        assert line.wire.requests[-1] == b"mg k v\r\n"
        assert await waiter == Item(b"value of k", None, None)
    assert await line.get(b"missing") is MISS
    assert len(line.wire.chunks) == 4
    assert line.executed == (4, 0)
    line.end()


@virtually
async def test_many_callers_share_writes():
    line = Line(success)

    async def caller(number: int) -> None:
        for _ in range(3):
            assert (await line.get(b"%d" % number)).value == b"value of %d" % number

    await asyncio.gather(*[caller(number) for number in range(32)])
    assert len(line.wire.requests) == 96
    # The first caller of all found the connection idle, and is answered before the others each time.
    assert len(line.wire.chunks) == 2 * 3
    line.end()


@virtually
async def test_requests_of_one_turn_go_out_at_its_end_in_one_write():
    line = Line()
    line.get(b"0")
    waiters = [line.get(b"%d" % number) for number in range(1, 5)]
    assert line.wire.chunks == [b"mg 0 v\r\n"]
    await turns(1)
    assert line.wire.chunks[1:] == [b"mg 1 v\r\nmg 2 v\r\nmg 3 v\r\nmg 4 v\r\n"]
    line.wire.answer(b"".join(value(b"%d" % number) for number in range(5)))
    assert [(await waiter).value for waiter in waiters] == [b"1", b"2", b"3", b"4"]
    await turns(2)
    # An empty turn later the connection counts as idle again.
    line.get(b"6")
    assert line.wire.requests[-1] == b"mg 6 v\r\n"
    line.end()


@virtually
async def test_noreply_requests_of_one_turn_share_writes_too():
    line = Line()
    for number in range(5):
        line.set(b"%d" % number, noreply=True)
    assert len(line.wire.requests) == 1
    await turns(1)
    assert len(line.wire.requests) == 5
    assert len(line.wire.chunks) == 2
    await turns(1)
    line.set(b"k", noreply=True)
    await turns(1)
    assert len(line.wire.chunks) == 3
    line.end()


@virtually
async def test_after_a_turn_of_many_the_next_request_waits_for_others():
    line = Line()
    line.connection.send_together([with_waiter(Request("get", key)) for key in (b"a", b"b")])
    assert line.wire.chunks == [b"mg a v\r\nmg b v\r\n"]
    line.get(b"c")
    line.get(b"d")
    await turns(1)
    line.wire.answer(value(b"a") + value(b"b") + value(b"c") + value(b"d"))
    line.get(b"e")
    line.get(b"f")
    assert len(line.wire.chunks) == 2
    await turns(1)
    assert line.wire.chunks[2:] == [b"mg e v\r\nmg f v\r\n"]
    line.end()


@virtually
async def test_large_value_beside_small_ones():
    line = Line(success)
    large = b"x" * 100_000
    line.get(b"first")
    waiters = [line.set(b"small"), line.send(requests.store("set", b"large", large)), line.set(b"behind")]
    assert [await waiter for waiter in waiters] == [b"STORED"] * 3
    assert line.wire.requests[2] == b"set large 0 0 100000\r\n" + large + b"\r\n"
    assert len(line.wire.chunks) == 2
    line.end()


@virtually
async def test_tls_records_end_where_requests_end():
    line = Line(success, tls=True)
    line.connection.pause_writing()
    sizes = [10, 100_000, 5000, 5000, 10_000, 10, 16_000, 10]
    waiters = [line.send(requests.store("set", b"%d" % size, b"x" * size)) for size in sizes]
    waiters.append(line.send(requests.fetch_many("get_many", tuple(b"%d" % number for number in range(20)))))
    line.connection.resume_writing()
    assert [await waiter for waiter in waiters[:-1]] == [b"STORED"] * len(sizes)
    assert len(await waiters[-1]) == 20
    starts = [chunk.partition(b" 0 0")[0][:10] for chunk in line.wire.chunks]
    assert starts == [b"set 10", b"set 100000", b"x" * 10, b"\r\n", b"set 5000", b"set 10000", b"set 16000", b"set 10"]
    assert line.wire.chunks[4].count(b"set") == 2
    assert line.wire.chunks[7].count(b"get") == 1
    assert all(len(chunk) <= 16_400 or chunk == b"x" * 100_000 for chunk in line.wire.chunks)
    line.end()


@virtually
async def test_a_tls_connection_writes_nothing_for_what_it_does_not_have():
    line = Line(tls=True, dialect=ClassicDialect())
    assert await line.send(requests.meta_delete(b"k", 1)) is UNSUPPORTED
    line.connection.pause_writing()
    line.get(b"k").cancel()
    line.connection.resume_writing()
    assert line.wire.chunks == []
    line.end()


@virtually
async def test_a_paused_transport_keeps_requests_queued():
    line = Line(success)
    line.connection.pause_writing()
    assert line.connection.congested
    waiters = [line.get(b"%d" % number) for number in range(40)]
    await turns()
    assert line.wire.chunks == []
    line.connection.resume_writing()
    assert len(line.wire.chunks) == 1
    assert not line.connection.congested
    assert [(await waiter).value for waiter in waiters] == [b"value of %d" % number for number in range(40)]
    line.connection.pause_writing()
    line.connection.resume_writing()
    assert not line.connection.congested
    line.end()


@virtually
async def test_congested_by_requests():
    line = Line()
    waiters = [line.get(b"%d" % number) for number in range(MOST_UNANSWERED)]
    assert line.connection.congested
    assert line.connection.load == MOST_UNANSWERED
    await turns(1)
    line.wire.answer(value(b"0"))
    assert not line.connection.congested
    assert line.connection.load == MOST_UNANSWERED - 1
    assert (await waiters[0]).value == b"0"
    line.end()


@virtually
async def test_congested_by_a_large_reply():
    line = Line()
    waiter = line.get(b"k")
    line.wire.answer(b"VA 100000\r\n" + bytes(10))
    assert line.connection.congested
    line.wire.answer(bytes(50_000))
    assert not line.connection.congested
    line.wire.answer(bytes(49_990) + b"\r\n")
    assert await waiter == Item(bytes(100_000), None, None)
    line.end()


@virtually
async def test_a_request_cancelled_in_its_turn_is_never_sent():
    line = Line(success)
    first = line.get(b"first")
    cancelled = line.get(b"cancelled")
    behind = line.get(b"behind")
    cancelled.cancel()
    await asyncio.gather(first, behind)
    assert line.wire.requests == [b"mg first v\r\n", b"mg behind v\r\n"]
    assert line.executed == (2, 0)
    line.end()


@virtually
async def test_a_turn_of_cancelled_requests_writes_nothing():
    line = Line()
    line.connection.pause_writing()
    line.get(b"k").cancel()
    line.connection.resume_writing()
    assert line.wire.chunks == []
    line.end()


@pytest.mark.parametrize("told", ["before", "after"])
@virtually
async def test_the_reply_to_an_abandoned_request_is_dropped(told: str):
    line = Line()
    late = []
    request = Request("lease", b"k")
    request.on_late = lambda request, reply: late.append((request, reply))
    waiter = line.send(request)
    behind = line.get(b"2")
    await turns(1)
    waiter.cancel()
    if told == "before":
        line.connection.abandon(request)
        assert line.executed == (0, 1)
    line.wire.answer(value(b"1") + value(b"2"))
    assert (await behind).value == b"2"
    assert line.executed == (1, 1)
    assert [each for each, _ in late] == [request]
    line.end()


@virtually
async def test_own_requests_are_not_counted():
    line = Line(success)
    assert (await line.send(requests.barrier())).code == "MN"
    line.send(requests.barrier()).cancel()
    await turns()
    await line.send(requests.quit_())
    assert line.executed == (0, 0)
    line.end()


@virtually
async def test_noreply_is_done_when_handed_over_and_binds_its_key():
    line = Line()
    assert await line.set(b"k", noreply=True) is None
    assert line.executed == (1, 0)
    assert line.bindings.find((b"k",)) is line.connection
    waiter = line.get(b"other")
    await turns(1)
    line.wire.answer(value(b"1"))
    await waiter
    assert not line.bindings.active
    await line.send(requests.flush_all(noreply=True))
    assert line.bindings.find((b"anything",)) is line.connection
    line.end()


@virtually
async def test_a_noreply_request_in_a_turn_with_others():
    line = Line()
    first, silent, second = line.get(b"1"), line.set(b"k", noreply=True), line.get(b"2")
    await turns(1)
    assert silent.done()
    line.wire.answer(value(b"1"))
    await first
    assert line.bindings.active
    line.wire.answer(value(b"2"))
    await second
    assert line.bindings.active  # the mark is set for the turn: one reply more than needed, never one too few
    third = line.get(b"3")
    await turns(1)
    line.wire.answer(value(b"3"))
    await third
    assert not line.bindings.active
    line.end()


@virtually
async def test_an_abandoned_write_binds_its_key_until_it_is_answered():
    line = Line()
    write, read = requests.store("set", b"k", b"v"), Request("get", b"l")
    line.send(write).cancel()
    line.connection.abandon(write)
    line.send(read)
    await turns(1)
    read.waiter.cancel()
    line.connection.abandon(read)
    assert line.bindings.find((b"k",)) is line.connection
    assert line.bindings.find((b"l",)) is None
    line.wire.answer(b"STORED\r\n")
    assert not line.bindings.active
    assert line.executed == (0, 2)
    line.end()


@virtually
async def test_a_barrier_settles_many_loose_writes():
    line = Line()
    for _ in range(2):
        for number in range(MOST_BOUND + 1):
            line.set(b"%d" % number, noreply=True)
        await turns(2)
        line.set(b"behind", noreply=True)
        await turns(2)
    assert line.wire.requests.count(b"mn\r\n") == 1
    line.wire.answer(b"MN\r\n")
    assert line.bindings.bound_to(line.connection) == MOST_BOUND + 3
    line.set(b"once-more", noreply=True)
    await turns()
    assert line.wire.requests.count(b"mn\r\n") == 2
    line.wire.answer(b"MN\r\n")
    assert not line.bindings.active
    assert line.counters.operations_executed == 2 * MOST_BOUND + 5
    line.end()


@virtually
async def test_no_barrier_on_a_connection_that_has_ended():
    line = Line()
    for number in range(MOST_BOUND + 1):
        line.set(b"%d" % number, noreply=True)
    line.connection.resume_writing()
    line.wire.reset()
    await turns()
    assert b"mn\r\n" not in line.wire.requests
    assert len(line.owner.ends) == 1


@virtually
async def test_what_the_dialect_does_not_have_is_answered_without_network():
    line = Line(dialect=ClassicDialect())
    assert await line.send(requests.meta_delete(b"k", 1)) is UNSUPPORTED
    assert line.wire.chunks == []
    assert line.executed == (0, 0)
    line.end()


@virtually
async def test_deadlines():
    loop = asyncio.get_running_loop()
    line = Line(timeout=10.0)
    told: dict[bytes, float] = {}
    keys = {b"%d" % number: loop.time() + 0.5 + number * 0.001 for number in range(20)}

    async def caller(key: bytes, deadline: float) -> None:
        with pytest.raises(TimeoutError, match=r"get of b'.*' was not answered by cache:11211 within the timeout"):
            await line.get(key, deadline)
        told[key] = loop.time()

    await asyncio.gather(*[caller(key, deadline) for key, deadline in keys.items()])
    assert all(0 <= told[key] - deadline < 0.01 for key, deadline in keys.items())
    line.wire.answer(b"".join(value(b"x") for _ in keys))
    waiter = line.get(b"k", loop.time() + 1)
    await turns(1)
    line.wire.answer(value(b"k"))
    assert (await waiter).value == b"k"
    assert line.executed == (1, 20)
    line.end()


@virtually
async def test_the_deadline_of_a_queued_request():
    line = Line(success)
    line.connection.pause_writing()
    waiter, other = line.get(b"k", 1000.5), line.get(b"l", 1002.0)
    assert isinstance(await outcome(waiter), TimeoutError)
    line.connection.resume_writing()
    await other
    assert line.wire.requests == [b"mg l v\r\n"]
    assert line.executed == (1, 0)
    line.end()


@virtually
async def test_requests_without_deadline_have_that_of_the_connection():
    line = Line(timeout=3.0)
    waiter = line.get(b"k")
    await seconds(2.9)
    assert not waiter.done()
    await seconds(0.2)
    assert isinstance(waiter.exception(), TimeoutError)
    line = Line(timeout=None)
    waiter = line.get(b"k")
    await seconds(1e6)
    assert not waiter.done()
    assert not line.wire.is_closing()
    line.end()


@virtually
async def test_without_timeout_a_request_may_still_have_a_deadline():
    line = Line(timeout=None)
    endless, short = line.get(b"endless"), line.get(b"short", 1002.0)
    await seconds(1.9)
    assert not short.done()
    await seconds(0.2)
    assert isinstance(short.exception(), TimeoutError)
    assert not endless.done()
    line.end()


@virtually
async def test_overdue_without_a_byte():
    line = Line()
    request = Request("get", b"k")
    line.send(request, 1100.0)
    silent = line.send(Request("get", b"l"), 1000.2)
    await seconds(0.99)
    assert line.owner.ends == []
    await seconds(0.3)
    [(reason, in_flight, queued)] = line.owner.ends
    assert isinstance(reason, Overdue)
    assert (in_flight, queued) == ([request], [])
    assert isinstance(silent.exception(), TimeoutError)
    assert line.wire.is_closing()


@virtually
async def test_overdue_although_bytes_come():
    line = Line()
    line.get(b"k", 1000.5)
    with pytest.raises(TimeoutError):
        await line.get(b"l", 1000.5)
    line.wire.answer(b"VA 1000\r\n")
    for _ in range(14):
        assert line.owner.ends == []
        await seconds(0.7)
        line.wire.answer(b"x")
    assert asyncio.get_running_loop().time() > 1009.9
    await seconds(0.5)
    [(reason, _, _)] = line.owner.ends
    assert isinstance(reason, Overdue)


@virtually
async def test_replies_in_time_are_never_overdue():
    line = Line()
    for _ in range(30):
        line.get(b"k", asyncio.get_running_loop().time() + 100)
        line.get(b"k", asyncio.get_running_loop().time() + 0.1)
        await seconds(0.9)
        line.wire.answer(value(b"k"))
        await turns(2)
    assert line.owner.ends == []
    line.end()


def end_of_stream(wire: Wire) -> None:
    wire.end()


def reset(wire: Wire) -> None:
    wire.reset()


def closed(wire: Wire) -> None:
    wire.close()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (end_of_stream, "the server closed the connection"),
        (reset, "the connection was lost: reset by peer"),
        (closed, "the connection was closed"),
    ],
)
@virtually
async def test_the_end(how: Callable[[Wire], None], why: str):
    line = Line()
    answered, in_flight, cancelled, write = (
        Request("get", b"1"),
        Request("get", b"2"),
        Request("get", b"3"),
        requests.store("set", b"4", b"v"),
    )
    for request in (answered, in_flight, cancelled, write):
        line.send(request)
    await turns(1)
    line.wire.answer(value(b"1"))
    await turns(1)
    cancelled.waiter.cancel()
    abandoned = requests.store("set", b"5", b"v")
    line.send(abandoned)
    await turns(1)
    abandoned.waiter.cancel()
    line.connection.abandon(abandoned)
    line.connection.pause_writing()
    queued = Request("get", b"6")
    line.send(queued)
    how(line.wire)
    await turns()
    [(reason, unanswered, unsent)] = line.owner.ends
    assert isinstance(reason, ConnectionEnded)
    assert str(reason) == why
    assert unanswered == [in_flight, write]
    assert unsent == [queued]
    assert line.executed == (1, 2)
    assert not line.bindings.active
    assert line.connection.gone.done()
    assert line.connection.ended
    line.connection.buffer_updated(1)  # bytes that were read before the end, and not delivered yet
    line.connection.connection_lost(None)


@pytest.mark.parametrize(
    ("request_made", "answer", "kind"),
    [
        (lambda: requests.store("set", b"0", b"v"), b"ERROR", ErrorLine),
        (lambda: requests.store("set", b"0", b"v"), b"CLIENT_ERROR bad data chunk", ErrorLine),
        (lambda: requests.store("set", b"0", b"v"), b"WHAT", UnknownLine),
        (lambda: requests.delete(b"0"), b"WHAT", UnknownLine),
        (lambda: Request("get", b"0"), b"WHAT", Violation),
    ],
)
@virtually
async def test_a_reply_that_breaks_the_connection(
    request_made: Callable[[], Request], answer: bytes, kind: type[object]
):
    line = Line()
    before, own, behind, write = Request("get", b"1"), request_made(), Request("get", b"2"), requests.delete(b"3")
    for request in (before, own, behind, write):
        line.send(request)
    await turns(1)
    line.wire.answer(value(b"1") + answer + b"\r\n" + value(b"2"))
    assert (await before.waiter).value == b"1"
    assert type(await own.waiter) is kind
    [(reason, in_flight, _)] = line.owner.ends
    assert in_flight == [behind, write]
    assert repr(answer) in str(reason)
    assert line.wire.is_closing()
    assert line.executed == (2, 0)


@virtually
async def test_the_caller_of_a_breaking_reply_may_be_gone():
    line = Line()
    request = requests.delete(b"0")
    line.send(request).cancel()
    line.connection.abandon(request)
    line.wire.answer(b"WHAT\r\n")
    assert line.owner.ends[0][1] == []
    assert line.executed == (0, 1)


@virtually
async def test_bytes_nobody_asked_for():
    line = Line()
    line.connection.pause_writing()
    queued = Request("get", b"k")
    line.send(queued)
    line.wire.answer(b"HELLO\r\n")
    [(reason, in_flight, unsent)] = line.owner.ends
    assert in_flight == []
    assert unsent == [queued]
    assert "HELLO" in str(reason)


@pytest.mark.parametrize("text", [b"unauthenticated", b"bad authentication token format"])
@virtually
async def test_a_server_that_wants_credentials(text: bytes):
    line = Line()
    first, second = Request("get", b"1"), requests.delete(b"2")
    line.send(first)
    line.send(second)
    await turns(1)
    line.wire.answer(b"CLIENT_ERROR " + text + b"\r\nDELETED\r\n")
    [(reason, in_flight, _)] = line.owner.ends
    assert isinstance(reason, AuthenticationError)
    assert reason.reply == "CLIENT_ERROR " + text.decode()
    assert in_flight == [first, second]
    assert line.executed == (0, 0)


@virtually
async def test_errors_that_leave_the_connection_in_step():
    line = Line()
    refused = [line.send(requests.delete(b"k")), line.get(b"k"), line.set(b"k")]
    behind = line.get(b"k")
    await turns(1)
    line.wire.answer(b"CLIENT_ERROR no\r\nERROR\r\nSERVER_ERROR out of memory\r\n" + value(b"v"))
    assert [type(await waiter) for waiter in refused] == [ErrorLine] * 3
    assert (await behind).value == b"v"
    assert line.owner.ends == []
    assert line.executed == (4, 0)
    line.end()


@virtually
async def test_the_handshake_is_lenient():
    line = Line()
    line.connection.lenient = True
    waiter = line.send(requests.version())
    line.wire.answer(b"WHAT\r\n")
    assert type(await waiter) is UnknownLine
    waiter = line.get(b"k", 1050.0)
    await seconds(49)  # it is never overdue
    assert line.owner.ends == []
    line.wire.answer(b"WHAT\r\n")
    assert type(await waiter) is Violation
    assert len(line.owner.ends) == 1


@virtually
async def test_finish_closes_when_nothing_is_open():
    line = Line(success)
    await line.get(b"k")
    assert line.connection.finish() == []
    assert line.wire.state == "closed"
    await turns(2)
    assert line.connection.gone.done()
    assert line.owner.ends == []
    assert line.connection.finish() == []


@pytest.mark.parametrize("can_write_eof", [True, False])
@virtually
async def test_finish_lets_the_server_read_everything(can_write_eof: bool):
    line = Line(can_write_eof=can_write_eof)
    await line.set(b"k", noreply=True)
    assert line.connection.finish() == []
    assert line.wire.state == ("half" if can_write_eof else "closed")
    await turns(3)
    assert line.connection.gone.done()
    assert line.owner.ends == []


@virtually
async def test_finish_gives_back_what_is_unfinished():
    line = Line()
    in_flight, cancelled, queued = Request("get", b"1"), Request("get", b"2"), Request("get", b"3")
    line.send(in_flight)
    line.send(cancelled)
    await turns(1)
    cancelled.waiter.cancel()
    line.connection.pause_writing()
    line.send(queued)
    assert line.connection.finish() == [in_flight, queued]
    assert line.wire.state == "half"
    line.wire.answer(value(b"1"))
    await turns(3)
    assert line.connection.gone.done()
    assert line.executed == (0, 1)


@virtually
async def test_retire():
    line = Line()
    line.connection.retire()
    assert line.wire.is_closing()
    line = Line()
    first, second = line.get(b"1"), line.get(b"2")
    await turns(1)
    line.connection.retire()
    line.wire.answer(value(b"1"))
    assert not line.wire.is_closing()
    line.wire.answer(value(b"2"))
    assert line.wire.is_closing()
    assert [(await waiter).value for waiter in (first, second)] == [b"1", b"2"]
    await turns(2)
    assert line.owner.ends == []


@virtually
async def test_used():
    line = Line()
    assert line.connection.last_used == 1000.0
    await seconds(1)
    waiter = line.get(b"k", 1100.0)
    assert line.connection.last_used == 1001.0
    await seconds(0.5)
    line.wire.answer(value(b"k"))
    await waiter
    assert line.connection.last_used == 1001.5
    assert line.connection.dialect.name == "meta"
    line.end()
