"""Callers that go away, by cancellation or timeout, at every await of every command: nobody else notices."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rain.memcache.base import Item
from rain.memcache.testing.answers import success
from tests.memcache.clients import OF_NODES, WITH_KEY, WRITES, Rig, address, classic, rig
from tests.memcache.model import Model
from tests.memcache.virtual import Script, outcome, turns, virtually

HERE = address(0)

MODES: dict[str, tuple[Script, dict[str, Any]]] = {
    "meta": (success, {}),
    "classic": (classic(success), {}),
    "binary": (success, {"protocol": "binary", "username": "user", "password": "secret"}),
    "autobatching": (success, {"autobatching": True}),
    "chunking": (success, {"chunking": True}),
}
COMMANDS = [*WITH_KEY, *OF_NODES]
NOT_IN_BINARY = ("cache_memlimit", "verbosity")
BINARY_HEADER = 24


class Held:
    """A script that keeps its answers back until it is told to give them.

    Attributes:
        answers: kept back, in order.
    """

    def __init__(self, script: Script) -> None:
        self.answers: list[bytes] = []
        self.keep = False
        self._script = script

    def __call__(self, request: bytes) -> bytes | None:
        answer = self._script(request)
        if not self.keep:
            return answer
        self.answers.append(answer or b"")
        return None

    def take(self) -> bytes:
        """All that was kept back so far."""
        taken, self.answers = b"".join(self.answers), []
        return taken


def start(made: Rig, command: str) -> asyncio.Task[Any]:
    if command in OF_NODES:
        return asyncio.ensure_future(OF_NODES[command](made.client, HERE))
    return asyncio.ensure_future(WITH_KEY[command](made.client, b"victim"))


def neighbours(made: Rig, name: str) -> list[asyncio.Task[Any]]:
    """Other callers, of kinds whose replies tell their key or number."""
    client = made.client
    key = b"%b" % name.encode()
    return [asyncio.ensure_future(call) for call in (client.get(key), client.gets_many([key]), client.set(key, b"x"))]


async def check(made: Rig, name: str, tasks: list[asyncio.Task[Any]]) -> None:
    """Each neighbour got its own reply."""
    key = name.encode()
    value = b"value of " + key
    assert await asyncio.gather(*tasks) == [Item(value, None, None), {key: Item(value, None, 7)}, None]


def totals(made: Rig) -> tuple[int, int]:
    metrics = made.client.cluster_managment().connection_pool_metrics()[HERE]
    assert metrics.connections_created == metrics.cur_connections == 1
    return metrics.operations_executed, metrics.operations_executed_with_error


async def play_on(made: Rig, held: Held) -> None:
    """Give answers until nothing is asked any more."""
    for _ in range(20):
        made.wires[0].answer(held.take())
        await turns()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("command", COMMANDS)
@virtually
async def test_cancelled_with_the_reply_in_each_state(command: str, mode: str):
    for state in ("absent", "partial", "complete"):
        await cancel_in_state(command, mode, state)


async def cancel_in_state(command: str, mode: str, state: str) -> None:
    if mode == "binary" and command in NOT_IN_BINARY:
        command = "flush_all"
    script, options = MODES[mode]
    held = Held(script)
    async with rig(held, timeout=None, **options) as made:
        held.keep = True
        front = neighbours(made, "front")
        victim = start(made, command)
        behind = neighbours(made, "behind")
        await turns()
        wire = made.wires[0]
        answers = held.answers[:]
        assert len(answers) >= 2
        if state == "partial":
            whole = held.take()
            middle = len(b"".join(answers[: len(answers) // 2])) + 1
            wire.answer(whole[:middle])
            await turns()
            held.answers.insert(0, whole[middle:])
        elif state == "complete":
            wire.answer(held.take())  # the callers are woken in the next turn
        victim.cancel()
        await turns()
        await play_on(made, held)
        await asyncio.wait([victim])
        assert victim.cancelled() or (state != "absent" and victim.exception() is None)
        await check(made, "front", front)
        await check(made, "behind", behind)
        held.keep = False
        await check(made, "later", neighbours(made, "later"))
        executed, unanswered = totals(made)
        assert unanswered <= 1
        if mode == "meta":
            assert executed + unanswered == len(wire.requests)


@pytest.mark.parametrize("mode", ["meta", "classic", "chunking"])
@pytest.mark.parametrize("command", [*COMMANDS, "large", "lease"])
@virtually
async def test_cancelled_at_every_await(command: str, mode: str):
    """Cancelled after 0, 1, 2 ... turns of the loop, until the operation ends before that."""
    options = {"chunking": True, "chunk_size": 1024} if mode == "chunking" else {}
    ended = False
    delay = 0
    while not ended:
        model = Model(meta=mode != "classic")
        async with rig(model, timeout=None, **options) as made:
            client = made.client
            await client.set(b"other", b"mine")
            if command == "large":
                victim = asyncio.ensure_future(set_and_get(made))
            elif command == "lease":
                victim = asyncio.ensure_future(take_and_fulfil(made))
            else:
                victim = start(made, command)
            await turns(delay)
            ended = victim.done()
            victim.cancel()
            await asyncio.wait([victim])
            assert await client.get(b"other") == Item(b"mine", None, None)
            await turns()
            assert totals(made)[1] <= 5
            if command in ("get_lease", "get_or_set", "lease") and not ended:
                assert (await client.get_lease(b"victim")).won or (await client.get(b"victim")) is not None
        delay += 1
    assert delay > 2


async def set_and_get(made: Rig) -> None:
    await made.client.set(b"victim", bytes(5000))
    await made.client.get(b"victim")
    await made.client.touch(b"victim", 5)


async def take_and_fulfil(made: Rig) -> None:
    lease = await made.client.get_lease(b"victim")
    try:
        await lease.fulfil(b"value")
    finally:
        await lease.release()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "get_or_set"])
@virtually
async def test_timed_out(command: str, mode: str):
    """The server answers something now and then, so the connection stays; the victim's time is over meanwhile."""
    if mode == "binary" and command in NOT_IN_BINARY:
        command = "flush_all"
    script, options = MODES[mode]
    held = Held(script)
    async with rig(held, timeout=1.0, **options) as made:
        held.keep = True
        victim = start(made, command)
        await asyncio.sleep(0.9)
        whole = held.take()
        behind = neighbours(made, "behind")
        made.wires[0].answer(whole[:1])
        await asyncio.sleep(0.2)
        assert victim.done()
        error = await outcome(victim)
        if command in WRITES and command.endswith("_many"):
            (error,) = error.values()
        assert isinstance(error, TimeoutError)
        held.answers.insert(0, whole[1:])
        await play_on(made, held)
        await check(made, "behind", behind)
        assert totals(made) == (3, 1)


