"""Operations on many keys: how they are cut and grouped, what they give, how they fail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rain.memcache.base import Item
from rain.memcache.client_errors import (
    ClusterNoAvailableNodes,
    CommandError,
    NodeUnavailable,
    NotFoundCommandError,
    StorageCommandError,
)
from rain.memcache.factory import create_client
from rain.memcache.many import cut
from rain.memcache.testing import MemcachedServer
from tests.memcache.clients import FETCHES, address, cancelled, classic, rig
from tests.memcache.model import Model
from tests.memcache.virtual import outcome, turns, virtually

KEYS = [b"key:%d" % number for number in range(60)]
READS = [name for name in FETCHES if name.endswith("_many")]


def read(client: Any, name: str, keys: Any, *more: Any) -> Any:
    """One of the reading operations."""
    times = (0,) if name.startswith("gat") else ()
    return getattr(client, name)(*times, keys, *more)


class TestCut:
    @pytest.mark.parametrize(
        ("command", "keys", "sizes"),
        [
            ("get_many", [b"k"] * 256, [256]),
            ("get_many", [b"k"] * 257, [256, 1]),
            ("get_many", [b"k" * 250] * 63, [63]),
            ("get_many", [b"k" * 250] * 64, [63, 1]),
            ("gat_many", [b"k" * 250] * 8, [7, 1]),
            ("gats_many", [b"k" * 10] * 200, [180, 20]),
            ("get_many", [], []),
        ],
    )
    def test_sizes(self, command: str, keys: list[bytes], sizes: list[int]):
        assert [len(piece) for piece in cut(command, [keys] if keys else [])] == sizes

    @pytest.mark.parametrize(("command", "longest"), [("gets_many", 16_000), ("gats_many", 2_000)])
    def test_lines_stay_below_the_limit(self, command: str, longest: int):
        keys = [b"k" * (1 + number % 250) for number in range(2000)]
        pieces = cut(command, [keys])
        assert [key for piece in pieces for key in piece] == keys
        assert all(len(b"gats -2147483648 " + b" ".join(piece)) < longest for piece in pieces)
        assert all(len(piece) <= 256 for piece in pieces)

    def test_groups_are_not_mixed(self):
        assert cut("get_many", [[b"a", b"b"], [b"c"]]) == [[b"a", b"b"], [b"c"]]


class TestReading:
    @pytest.mark.parametrize(
        ("name", "sent"),
        [
            ("get_many", b"get a b\r\n"),
            ("gets_many", b"gets a b\r\n"),
            ("gat_many", b"gat 0 a b\r\n"),
            ("gats_many", b"gats 0 a b\r\n"),
        ],
    )
    @virtually
    async def test_what_is_sent_and_found(self, name: str, sent: bytes):
        async with rig() as made:
            cas = 7 if name in ("gets_many", "gats_many") else None
            keys = iter([b"a", b"b", b"a"])
            assert await read(made.client, name, keys) == {
                b"a": Item(b"value of a", None, cas),
                b"b": Item(b"value of b", None, cas),
            }
            assert (await read(made.client, name, {b"a"}, True))[b"a"].flags == 0
            assert made.asked()[0] == sent

    @pytest.mark.parametrize("name", READS)
    @virtually
    async def test_missing_keys_are_absent(self, name: str):
        async with rig() as made:
            assert list(await read(made.client, name, [b"missing1", b"a", b"missing2", b"b", b"missing3"])) == [
                b"a",
                b"b",
            ]

    @virtually
    async def test_no_keys(self):
        async with rig() as made:
            client = made.client
            client._cluster.node_for = None  # type: ignore[assignment]  # whoever calls it fails
            for name in READS:
                assert await read(client, name, []) == {}
            assert await client.set_many({}) == {}
            assert await client.delete_many([]) == {}
            assert await client.touch_many([], 1) == {}
            assert made.asked() == []

    @virtually
    async def test_one_bad_key_and_nothing_is_sent(self):
        async with rig() as made:
            for name in READS:
                with pytest.raises(ValueError, match="key"):
                    await read(made.client, name, [b"good", b"bad key"])
            assert made.asked() == []

    @virtually
    async def test_grouped_by_node_and_merged(self):
        async with rig(*[Model() for _ in range(3)]) as made:
            assert await made.client.set_many({key: b"of " + key for key in KEYS}, flags=4) == {}
            made.forget()
            found = await made.client.gets_many(KEYS, return_flags=True)
            assert {key: (item.value, item.flags) for key, item in found.items()} == {
                key: (b"of " + key, 4) for key in KEYS
            }
            for number in range(3):
                (request,) = made.asked(number)
                assert request.split()[1:] == [key for key in KEYS if made.node_of(key) == number]

    @virtually
    async def test_bound_keys_go_to_their_connection(self):
        async with rig(max_connections=2, min_connections=2) as made:
            first, second = made.wires
            made.client._cluster.nodes()[0]._first.congested = True  # type: ignore[union-attr]
            await made.client.set(b"bound", b"", noreply=True)
            assert second.requests == [b"set bound 0 0 0 noreply\r\n\r\n"]
            made.client._cluster.nodes()[0]._first.congested = False  # type: ignore[union-attr]
            found = await made.client.get_many([b"a", b"bound", b"b"])
            assert set(found) == {b"a", b"bound", b"b"}
            assert first.requests == [b"get a b\r\n"]
            assert second.requests[1:] == [b"get bound\r\n"]

    @pytest.mark.parametrize("name", READS)
    @virtually
    async def test_the_first_failure_is_raised_and_the_rest_abandoned(self, name: str):
        async with rig(Model(), Model(), Model(), timeout=None) as made:
            await made.client.set_many(dict.fromkeys(KEYS, b"v"))
            made.silence()
            task = asyncio.ensure_future(read(made.client, name, KEYS))
            await turns()
            made.networks[1].wires[0].answer(b"SERVER_ERROR busy\r\n")
            error = await outcome(task)
            assert isinstance(error, CommandError)
            assert error.reply == "SERVER_ERROR busy"
            assert error.address == address(1)
            metrics = made.client.cluster_managment().connection_pool_metrics()
            assert [metrics[address(n)].operations_executed_with_error for n in range(3)] == [1, 0, 1]

    @virtually
    async def test_a_node_that_is_down(self):
        async with rig(Model(), Model(), Model()) as made:
            made.networks[2].error = ConnectionRefusedError("refused")
            made.networks[2].wires[0].end()
            await turns()
            error = await outcome(made.client.get_many(KEYS))
            assert isinstance(error, NodeUnavailable)
            assert error.address == address(2)

    @virtually
    async def test_one_deadline_for_the_whole_call(self):
        async with rig(Model(), Model(), timeout=0.5) as made:
            made.silence()
            started = asyncio.get_running_loop().time()
            assert isinstance(await outcome(made.client.gat_many(0, [b"x" * 100 + key for key in KEYS])), TimeoutError)
            assert asyncio.get_running_loop().time() - started <= 0.51

    @virtually
    async def test_no_nodes(self):
        def no_group(keys: Any) -> Any:
            raise ClusterNoAvailableNodes

        async with rig() as made:
            made.client._cluster.group = no_group  # type: ignore[method-assign]
            for call in (
                made.client.get_many([b"a"]),
                made.client.set_many({b"a": b""}),
                made.client.delete_many([b"a"]),
                made.client.touch_many([b"a"], 1),
            ):
                with pytest.raises(ClusterNoAvailableNodes):
                    await call

    @pytest.mark.parametrize("name", READS)
    @virtually
    async def test_placeholders_are_misses_and_empty_values_are_not(self, name: str):
        async with rig(Model()) as made:
            client = made.client
            await client.set_many({b"empty": b"", b"full": b"x"})
            await client.set(b"flagged", b"", flags=9)
            assert (await client.get_lease(b"placeholder")).won
            made.forget()
            keys = [b"placeholder", b"empty", b"full", b"flagged"]
            found = await read(client, name, keys, True)
            assert {key: (item.value, item.flags) for key, item in found.items()} == {
                b"empty": (b"", 0),
                b"full": (b"x", 0),
                b"flagged": (b"", 9),
            }
            assert sorted(made.asked()[1:]) == [b"mg empty v f c\r\n", b"mg placeholder v f c\r\n"]
            found = await read(client, name, keys)
            assert set(found) == {b"empty", b"full", b"flagged"}
            assert {item.flags for item in found.values()} == {None}
            assert (await client.gets_many([b"empty"]))[b"empty"].cas == (await client.gets(b"empty")).cas  # type: ignore[union-attr]
            metrics = client.cluster_managment().connection_pool_metrics()[address(0)]
            assert metrics.operations_executed == 8  # the questions for placeholders are not counted

    @virtually
    async def test_an_empty_value_that_changes_before_it_is_asked_again(self):
        model = Model()
        async with rig(model) as made:
            await made.client.set_many({b"gone": b"", b"stale": b"", b"new": b""})

            def change(request: bytes) -> bytes | None:
                if request.startswith(b"mg gone"):
                    del model.items[b"gone"]
                    model.put(b"new", b"value", 3)
                    model(b"md stale I\r\n")
                return model(request)

            made.wires[0].script = change
            made.forget()
            found = await made.client.gets_many([b"gone", b"stale", b"new"], True)
            await turns()
            assert set(found) == {b"stale", b"new"}
            assert (found[b"new"].value, found[b"new"].flags) == (b"value", 3)
            assert found[b"new"].cas == model.items[b"new"].cas
            assert made.asked()[-1] == b"md stale I\r\n"  # the win is given back

    @virtually
    async def test_without_meta_empty_values_are_hits(self):
        async with rig(classic(Model())) as made:
            await made.client.set(b"empty", b"")
            made.forget()
            assert await made.client.get_many([b"empty"]) == {b"empty": Item(b"", None, None)}
            assert made.asked() == [b"get empty\r\n"]

    @virtually
    async def test_failing_question_for_placeholders(self):
        async with rig(Model()) as made:
            await made.client.set(b"empty", b"")
            script = made.wires[0].script
            made.wires[0].script = lambda request: b"SERVER_ERROR busy\r\n" if request[:2] == b"mg" else script(request)
            assert isinstance(await outcome(made.client.get_many([b"empty"])), CommandError)


class TestWriting:
    @virtually
    async def test_what_is_sent(self):
        async with rig() as made:
            client = made.client
            assert await client.set_many({b"a": b"1", b"b": bytearray(b"22")}, flags=3, exptime=4) == {}
            assert await client.touch_many(iter([b"a", b"b", b"a"]), 5) == {}
            assert await client.delete_many([b"a"]) == {}
            assert made.asked() == [
                b"set a 3 4 1\r\n1\r\n",
                b"set b 3 4 2\r\n22\r\n",
                b"touch a 5\r\n",
                b"touch b 5\r\n",
                b"delete a\r\n",
            ]
            assert len(made.wires[0].chunks) == 5 - 2 + 2  # the first of a turn at once, the others together

    @virtually
    async def test_noreply(self):
        async with rig(Model()) as made:
            client = made.client
            assert await client.set_many({b"a": b"1", b"b": b"2"}, noreply=True) == {}
            assert set(await client.get_many([b"a", b"b"])) == {b"a", b"b"}
            assert await client.touch_many([b"a", b"x"], 5, noreply=True) == {}
            assert await client.delete_many([b"a", b"x"], noreply=True) == {}
            assert set(await client.get_many([b"a", b"b"])) == {b"b"}
            assert b"set a 0 0 1 noreply\r\n1\r\n" in made.asked()

    @virtually
    async def test_failures_by_key(self):
        async with rig(Model(), Model()) as made:
            client = made.client
            failures = await client.set_many({b"a": b"1", b"large": bytes(2_000_000), b"b": b"2"})
            assert set(failures) == {b"large"}
            assert isinstance(failures[b"large"], StorageCommandError)
            assert failures[b"large"].reply == "SERVER_ERROR object too large for cache"
            for failures in (
                await client.delete_many([b"x", b"a", b"y"]),
                await client.touch_many([b"x", b"b", b"y"], 1),
            ):
                assert set(failures) == {b"x", b"y"}
                assert {type(error) for error in failures.values()} == {NotFoundCommandError}
                assert failures[b"x"] is not failures[b"y"]

    @virtually
    async def test_a_node_that_is_down_fails_its_keys_only(self):
        async with rig(Model(), Model(), Model()) as made:
            made.networks[2].error = ConnectionRefusedError("refused")
            made.networks[2].wires[0].end()
            await turns()
            failures = await made.client.set_many(dict.fromkeys(KEYS, b"v"))
            assert set(failures) == {key for key in KEYS if made.node_of(key) == 2}
            assert {type(error) for error in failures.values()} == {NodeUnavailable}
            assert len(set(map(id, failures.values()))) == len(failures)

    @virtually
    async def test_a_silent_node_does_not_hold_up_the_others(self):
        async with rig(Model(), Model(), timeout=0.5) as made:
            made.networks[1].wires[0].script = lambda request: None
            loop = asyncio.get_running_loop()
            started = loop.time()
            values = {key + b"x" * 200: bytes(20_000) for key in KEYS}
            failures = await made.client.set_many(values)
            assert loop.time() - started <= 0.51
            assert set(failures) == {key for key in values if made.node_of(key) == 1}
            assert {type(error) for error in failures.values()} == {TimeoutError}
            assert all(repr(key) in str(error) for key, error in failures.items())

    @virtually
    async def test_other_operations_get_in_between(self):
        """What waits for its turn in a long run does not delay a small request."""
        async with rig(Model(), max_connections=1) as made:
            task = asyncio.ensure_future(made.client.set_many({key: bytes(20_000) for key in KEYS}))
            await turns(3)
            await made.client.get(b"other")
            asked = made.asked()
            assert asked.index(b"mg other v\r\n") < 15
            assert not task.done()
            assert await task == {}

    @pytest.mark.parametrize("nodes", [1, 2])
    @virtually
    async def test_cancelled(self, nodes: int):
        async with rig(*[Model() for _ in range(nodes)], timeout=None) as made:
            made.silence()
            task = asyncio.ensure_future(made.client.set_many({key: bytes(20_000) for key in KEYS}))
            await turns()
            assert await cancelled(task)
            metrics = made.client.cluster_managment().connection_pool_metrics()
            assert [each.operations_executed_with_error for each in metrics.values()] == [3] * nodes

    @virtually
    async def test_closed_meanwhile(self):
        async with rig(Model(), Model()) as made:
            made.silence()
            tasks = [
                asyncio.ensure_future(call)
                for call in (
                    made.client.set_many(dict.fromkeys(KEYS, b"")),
                    made.client.delete_many(KEYS),
                    made.client.touch_many(KEYS, 1),
                )
            ]
            await turns()
            await made.client.close()
            for task in tasks:
                assert isinstance(await outcome(task), RuntimeError)

    @virtually
    async def test_metrics_count_commands(self):
        async with rig() as made:
            await made.client.get_many(KEYS)
            await made.client.set_many(dict.fromkeys(KEYS, b""))
            metrics = made.client.cluster_managment().connection_pool_metrics()[address(0)]
            assert metrics.operations_executed == 1 + len(KEYS)


class TestRealServers:
    async def test_ten_thousand_keys(self, servers: tuple[MemcachedServer, MemcachedServer]):
        keys = [b"many:%d" % number for number in range(10_000)]
        async with create_client([server.address for server in servers], timeout=30) as client:
            assert await client.set_many({key: key for key in keys}, flags=1) == {}
            wanted = [b"missing first", *keys[:5000], b"missing", *keys[5000:], b"last"]
            wanted = [key.replace(b" ", b"-") for key in wanted]
            for name in READS:
                found = await read(client, name, wanted, True)
                assert len(found) == len(keys)
                assert all(item.value == key and item.flags == 1 for key, item in found.items())
            assert await client.touch_many(keys, 100) == {}
            failures = await client.delete_many([*keys, b"missing"])
            assert {key: type(error) for key, error in failures.items()} == {b"missing": NotFoundCommandError}
            assert await client.get_many(keys) == {}

    async def test_hundred_keys_over_two_nodes(self, servers: tuple[MemcachedServer, MemcachedServer]):
        keys = [b"hundred:%d" % number for number in range(100)]
        async with create_client([server.address for server in servers]) as client:
            there = {key: bytes(number) for number, key in enumerate(keys) if number not in (0, 50, 99)}
            assert await client.set_many(there) == {}
            for name in READS:
                found = await read(client, name, keys)
                assert {key: item.value for key, item in found.items()} == there
            nodes = client.cluster_managment().connection_pool_metrics()
            assert all(metrics.operations_executed > 0 for metrics in nodes.values())
