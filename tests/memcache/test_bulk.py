"""Many small values stored: runs of `set` commands, their replies, and what becomes of each key when one goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from rain.memcache.bulk import FEW, SMALL, runs
from rain.memcache.client_errors import AuthenticationError, NodeUnavailable, StorageCommandError
from rain.memcache.dialects import MetaDialect
from rain.memcache.replies import Violation
from rain.memcache.requests import StoreRun
from tests.memcache.clients import cancelled, rig
from tests.memcache.model import Model
from tests.memcache.virtual import turns, virtually
from tests.memcache.wire import answers, fed

KEYS = [b"key:%d" % number for number in range(10)]
ITEMS = {key: b"of " + key for key in KEYS}
Script = Callable[[bytes], bytes | None]


def answering(line: bytes | None, key: bytes = KEYS[4]) -> Script:
    """All goes well but the storing of one key; None is no answer at all, to this and all that come later."""
    model = Model()
    silent = False

    def script(request: bytes) -> bytes | None:
        nonlocal silent
        if request.startswith(b"set " + key + b" "):
            silent = line is None
            return line
        return None if silent else model(request)

    return script


def kinds(failures: dict[bytes, Exception]) -> list[tuple[bytes, type[Exception]]]:
    return [(key, type(error)) for key, error in failures.items()]


def test_runs_are_cut_where_a_tls_record_may_end():
    values: dict[bytes, bytes | memoryview] = {b"%d" % size: bytes(size) for size in range(0, SMALL + 1, 61)}
    made = list(runs(values, values, 2**32 - 1, 2**31 - 1))
    assert [key for run in made for key in run.keys] == list(values)
    assert len(made) > 5
    assert all(5000 < len(run.value or b"") < 16_000 for run in made[:-1])


def test_what_a_run_sends():
    [run] = runs([b"a", b"b"], {b"a": b"1", b"b": memoryview(b"22")}, 3, 4)
    assert run.keys == (b"a", b"b")
    assert run.value == b"set a 3 4 1\r\n1\r\nset b 3 4 2\r\n22"
    buffers, unsupported = MetaDialect().encode([run])
    assert b"".join(buffers) == b"set a 3 4 1\r\n1\r\nset b 3 4 2\r\n22\r\n"
    assert not unsupported


@pytest.mark.parametrize(
    ("wire", "reply", "replies"),
    [
        (b"STORED\r\n" * 4, b"STORED", [b"STORED"] * 4),
        (b"STORED\r\nNOT_STORED\r\n" * 2, b"NOT_STORED", [b"STORED", b"NOT_STORED"] * 2),
        (b"STORED\r\nSERVER_ERROR no\r\n" * 2, b"NOT_STORED", [b"STORED", ("ErrorLine", b"SERVER_ERROR no")] * 2),
        (b"STORED\r\nCLIENT_ERROR no\r\n", ("ErrorLine", b"CLIENT_ERROR no"), [b"STORED"]),
        (b"STORED\r\nERROR\r\n", ("ErrorLine", b"ERROR"), [b"STORED"]),
        (b"STORED\r\nHELLO\r\n", ("UnknownLine", b"HELLO"), [b"STORED"]),
    ],
)
def test_replies_cut_anywhere(wire: bytes, reply: Any, replies: list[Any]):
    for places in [*([place] for place in range(len(wire))), list(range(len(wire)))]:
        edges = [0, *places, len(wire)]
        run = StoreRun((b"a", b"b", b"c", b"d"), b"")
        dialect = MetaDialect()
        dialect.encode([run])
        done = fed(dialect, [wire[start:end] for start, end in pairwise(edges)])
        assert done == [(run, reply)]
        assert [each for _, each in answers([(run, each) for each in run.replies])] == replies
        assert dialect.unanswered == 0


def test_a_reply_too_many():
    run = StoreRun((b"a", b"b"), b"")
    dialect = MetaDialect()
    dialect.encode([run])
    [(first, reply), (nobody, violation)] = dialect.feed(b"STORED\r\n" * 3)
    assert (first, reply, nobody) == (run, b"STORED", None)
    assert isinstance(violation, Violation)


@virtually
async def test_all_are_stored_in_one_write_and_counted():
    async with rig(Model()) as made:
        assert await made.client.set_many(ITEMS) == {}
        assert len(made.wires[0].chunks) == 1
        [metrics] = made.client.cluster_managment().connection_pool_metrics().values()
        assert metrics.operations_executed == len(KEYS)
        found = await made.client.get_many(KEYS)
        assert {key: item.value for key, item in found.items()} == ITEMS


@pytest.mark.parametrize("count", [FEW - 1, FEW])
@virtually
async def test_large_values_go_beside(count: int):
    async with rig(Model(), Model()) as made:
        values = {key: bytes(SMALL + 1) if number % 2 else b"small" for number, key in enumerate(KEYS[:count])}
        assert await made.client.set_many(values) == {}
        large = dict.fromkeys(KEYS, bytes(SMALL + 1))
        assert await made.client.set_many(large) == {}
        assert {key: item.value for key, item in (await made.client.get_many(KEYS)).items()} == large


@virtually
async def test_one_key_is_refused():
    async with rig(answering(b"SERVER_ERROR out of memory storing object\r\n")) as made:
        failures = await made.client.set_many(ITEMS)
        assert kinds(failures) == [(KEYS[4], StorageCommandError)]
        assert "key:4" in str(failures[KEYS[4]])
        assert len(await made.client.get_many(KEYS)) == len(KEYS) - 1
        assert len(made.wires) == 1


@pytest.mark.parametrize("line", [b"CLIENT_ERROR bad data chunk\r\n", b"HELLO\r\n"])
@virtually
async def test_an_answer_that_ends_the_connection(line: bytes):
    async with rig(answering(line)) as made:
        failures = await made.client.set_many(ITEMS)
        assert kinds(failures) == [(KEYS[4], StorageCommandError), *((key, NodeUnavailable) for key in KEYS[5:])]
        assert all(repr(key) in str(error) for key, error in failures.items())


@virtually
async def test_the_server_wants_credentials():
    async with rig(answering(b"CLIENT_ERROR unauthenticated\r\n")) as made:
        failures = await made.client.set_many(ITEMS)
        assert kinds(failures) == [(key, AuthenticationError) for key in KEYS[4:]]


@virtually
async def test_no_answer_by_the_deadline():
    async with rig(answering(None), timeout=0.5) as made:
        failures = await made.client.set_many(ITEMS)
        assert kinds(failures) == [(key, TimeoutError) for key in KEYS[4:]]
        assert all(f"set of {key!r}" in str(error) for key, error in failures.items())
        assert len(set(map(id, failures.values()))) == len(failures)


@virtually
async def test_the_connection_is_lost():
    async with rig(answering(None)) as made:
        task = asyncio.ensure_future(made.client.set_many(ITEMS))
        await turns()
        made.wires[0].end()
        failures = await task
        assert kinds(failures) == [(key, NodeUnavailable) for key in KEYS[4:]]
        assert all(f"set of {key!r}" in str(error) for key, error in failures.items())
        [metrics] = made.client.cluster_managment().connection_pool_metrics().values()
        assert metrics.operations_executed_with_error == len(KEYS)


@virtually
async def test_cancelled():
    async with rig(answering(None), timeout=None) as made:
        task = asyncio.ensure_future(made.client.set_many(ITEMS))
        await turns()
        assert await cancelled(task)
        node = made.client._cluster.node_for(b"k")
        assert node._bindings.find((KEYS[0],)) is not None


@virtually
async def test_moved_to_another_node():
    """Nothing was sent yet: the keys are sent one by one, each to its node of now."""
    async with rig(Model()) as made:
        cluster = made.client._cluster
        node = cluster.node_for(b"k")

        def moved(request: Any) -> Any:
            waiter = request.waiter = asyncio.get_running_loop().create_future()
            cluster._move(node.address, request)
            node.submit = submit  # type: ignore[method-assign]
            return waiter

        submit = node.submit
        node.submit = moved  # type: ignore[method-assign]
        assert await made.client.set_many(ITEMS) == {}
        assert len(await made.client.get_many(KEYS)) == len(KEYS)


@virtually
async def test_a_shortcut_that_is_not_open():
    """What the connection does not take is sent on the ordinary way."""
    async with rig(Model()) as made:
        node: Any = made.client._cluster.node_for(b"k")
        asked = []
        node.shortcut = SimpleNamespace(ask=asked.append)
        assert await made.client.set_many(ITEMS) == {}
        assert [request.keys for request in asked] == [tuple(KEYS)]
        assert len(await made.client.get_many(KEYS)) == len(KEYS)