@virtually
async def test_many_callers_cancelled_at_random_moments():
    """200 callers on one connection, every third cancelled; each of the others gets its own value."""
    held = Held(success)
    async with rig(held, timeout=None, max_connections=1) as made:
        held.keep = True
        tasks = [asyncio.ensure_future(made.client.get(b"key:%d" % number)) for number in range(200)]
        for number, task in enumerate(tasks):
            if number % 40 == 0:
                await turns(1)
                whole = held.take()
                made.wires[0].answer(whole[: len(whole) // 2])
                held.answers.insert(0, whole[len(whole) // 2 :])
            if number % 3 == 0:
                task.cancel()
        await play_on(made, held)
        for number, task in enumerate(tasks):
            if not task.cancelled():
                assert (await task).value == b"value of key:%d" % number
        assert sum(task.cancelled() for task in tasks) >= 30
        assert totals(made)[1] <= 67


@virtually
async def test_a_write_that_was_abandoned_is_seen_by_a_later_read():
    """2.5: whether its caller was cancelled or not, it comes before what follows."""
    async with rig(Model(), max_connections=2) as made:
        for number in range(100):
            task = asyncio.ensure_future(made.client.set(b"foo", b"%d" % number))
            await turns(1)
            task.cancel()
            await asyncio.wait([task])
            item = await made.client.get(b"foo")
            assert item is not None
            assert item.value == b"%d" % number
