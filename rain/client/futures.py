"""`as_completed` and `gather`: over tasks and data objects of any sessions and clients."""

from __future__ import annotations

import sys
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from rain.client.array import TaskArray
from rain.client.array_results import values_of
from rain.client.asking import submit, wait_for
from rain.client.bulk import BATCH
from rain.client.call_results import are_calls, is_any_unsubmitted, keep_calls, results_of_calls
from rain.client.core import expired_text, result_of as answer_of
from rain.client.data import DataObject
from rain.client.deadlines import deadline_of, in_seconds, remaining
from rain.client.failures import to_exception
from rain.client.fetch import fetch_results
from rain.client.front import run
from rain.client.results import objects_of, prepare, result_from, result_of
from rain.client.states import ask_states
from rain.client.task import Task
from rain.common.errors import RainConnectionError, RainException, RainTimeoutError
from rain.common.failure import Failure
from rain.protocol.messages import WAIT_ALL, WAIT_SOME, Wait, WaitDone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from rain.client.base import BaseSession
    from rain.client.connection import Question
    from rain.client.core import Request
    from rain.client.deadlines import Timeout
    from rain.client.front import Front, Mailbox

    FrontOf = Callable[[BaseSession], Front]

Thing: TypeAlias = "Task | DataObject"
Leaf: TypeAlias = "Task | DataObject | TaskArray"

_WARNING_INTERVAL = 0.5
"""Seconds between looks for warnings of the server."""


class _Watch:
    """What is waited for in one session: number -> handle, or the array whose member it is."""

    def __init__(self, session: BaseSession) -> None:
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
        reply = answer_of(request)
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


class _Completing:
    """One question under way in each of several sessions.

    Args:
        watches: what is waited for.
        mode: WAIT_SOME or WAIT_ALL.
        front_of: by which a session is asked.
        timeout: seconds for the whole, for the text of the error.
        deadline: when they are over.
    """

    def __init__(
        self, watches: list[_Watch], mode: int, front_of: FrontOf, timeout: float | None, deadline: float | None
    ) -> None:
        self._watches = watches
        self._mode = mode
        self._front_of = front_of
        self._timeout = timeout
        self._deadline = deadline
        self._requests: dict[_Watch, Request] = {}
        self._mailbox: Mailbox | None = None

    async def start(self) -> None:
        """Ask in all sessions."""
        for watch in self._watches:
            self._listen(watch)
        if self._timeout == 0:
            for watch in self._watches:
                await self._poll(watch)

    async def more(self) -> list[Thing]:
        """What became terminal, at least one thing; nothing at the end."""
        while self._requests:
            watch, request = await self._next()
            found = watch.take(request)
            self._listen(watch)
            if found:
                return found
        return []

    async def all(self) -> None:
        """Until all answers have come; the first failure is raised at once."""
        while self._requests:
            watch, request = await self._next()
            watch.session._raise_failure(answer_of(request))

    def drop(self) -> None:
        """Nobody wants the answers any more."""
        for watch, request in self._requests.items():
            with suppress(RainException):
                self._front_of(watch.session).drop(request)

    def _listen(self, watch: _Watch) -> None:
        if not watch.waiting:
            return
        watch.session._check_connected()
        front = self._front_of(watch.session)
        if self._mailbox is None:
            self._mailbox = front.mailbox()
        put = self._mailbox.put
        make, what = watch.question(self._mode)
        self._requests[watch] = front.listen(
            make, what, session=watch.session.session_id, on_done=lambda request: put((watch, request))
        )

    async def _poll(self, watch: _Watch) -> None:
        """When this returns, the server has dealt with the question before."""
        if watch.waiting:
            with suppress(RainException):
                numbers = array("I", [next(iter(watch.waiting))])
                await ask_states(self._front_of(watch.session), watch.session, numbers)

    async def _next(self) -> tuple[_Watch, Request]:
        assert self._mailbox is not None
        while True:
            left = remaining(self._deadline)
            try:
                item: tuple[_Watch, Request] = await self._mailbox.next(
                    _WARNING_INTERVAL if left is None else min(left, _WARNING_INTERVAL)
                )
            except TimeoutError:
                if left is not None and left <= _WARNING_INTERVAL:
                    what = "waiting for tasks and objects"
                    raise RainTimeoutError(expired_text(what, self._timeout)) from None
            else:
                del self._requests[item[0]]
                return item
            for watch in self._requests:
                watch.session._check_connected()
                self._front_of(watch.session).issue_warnings(watch.session.session_id)


