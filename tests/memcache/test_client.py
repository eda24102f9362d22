"""Operations on one key and of nodes: their arguments, requests, results and failures; closing."""

from __future__ import annotations

import array
import asyncio
import gc
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from rain.memcache.addresses import MemcachedHostAddress
from rain.memcache.base import Item
from rain.memcache.client_errors import (
    ClusterNoAvailableNodes,
    CommandError,
    NodeUnavailable,
    NotFoundCommandError,
    NotStoredStorageCommandError,
    StorageCommandError,
)
from rain.memcache.testing import FakeServer, MemcachedServer
from tests.memcache.clients import (
    FETCHES,
    OF_NODES,
    WITH_KEY,
    WRITES,
    Operation,
    Rig,
    address,
    cancelled,
    classic,
    rig,
)
from tests.memcache.model import Model
from tests.memcache.virtual import outcome, seconds, silent, turns, virtually

HERE = address(0)
ELSEWHERE = MemcachedHostAddress("elsewhere", 1)

BAD_KEYS = [
    *(pytest.param(b"a" + bytes([byte]) + b"z", id=f"byte {byte}") for byte in (*range(33), 127)),
    pytest.param(b"", id="empty"),
    pytest.param(b"x" * 251, id="251 bytes"),
]
GOOD_KEYS = [b"x", b"x" * 250, bytes(range(128, 256)), b"!~"]


async def refused(made: Rig, awaitable: Any, kind: type[Exception], text: str) -> None:
    """An operation raises, and nothing is sent."""
    with pytest.raises(kind, match=text):
        await awaitable
    assert made.asked() == []


