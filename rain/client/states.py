"""States as the server knows them, without infos."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING

from rain.client.asking import ask
from rain.client.task import Task
from rain.common.states import DataObjectState, TaskState
from rain.protocol.messages import GetStates, States

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.client.base import BaseSession
    from rain.client.data import DataObject
    from rain.client.front import Front


async def ask_states(
    front: Front, session: BaseSession, numbers: array[int], *, everything: bool = False
) -> bytes:
    """One byte (TaskState or DataObjectState) per task or object; everything: of all tasks of the session."""
    if not numbers and not everything:
        return b""
    make = lambda seq: GetStates(seq, session.session_id, numbers)  # noqa: E731
    reply = await ask(front, session, make, f"asking for the states of {len(numbers)} things")
    assert isinstance(reply, States)
    return reply.states


def count_states(states: bytes) -> Counter[str]:
    """Number of tasks by the name of their state; those without tasks are absent and read as 0."""
    return Counter({TaskState(state).name: count for state, count in sorted(Counter(states).items())})


async def take_states(session: BaseSession, things: Iterable[Task | DataObject]) -> None:
    """The handles get the states that the server knows."""
    known = list(things)
    states = await ask_states(session._front, session, array("I", [thing._number for thing in known]))
    for thing, state in zip(known, states, strict=True):
        session._note(thing)
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
