"""States as the server knows them, without infos, and numbers of tasks by state."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING

from rain.client.asking import ask
from rain.client.task import Task
from rain.common.states import DataObjectState, TaskState
from rain.protocol.messages import Counts, GetCounts, GetStates, States

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.client.base import BaseSession
    from rain.client.data import DataObject
    from rain.client.front import Front


async def ask_states(front: Front, session: BaseSession, numbers: array[int]) -> bytes:
    """One byte (TaskState or DataObjectState) per task or object."""
    if not numbers:
        return b""
    make = lambda seq: GetStates(seq, session.session_id, numbers)  # noqa: E731
    reply = await ask(front, session, make, f"asking for the states of {len(numbers)} things")
    assert isinstance(reply, States)
    return reply.states


async def ask_counts(front: Front, session: BaseSession, numbers: range | None = None) -> Counter[str]:
    """Number of tasks by the name of their state, without a look at each; numbers: theirs, None = all of the session.
    States without tasks are absent and read as 0."""
    firsts = array("I", [] if numbers is None else numbers[:1])
    counts = array("I", [] if numbers is None else [len(numbers)])
    make = lambda seq: GetCounts(seq, session.session_id, firsts, counts)  # noqa: E731
    reply = await ask(front, session, make, f"counting tasks of session {session.session_id}")
    assert isinstance(reply, Counts)
    counted = by_name(reply)
    if numbers is None:
        session._note_counts(counted, reply.failure)
    return counted.copy()


def by_name(reply: Counts) -> Counter[str]:
    """Number of tasks by the name of their state; those without tasks are absent and read as 0."""
    return Counter({state.name: reply.tasks[state] for state in TaskState if reply.tasks[state]})


def count_states(states: bytes) -> Counter[str]:
    """The same of states that are known here."""
    return Counter({TaskState(state).name: count for state, count in sorted(Counter(states).items())})


async def take_states(session: BaseSession, things: Iterable[Task | DataObject]) -> None:
    """The handles get the states that the server knows."""
    known = list(things)
    states = await ask_states(session._front, session, array("I", [thing._number for thing in known]))
    for thing, state in zip(known, states, strict=True):
        session._note(thing)
        _set(thing, state)


def set_state(session: BaseSession, thing: Task | DataObject, state: int) -> None:
    """The handle gets a state that the server told."""
    if thing.state != state:
        session._note(thing)
        _set(thing, state)


def _set(thing: Task | DataObject, state: int) -> None:
    if isinstance(thing, Task):
        thing._own_state = TaskState(state)
    else:
        thing._own_state = DataObjectState(state)


async def take_all_states(session: BaseSession, end: int) -> None:
    """All handles of things with numbers below `end` get the states that the server knows."""
    with session._lock:
        things = session._registry.live(make=False)
        arrays = session._registry.arrays()
    await take_states(session, [thing for thing in things if thing._number < end])
    for one in arrays:
        if one._first < end:
            one._take_states(await ask_states(session._front, session, one._task_numbers()))