class TestArguments:
    @pytest.mark.parametrize("name", WITH_KEY)
    @virtually
    async def test_keys(self, name: str):
        async with rig() as made:
            for parameter in BAD_KEYS:
                await refused(made, WITH_KEY[name](made.client, parameter.values[0]), ValueError, "key")
            for key in ("text", 1, None):
                with pytest.raises(TypeError, match="key must be bytes"):
                    await WITH_KEY[name](made.client, key)  # type: ignore[arg-type]
            assert made.asked() == []
            for key in GOOD_KEYS:
                await WITH_KEY[name](made.client, key)

    @pytest.mark.parametrize(
        ("text", "low", "high", "call"),
        [
            ("flags", 0, 2**32 - 1, lambda client, number: client.set(b"k", b"", flags=number)),
            ("flags", 0, 2**32 - 1, lambda client, number: client.add(b"k", b"", flags=number)),
            ("flags", 0, 2**32 - 1, lambda client, number: client.replace(b"k", b"", flags=number)),
            ("flags", 0, 2**32 - 1, lambda client, number: client.cas(b"k", b"", 1, flags=number)),
            ("flags", 0, 2**32 - 1, lambda client, number: client.set_many({b"k": b""}, flags=number)),
            ("flags", 0, 2**32 - 1, lambda client, number: client.get_or_set(b"k", bytes, flags=number)),
            ("cas", 0, 2**64 - 1, lambda client, number: client.cas(b"k", b"", number)),
            ("value", 0, 2**64 - 1, lambda client, number: client.increment(b"k", number)),
            ("value", 0, 2**64 - 1, lambda client, number: client.decrement(b"k", number)),
            ("exptime", -(2**31), 2**31 - 1, lambda client, number: client.set(b"k", b"", exptime=number)),
            ("exptime", -(2**31), 2**31 - 1, lambda client, number: client.add(b"k", b"", exptime=number)),
            ("exptime", -(2**31), 2**31 - 1, lambda client, number: client.replace(b"k", b"", exptime=number)),
            ("exptime", -(2**31), 2**31 - 1, lambda client, number: client.cas(b"k", b"", 1, exptime=number)),
            ("exptime", -(2**31), 2**31 - 1, lambda client, number: client.set_many({b"k": b""}, exptime=number)),
            ("exptime", -(2**31), 2**31 - 1, lambda client, number: client.touch(b"k", number)),
            ("exptime", -(2**31), 2**31 - 1, lambda client, number: client.touch_many([b"k"], number)),
            ("exptime", -(2**31), 2**31 - 1, lambda client, number: client.gat(number, b"k")),
            ("exptime", -(2**31), 2**31 - 1, lambda client, number: client.gats(number, b"k")),
            ("exptime", -(2**31), 2**31 - 1, lambda client, number: client.gat_many(number, [b"k"])),
            ("exptime", -(2**31), 2**31 - 1, lambda client, number: client.gats_many(number, [b"k"])),
            ("ttl", 0, 2**31 - 1, lambda client, number: client.get_or_set(b"k", bytes, ttl=number)),
            ("lease", 1, 2_592_000, lambda client, number: client.get_or_set(b"k", bytes, lease=number)),
            ("lease", 1, 2_592_000, lambda client, number: client.get_lease(b"k", lease=number)),
            ("stale", 0, 2_592_000, lambda client, number: client.get_or_set(b"k", bytes, ttl=1, stale=number)),
            ("stale", 0, 2_592_000, lambda client, number: client.get_lease(b"k", stale=number)),
            ("delay", 0, 2**31 - 1, lambda client, number: client.flush_all(HERE, number)),
            ("value", 0, 2**32 - 1, lambda client, number: client.cache_memlimit(HERE, number)),
            ("level", 0, 2**32 - 1, lambda client, number: client.verbosity(HERE, number)),
        ],
    )
    @virtually
    async def test_numbers(self, text: str, low: int, high: int, call: Callable[[Any, Any], Any]):
        async with rig() as made:
            for number in (low - 1, high + 1):
                await refused(made, call(made.client, number), ValueError, text)
            for wrong in ("1", 1.0, 0.0, None, b"0", True, False):
                await refused(made, call(made.client, wrong), TypeError, text)
            for number in (low, high):
                await call(made.client, number)
            assert made.asked()

    @virtually
    async def test_other_arguments_of_get_or_set(self):
        async with rig() as made:
            call = made.client.get_or_set
            await refused(made, call(b"k", bytes, stale=1), ValueError, "stale needs a ttl")
            await refused(made, call(b"k", bytes, wait=-1), ValueError, "wait")
            await refused(made, call(b"k", bytes, wait="1"), TypeError, "wait")  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["set", "add", "replace", "append", "prepend", "cas", "set_many"])
    @virtually
    async def test_values(self, name: str):
        more = (1,) if name == "cas" else ()

        def call(made: Rig, value: Any) -> Any:
            operation = getattr(made.client, name)
            return operation({b"k": value}) if name == "set_many" else operation(b"k", value, *more)

        async with rig() as made:
            for wrong in ("text", 1, None, [1], memoryview(b"abcd")[::2]):
                await refused(made, call(made, wrong), TypeError, "value")
            for value, sent in (
                (b"", b""),
                (b"abc", b"abc"),
                (bytearray(b"abc"), b"abc"),
                (memoryview(b"abcde")[1:4], b"bcd"),
                (array.array("H", [0x6161, 0x6262]), b"aabb"),
                (b"END\r\nget a\r\n", b"END\r\nget a\r\n"),
            ):
                made.forget()
                await call(made, value)
                (request,) = made.asked()
                line, _, data = request.partition(b"\r\n")
                assert data == sent + b"\r\n"
                assert b" %d" % len(sent) in line

    @pytest.mark.parametrize("arguments", [("",), ("a b",), ("a\r\nget b",), ("\u00e9",), ("a\x7f",)])
    @virtually
    async def test_stats(self, arguments: tuple[str, ...]):
        async with rig() as made:
            await refused(made, made.client.stats(HERE, *arguments), ValueError, "stats")
            await refused(made, made.client.stats(HERE, b"items"), TypeError, "stats")  # type: ignore[arg-type]

    @virtually
    async def test_order_of_checks(self):
        bad: Any = b""
        async with rig() as made:
            client = made.client
            await refused(made, client.increment(bad, -1), ValueError, "value")
            await refused(made, client.cas(bad, "x", -1, flags=-1), ValueError, "cas")  # type: ignore[arg-type]
            await refused(made, client.set(bad, "x", flags=-1, exptime=2**40), ValueError, "flags")  # type: ignore[arg-type]
            await refused(made, client.set(bad, "x", exptime=2**40), ValueError, "exptime")  # type: ignore[arg-type]
            await refused(made, client.set(bad, "x"), TypeError, "value")  # type: ignore[arg-type]
            await refused(made, client.set_many({bad: "x"}), TypeError, "value")  # type: ignore[dict-item]
            await refused(made, client.gat(2**40, bad), ValueError, "exptime")
            await refused(made, client.flush_all(ELSEWHERE, -1), ValueError, "delay")
            client._cluster.node_for = no_node
            await refused(made, client.get(bad), ValueError, "key")
            with pytest.raises(ClusterNoAvailableNodes):
                await client.get(b"k")

    @pytest.mark.parametrize("name", [*OF_NODES, "quit"])
    @virtually
    async def test_unknown_address(self, name: str):
        calls: dict[str, Any] = {**OF_NODES, "quit": lambda client, where: client.quit(where)}
        async with rig() as made:
            await refused(made, calls[name](made.client, ELSEWHERE), ValueError, "elsewhere")

    @pytest.mark.parametrize("options", [{}, {"autobatching": True}, {"chunking": True}])
    @virtually
    async def test_closed_client(self, options: dict[str, Any]):
        async with rig(**options) as made:
            client = made.client
            lease = await client.get_lease(b"missing")
            lease._held = True  # type: ignore[attr-defined]
            made.forget()
            assert not client.closed
            await client.close()
            assert client.closed
            wrong: Any = None
            for call in WITH_KEY.values():
                await refused(made, call(client, wrong), RuntimeError, "client is closed")
            for operation in OF_NODES.values():
                await refused(made, operation(client, wrong), RuntimeError, "client is closed")
            await refused(made, client.quit(wrong), RuntimeError, "client is closed")
            await refused(made, lease.fulfil(b""), RuntimeError, "client is closed")
            await refused(made, lease.release(), RuntimeError, "client is closed")
            assert client.cluster_managment().nodes() == [HERE]


