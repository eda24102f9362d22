"""`get_or_set`: one computation for many callers, refreshes in the background, and a cache that may fail."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from rain.memcache import flights as flights_module
from rain.memcache.client_errors import AuthenticationError, ClusterNoAvailableNodes, NodeUnavailable
from rain.memcache.factory import create_client
from rain.memcache.testing import MemcachedServer
from tests.memcache.clients import Rig, cancelled, rig
from tests.memcache.model import Model
from tests.memcache.virtual import outcome, turns, virtually

DAY = 24 * 3600


def without_meta() -> Model:
    return Model(meta=False)


BOTH = pytest.mark.parametrize("model", [Model, without_meta])


class Factory:
    """Counts its runs; takes some seconds, then gives a value or raises."""

    def __init__(self, value: Any = b"made", seconds: float = 0.0) -> None:
        self.value = value
        self.seconds = seconds
        self.runs = 0
        self.ended = 0

    async def __call__(self) -> Any:
        self.runs += 1
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.ended += 1
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


def call(made: Rig, factory: Callable[[], Any], **options: Any) -> asyncio.Task[bytes]:
    return asyncio.ensure_future(made.client.get_or_set(b"foo", factory, **options))


class TestOneProcess:
    @BOTH
    @virtually
    async def test_miss_then_hit(self, model: Callable[[], Model]):
        async with rig(model()) as made:
            factory = Factory()
            assert await call(made, factory, ttl=60, flags=5) == b"made"
            assert await call(made, factory) == b"made"
            assert factory.runs == 1
            item = await made.client.get(b"foo", True)
            assert item is not None
            assert item.flags == 5

    @pytest.mark.parametrize("made_value", [b"made", bytearray(b"made"), memoryview(b"-made")[1:]])
    @virtually
    async def test_kinds_of_factories_and_values(self, made_value: Any):
        async with rig(Model()) as made:
            assert await call(made, lambda: made_value) == b"made"
            await made.client.delete(b"foo")
            result = await call(made, Factory(made_value))
            assert result == b"made"
            assert type(result) is bytes

    @BOTH
    @virtually
    async def test_callers_share_a_flight(self, model: Callable[[], Model]):
        async with rig(model()) as made:
            factory = Factory(seconds=5)
            tasks = [call(made, factory) for _ in range(10)]
            await asyncio.sleep(2)
            tasks += [call(made, factory) for _ in range(10)]
            assert await asyncio.gather(*tasks) == [b"made"] * 20
            assert factory.runs == 1
            assert sum(request.startswith((b"mg foo", b"add ")) for request in made.asked()) == 1

    @virtually
    async def test_the_timeout_does_not_bound_the_factory(self):
        async with rig(Model(), timeout=0.5) as made:
            assert await call(made, Factory(seconds=100), lease=200) == b"made"
            assert (await made.client.get(b"foo")).value == b"made"  # type: ignore[union-attr]

    @virtually
    async def test_context_of_the_first_caller(self):
        variable = contextvars.ContextVar("variable", default=b"none")

        async def caller(made: Rig, value: bytes) -> bytes:
            variable.set(value)
            return await made.client.get_or_set(b"foo", variable.get)

        async with rig(Model()) as made:
            assert await asyncio.gather(caller(made, b"first"), caller(made, b"second")) == [b"first"] * 2

    @BOTH
    @virtually
    async def test_what_the_factory_raises_reaches_all_and_is_not_cached(self, model: Callable[[], Model]):
        async with rig(model()) as made:
            factory = Factory(KeyError("no"), seconds=1)
            for error in await asyncio.gather(*[outcome(call(made, factory)) for _ in range(3)]):
                assert error is factory.value
            assert factory.runs == 1
            assert await call(made, lambda: b"better") == b"better"  # at once: the lease was released

    @pytest.mark.parametrize("value", ["text", 5, None])
    @virtually
    async def test_a_factory_that_gives_no_buffer(self, value: Any):
        async with rig(Model()) as made:
            assert isinstance(await outcome(call(made, lambda: value)), TypeError)
            assert await call(made, lambda: b"made") == b"made"

    @virtually
    async def test_a_factory_that_cancels_itself(self):
        async with rig(Model()) as made:
            tasks = [call(made, Factory(asyncio.CancelledError())) for _ in range(2)]
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)
            assert await call(made, lambda: b"made") == b"made"

    @virtually
    async def test_each_caller_cancelled_in_turn(self):
        for number in range(3):
            async with rig(Model()) as made:
                factory = Factory(seconds=5)
                tasks = [call(made, factory) for _ in range(3)]
                await asyncio.sleep(1)
                assert await cancelled(tasks.pop(number))
                assert await asyncio.gather(*tasks) == [b"made"] * 2
                assert factory.runs == 1

    @BOTH
    @virtually
    async def test_with_the_last_caller_the_flight_ends(self, model: Callable[[], Model]):
        async with rig(model()) as made:
            factory = Factory(seconds=5)
            tasks = [call(made, factory) for _ in range(3)]
            await asyncio.sleep(1)
            for task in tasks:
                assert await cancelled(task)
            await turns()
            assert factory.ended == 1
            started = asyncio.get_running_loop().time()
            assert await call(made, lambda: b"other") == b"other"
            assert asyncio.get_running_loop().time() == started  # the lease was released

    @virtually
    async def test_a_new_caller_after_the_last_one_left(self):
        """It starts a flight of its own, also while the old one ends."""
        async with rig(Model()) as made:
            task = call(made, Factory(seconds=5))
            await asyncio.sleep(1)
            task.cancel()
            await asyncio.sleep(0)
            assert await call(made, lambda: b"other") == b"other"

    @virtually
    async def test_cancelled_just_when_the_value_comes(self):
        async with rig(Model()) as made:
            release = asyncio.get_running_loop().create_future()

            async def factory() -> bytes:
                await release
                return b"made"

            tasks = [call(made, factory) for _ in range(2)]
            await turns()
            release.set_result(None)
            for _ in range(20):
                await asyncio.sleep(0)
                if any(each.done() for each in tasks):
                    break
            assert await tasks[1] == b"made"

    @virtually
    async def test_expiry(self):
        model = Model()
        async with rig(model) as made:
            for ttl, stale, exptime in (
                (0, 0, b"0"),
                (60, 0, b"60"),
                (60, 30, b"90"),
                (20 * DAY, 10 * DAY, b"2592000"),
            ):
                await made.client.delete_many([b"foo"])
                made.forget()
                await call(made, lambda: b"made", ttl=ttl, stale=stale)
                assert made.asked()[-1].split()[3] == exptime

    @virtually
    async def test_expiry_without_meta(self):
        """Nobody could refresh a value that is stale, so it expires at once."""
        async with rig(without_meta()) as made:
            await call(made, lambda: b"made", ttl=60, stale=30)
            assert b"set foo 0 60 4\r\nmade\r\n" in made.asked()

    @virtually
    async def test_long_expiry_is_a_unix_time(self):
        async with rig(Model()) as made:
            made.client._flights._wall_clock = lambda: 1_800_000_000.7
            await call(made, lambda: b"made", ttl=30 * DAY + 1)
            assert made.asked()[-1].split()[3] == b"%d" % (1_800_000_000 + 30 * DAY + 1)
            await made.client.delete(b"foo")
            await call(made, lambda: b"made", ttl=2**31 - 1)
            assert made.asked()[-1].split()[3] == b"2147483647"


class TestBetweenProcesses:
    """Two clients of one server."""

    @BOTH
    @virtually
    async def test_one_computes(self, model: Callable[[], Model]):
        server = model()
        async with rig(server) as one, rig(server) as two:
            factory = Factory(seconds=1)
            results = await asyncio.gather(call(one, factory), call(two, factory))
            assert results == [b"made"] * 2
            assert factory.runs == 1

    @virtually
    async def test_polls(self):
        server = Model()
        async with rig(server) as one, rig(server) as two:
            times = []
            two.client._flights._random = lambda: 0.5
            first = call(one, Factory(seconds=1))
            await turns()

            def script(request: bytes) -> bytes | None:
                times.append(asyncio.get_running_loop().time())
                return server(request)

            two.wires[0].script = script
            assert await call(two, Factory(b"never")) == b"made"
            await first
            pauses = [round(after - before, 4) for before, after in pairwise(times)]
            assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16, 0.25, 0.25, 0.25]

    @pytest.mark.parametrize(("random", "pause"), [(0.0, 0.0075), (1.0, 0.0125)])
    @virtually
    async def test_polls_are_spread(self, random: float, pause: float):
        server = Model()
        async with rig(server) as one, rig(server) as two:
            two.client._flights._random = lambda: random
            first = call(one, Factory(seconds=0.007))
            await turns()
            started = asyncio.get_running_loop().time()
            assert await call(two, Factory(b"never")) == b"made"
            assert round(asyncio.get_running_loop().time() - started, 6) == pause
            await first

    @BOTH
    @virtually
    async def test_after_waiting_it_computes_itself_and_does_not_store(self, model: Callable[[], Model]):
        server = model()
        async with rig(server) as one, rig(server) as two:
            first = call(one, Factory(b"first", seconds=10))
            await turns()
            started = asyncio.get_running_loop().time()
            assert await call(two, lambda: b"second", wait=3.0) == b"second"
            assert 2.99 <= asyncio.get_running_loop().time() - started <= 3.01
            assert await first == b"first"
            assert (await two.client.get(b"foo")).value == b"first"  # type: ignore[union-attr]

    @virtually
    async def test_not_waiting_at_all(self):
        server = Model()
        async with rig(server) as one, rig(server) as two:
            first = call(one, Factory(b"first", seconds=10))
            await turns()
            assert await call(two, lambda: b"second", wait=0) == b"second"
            assert await first == b"first"

    @BOTH
    @virtually
    async def test_the_holder_dies(self, model: Callable[[], Model]):
        server = model()
        async with rig(server) as one, rig(server) as two:
            assert (await one.client.get_lease(b"foo", lease=5)).won
            started = asyncio.get_running_loop().time()
            assert await call(two, lambda: b"second", lease=5) == b"second"
            assert asyncio.get_running_loop().time() - started <= 7
            assert (await one.client.get(b"foo")).value == b"second"  # type: ignore[union-attr]

    @virtually
    async def test_a_placeholder_that_outlives_its_lease_is_removed(self):
        server = Model()
        async with rig(server) as one, rig(server) as two:
            assert (await one.client.get_lease(b"foo", lease=5)).won
            await one.client.touch(b"foo", 1000)
            started = asyncio.get_running_loop().time()
            assert await call(two, lambda: b"second", lease=5, wait=100) == b"second"
            assert 7 <= asyncio.get_running_loop().time() - started <= 7.5
            assert (await one.client.get(b"foo")).value == b"second"  # type: ignore[union-attr]

    @virtually
    async def test_placeholders_that_follow_each_other_are_not_removed(self):
        """Each is younger than its lease, though somebody waits for long."""
        server = Model()
        async with rig(server) as one, rig(server) as two:
            task = call(two, lambda: b"second", lease=5, wait=30)
            await asyncio.sleep(0)
            for _ in range(4):
                lease: Any = await one.client.get_lease(b"foo", lease=5)
                if lease.won:
                    await asyncio.sleep(4)
                    await lease.release()
                await turns()
            assert await task == b"second"

    @virtually
    async def test_neither_won_nor_pending(self):
        """A server without memory for the placeholder: the value is made and not stored."""
        async with rig() as made:
            made.wires[0].script = lambda request: b"EN\r\n"
            assert await call(made, lambda: b"made") == b"made"
            assert len(made.asked()) == 1


class TestRefresh:
    @virtually
    async def test_all_get_the_old_value_at_once_and_one_refreshes(self):
        async with rig(Model()) as made:
            assert await call(made, lambda: b"old", ttl=60, stale=30) == b"old"
            await asyncio.sleep(61)
            factory = Factory(b"new", seconds=5)
            started = asyncio.get_running_loop().time()
            for _ in range(5):
                assert await call(made, factory, ttl=60, stale=30) == b"old"
            assert asyncio.get_running_loop().time() == started
            assert factory.runs == 1
            await asyncio.sleep(6)
            assert await call(made, factory, ttl=60, stale=30) == b"new"
            assert factory.runs == 1

    @virtually
    async def test_at_most_one_per_key(self):
        """The right to refresh was given a second time while the first refresh runs."""
        model = Model()
        async with rig(model) as made:
            await made.client.set(b"foo", b"old", exptime=20)
            factory = Factory(b"new", seconds=5)
            for _ in range(3):
                assert await call(made, factory, ttl=60, stale=30) == b"old"
                model(b"md foo I\r\n")
            assert factory.runs == 1
            await asyncio.sleep(6)

    @virtually
    async def test_a_failed_refresh_is_logged_and_the_old_value_served(self, caplog: pytest.LogCaptureFixture):
        async with rig(Model()) as made:
            await made.client.set(b"foo", b"old", exptime=20)
            with caplog.at_level(logging.WARNING, "rain.memcache"):
                assert await call(made, Factory(KeyError("why")), ttl=60, stale=30) == b"old"
                await turns()
            (record,) = caplog.records
            assert record.getMessage() == "get_or_set: the value of b'foo' could not be refreshed: KeyError('why')"
            assert await call(made, Factory(b"never"), ttl=60, stale=30) == b"old"

    @virtually
    async def test_closing_ends_refreshes(self):
        async with rig(Model()) as made:
            await made.client.set(b"foo", b"old", exptime=20)
            factory = Factory(seconds=1000)
            await call(made, factory, ttl=60, stale=30)
            await turns()
            await made.client.close()
            assert factory.ended == 1


class TestFailingCache:
    @staticmethod
    async def down() -> Rig:
        made = Rig([Model()], {})
        made.networks[0].error = ConnectionRefusedError("refused")
        await made.client.open()
        await turns()
        return made

    @virtually
    async def test_node_down(self):
        made = await self.down()
        factory = Factory()
        assert await call(made, factory) == b"made"
        assert isinstance(await outcome(call(made, Factory(KeyError("no")))), KeyError)
        assert factory.runs == 1
        await made.client.close()

    @virtually
    async def test_no_nodes(self):
        def no_node(key: bytes) -> Any:
            raise ClusterNoAvailableNodes

        async with rig(Model()) as made:
            made.client._cluster.node_for = no_node
            assert await call(made, lambda: b"made") == b"made"

    @BOTH
    @virtually
    async def test_silent(self, model: Callable[[], Model]):
        async with rig(model(), timeout=0.5) as made:
            made.silence()
            assert await call(made, lambda: b"made") == b"made"

    @virtually
    async def test_error_line(self):
        async with rig() as made:
            made.wires[0].script = lambda request: b"SERVER_ERROR out of memory\r\n"
            assert await call(made, lambda: b"made") == b"made"

    @virtually
    async def test_down_while_waiting_for_another(self):
        server = Model()
        async with rig(server) as one, rig(server, timeout=0.5) as two:
            first = call(one, Factory(b"first", seconds=10))
            await turns()
            second = call(two, lambda: b"second")
            await asyncio.sleep(1)
            two.silence()
            assert await second == b"second"
            await first

    @virtually
    async def test_what_cannot_be_stored_is_logged_once_a_minute_and_returned(self, caplog: pytest.LogCaptureFixture):
        async with rig(Model()) as made:
            with caplog.at_level(logging.WARNING, "rain.memcache"):
                for _ in range(3):
                    assert len(await call(made, lambda: bytes(2_000_000))) == 2_000_000
                    await turns()
                await asyncio.sleep(60)
                await call(made, lambda: bytes(2_000_000))
            assert [record.name for record in caplog.records] == ["rain.memcache.flights"] * 2
            assert "the value of b'foo' could not be stored: set" in caplog.text.replace("cas b'foo'", "set")
            assert "too large" in caplog.text
            await made.client.delete_many([b"foo"])

    @virtually
    async def test_no_node_at_the_storing(self, caplog: pytest.LogCaptureFixture):
        def no_node(key: bytes) -> Any:
            raise ClusterNoAvailableNodes("no nodes")

        async with rig(Model()) as made:

            async def factory() -> bytes:
                made.client._cluster.node_for = no_node
                return b"made"

            with caplog.at_level(logging.WARNING, "rain.memcache"):
                assert await call(made, factory) == b"made"
            assert "could not be stored: no nodes" in caplog.text

    @virtually
    async def test_refused_authentication_is_raised(self):
        made = Rig([lambda request: b"CLIENT_ERROR unauthenticated\r\n"], {})
        await made.client.open()
        factory = Factory()
        assert isinstance(await outcome(call(made, factory)), AuthenticationError)
        assert factory.runs == 0
        await made.client.close()

    @virtually
    async def test_refused_authentication_at_the_storing_is_raised(self):
        async with rig(Model()) as made:

            async def factory() -> bytes:
                made.wires[0].script = lambda request: b"CLIENT_ERROR unauthenticated\r\n"
                return b"made"

            assert isinstance(await outcome(call(made, factory)), AuthenticationError)

    @virtually
    async def test_lost_at_the_lease(self):
        async with rig(Model()) as made:
            made.silence()
            task = call(made, lambda: b"made")
            await turns()
            made.wires[0].reset()
            assert await task == b"made"
            assert isinstance(await outcome(made.client.get(b"foo")), NodeUnavailable)


class TestClosing:
    @virtually
    async def test_callers_are_told_at_once(self):
        async with rig(Model()) as made:
            factory = Factory(seconds=1000)
            tasks = [call(made, factory) for _ in range(3)]
            await turns()
            tasks[0].cancel()
            await made.client.close()
            for task in tasks[1:]:
                error = await outcome(task)
                assert isinstance(error, RuntimeError)
                assert str(error) == "client is closed"
            assert factory.ended == 1

    @virtually
    async def test_a_factory_that_does_not_end(self):
        async def stubborn() -> bytes:
            try:
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(5)
            return b""

        async with rig(Model()) as made:
            task = call(made, stubborn)
            await turns()
            started = asyncio.get_running_loop().time()
            await made.client.close()
            assert asyncio.get_running_loop().time() - started == 1.0
            assert isinstance(await outcome(task), RuntimeError)
            await asyncio.sleep(10)

    @virtually
    async def test_closed_by_the_factory(self):
        async with rig(Model()) as made:

            async def factory() -> bytes:
                await made.client.close()
                return b"made"

            assert isinstance(await outcome(call(made, factory)), RuntimeError)
            await turns()


def test_constants():
    assert flights_module._POLLS == (0.01, 0.02, 0.04, 0.08, 0.16, 0.25)
    assert flights_module._WARN_EVERY == 60


@pytest.mark.parametrize("protocol", ["auto", "classic"])
async def test_fifty_clients(servers: tuple[MemcachedServer, MemcachedServer], protocol: Any):
    """One computation per key, whoever wins."""
    clients = [await create_client([servers[0].address], protocol=protocol) for _ in range(50)]
    try:
        for number in range(4):
            factory = Factory(b"made %d" % number, seconds=0.02)
            key = b"round:%d" % number
            results = await asyncio.gather(*[client.get_or_set(key, factory, ttl=60) for client in clients])
            assert results == [b"made %d" % number] * 50
            assert factory.runs == 1
    finally:
        for client in clients:
            await client.close()
