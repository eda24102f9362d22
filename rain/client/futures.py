"""`as_completed` and `gather`: over tasks and data objects of any sessions and clients."""

from __future__ import annotations

import queue
import sys
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from rain.client.array import TaskArray
from rain.client.array_results import BATCH, values_of
from rain.client.core import result_of
from rain.client.data import DataObject
from rain.client.failures import to_exception
from rain.client.fetch import fetch_values
from rain.client.results import deadline_of, objects_of, prepare, remaining, result_from
from rain.client.states import ask_states
from rain.client.task import Task
from rain.common.errors import RainConnectionError, RainException, RainTimeoutError
from rain.common.failure import Failure
from rain.protocol.messages import WAIT_ALL, WAIT_SOME, Wait, WaitDone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from rain.client.connection import Question
    from rain.client.core import Request
    from rain.client.session import Session

Thing: TypeAlias = "Task | DataObject"
Leaf: TypeAlias = "Task | DataObject | TaskArray"

_WARNING_INTERVAL = 0.5
"""Seconds between looks for warnings of the server."""


class _Watch:
    """What is waited for in one session: number -> handle, or the array whose member it is."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.waiting: dict[int, Leaf] = {}

    def add(self, leaf: Leaf) -> None:
        if isinstance(leaf, TaskArray):
            self.waiting |= dict.fromkeys(leaf._task_numbers(), leaf)
        else:
            self.waiting[leaf._number] = leaf

    def question(self, mode: int) -> Question:
        session, numbers = self.session.session_id, array("I", self.waiting)
        return (lambda seq: Wait(seq, session, mode, numbers)), f"waiting for {len(numbers)} tasks and objects"

    def take(self, request: Request) -> list[Thing]:
        """What is terminal by an answer; everything if the session has failed."""
        reply = result_of(request)
        if isinstance(reply, Failure) and reply.kind not in ("task", "session"):
            raise to_exception(reply, None)
        numbers = reply.ids if isinstance(reply, WaitDone) else array("I", self.waiting)
        return [self._handle(number, self.waiting.pop(number)) for number in numbers]

    def _handle(self, number: int, leaf: Leaf) -> Thing:
        if not isinstance(leaf, TaskArray):
            return leaf
        found = leaf._find(number, make=True)
        assert found is not None
        return found


class Completed:
    """The iterator that `as_completed` returns; both a plain and an asynchronous one."""

    def __init__(self, items: Iterable[Leaf], timeout: float | None) -> None:
        leaves = list(dict.fromkeys([items] if isinstance(items, (Task, DataObject)) else items))
        self._deadline = deadline_of(timeout)
        self._timeout = timeout
        self._numbers: dict[Session, int] = {}
        self._watches: dict[Session, _Watch] = {}
        for leaf in leaves:
            if not isinstance(leaf, (Task, DataObject, TaskArray)):
                raise TypeError(f"Tasks and data objects are expected, not {leaf!r}")
            _keep(leaf)
            session = leaf._session
            self._numbers[session] = max(self._numbers.get(session, 0), _number(leaf))
            self._watches.setdefault(session, _Watch(session)).add(leaf)
        self._plain: Iterator[Thing] | None = None
        self._asynchronous: AsyncIterator[Thing] | None = None
        if not _in_loop():
            self._submit()

    def _submit(self) -> None:
        for session, number in self._numbers.items():
            if number >= session._submitted:
                session.submit()

    def __iter__(self) -> Completed:
        return self

    def __next__(self) -> Thing:
        if self._plain is None:
            self._submit()
            self._plain = self._iterate()
        return next(self._plain)

    def _iterate(self) -> Iterator[Thing]:
        answers: queue.SimpleQueue[tuple[_Watch, Request]] = queue.SimpleQueue()
        requests: dict[_Watch, Request] = {}
        try:
            for watch in self._watches.values():
                _listen(watch, WAIT_SOME, requests, answers)
            if self._timeout == 0:
                _poll(self._watches.values())
            while requests:
                watch, request = _next_answer(answers, requests, self._deadline, self._timeout)
                del requests[watch]
                found = watch.take(request)
                _listen(watch, WAIT_SOME, requests, answers)
                yield from found
        finally:
            _drop(requests)

    def __aiter__(self) -> Completed:
        return self

    async def __anext__(self) -> Thing:
        if self._asynchronous is None:
            self._asynchronous = self._iterate_asynchronously()
        return await anext(self._asynchronous)

    async def _iterate_asynchronously(self) -> AsyncIterator[Thing]:
        import asyncio

        loop = asyncio.get_running_loop()
        answers: asyncio.Queue[tuple[_Watch, Request]] = asyncio.Queue()
        requests: dict[_Watch, Request] = {}

        def listen(watch: _Watch) -> None:
            def on_done(request: Request) -> None:
                with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(answers.put_nowait, (watch, request))

            if watch.waiting:
                requests[watch] = _ask(watch, WAIT_SOME, on_done)

        await asyncio.to_thread(self._submit)
        try:
            for watch in self._watches.values():
                listen(watch)
            while requests:
                try:
                    watch, request = await asyncio.wait_for(answers.get(), remaining(self._deadline))
                except TimeoutError:
                    raise _expired(self._timeout) from None
                del requests[watch]
                found = watch.take(request)
                listen(watch)
                for thing in found:
                    yield thing
        finally:
            _drop(requests)


def as_completed(items: Iterable[Leaf], timeout: float | None = None) -> Completed:
    """Each distinct task and data object when it becomes terminal, in that order; submits what is not submitted.

    Args:
        items: of any sessions and clients; a task array counts as its tasks.
        timeout: seconds for the whole iteration.

    Returns:
        An iterator, for `for` and for `async for`. Failed ones are yielded, too: their `result()` raises.

    Raises:
        RainTimeoutError: `timeout` seconds are over.
        TypeError: an item is something else.
    """
    return Completed(items, timeout)


def gather(*items: Any, return_exceptions: bool = False, timeout: float | None = None) -> Any:
    """The results of everything in a nest of lists, tuples and dicts, in the same shape; other values stay.

    Args:
        items: the nest; `gather(a, b)` equals `gather([a, b])`, and `gather(a)` of one task `gather([a])`.
        return_exceptions: give exceptions in place of results instead of raising the first.
        timeout: seconds for the whole.

    Raises:
        TaskException: a task failed; raised at once.
        RainTimeoutError: `timeout` seconds are over.
    """
    nest = items[0] if len(items) == 1 and not isinstance(items[0], (Task, DataObject)) else list(items)
    leaves: dict[Leaf, Any] = {}
    _collect(nest, leaves)
    deadline = deadline_of(timeout)
    for leaf in leaves:
        _keep(leaf)
    for leaf in leaves:
        if not leaf._session._submitted > _number(leaf):
            leaf._session.submit()
    if return_exceptions:
        for _ in Completed(leaves, remaining(deadline)):
            pass
        for leaf in leaves:
            leaves[leaf] = _outcome(leaf)
    else:
        _wait_for_all(leaves, deadline, timeout)
        _fetch_all(leaves, deadline)
    return _rebuilt(nest, leaves)


def _collect(nest: Any, leaves: dict[Leaf, Any]) -> None:
    if isinstance(nest, (Task, DataObject, TaskArray)):
        leaves[nest] = None
    elif isinstance(nest, (list, tuple, dict)):
        for item in nest.values() if isinstance(nest, dict) else nest:
            _collect(item, leaves)


def _rebuilt(nest: Any, leaves: dict[Leaf, Any]) -> Any:
    if isinstance(nest, (Task, DataObject, TaskArray)):
        return leaves[nest]
    if isinstance(nest, dict):
        return {key: _rebuilt(item, leaves) for key, item in nest.items()}
    if isinstance(nest, list):
        return [_rebuilt(item, leaves) for item in nest]
    if isinstance(nest, tuple):
        values = [_rebuilt(item, leaves) for item in nest]
        return type(nest)(*values) if hasattr(nest, "_fields") else tuple(values)
    return nest


def _wait_for_all(leaves: Iterable[Leaf], deadline: float | None, timeout: float | None) -> None:
    """Where several sessions are involved: until all is finished, or the first failure."""
    watches: dict[Session, _Watch] = {}
    for leaf in leaves:
        watches.setdefault(leaf._session, _Watch(leaf._session)).add(leaf)
    if len(watches) < 2:
        return
    answers: queue.SimpleQueue[tuple[_Watch, Request]] = queue.SimpleQueue()
    requests: dict[_Watch, Request] = {}
    try:
        for watch in watches.values():
            _listen(watch, WAIT_ALL, requests, answers)
        if timeout == 0:
            _poll(watches.values())
        while requests:
            watch, request = _next_answer(answers, requests, deadline, timeout)
            del requests[watch]
            watch.session._raise_failure(result_of(request))
    finally:
        _drop(requests)


def _fetch_all(leaves: dict[Leaf, Any], deadline: float | None) -> None:
    """Put the results in; one request for many tasks and objects of a session."""
    by_session: dict[Session, list[Thing]] = {}
    for leaf in leaves:
        if isinstance(leaf, TaskArray):
            leaves[leaf] = values_of(leaf, remaining(deadline))
        else:
            by_session.setdefault(leaf._session, []).append(leaf)
    for session, things in by_session.items():
        bare = [thing for thing in things if not objects_of(thing)]
        if bare:
            session._wait_for(*_wait_question(session, bare), remaining(deadline))
        for start in range(0, len(things), BATCH):
            some = things[start : start + BATCH]
            objects = [dataobj for thing in some for dataobj in objects_of(thing)]
            instances = iter(fetch_values(session, objects, remaining(deadline), None))
            for thing in some:
                leaves[thing] = result_from(thing, [next(instances) for _ in objects_of(thing)])


def _wait_question(session: Session, things: list[Thing]) -> Question:
    numbers = array("I", [thing._number for thing in things])
    return (lambda seq: Wait(seq, session.session_id, WAIT_ALL, numbers)), f"waiting for {len(things)} tasks"


def _outcome(leaf: Leaf) -> Any:
    """The result of what is terminal, or the exception."""
    try:
        return leaf.result()
    except (RainTimeoutError, RainConnectionError):
        raise
    except RainException as error:
        return [_outcome(member) for member in leaf] if isinstance(leaf, TaskArray) else error


def _keep(leaf: Leaf) -> None:
    """What is not submitted yet is kept, so that there will be results."""
    if leaf._session._submitted > _number(leaf):
        return
    if isinstance(leaf, TaskArray):
        leaf._set_keep(True)
    else:
        prepare(leaf)


def _number(leaf: Leaf) -> int:
    return leaf._first if isinstance(leaf, TaskArray) else leaf._number


def _listen(
    watch: _Watch,
    mode: int,
    requests: dict[_Watch, Request],
    answers: queue.SimpleQueue[tuple[_Watch, Request]],
) -> None:
    if watch.waiting:
        requests[watch] = _ask(watch, mode, lambda request: answers.put((watch, request)))


def _ask(watch: _Watch, mode: int, on_done: Any) -> Request:
    make, what = watch.question(mode)
    session = watch.session
    return session._connected().listen(make, what, session=session.session_id, on_done=on_done)


def _drop(requests: dict[_Watch, Request]) -> None:
    for watch, request in requests.items():
        client = watch.session.client
        if client is not None:
            with suppress(RainException):
                client._connection.drop(request)


def _poll(watches: Iterable[_Watch]) -> None:
    """When this returns, the server has dealt with all questions before."""
    for watch in watches:
        if watch.waiting:
            with suppress(RainException):
                ask_states(watch.session, array("I", [next(iter(watch.waiting))]))


def _next_answer(
    answers: queue.SimpleQueue[tuple[_Watch, Request]],
    requests: Iterable[_Watch],
    deadline: float | None,
    timeout: float | None,
) -> tuple[_Watch, Request]:
    while True:
        left = remaining(deadline)
        try:
            return answers.get(timeout=_WARNING_INTERVAL if left is None else min(left, _WARNING_INTERVAL))
        except queue.Empty:
            if left is not None and left <= _WARNING_INTERVAL:
                raise _expired(timeout) from None
        for watch in requests:
            watch.session._connected().issue_warnings(watch.session.session_id, 5)


def _expired(timeout: float | None) -> RainTimeoutError:
    return RainTimeoutError(f"Timeout of {timeout} s expired while waiting for tasks and objects; the work goes on")


def _in_loop() -> bool:
    """Whether this thread runs an asyncio loop."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


__all__ = ["Completed", "as_completed", "gather"]
