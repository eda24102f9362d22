"""Several requests at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rain.memcache import exchanges, requests
from rain.memcache.client_errors import CommandError, NodeUnavailable, NotFoundCommandError
from rain.memcache.exchanges import accept, drop, duplicate, execute_all, run, send_and_forget, together
from rain.memcache.replies import UNSUPPORTED
from rain.memcache.requests import Request
from tests.memcache.clients import address, cancelled
from tests.memcache.virtual import outcome, turns, virtually


class Node:
    """Takes requests; the test ends them."""

    address = address(0)

    shortcut = None

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.abandoned: list[Request] = []

    def submit(self, request: Request) -> asyncio.Future[Any]:
        request.waiter = asyncio.get_running_loop().create_future()
        self.requests.append(request)
        return request.waiter

    def abandon(self, request: Request) -> None:
        assert request.waiter.cancelled()
        self.abandoned.append(request)

    def answer(self, number: int, reply: object = b"OK") -> None:
        waiter = self.requests[number].waiter
        if isinstance(reply, Exception):
            waiter.set_exception(reply)
        else:
            waiter.set_result(reply)


def make(count: int, size: int = 1, deadline: float | None = None) -> list[Request]:
    made = [requests.store("set", b"key:%d" % number, bytes(size)) for number in range(count)]
    for request in made:
        request.deadline = deadline
    return made


class Run:
    """A run and what it told."""

    def __init__(self, node: Node, to_send: list[Request], **options: Any) -> None:
        self.told: list[tuple[bytes, Any]] = []
        self.task = asyncio.ensure_future(
            run(((node, request) for request in to_send), self.answered, self.failed, **options)  # type: ignore[misc]
        )

    def answered(self, node: Any, request: Request, reply: Any) -> None:
        if reply != b"OK":
            accept(node, request, reply)
        self.told.append((request.key, reply))

    def failed(self, request: Request, error: Exception) -> None:
        self.told.append((request.key, error))


class TestExecuteAll:
    @virtually
    async def test_nothing(self):
        assert await execute_all([]) == []

    @virtually
    async def test_replies_come_in_the_order_of_requests(self):
        node: Any = Node()
        task = asyncio.ensure_future(execute_all([(node, request) for request in make(3)]))
        await turns()
        for number in (2, 0, 1):
            node.answer(number, b"%d" % number)
            await turns()
        assert await task == [b"0", b"1", b"2"]
        assert not node.abandoned

    @pytest.mark.parametrize("count", [1, 3])
    @virtually
    async def test_the_first_failure_abandons_the_rest(self, count: int):
        node: Any = Node()
        task = asyncio.ensure_future(execute_all([(node, request) for request in make(count)]))
        await turns()
        node.answer(count - 1, NodeUnavailable("gone"))
        assert isinstance(await outcome(task), NodeUnavailable)
        assert node.abandoned == node.requests[: count - 1]

    @virtually
    async def test_several_failures_at_once_are_all_looked_at(self):
        node: Any = Node()
        task = asyncio.ensure_future(execute_all([(node, request) for request in make(3)]))
        await turns()
        for number, name in enumerate("abc"):
            node.answer(number, NodeUnavailable(name))
        assert str(await outcome(task)) == "a"

    @pytest.mark.parametrize("count", [1, 3])
    @virtually
    async def test_cancelled(self, count: int):
        node: Any = Node()
        task = asyncio.ensure_future(execute_all([(node, request) for request in make(count)]))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert node.abandoned == node.requests


class TestDrop:
    @virtually
    async def test_a_request_that_has_ended_is_not_abandoned(self):
        node: Any = Node()
        for number, reply in enumerate((b"STORED", CommandError("no"))):
            future = node.submit(make(1)[0])
            node.answer(number, reply)
            drop(node, node.requests[number], future)
        assert not node.abandoned


class TestSendAndForget:
    @virtually
    async def test_failures_and_cancellation_are_nobodys_concern(self):
        node: Any = Node()
        for request in make(3):
            send_and_forget(node, request)
        node.answer(0)
        node.answer(1, CommandError("no"))
        node.requests[2].waiter.cancel()
        await turns()


class TestRun:
    @virtually
    async def test_nothing(self):
        run = Run(Node(), [])
        await run.task
        assert run.told == []

    @virtually
    async def test_all_small_ones_go_at_once(self):
        node = Node()
        run = Run(node, make(100))
        await turns()
        assert len(node.requests) == 100
        for number in range(100):
            node.answer(number)
        await run.task
        assert [key for key, _ in run.told] == [b"key:%d" % number for number in range(100)]

    @virtually
    async def test_at_most_64_kib_await_their_answers(self):
        node = Node()
        run = Run(node, make(10, 20_000))
        await turns()
        assert len(node.requests) == 3
        node.answer(0)
        await turns()
        assert len(node.requests) == 4
        node.answer(1)
        node.answer(2)
        await turns()
        assert len(node.requests) == 6
        for number in range(3, 10):
            node.answer(number)
            await turns()
        await run.task
        assert len(run.told) == 10

    @virtually
    async def test_a_request_larger_than_that_goes_alone(self):
        node = Node()
        run = Run(node, [*make(1), *make(2, 100_000), *make(1)])
        for number in range(4):
            await turns()
            assert len(node.requests) == number + 1
            node.answer(number)
        await run.task

    @virtually
    async def test_at_most_so_many_requests(self):
        node = Node()
        run = Run(node, make(6, 100_000), most_requests=4)
        await turns()
        assert len(node.requests) == 4
        node.answer(0)
        await turns()
        assert len(node.requests) == 5
        for number in range(1, 6):
            node.answer(number)
            await turns()
        await run.task

    @virtually
    async def test_failures_are_told_one_by_one(self):
        node = Node()
        run = Run(node, make(4))
        await turns()
        lost = NodeUnavailable("lost")
        node.answer(0, lost)
        node.answer(1)
        node.answer(2, UNSUPPORTED)
        node.answer(3, None)
        await run.task
        assert run.told[0] == (b"key:0", lost)
        assert run.told[1] == (b"key:1", b"OK")
        assert isinstance(run.told[2][1], CommandError)
        assert run.told[3] == (b"key:3", None)

    @virtually
    async def test_of_what_is_stored_nothing_is_told(self):
        node = Node()
        run = Run(node, make(3))
        await turns()
        for number, reply in enumerate((b"STORED", b"OK", b"STORED")):
            node.answer(number, reply)
        await run.task
        assert run.told == [(b"key:1", b"OK")]

    @virtually
    async def test_a_failure_may_end_it(self):
        node: Any = Node()

        def failed(request: Request, error: Exception) -> None:
            raise error

        task = asyncio.ensure_future(run([(node, request) for request in make(3)], accept, failed))
        await turns()
        node.answer(0, b"STORED")
        node.answer(1, NodeUnavailable("lost"))
        assert isinstance(await outcome(task), NodeUnavailable)
        assert node.abandoned == [node.requests[2]]

    @virtually
    async def test_a_closed_client_ends_it(self):
        node = Node()
        run = Run(node, make(3))
        await turns()
        for number in range(3):
            node.answer(number, RuntimeError("client is closed"))
        assert isinstance(await outcome(run.task), RuntimeError)
        assert run.told == []

    @virtually
    async def test_cancelled(self):
        node = Node()
        run = Run(node, make(10, 20_000))
        await turns()
        node.answer(0)
        await turns()
        run.task.cancel()
        await asyncio.wait([run.task])
        assert run.task.cancelled()
        assert node.abandoned == node.requests[1:] == node.requests[1:4]

    @virtually
    async def test_after_the_deadline_nothing_is_sent(self):
        node = Node()
        now = asyncio.get_running_loop().time()
        run = Run(node, make(10, 20_000, now + 1))
        await turns()
        assert len(node.requests) == 3
        await asyncio.sleep(1)
        for number in range(3):
            node.answer(number, TimeoutError("no answer"))
        await run.task
        assert len(node.requests) == 3
        assert [type(error) for _, error in run.told] == [TimeoutError] * 10
        assert str(run.told[9][1]) == "set of b'key:9': the time was over before it could be sent to cache:11211"


class TestTogether:
    @virtually
    async def test_all_run_side_by_side(self):
        ended = []

        async def work(seconds: float) -> None:
            await asyncio.sleep(seconds)
            ended.append(seconds)

        started = asyncio.get_running_loop().time()
        await together([work(3), work(1), work(2)])
        assert ended == [1, 2, 3]
        assert asyncio.get_running_loop().time() == started + 3

    @virtually
    async def test_the_first_failure_ends_the_others(self):
        ended = []

        async def work() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                ended.append("work")

        async def fail() -> None:
            await asyncio.sleep(1)
            raise KeyError("first")

        assert isinstance(await outcome(together([work(), fail(), work()])), KeyError)
        assert ended == ["work", "work"]

    @virtually
    async def test_two_failures_at_once(self):
        async def fail(error: Exception) -> None:
            raise error

        assert isinstance(await outcome(together([fail(KeyError("a")), fail(ValueError("b"))])), KeyError)

    @pytest.mark.parametrize("count", [1, 2])
    @virtually
    async def test_cancelled(self, count: int):
        ended = []

        async def work() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                ended.append("work")

        running = [asyncio.ensure_future(together([work() for _ in range(count)]))]
        await turns()
        assert await cancelled(*running)
        assert len(ended) == count


def test_accept():
    node: Any = Node()
    accept(node, requests.touch(b"a", 1), None)
    accept(node, requests.touch(b"a", 1), b"TOUCHED")
    with pytest.raises(NotFoundCommandError):
        accept(node, requests.touch(b"a", 1), b"NOT_FOUND")


@pytest.mark.parametrize(
    "error",
    [
        CommandError("text", reply="ERROR", command="get", address=address(1)),
        NotFoundCommandError(reply="NOT_FOUND", command="touch"),
        NodeUnavailable("gone", address=address(1), sent=True),
        TimeoutError("late"),
        RuntimeError("client is closed"),
    ],
)
def test_duplicate(error: Exception):
    error.__cause__ = OSError("why")
    other = duplicate(error)
    assert other is not error
    assert type(other) is type(error)
    assert other.args == error.args
    assert str(other) == str(error)
    assert vars(other) == vars(error)
    assert other.__cause__ is error.__cause__


def test_window_is_that_of_the_reference():
    assert exchanges._RUN_AHEAD == 64 * 1024