def no_node(key: bytes) -> Any:
    raise ClusterNoAvailableNodes


class TestRequests:
    @pytest.mark.parametrize(
        ("call", "sent"),
        [
            (lambda c: c.get(b"foo"), b"mg foo v\r\n"),
            (lambda c: c.get(b"foo", True), b"mg foo v f\r\n"),
            (lambda c: c.gets(b"foo"), b"mg foo v c\r\n"),
            (lambda c: c.gets(b"foo", return_flags=True), b"mg foo v f c\r\n"),
            (lambda c: c.gat(5, b"foo"), b"mg foo v T5\r\n"),
            (lambda c: c.gat(-1, b"foo", True), b"mg foo v f T-1\r\n"),
            (lambda c: c.gats(5, b"foo", True), b"mg foo v f c T5\r\n"),
            (lambda c: c.set(b"foo", b"value"), b"set foo 0 0 5\r\nvalue\r\n"),
            (lambda c: c.set(b"foo", b"value", flags=3, exptime=-1), b"set foo 3 -1 5\r\nvalue\r\n"),
            (lambda c: c.set(b"foo", b"value", noreply=True), b"set foo 0 0 5 noreply\r\nvalue\r\n"),
            (lambda c: c.add(b"foo", b"v", flags=3, exptime=4), b"add foo 3 4 1\r\nv\r\n"),
            (lambda c: c.add(b"foo", b"v", noreply=True), b"add foo 0 0 1 noreply\r\nv\r\n"),
            (lambda c: c.replace(b"foo", b"v", flags=3, exptime=4), b"replace foo 3 4 1\r\nv\r\n"),
            (lambda c: c.replace(b"foo", b"v", noreply=True), b"replace foo 0 0 1 noreply\r\nv\r\n"),
            (lambda c: c.append(b"foo", b"v"), b"append foo 0 0 1\r\nv\r\n"),
            (lambda c: c.append(b"foo", b"v", noreply=True), b"append foo 0 0 1 noreply\r\nv\r\n"),
            (lambda c: c.prepend(b"foo", b"v"), b"prepend foo 0 0 1\r\nv\r\n"),
            (lambda c: c.prepend(b"foo", b"v", noreply=True), b"prepend foo 0 0 1 noreply\r\nv\r\n"),
            (lambda c: c.cas(b"foo", b"v", 9, flags=3, exptime=4), b"cas foo 3 4 1 9\r\nv\r\n"),
            (lambda c: c.cas(b"foo", b"v", 0, noreply=True), b"cas foo 0 0 1 0 noreply\r\nv\r\n"),
            (lambda c: c.increment(b"foo", 1), b"incr foo 1\r\n"),
            (lambda c: c.increment(b"foo", 1, noreply=True), b"incr foo 1 noreply\r\n"),
            (lambda c: c.decrement(b"foo", 1), b"decr foo 1\r\n"),
            (lambda c: c.decrement(b"foo", 1, noreply=True), b"decr foo 1 noreply\r\n"),
            (lambda c: c.touch(b"foo", 1), b"touch foo 1\r\n"),
            (lambda c: c.touch(b"foo", 1, noreply=True), b"touch foo 1 noreply\r\n"),
            (lambda c: c.delete(b"foo"), b"delete foo\r\n"),
            (lambda c: c.delete(b"foo", noreply=True), b"delete foo noreply\r\n"),
            (lambda c: c.get_lease(b"foo"), b"mg foo v f c N30\r\n"),
            (lambda c: c.get_lease(b"foo", lease=5, stale=6), b"mg foo v f c N5 R6\r\n"),
            (lambda c: c.flush_all(HERE), b"flush_all 0\r\n"),
            (lambda c: c.flush_all(HERE, 5, noreply=True), b"flush_all 5 noreply\r\n"),
            (lambda c: c.stats(HERE), b"stats\r\n"),
            (lambda c: c.stats(HERE, "items", "x"), b"stats items x\r\n"),
            (lambda c: c.cache_memlimit(HERE, 64), b"cache_memlimit 64\r\n"),
            (lambda c: c.cache_memlimit(HERE, 64, noreply=True), b"cache_memlimit 64 noreply\r\n"),
            (lambda c: c.verbosity(HERE, 1), b"verbosity 1\r\n"),
            (lambda c: c.verbosity(HERE, 1, noreply=True), b"verbosity 1 noreply\r\n"),
        ],
    )
    @virtually
    async def test_what_is_sent(self, call: Callable[[Any], Any], sent: bytes):
        async with rig() as made:
            await call(made.client)
            assert made.asked() == [sent]

    @virtually
    async def test_version(self):
        async with rig() as made:
            assert await made.client.version(HERE) == "1.6.18"
            assert made.wires[0].requests == [b"version\r\n"]

    @virtually
    async def test_quit(self):
        async with rig(lambda request: None if request == b"quit\r\n" else Model()(request)) as made:
            task = asyncio.ensure_future(made.client.quit(HERE))
            await turns()
            assert made.asked() == [b"quit\r\n"]
            made.wires[0].end()
            await task


