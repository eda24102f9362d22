"""Refreshing states and infos of handles."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.client.asking import ask
from rain.client.specs import object_info, size_of, task_info
from rain.client.task import Task
from rain.common.states import DataObjectState, TaskState
from rain.protocol.messages import GetInfos, Infos

if TYPE_CHECKING:
    from rain.client.base import BaseSession
    from rain.client.data import DataObject


async def ask_infos(session: BaseSession, things: list[Task | DataObject]) -> Infos:
    """States and infos of submitted things, in order."""
    numbers = array("I", [thing._number for thing in things])
    make = lambda seq: GetInfos(seq, session.session_id, numbers)  # noqa: E731
    reply = await ask(session._front, session, make, f"updating {len(things)} tasks and objects")
    assert isinstance(reply, Infos)
    return reply


async def update_things(session: BaseSession, things: list[Task | DataObject]) -> None:
    """Take over states and infos from the server."""
    infos = await ask_infos(session, things)
    for position, thing in enumerate(things):
        state = infos.states[position]
        packed = infos.infos[position] if infos.infos else None
        session._note(thing)
        if isinstance(thing, Task):
            thing._own_state = TaskState(state)
            if packed is not None:
                thing._info = task_info(packed)
        else:
            thing._own_state = DataObjectState(state)
            if packed is not None:
                info = thing._info = object_info(packed)
                info.size = size_of(thing, info.size)
