"""Waiting for things of one session, cancelling them, and what their handles know afterwards."""

from __future__ import annotations

from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rain.client.asking import wait_for
from rain.client.data import DataObject
from rain.client.deadlines import in_seconds
from rain.client.states import take_all_states, take_states
from rain.client.task import Task
from rain.common.errors import RainException, TaskException
from rain.common.failure import Failure
from rain.common.states import DataObjectState, TaskState
from rain.protocol.messages import WAIT_ALL, WAIT_SESSION, WAIT_SOME, Cancel, Cancelled, Wait, WaitDone

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.client.base import BaseSession
    from rain.client.deadlines import Timeout
    from rain.client.front import Front

_FEW = 1000
"""So many handles are looked up one by one; of more, those are taken that exist."""


def numbers_of(things: Iterable[Task | DataObject]) -> array[int]:
    """The numbers of things, in order."""
    return array("I", [thing._number for thing in things])


def names_of(things: list[Any]) -> str:
    """The first things, for error texts."""
    shown = ", ".join(repr(thing) for thing in things[:3])
    return f"{shown} and {len(things) - 3} more" if len(things) > 3 else shown or "nothing"


async def wait_for_all(
    front: Front, session: BaseSession, things: list[Task | DataObject], timeout: float | None
) -> None:
    """See `Session.wait`."""
    numbers = numbers_of(things)
    make = lambda seq: Wait(seq, session.session_id, WAIT_ALL, numbers)  # noqa: E731
    try:
        await wait_for(front, session, make, f"waiting for {names_of(things)}", timeout)
    except TaskException:
        if session._is_uneven:
            with suppress(TaskException):  # the whole session has failed
                await take_states(session, things)
        raise
    _note_finished(session, things)


async def wait_for_some(
    session: BaseSession, things: list[Task | DataObject], timeout: float | None
) -> tuple[list[Task], list[DataObject]]:
    """See `Session.wait_some`."""
    session._check_open()
    numbers = numbers_of(things)
    mode = WAIT_SOME if things else WAIT_ALL
    make = lambda seq: Wait(seq, session.session_id, mode, numbers)  # noqa: E731
    reply = await wait_for(session._front, session, make, f"waiting for one of {names_of(things)}", timeout)
    assert isinstance(reply, WaitDone)
    finished = set(reply.ids)
    found = list({thing._number: thing for thing in things if thing._number in finished}.values())
    if session._is_uneven:
        await take_states(session, found)
    else:
        _note_finished(session, found)
    tasks = [thing for thing in found if isinstance(thing, Task)]
    return tasks, [thing for thing in found if isinstance(thing, DataObject)]


async def wait_for_session(front: Front, session: BaseSession, timeout: float | None, check: bool) -> None:
    """See `Session.wait_all`."""
    submitted = session._submitted
    reply = await front.wait(
        lambda seq: Wait(seq, session.session_id, WAIT_SESSION, array("I")),
        f"waiting for all tasks of session {session.session_id}",
        session=session.session_id,
        timeout=timeout,
    )
    goes_on = isinstance(reply, Failure) and reply.kind == "task" and session.spec.on_failure == "continue"
    if not goes_on:
        session._raise_failure(reply)
    _settle(session, submitted)
    if session._is_uneven:
        await take_all_states(session, submitted)
    if check:
        session._raise_failure(reply)


async def cancel_tasks(session: BaseSession, numbers: array[int], what: str, timeout: Timeout) -> array[int]:
    """Cancel tasks, all if there are no numbers; returns those that were stopped before their end."""
    limit = in_seconds(timeout)
    session._check_connected()
    session._was_cancelled = True
    reply = await session._front.wait(
        lambda seq: Cancel(seq, session.session_id, numbers), what, session=session.session_id, timeout=limit
    )
    if isinstance(reply, Failure) and reply.kind == "task":
        return array("I")  # the session has failed: everything in it is terminal
    session._raise_failure(reply)
    assert isinstance(reply, Cancelled)
    for thing in _handles(session, reply.ids):
        if isinstance(thing, Task):
            thing.state = TaskState.cancelled
    return reply.ids


def _handles(session: BaseSession, numbers: array[int]) -> list[Task | DataObject]:
    """What somebody refers to, of the things with these numbers."""
    if len(numbers) <= _FEW:
        found = (session._find(number, make=False) for number in numbers)
        return [thing for thing in found if thing is not None]
    wanted = frozenset(numbers)
    with session._lock:
        live = session._registry.live(make=False)
    return [thing for thing in live if thing._number in wanted]


async def cancel_task(task: Task, timeout: Timeout) -> bool:
    """See `Task.cancel`."""
    if not task._is_submitted:
        raise RainException(f"{task!r} is not submitted, so there is nothing to cancel")
    numbers = array("I", [task._number])
    return task._number in await cancel_tasks(task._session, numbers, f"cancelling {task!r}", timeout)


def _note_finished(session: BaseSession, things: Iterable[Task | DataObject]) -> None:
    for thing in things:
        session._note(thing)
        thing._own_state = TaskState.finished if isinstance(thing, Task) else DataObjectState.finished


def _settle(session: BaseSession, submitted: int) -> None:
    """Everything submitted is terminal; what is in another state than finished is noted after this."""
    with session._lock:
        session._settled = max(session._settled, submitted)
        noted = [*session._noted, *session._noted_weakly]
        session._noted.clear()
        session._noted_weakly.clear()
        for thing in noted:
            if thing._own_state != DataObjectState.removed or isinstance(thing, Task):
                thing._own_state = None
