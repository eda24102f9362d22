"""Asking the server why a task is in its state."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.client.asking import ask
from rain.common.errors import RainException
from rain.protocol.messages import Explain, Explained

if TYPE_CHECKING:
    from rain.client.task import Task


async def explain_task(task: Task) -> str:
    """See `Task.explain`."""
    session = task._session
    if not task._is_submitted:
        raise RainException(f"{task!r} is not submitted, so the server does not know it; it waits for session.submit()")
    numbers = array("I", [task._number])
    make = lambda seq: Explain(seq, session.session_id, numbers)  # noqa: E731
    reply = await ask(session._front, session, make, f"asking why {task!r} is in its state")
    assert isinstance(reply, Explained)
    return reply.texts[0]