class TestResults:
    @pytest.mark.parametrize(
        ("call", "result"),
        [
            (lambda c: c.get(b"foo"), Item(b"value of foo", None, None)),
            (lambda c: c.get(b"foo", True), Item(b"value of foo", 0, None)),
            (lambda c: c.gets(b"foo"), Item(b"value of foo", None, 7)),
            (lambda c: c.gets(b"foo", True), Item(b"value of foo", 0, 7)),
            (lambda c: c.gat(0, b"foo"), Item(b"value of foo", None, None)),
            (lambda c: c.gat(0, b"foo", True), Item(b"value of foo", 0, None)),
            (lambda c: c.gats(0, b"foo"), Item(b"value of foo", None, 7)),
            (lambda c: c.gats(0, b"foo", True), Item(b"value of foo", 0, 7)),
            (lambda c: c.get(b"missing"), None),
            (lambda c: c.gets(b"missing"), None),
            (lambda c: c.gat(0, b"missing"), None),
            (lambda c: c.gats(0, b"missing"), None),
            (lambda c: c.increment(b"foo", 1), 1),
            (lambda c: c.decrement(b"foo", 1), 1),
            (lambda c: c.increment(b"foo", 1, noreply=True), None),
            (lambda c: c.stats(HERE), {"pid": "1", "version": "1.6.18"}),
            (lambda c: c.version(HERE), "1.6.18"),
            *(
                (lambda c, name=name: WRITES[name](c, b"foo"), None)
                for name in ("set", "add", "cas", "touch", "delete")
            ),
        ],
    )
    @pytest.mark.parametrize("options", [{}, {"protocol": "classic"}, {"autobatching": True}, {"chunking": True}])
    @virtually
    async def test_success(self, call: Callable[[Any], Any], result: Any, options: dict[str, Any]):
        async with rig(**options) as made:
            assert await call(made.client) == result

    @pytest.mark.parametrize(
        ("call", "reply", "kind"),
        [
            (FETCHES["get"], b"SERVER_ERROR out", CommandError),
            (FETCHES["gats"], b"SERVER_ERROR out", CommandError),
            (WRITES["set"], b"SERVER_ERROR out", StorageCommandError),
            (WRITES["set"], b"NOT_STORED", StorageCommandError),
            (WRITES["add"], b"NOT_STORED", NotStoredStorageCommandError),
            (WRITES["cas"], b"EXISTS", NotStoredStorageCommandError),
            (WRITES["cas"], b"NOT_FOUND", StorageCommandError),
            (WRITES["touch"], b"NOT_FOUND", NotFoundCommandError),
            (WRITES["increment"], b"CLIENT_ERROR cannot", CommandError),
        ],
    )
    @virtually
    async def test_failure(self, call: Operation, reply: bytes, kind: type[CommandError]):
        async with rig() as made:
            made.wires[0].script = lambda request: reply + b"\r\n"
            error = await outcome(call(made.client, b"foo"))
            assert type(error) is kind or (kind is CommandError and isinstance(error, kind))
            assert error.reply == reply.decode()
            assert error.address == HERE

    @virtually
    async def test_what_goes_wrong_before_handing_over_is_raised_with_noreply_too(self):
        async with rig() as made:
            network = made.networks[0]
            network.error = ConnectionRefusedError("refused")
            made.wires[0].end()
            await turns()
            for name, call in WRITES.items():
                if not name.endswith("_many"):
                    error = await outcome(call(made.client, b"foo", noreply=True))
                    assert isinstance(error, NodeUnavailable), name
                    assert not error.sent

    @virtually
    async def test_a_stale_item_is_returned_and_its_win_given_back(self):
        """Somebody marked the item as stale, and a plain fetch is told to refresh it."""
        async with rig(Model()) as made:
            client = made.client
            await client.set(b"foo", b"old", flags=1)
            wire = made.wires[0]
            for fetch in (client.get, client.gets):
                wire.script(b"md foo I\r\n")
                made.forget()
                item = await fetch(b"foo", True)
                assert (item.value, item.flags) == (b"old", 1)
                await turns()
                assert made.asked()[1:] == [b"md foo I\r\n"]
            lease = await client.get_lease(b"foo")
            assert lease.won
            assert lease.item is not None

    @pytest.mark.parametrize("call", [FETCHES["get"], FETCHES["gets"], FETCHES["gat"], FETCHES["gats"]])
    @virtually
    async def test_a_placeholder_is_a_miss(self, call: Operation):
        async with rig(Model()) as made:
            assert (await made.client.get_lease(b"foo")).won
            assert await call(made.client, b"foo") is None

    @virtually
    async def test_an_empty_value_is_a_hit(self):
        async with rig(Model()) as made:
            await made.client.set(b"foo", b"")
            for call in FETCHES.values():
                assert await call(made.client, b"foo")


