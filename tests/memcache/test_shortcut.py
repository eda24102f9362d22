"""The shortcut of a lone caller: when it opens, what is taken on the spot, and what is left to the loop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rain.memcache import requests, shortcut as module
from rain.memcache.base import Item
from rain.memcache.connection import Connection, ConnectionEnded
from rain.memcache.dialects import ClassicDialect, MetaDialect
from rain.memcache.metrics import Counters
from rain.memcache.ordering import Bindings
from rain.memcache.replies import MISS, ErrorLine, Violation
from rain.memcache.requests import Request
from rain.memcache.shortcut import FIRST_PAUSE, LONGEST_PAUSE, Shortcut
from rain.memcache.testing import MemcachedServer
from tests.memcache.conftest import OpenClient
from tests.memcache.test_connection import Owner
from tests.memcache.virtual import ADDRESS

FOR_EVER = 1e9
SECONDS = 10.0


class Pair:
    """A connection whose shortcut is open for the task that made it, and the other end of its socket."""

    def __init__(self, dialect: Any, timeout: float | None) -> None:
        ours, self.peer = socket.socketpair()
        self.ours = ours
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.owner: Any = Owner()
        self.bindings: Bindings[Connection] = Bindings()
        self.counters = Counters()
        self.connection = Connection(ADDRESS, timeout, dialect, self.owner, self.bindings, self.counters)
        self.connection.lenient = False

    async def connect(self) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: self.connection, sock=self.ours)

    def open(self) -> None:
        self.shortcut.until = FOR_EVER
        self.shortcut._task = id(asyncio.current_task())
        self.owner.shortcut = self.connection

    @property
    def shortcut(self) -> Shortcut:
        assert self.connection._shortcut is not None
        return self.connection._shortcut

    def ask(self, request: Request, answer: bytes = b"") -> Any:
        """Ask as a lone caller, when the answer is there already."""
        self.open()
        if answer:
            self.peer.send(answer)
        return self.connection.ask(request)

    @property
    def blocks(self) -> bool:
        return os.get_blocking(self.ours.fileno())

    def received(self) -> bytes:
        return self.peer.recv(1 << 20)

    def received_nothing(self) -> bool:
        try:
            self.peer.recv(1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        return False

    async def close(self) -> None:
        self.connection.abort()
        await self.connection.gone
        self.peer.close()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    made = Pair(MetaDialect(), 1.0)
    await made.connect()
    yield made
    await made.close()


async def test_replies_are_taken_on_the_spot(pair: Pair):
    answer = b"VA 3\r\nabc\r\n"
    for number in range(3):
        assert pair.ask(Request("get", b"k"), answer) == Item(b"abc", None, None)
        assert pair.received() == b"mg k v\r\n"
        assert pair.connection.answered == number + 1
    assert pair.ask(Request("get", b"k"), b"EN\r\n") is MISS
    assert pair.ask(requests.store("set", b"k", b"xyz", 1, 2), b"STORED\r\n") == b"STORED"
    assert pair.ask(requests.store("add", b"k", b"xyz"), b"NOT_STORED\r\n") == b"NOT_STORED"
    assert pair.received() == b"mg k v\r\nset k 1 2 3\r\nxyz\r\nadd k 0 0 3\r\nxyz\r\n"
    assert pair.ask(requests.arithmetic("increment", b"k", 1), b"18\r\n") == b"18"
    found = pair.ask(requests.fetch_many("get_many", (b"a", b"b")), b"VALUE a 0 1\r\nx\r\nEND\r\n")
    assert list(found) == [(b"a", b"x", 0, None)]
    assert pair.counters.operations_executed == 8
    assert pair.owner.shortcut is pair.connection
    assert pair.ask(requests.barrier(), b"MN\r\n").code == "MN"
    assert pair.counters.operations_executed == 8


async def test_a_large_reply_is_read_in_pieces(pair: Pair):
    value = b"v" * 100_000
    assert pair.ask(Request("get", b"k"), b"VA 100000\r\n" + value + b"\r\n") == Item(value, None, None)


@pytest.mark.parametrize(
    "request_",
    [
        requests.store("set", b"k", b"v", noreply=True),
        requests.store("set", b"k", bytes(1 << 16)),
        Request("no such command", b"k"),
    ],
)
async def test_what_takes_the_ordinary_way(pair: Pair, request_: Request):
    assert pair.ask(request_) is None
    assert request_.waiter is None
    assert pair.owner.shortcut is None


async def test_bound_keys_take_the_ordinary_way(pair: Pair):
    pair.bindings.bind((b"k",), pair.connection, 5)
    assert pair.ask(Request("get", b"k")) is None
    assert pair.owner.shortcut is None


async def test_another_task_takes_the_ordinary_way(pair: Pair):
    async def other() -> Any:
        return pair.connection.ask(Request("get", b"k"))

    pair.open()
    assert await asyncio.create_task(other()) is None
    assert pair.owner.shortcut is None


async def test_a_stretch_ends(pair: Pair):
    pair.open()
    pair.shortcut.until = 0.0
    pair.shortcut._pause = 64
    assert pair.connection.ask(Request("get", b"k")) is None
    assert pair.owner.shortcut is None
    assert pair.shortcut._pause == FIRST_PAUSE


@pytest.mark.parametrize("timeout", [None, 1.0, SECONDS])
async def test_a_late_reply_comes_over_the_loop(timeout: float | None):
    pair = Pair(MetaDialect(), timeout)
    await pair.connect()
    for number, deadline in enumerate((None, pair.connection._time() + SECONDS)):
        request = Request("get", b"k")
        request.deadline = deadline
        assert pair.ask(request) is None
        assert pair.owner.shortcut is None
        assert not pair.blocks
        assert pair.shortcut._left == LONGEST_PAUSE
        assert pair.connection.load == 1
        pair.peer.send(b"VA 1\r\nx\r\n")
        assert await request.waiter == Item(b"x", None, None)
        assert (request.deadline is None) == (timeout is None and number == 0)
    await pair.close()


@pytest.mark.parametrize("first", [b"VA 3\r\na", b"VA 3", b"VA 3\r\nabc"])
async def test_the_rest_of_a_reply_comes_over_the_loop(pair: Pair, first: bytes):
    request = Request("get", b"k")
    assert pair.ask(request, first) is None
    pair.peer.send(b"VA 3\r\nabc\r\n"[len(first) :])
    assert await request.waiter == Item(b"abc", None, None)


async def test_no_reply_at_all(pair: Pair):
    request = Request("get", b"k")
    request.deadline = pair.connection._time() + 0.05
    assert pair.ask(request) is None
    with pytest.raises(TimeoutError, match="b'k'"):
        await request.waiter
    pair.peer.send(b"VA 4\r\nlate\r\n")
    again = Request("get", b"k")
    again.waiter = asyncio.get_running_loop().create_future()
    pair.connection.send(again)
    pair.peer.send(b"VA 3\r\nnew\r\n")
    assert (await again.waiter).value == b"new"


async def test_cancelled_when_the_reply_is_late(pair: Pair):
    request = requests.store("set", b"k", b"v")
    assert pair.ask(request) is None
    request.waiter.cancel()
    pair.connection.abandon(request)
    assert pair.ask(Request("get", b"k")) is None  # the key is bound to the write that nobody waits for
    again = Request("get", b"k")
    again.waiter = asyncio.get_running_loop().create_future()
    pair.connection.send(again)
    pair.peer.send(b"STORED\r\nVA 1\r\nv\r\n")
    assert (await again.waiter).value == b"v"
    assert not pair.bindings.active
    assert pair.counters.operations_executed_with_error == 1


async def test_an_error_line(pair: Pair):
    request = Request("get", b"k")
    assert pair.ask(request, b"SERVER_ERROR no\r\n") is None
    assert not pair.blocks
    assert pair.shortcut._left == 0  # nothing has waited
    assert isinstance(await request.waiter, ErrorLine)
    assert not pair.connection.ended


@pytest.mark.parametrize("garbage", [b"HELLO\r\n", b"EN\r\nEN\r\n"])
async def test_garbage(pair: Pair, garbage: bytes):
    request = Request("get", b"k")
    assert pair.ask(request, garbage) is None
    reply = await request.waiter
    assert reply is MISS or isinstance(reply, Violation)
    assert pair.connection.ended
    [(reason, _, _)] = pair.owner.ends
    assert isinstance(reason, ConnectionEnded)


@pytest.mark.parametrize("answer", [b"", b"VA 3\r\na"])
async def test_the_server_closes(pair: Pair, answer: bytes):
    request = Request("get", b"k")
    if answer:
        pair.peer.send(answer)
    pair.peer.close()
    assert pair.ask(request) is None
    async with asyncio.timeout(SECONDS):
        while not pair.owner.ends:  # noqa: ASYNC110
            await asyncio.sleep(0)
    [(_, in_flight, _)] = pair.owner.ends
    assert in_flight == [request]


async def test_what_does_not_fit_is_left_to_the_transport(pair: Pair):
    pair.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    value = b"v" * 60_000
    request = requests.store("set", b"k", value)
    assert pair.ask(request) is None
    assert not pair.blocks
    sent = b"set k 0 0 60000\r\n" + value + b"\r\n"
    received = b""
    pair.peer.setblocking(False)
    async with asyncio.timeout(SECONDS):
        while len(received) < len(sent):
            received += await asyncio.get_running_loop().sock_recv(pair.peer, 1 << 20)
    assert received == sent
    pair.peer.send(b"STORED\r\n")
    assert await request.waiter == b"STORED"


# -------------------------------------------------------------------------------------------------------- what blocks


async def test_the_descriptor_blocks_until_the_next_turn(pair: Pair):
    assert not pair.blocks
    for _ in range(2):
        for _ in range(3):
            assert pair.ask(Request("get", b"k"), b"EN\r\n") is MISS
            assert pair.blocks
        await asyncio.sleep(0)
        assert not pair.blocks


async def test_the_transport_never_sends_while_the_descriptor_blocks(pair: Pair):
    assert pair.ask(Request("get", b"k"), b"EN\r\n") is MISS
    assert pair.blocks
    request = Request("get", b"k")
    request.waiter = asyncio.get_running_loop().create_future()
    pair.connection.send(request)
    assert not pair.blocks
    assert pair.owner.shortcut is None
    pair.peer.send(b"EN\r\n")
    assert await request.waiter is MISS


async def test_the_end_of_a_stretch_within_a_turn(pair: Pair):
    assert pair.ask(Request("get", b"k"), b"EN\r\n") is MISS
    pair.shortcut.until = 0.0
    assert pair.connection.ask(Request("get", b"k")) is None
    assert pair.owner.shortcut is None


async def test_nothing_blocks_while_a_timer_sends_signals(pair: Pair):
    before = signal.setitimer(signal.ITIMER_REAL, SECONDS * 100, SECONDS)
    try:
        assert pair.ask(Request("get", b"k")) is None
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
    assert not pair.blocks
    assert pair.owner.shortcut is None
    assert pair.received_nothing()


class Interruption(Exception):
    """What a signal handler raises."""


@pytest.mark.parametrize("answer", [b"", b"VA 3\r\na"])
async def test_a_signal_handler_that_raises_ends_the_connection(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, answer: bytes
):
    """Else the reply to this request would be taken for the reply to the next one."""

    def interrupted(descriptor: int, size: int) -> bytes:
        if answer and not pair.connection.dialect.unanswered:
            return answer
        raise Interruption("now")

    monkeypatch.setattr(module, "os", SimpleNamespace(**{**vars(os), "read": interrupted}))
    request = requests.store("set", b"k", b"v")
    if answer:
        request = Request("get", b"k")
    with pytest.raises(Interruption):
        pair.ask(request)
    [(reason, in_flight, queued)] = pair.owner.ends
    assert str(reason) == "Interruption interrupted a request"
    assert in_flight == queued == []
    assert pair.connection.ended
    assert pair.counters.operations_executed_with_error == 1
    assert pair.counters.operations_executed == 0
    assert not pair.bindings.active


async def test_in_classic_commands():
    pair = Pair(ClassicDialect(), 1.0)
    await pair.connect()
    assert pair.ask(Request("get", b"k"), b"VALUE k 0 1\r\nx\r\nEND\r\n") == Item(b"x", None, None)
    assert pair.ask(requests.meta_delete(b"k", 1)) is None
    await pair.close()


# ------------------------------------------------------------------------------------------------------- when it opens


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    pair = socket.socketpair()
    pair[0].setblocking(False)
    yield pair
    for each in pair:
        each.close()


async def test_reads_and_writes(ends: tuple[socket.socket, socket.socket]):
    ours, peer = ends
    left: list[bytes] = []
    shortcut = Shortcut(ours, left.append)
    assert shortcut.exchange(b"request") == b""
    assert peer.recv(100) == b"request"
    peer.send(b"reply")
    assert shortcut.exchange(b"another") == b"reply"
    assert left == []
    peer.close()
    assert shortcut.exchange(b"x") == b""
    ours.close()
    assert shortcut.exchange(b"y") == b""
    assert left == [b"x", b"y"]


async def test_reads_on(ends: tuple[socket.socket, socket.socket]):
    ours, peer = ends
    shortcut = Shortcut(ours, lambda data: None)
    fed: list[bytes] = []

    def feed(data: bytes) -> list[Any]:
        fed.append(data)
        return ["whole"] if b"".join(fed).endswith(b"!") else []

    peer.send(b"b")
    assert shortcut.read_on(b"a", feed) == []
    assert fed == [b"a", b"b", b""]
    peer.send(b"d!")
    assert shortcut.read_on(b"c", feed) == ["whole"]
    assert shortcut.read_on(b"", feed) == ["whole"]


class Judge:
    """A shortcut with a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, connected: socket.socket) -> None:
        self.used = 0.0
        monkeypatch.setattr(module, "time", SimpleNamespace(thread_time=lambda: self.used))
        self.shortcut = Shortcut(connected, lambda data: None)

    def request(self, used: float = 10e-6, taken: float = 50e-6) -> bool | None:
        """One request on the ordinary way; None if it is not looked at."""
        self.shortcut.try_out(1.0)
        if not self.shortcut.trying:
            return None
        self.used += used
        return self.shortcut.judge(1.0 + taken)