class Completed:
    """The iterator that `as_completed` returns; both a plain and an asynchronous one."""

    def __init__(self, items: Iterable[Leaf], timeout: Timeout, *, in_loop: bool = False) -> None:
        leaves = list(dict.fromkeys([items] if isinstance(items, (Task, DataObject)) else items))
        self._timeout = in_seconds(timeout)
        self._deadline = deadline_of(self._timeout)
        for leaf in leaves:
            if not isinstance(leaf, (Task, DataObject, TaskArray)):
                raise TypeError(f"Tasks and data objects are expected, not {leaf!r}")
            _keep(leaf)
        self._leaves = leaves
        self._plain: Iterator[Thing] | None = None
        self._asynchronous: AsyncIterator[Thing] | None = None
        if not (in_loop or _in_loop()):
            run(_submit(leaves, _blocking_front))

    def __iter__(self) -> Completed:
        return self

    def __next__(self) -> Thing:
        if self._plain is None:
            self._plain = self._iterate()
        return next(self._plain)

    def _iterate(self) -> Iterator[Thing]:
        run(_submit(self._leaves, _blocking_front))
        completing = self._completing(_blocking_front)
        try:
            run(completing.start())
            while found := run(completing.more()):
                yield from found
        finally:
            completing.drop()

    def __aiter__(self) -> Completed:
        return self

    async def __anext__(self) -> Thing:
        if self._asynchronous is None:
            self._asynchronous = self._iterate_in_loop()
        return await anext(self._asynchronous)

    async def _iterate_in_loop(self) -> AsyncIterator[Thing]:
        await _submit(self._leaves, front_in_loop)
        completing = self._completing(front_in_loop)
        try:
            await completing.start()
            while found := await completing.more():
                for thing in found:
                    yield thing
        finally:
            completing.drop()

    def _completing(self, front_of: FrontOf) -> _Completing:
        return _Completing(_watches(self._leaves), WAIT_SOME, front_of, self._timeout, self._deadline)


def as_completed(items: Iterable[Leaf], timeout: float | str | None = None) -> Completed:
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


def gather(*items: Any, return_exceptions: bool = False, timeout: float | str | None = None) -> Any:
    """The results of everything in a nest of lists, tuples and dicts, in the same shape; other values stay.

    Args:
        items: the nest; `gather(a, b)` equals `gather([a, b])`, and `gather(a)` of one task `gather([a])`.
        return_exceptions: give exceptions in place of results instead of raising the first.
        timeout: seconds for the whole.

    Raises:
        TaskException: a task failed; raised at once.
        RainTimeoutError: `timeout` seconds are over.
    """
    return run(gather_results(items, _blocking_front, return_exceptions, timeout))


async def gather_results(
    items: tuple[Any, ...], front_of: FrontOf, return_exceptions: bool, timeout: Timeout
) -> Any:
    """See `gather`; `front_of` gives the front by which a session is asked."""
    nest = items[0] if len(items) == 1 and not isinstance(items[0], (Task, DataObject)) else list(items)
    limit = in_seconds(timeout)
    deadline = deadline_of(limit)
    if type(nest) is list and nest and not return_exceptions and are_calls(nest) and keep_calls(nest):
        front = front_of(nest[0]._session)
        if is_any_unsubmitted(nest):
            await submit(front, nest[0]._session)
        return await results_of_calls(front, nest, remaining(deadline))
    leaves: dict[Leaf, Any] = {}
    _collect(nest, leaves)
    for leaf in leaves:
        _keep(leaf)
    await _submit(leaves, front_of)
    if return_exceptions:
        await _wait(leaves, WAIT_SOME, front_of, limit, deadline)
        for leaf in leaves:
            leaves[leaf] = await _outcome(front_of(leaf._session), leaf)
    else:
        if len({leaf._session for leaf in leaves}) > 1:  # the first failure is to be raised at once
            await _wait(leaves, WAIT_ALL, front_of, limit, deadline)
        await _fetch_all(leaves, front_of, deadline)
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


