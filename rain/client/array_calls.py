"""What can be asked and told about the members of a task array."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING

from rain.client.states import ask_counts
from rain.client.waiting import cancel_tasks
from rain.common.errors import RainException
from rain.common.states import TERMINAL_STATES, TaskState

if TYPE_CHECKING:
    from rain.client.array import TaskArray
    from rain.client.deadlines import Timeout
    from rain.client.front import Front


async def all_terminal(front: Front, array_: TaskArray) -> bool:
    """See `TaskArray.done`."""
    if not array_._is_submitted:
        return False
    if not len(array_):
        return True
    counts = await ask_counts(front, array_._session, array_._task_range())
    return all(TaskState[name] in TERMINAL_STATES for name in counts)


async def count_members(front: Front, array_: TaskArray) -> Counter[str]:
    """See `TaskArray.counts`."""
    if not array_._is_submitted or not len(array_):
        return Counter()
    counts = await ask_counts(front, array_._session, array_._task_range())
    array_._last_counts = counts.copy()
    return counts


async def cancel_members(array_: TaskArray, timeout: Timeout) -> int:
    """See `TaskArray.cancel`."""
    array_._check_submitted()
    if not len(array_):
        return 0
    return len(await cancel_tasks(array_._session, array_._task_numbers(), f"cancelling {array_!r}", timeout))


async def unkeep_members(array_: TaskArray) -> None:
    """See `TaskArray.unkeep`."""
    if not array_._keep:
        raise RainException(f"{array_!r} is not kept")
    if not array_._is_submitted:
        array_._set_keep(False)
        return
    await array_._session._front.to_its_end(_unkeep_submitted(array_))


async def _unkeep_submitted(array_: TaskArray) -> None:
    kept = array("I")
    for start, count in array_._kept_parts():
        kept += array_._output_numbers(start, start + count)
    await array_._session._tell_unkept(kept, f"unkeeping {array_!r}")
    array_._set_keep(False)