async def test_opens_for_a_task_that_asks_again(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
):
    judge = Judge(monkeypatch, ends[0])
    assert judge.request() is None
    assert not judge.shortcut.hold(1.0001)
    for _ in range(2):
        assert judge.request() is True
        assert judge.shortcut.hold(1.0001)
        assert not judge.shortcut.hold(1.0001 + module.STRETCH)


async def test_a_doubt_takes_another_request(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
):
    judge = Judge(monkeypatch, ends[0])

    async def other() -> None:
        assert judge.request() is None

    judge.request()
    assert judge.request() is True
    for _ in range(2):
        assert judge.request(used=25e-6) is False
        assert judge.request(used=25e-6) is True
    assert judge.request(used=25e-6) is False
    await asyncio.create_task(other())
    assert judge.request() is None
    assert judge.request(used=25e-6) is False
    assert judge.request(used=SECONDS) is False
    for _ in range(FIRST_PAUSE):
        assert judge.request() is None
    assert judge.request(used=25e-6) is False
    assert judge.request(used=25e-6) is True


@pytest.mark.parametrize("busy", [{"used": 100e-6}, {"taken": 1e-3}])
async def test_pauses_grow_while_it_does_not_pay(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, busy: dict[str, float]
):
    judge = Judge(monkeypatch, ends[0])
    judge.request()
    pause = FIRST_PAUSE
    for _ in range(10):
        assert judge.request(**busy) is False
        assert [judge.request(**busy) for _ in range(pause)] == [None] * pause
        pause = min(2 * pause, LONGEST_PAUSE)
    assert pause == LONGEST_PAUSE
    assert judge.request() is True


