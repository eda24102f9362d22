"""Several requests at once: all of them or the first failure, long pipelined runs, and requests nobody waits for."""

from __future__ import annotations

import asyncio
import copy
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from rain.memcache import outcomes
from rain.memcache.deadlines import describe
from rain.memcache.replies import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from rain.memcache.node import Node
    from rain.memcache.replies import Reply
    from rain.memcache.requests import Request

Exchange: TypeAlias = "tuple[Node, Request]"

_RUN_AHEAD = 64 * 1024
"""Bytes of one run that may await their answers."""

_REQUEST_SIZE = 128
"""Bytes that a request takes besides its value, roughly."""


async def execute_all(exchanges: Sequence[Exchange]) -> list[Reply]:
    """Send requests at once and wait for all replies, given in the same order.

    Raises:
        Exception: the first failure, error lines included; the rest is abandoned then, as when the caller is cancelled.
    """
    if len(exchanges) == 1:
        [(node, request)] = exchanges
        reply = None if node.shortcut is None else node.shortcut.ask(request)
        if reply is not None:
            return [reply]
    futures = [request.waiter or node.submit(request) for node, request in exchanges]
    try:
        if len(futures) == 1:
            return [await futures[0]]
        if futures:
            await _all_or_first_failure(futures)
        for (node, request), future in zip(exchanges, futures, strict=True):
            if _has_failed(future):
                raise outcomes.failure(request, future.result(), node.address)
        return [future.result() for future in futures]
    finally:
        for (node, request), future in zip(exchanges, futures, strict=True):
            drop(node, request, future)


async def _all_or_first_failure(futures: Sequence[asyncio.Future[Reply]]) -> None:
    left = len(futures)
    ended = asyncio.get_running_loop().create_future()

    def note(future: asyncio.Future[Reply]) -> None:
        nonlocal left
        left -= 1
        if not ended.done() and (left == 0 or _has_failed(future)):
            ended.set_result(None)

    for future in futures:
        future.add_done_callback(note)
    await ended


def _has_failed(future: asyncio.Future[Reply]) -> bool:
    return future.done() and (
        future.cancelled() or future.exception() is not None or isinstance(future.result(), Fault)
    )


def drop(node: Node, request: Request, future: asyncio.Future[Reply]) -> None:
    """Stop waiting for a request; nothing happens if it has ended."""
    future.cancel()
    if future.cancelled():
        node.abandon(request)
    else:
        future.exception()  # asyncio logs failures that nobody looked at


def send_and_forget(node: Node, request: Request) -> None:
    """Send a request whose outcome is of no interest."""
    node.submit(request).add_done_callback(_look_at)


def _look_at(future: asyncio.Future[Reply]) -> None:
    if not future.cancelled():
        future.exception()


async def run(
    exchanges: Iterable[Exchange],
    answered: Callable[[Node, Request, Reply], None],
    failed: Callable[[Request, Exception], None],
    *,
    most_requests: int = sys.maxsize,
) -> None:
    """Send requests in a run, at most 64 KiB (or one request) of which await their answers at any moment.

    Args:
        exchanges: made as they are needed.
        answered: told of each reply but `STORED`, in order; what it raises is the failure of that request.
        failed: told of each failure; what it raises ends the run.
        most_requests: how many may await their answers at any moment; 64 KiB are no limit then.

    Raises:
        RuntimeError: the client was closed.
    """
    time = asyncio.get_running_loop().time
    most_bytes = _RUN_AHEAD if most_requests == sys.maxsize else sys.maxsize
    waiting: deque[tuple[Node, Request, asyncio.Future[Reply], int]] = deque()
    awaited_bytes = 0
    late = False
    source = iter(exchanges)
    following = next(source, None)
    try:
        while following is not None or waiting:
            while following is not None:
                node, request = following
                size = _REQUEST_SIZE if request.value is None else _REQUEST_SIZE + len(request.value)
                if waiting and (awaited_bytes + size > most_bytes or len(waiting) >= most_requests):
                    break
                if late:
                    failed(request, _too_late(node, request))
                else:
                    waiting.append((node, request, request.waiter or node.submit(request), size))
                    awaited_bytes += size
                following = next(source, None)
            woken = False
            while waiting:
                node, request, future, size = waiting[0]
                if not future.done():
                    if woken:
                        break
                    woken = True
                try:
                    reply = await future
                    if reply != b"STORED":
                        answered(node, request, reply)
                except RuntimeError:
                    raise
                except Exception as error:
                    failed(request, error)
                waiting.popleft()
                awaited_bytes -= size
            late = request.deadline is not None and time() >= request.deadline
    finally:
        for node, request, future, _ in waiting:
            drop(node, request, future)


def accept(node: Node, request: Request, reply: Reply | None) -> None:
    """Raise what the reply to a request without result means; a `noreply` request has none."""
    if reply is not None and reply != b"STORED":
        outcomes.judge(request, reply, node.address)


def _too_late(node: Node, request: Request) -> TimeoutError:
    """The failure of a request that could not even be sent before its deadline."""
    return TimeoutError(f"{describe(request)}: the time was over before it could be sent to {node.address}")


async def together(runs: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines concurrently to their ends; the first failure ends the others, and is raised."""
    if len(runs) == 1:
        await runs[0]
        return
    tasks = [asyncio.ensure_future(each) for each in runs]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()


def duplicate(error: Exception) -> Exception:
    """An equal exception object, so that each of several callers has its own traceback."""
    other = copy.copy(error)
    other.__cause__ = error.__cause__
    return other