NEVER_RAISED = ("get_or_set", "set_many", "delete_many", "touch_many")
"""Operations that tell failures of nodes otherwise."""


class TestTimeout:
    @pytest.mark.parametrize("name", [name for name in (*WITH_KEY, *OF_NODES) if name not in NEVER_RAISED])
    @virtually
    async def test_fires(self, name: str):
        async with rig(timeout=0.5) as made:
            made.silence()
            loop = asyncio.get_running_loop()
            task = asyncio.current_task()
            assert task is not None
            started = loop.time()
            call: Any = {**WITH_KEY, **OF_NODES}[name]
            error = await outcome(call(made.client, HERE if name in OF_NODES else b"foo"))
            assert isinstance(error, TimeoutError)
            assert 0.5 <= loop.time() - started <= 0.51
            assert task.cancelling() == 0

    @virtually
    async def test_text(self):
        async with rig(silent, timeout=0.5) as made:
            error = await outcome(made.client.get(b"foo"))
            assert "get" in str(error)
            assert "b'foo'" in str(error)
            assert "cache:11211" in str(error)

    @virtually
    async def test_none(self):
        async with rig(timeout=None) as made:
            made.silence()
            tasks = [asyncio.ensure_future(call(made.client, b"foo")) for call in WITH_KEY.values()]
            await seconds(10_000)
            assert not any(task.done() for task in tasks)
            for task in tasks:
                assert await cancelled(task)

    @virtually
    async def test_cancellation_from_outside_wins(self):
        async with rig(silent, timeout=0.5) as made:
            task = asyncio.ensure_future(made.client.get(b"foo"))
            await seconds(0.499)
            assert await cancelled(task)