# -------------------------------------------------------------------------------------------------------- real servers


@pytest.fixture
def generous(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """However slow the machine is, the shortcut opens; whether it was taken, for each request."""
    monkeypatch.setattr(module, "SOON", SECONDS)
    monkeypatch.setattr(module, "IDLE", SECONDS)
    monkeypatch.setattr(module, "ALONE", 1e9)
    taken: list[bool] = []
    ask = Connection.ask

    def asked(self: Connection, request: Request) -> Any:
        reply = ask(self, request)
        taken.append(reply is not None)
        return reply

    monkeypatch.setattr(Connection, "ask", asked)
    return taken


async def test_all_operations_of_a_lone_caller(
    servers: tuple[MemcachedServer, MemcachedServer],
    open_client: OpenClient,
    generous: list[bool],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(module, "STRETCH", FOR_EVER)
    client = await open_client(servers[0])
    for number in range(200):
        value = b"%d" % number * (number * 20)
        await client.set(b"k", value, flags=number)
        assert await client.get(b"k") == Item(value, None, None)
        assert await client.get(b"k", return_flags=True) == Item(value, number, None)
        assert await client.get(b"missing") is None
        many = {b"many:%d" % each: value[: each * 40] for each in range(1, 20)}
        assert await client.set_many(many) == {}
        assert {key: item.value for key, item in (await client.get_many(many)).items()} == many
        await client.set(b"n", b"%d" % number)
        assert await client.increment(b"n", 2) == number + 2
        assert await client.version(servers[0].address) is not None
        await client.delete(b"k")
    assert generous.count(True) > len(generous) / 2


async def test_nobody_starves(
    servers: tuple[MemcachedServer, MemcachedServer], open_client: OpenClient, generous: list[bool]
):
    client = await open_client(servers[0])
    await client.set(b"k", b"v")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticker = asyncio.create_task(tick())
    loop = asyncio.get_running_loop()
    end = loop.time() + 0.5
    while loop.time() < end:
        await client.get(b"k")
    ticker.cancel()
    assert any(generous)
    assert ticks > 20


async def test_callers_beside_each_other_share_writes(
    servers: tuple[MemcachedServer, MemcachedServer], open_client: OpenClient, generous: list[bool]
):
    client = await open_client(servers[0])
    await client.set(b"k", b"v")
    for _ in range(50):
        await asyncio.gather(*[client.get(b"k") for _ in range(20)])
    assert not any(generous)
