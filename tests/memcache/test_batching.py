"""Autobatching: fetches of one turn travel together, and every outcome reaches every caller."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from rain.memcache.base import Item
from rain.memcache.client_errors import (
    AuthenticationError,
    ClusterNoAvailableNodes,
    CommandError,
    NodeUnavailable,
)
from rain.memcache.factory import create_client
from rain.memcache.testing import MemcachedServer
from tests.memcache.clients import Rig, address, cancelled, classic, rig
from tests.memcache.model import Model
from tests.memcache.virtual import outcome, turns, virtually

KEYS = [b"key:%d" % number for number in range(60)]


def ask(made: Rig, *keys: bytes) -> list[asyncio.Task[Any]]:
    return [asyncio.ensure_future(made.client.get(key)) for key in keys]


async def outcomes(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    return [await outcome(task) for task in tasks]


class TestSending:
    @virtually
    async def test_one_command_per_turn(self):
        async with rig(autobatching=True) as made:
            items = await asyncio.gather(*[made.client.get(key) for key in KEYS[:20]])
            assert [item.value for item in items] == [b"value of " + key for key in KEYS[:20]]  # type: ignore[union-attr]
            assert made.asked() == [b"get " + b" ".join(KEYS[:20]) + b"\r\n"]
            await made.client.get(b"later")
            assert made.asked()[1:] == [b"get later\r\n"]

    @pytest.mark.parametrize(("most", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (32, [5])])
    @virtually
    async def test_most_keys(self, most: int, sizes: list[int]):
        async with rig(autobatching=True, autobatching_max_keys=most) as made:
            await asyncio.gather(*[made.client.get(key) for key in KEYS[:5]])
            assert [len(request.split()) - 1 for request in made.asked()] == sizes
            metrics = made.client.cluster_managment().connection_pool_metrics()[address(0)]
            assert metrics.operations_executed == len(sizes)

    @virtually
    async def test_four_batchers(self):
        async with rig(autobatching=True) as made:
            client = made.client
            results = await asyncio.gather(
                client.get(b"a"),
                client.get(b"a", True),
                client.gets(b"a"),
                client.gets(b"a", return_flags=True),
                client.get(b"b"),
                client.gets(b"b"),
            )
            assert results == [
                Item(b"value of a", None, None),
                Item(b"value of a", 0, None),
                Item(b"value of a", None, 7),
                Item(b"value of a", 0, 7),
                Item(b"value of b", None, None),
                Item(b"value of b", None, 7),
            ]
            assert made.asked() == [b"get a b\r\n", b"get a\r\n", b"gets a b\r\n", b"gets a\r\n"]

    @virtually
    async def test_only_get_and_gets_change(self):
        async with rig(autobatching=True) as made:
            await made.client.gat(1, b"a")
            await made.client.set(b"a", b"")
            assert made.asked() == [b"mg a v T1\r\n", b"set a 0 0 0\r\n\r\n"]

    @virtually
    async def test_a_key_asked_several_times(self):
        async with rig(autobatching=True) as made:
            tasks = ask(made, b"a", b"b", b"a", b"missing", b"missing")
            first, _, second, third, fourth = await asyncio.gather(*tasks)
            assert made.asked() == [b"get a b missing\r\n"]
            assert first == second == Item(b"value of a", None, None)
            assert first is not second
            assert third is fourth is None

    @virtually
    async def test_keys_are_checked_before_they_are_queued(self):
        async with rig(autobatching=True) as made:
            with pytest.raises(ValueError, match="key"):
                await made.client.get(b"bad key")
            assert made.asked() == []

    @virtually
    async def test_grouped_by_node_and_connection(self):
        async with rig(Model(), Model(), autobatching=True, min_connections=2) as made:
            await made.client.set_many({key: key for key in KEYS})
            bound = next(key for key in KEYS if made.node_of(key) == 0)
            node = next(each for each in made.client._cluster.nodes() if each.address == address(0))
            node._first.congested = True  # type: ignore[union-attr]
            await made.client.set(bound, bound, noreply=True)
            node._first.congested = False  # type: ignore[union-attr]
            made.forget()
            items = await asyncio.gather(*[made.client.get(key) for key in KEYS[:30]])
            assert [item.value for item in items] == KEYS[:30]  # type: ignore[union-attr]
            assert made.networks[0].wires[1].requests == [b"get " + bound + b"\r\n"]
            assert bound not in made.networks[0].wires[0].requests[0].split()
            assert len(made.asked(1)) == 1

    @virtually
    async def test_without_meta(self):
        async with rig(classic(Model()), autobatching=True) as made:
            await made.client.set(b"empty", b"")
            assert await made.client.get(b"empty") == Item(b"", None, None)

    @virtually
    async def test_placeholders_are_misses(self):
        async with rig(Model(), autobatching=True) as made:
            await made.client.set(b"empty", b"")
            await made.client.set(b"flagged", b"", flags=3)
            await made.client.get_lease(b"placeholder")
            made.forget()
            results = await asyncio.gather(
                made.client.get(b"empty"), made.client.get(b"placeholder"), made.client.get(b"flagged", True)
            )
            assert results == [Item(b"", None, None), None, Item(b"", 3, None)]
            assert sorted(made.asked()) == [
                b"get empty placeholder\r\n",
                b"get flagged\r\n",
                b"mg empty v f c\r\n",
                b"mg placeholder v f c\r\n",
            ]


class TestCancellation:
    @virtually
    async def test_one_caller_of_several(self):
        async with rig(autobatching=True) as made:
            made.silence()
            tasks = ask(made, b"a", b"a", b"b")
            await turns()
            assert await cancelled(tasks[0])
            assert await cancelled(tasks[2])
            made.wires[0].answer(b"VALUE a 0 1\r\nx\r\nVALUE b 0 1\r\ny\r\nEND\r\n")
            assert await tasks[1] == Item(b"x", None, None)

    @virtually
    async def test_before_the_turn_ends(self):
        async with rig(autobatching=True) as made:
            tasks = ask(made, b"a", b"b", b"b")
            await asyncio.sleep(0)
            tasks[0].cancel()
            tasks[1].cancel()
            assert await tasks[2] == Item(b"value of b", None, None)
            assert made.asked() == [b"get b\r\n"]

    @virtually
    async def test_all_before_the_turn_ends(self):
        async with rig(autobatching=True) as made:
            tasks = ask(made, b"a", b"b")
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await turns()
            assert made.asked() == []

    @virtually
    async def test_all_callers_of_a_command_abandon_it(self):
        async with rig(autobatching=True, autobatching_max_keys=2, timeout=None) as made:
            made.silence()
            tasks = ask(made, b"a", b"b", b"c", b"d")
            await turns()
            for task in tasks[:2]:
                assert await cancelled(task)
            made.wires[0].answer(b"END\r\n")
            made.wires[0].answer(b"VALUE d 0 1\r\nx\r\nEND\r\n")
            assert await asyncio.gather(*tasks[2:]) == [None, Item(b"x", None, None)]
            metrics = made.client.cluster_managment().connection_pool_metrics()[address(0)]
            assert metrics.operations_executed_with_error == 1
            assert metrics.operations_executed == 1


class TestFailures:
    """Every outcome reaches every caller, each with its own object."""

    @staticmethod
    def same_kind(errors: list[Any], kind: type[Exception], text: str) -> None:
        assert {type(error) for error in errors} == {kind}
        assert len({id(error) for error in errors}) == len(errors)
        assert all(re.search(text, str(error)) for error in errors)

    @virtually
    async def test_error_line(self):
        async with rig(
            lambda request: Model()(request) if request[:3] != b"get" else b"SERVER_ERROR busy\r\n", autobatching=True
        ) as made:
            tasks = ask(made, b"a", b"a", b"b")
            errors = await outcomes(tasks)
            assert all(isinstance(error, CommandError) and error.reply == "SERVER_ERROR busy" for error in errors)
            self.same_kind(errors, type(errors[0]), "busy")

    @virtually
    async def test_lost_connection(self):
        async with rig(autobatching=True, retry_reads=False) as made:
            made.silence()
            tasks = ask(made, b"a", b"a", b"b")
            await turns()
            made.wires[0].reset()
            errors = await outcomes(tasks)
            self.same_kind(errors, NodeUnavailable, "cache:11211")
            assert all(error.sent and error.__cause__ is not None for error in errors)

    @virtually
    async def test_lost_connection_and_asked_again(self):
        async with rig(autobatching=True) as made:
            await asyncio.sleep(2)
            made.silence()
            tasks = ask(made, b"a", b"b")
            await turns()
            made.wires[0].reset()
            assert [item.value for item in await asyncio.gather(*tasks)] == [b"value of a", b"value of b"]

    @virtually
    async def test_refused_authentication(self):
        made = Rig([lambda request: b"CLIENT_ERROR unauthenticated\r\n"], {"autobatching": True})
        await made.client.open()
        self.same_kind(await outcomes(ask(made, b"a", b"a", b"b")), AuthenticationError, "credentials")
        await made.client.close()

    @pytest.mark.parametrize("error", [ClusterNoAvailableNodes("no nodes"), KeyError("no nodes")])
    @virtually
    async def test_no_nodes_and_anything_unexpected(self, error: Exception):
        def no_group(keys: Any) -> Any:
            raise error

        async with rig(autobatching=True) as made:
            made.client._cluster.group = no_group  # type: ignore[method-assign]
            tasks = ask(made, b"a", b"a", b"b", b"c")
            await asyncio.sleep(0)
            tasks[-1].cancel()
            self.same_kind(await outcomes(tasks[:-1]), type(error), "no nodes")

    @virtually
    async def test_closed_between_queueing_and_sending(self):
        async with rig(autobatching=True) as made:
            tasks = ask(made, b"a", b"a", b"b")
            await asyncio.sleep(0)
            await made.client.close()
            self.same_kind(await outcomes(tasks), RuntimeError, "client is closed")
            assert made.asked() == []

    @virtually
    async def test_closed_in_flight(self):
        async with rig(autobatching=True) as made:
            made.silence()
            tasks = ask(made, b"a", b"a", b"b")
            await turns()
            await made.client.close()
            self.same_kind(await outcomes(tasks), RuntimeError, "client is closed")

    @virtually
    async def test_timeout_of_one_command_only(self):
        async with rig(autobatching=True, autobatching_max_keys=2, timeout=0.5) as made:
            made.silence()
            loop = asyncio.get_running_loop()
            started = loop.time()
            tasks = ask(made, b"a", b"b", b"c", b"d")
            await asyncio.sleep(0.4)
            made.wires[0].answer(b"VALUE a 0 1\r\nx\r\nEND\r\n")
            self.same_kind(await outcomes(tasks[2:]), TimeoutError, "cache:11211")
            assert 0.5 <= loop.time() - started <= 0.51
            assert await asyncio.gather(*tasks[:2]) == [Item(b"x", None, None), None]

    @virtually
    async def test_the_deadline_runs_from_the_sending(self):
        async with rig(autobatching=True, timeout=0.5) as made:
            made.silence()
            loop = asyncio.get_running_loop()
            (task,) = ask(made, b"a")
            await asyncio.sleep(0)
            loop.now += 0.4  # type: ignore[attr-defined]  # a turn that takes long
            sent = loop.time()
            assert isinstance(await outcome(task), TimeoutError)
            assert 0.5 <= loop.time() - sent <= 0.51


@pytest.mark.parametrize("most", [1, 32, 64])
async def test_real_server(servers: tuple[MemcachedServer, MemcachedServer], most: int):
    addresses = [server.address for server in servers]
    async with create_client(addresses, autobatching=True, autobatching_max_keys=most) as client:
        assert await client.set_many({key: key for key in KEYS}, flags=2) == {}
        call: Callable[..., Any] = client.gets
        items = await asyncio.gather(*[call(key, True) for key in KEYS], *[client.get(key) for key in [*KEYS, b"none"]])
        assert [item.value for item in items[:-1]] == KEYS * 2
        assert items[-1] is None
        assert all(item.flags == 2 and item.cas for item in items[: len(KEYS)])