class TestClosing:
    @virtually
    async def test_twice_and_at_once(self):
        async with rig() as made:
            await asyncio.gather(made.client.close(), made.client.close())
            await made.client.close()
            assert made.client.closed

    @pytest.mark.parametrize("options", [{}, {"autobatching": True}, {"chunking": True, "chunk_size": 1024}])
    @virtually
    async def test_operations_in_flight_fail_at_once(self, options: dict[str, Any]):
        async with rig(**options) as made:
            made.silence()
            client = made.client
            tasks = [asyncio.ensure_future(call(client, b"foo")) for call in WITH_KEY.values()]
            tasks += [asyncio.ensure_future(call(client, HERE)) for call in OF_NODES.values()]
            tasks.append(asyncio.ensure_future(client.set(b"large", bytes(5000))))
            await turns()
            started = asyncio.get_running_loop().time()
            await client.close()
            for task in tasks:
                error = await outcome(task)
                assert isinstance(error, RuntimeError)
                assert str(error) == "client is closed"
            assert asyncio.get_running_loop().time() == started

    @virtually
    async def test_operations_that_wait_fail_at_once(self):
        made = Rig([silent], {})
        made.networks[0].delay = 3
        await made.client.open()
        tasks = [asyncio.ensure_future(call(made.client, b"foo")) for call in WITH_KEY.values()]
        await turns()
        await made.client.close()
        for task in tasks:
            assert isinstance(await outcome(task), RuntimeError)

    async def test_noreply_is_flushed(self, fake: FakeServer):
        made = await connected(fake)
        for name, call in WRITES.items():
            await call(made, b"foo-%b" % name.encode(), noreply=True)
        await made.close()
        await fake.until(
            lambda: all(fake.asked(b"") and name in b"".join(fake.requests) for name in (b"foo-touch_many",))
        )
        assert len(fake.asked(b"")) == 2 + len(WRITES)

    @virtually
    async def test_context_manager(self):
        async with rig() as made, made.client as client:
            assert client is made.client
        assert made.client.closed

    @virtually
    async def test_forgotten(self):
        rigs = [Rig([silent], {})]
        gone = weakref.ref(rigs[0].client)
        cluster = rigs[0].client._cluster
        with pytest.warns(ResourceWarning, match=r"MemcachedClient of cache:11211 closed=False.* was not closed"):
            rigs.clear()
        assert gone() is None
        await cluster.close()

    @virtually
    async def test_nothing_refers_to_a_closed_client(self):
        made = Rig([silent], {"autobatching": True, "chunking": True})
        await made.client.open()
        await turns()
        await made.client.close()
        gone = weakref.ref(made.client)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del made
            gc.collect()
        assert gone() is None

    async def test_half_made(self):
        def fail(*_: object) -> Any:
            raise OSError("no")

        from rain.memcache.client import MemcachedClient
        from rain.memcache.options import Options

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(OSError, match="no"):
                MemcachedClient([HERE], Options(), cluster_factory=fail)
            gc.collect()

    @virtually
    async def test_repr(self):
        async with rig(silent, silent) as made:
            assert repr(made.client) == "<MemcachedClient of cache:11211, cache:11212 closed=False>"


async def connected(server: FakeServer | MemcachedServer, **options: Any) -> Any:
    from rain.memcache.factory import create_client

    return await create_client([server.address], **options)


async def test_cluster_managment_is_the_same_object_at_each_call(fake: FakeServer):
    async with await connected(fake) as client:
        assert client.cluster_managment() is client.cluster_managment()


@virtually
async def test_classic_script():
    """The scripted server without meta commands is one to the client, too."""
    async with rig(classic(Model())) as made:
        await made.client.get(b"foo")
        assert made.asked() == [b"get foo\r\n"]