def _watches(leaves: Iterable[Leaf]) -> list[_Watch]:
    watches: dict[BaseSession, _Watch] = {}
    for leaf in leaves:
        watches.setdefault(leaf._session, _Watch(leaf._session)).add(leaf)
    return list(watches.values())


async def _submit(leaves: Iterable[Leaf], front_of: FrontOf) -> None:
    """Submit the sessions of what is not submitted."""
    for leaf in leaves:
        session = leaf._session
        front = front_of(session)
        if _number(leaf) >= session._submitted:
            await submit(front, session)


async def _wait(
    leaves: Iterable[Leaf], mode: int, front_of: FrontOf, timeout: float | None, deadline: float | None
) -> None:
    """Until everything is terminal, or, with WAIT_ALL, until the first failure."""
    completing = _Completing(_watches(leaves), mode, front_of, timeout, deadline)
    try:
        await completing.start()
        if mode == WAIT_ALL:
            await completing.all()
        else:
            while await completing.more():
                pass
    finally:
        completing.drop()


async def _fetch_all(leaves: dict[Leaf, Any], front_of: FrontOf, deadline: float | None) -> None:
    """Put the results in; one request for many tasks and objects of a session."""
    by_session: dict[BaseSession, list[Thing]] = {}
    for leaf in leaves:
        if isinstance(leaf, TaskArray):
            leaves[leaf] = await values_of(front_of(leaf._session), leaf, remaining(deadline))
        else:
            by_session.setdefault(leaf._session, []).append(leaf)
    for session, things in by_session.items():
        front = front_of(session)
        if are_calls(things) and keep_calls(things):
            leaves.update(zip(things, await results_of_calls(front, things, remaining(deadline)), strict=True))
            continue
        bare = [thing for thing in things if not objects_of(thing)]
        if bare:
            await wait_for(front, session, *_wait_question(session, bare), remaining(deadline))
        for start in range(0, len(things), BATCH):
            some = things[start : start + BATCH]
            objects = [dataobj for thing in some for dataobj in objects_of(thing)]
            values = iter(await fetch_results(front, session, objects, remaining(deadline)))
            for thing in some:
                count = len(objects_of(thing))
                leaves[thing] = next(values) if count == 1 else result_from(thing, [next(values) for _ in range(count)])


def _wait_question(session: BaseSession, things: list[Thing]) -> Question:
    numbers = array("I", [thing._number for thing in things])
    return (lambda seq: Wait(seq, session.session_id, WAIT_ALL, numbers)), f"waiting for {len(things)} tasks"


async def _outcome(front: Front, leaf: Leaf) -> Any:
    """The result of what is terminal, or the exception."""
    try:
        if isinstance(leaf, TaskArray):
            return await values_of(front, leaf, None)
        return await result_of(front, leaf, None)
    except (RainTimeoutError, RainConnectionError):
        raise
    except RainException as error:
        return [await _outcome(front, member) for member in leaf] if isinstance(leaf, TaskArray) else error


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


def _blocking_front(session: BaseSession) -> Front:
    if session._is_asynchronous:
        raise RainException(
            f"{session!r} belongs to an asyncio client: use `async for` with as_completed, and rain.client.aio.gather"
        )
    return session._front


def front_in_loop(session: BaseSession) -> Front:
    """The front by which a session is asked from a coroutine."""
    return session._front_in_loop


def _in_loop() -> bool:
    """Whether this thread runs an asyncio loop."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


__all__ = ["Completed", "as_completed", "gather"]
