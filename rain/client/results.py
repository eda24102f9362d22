"""`result()`, `done()` and `exception()` of tasks and data objects."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from rain.client.asking import submit
from rain.client.data import DataObject
from rain.client.deadlines import deadline_of, in_seconds, remaining
from rain.client.fetch import fetch_results
from rain.client.handles import ArrayOutput, CallTask
from rain.client.states import ask_states
from rain.client.waiting import wait_for_all
from rain.common.errors import RainException, RainTimeoutError
from rain.common.states import TERMINAL_STATES, DataObjectState

if TYPE_CHECKING:
    from rain.client.deadlines import Timeout
    from rain.client.front import Front
    from rain.client.task import Task


async def result_of(front: Front, thing: Task | DataObject, timeout: Timeout) -> Any:
    """The value of an object; of a task that of the output, a list for several, None for none."""
    limit = in_seconds(timeout)
    prepare(thing)
    session, objects = thing._session, list(objects_of(thing))
    if not objects:
        deadline = deadline_of(limit)
        if not thing._is_submitted:
            await submit(front, session)
        await wait_for_all(front, session, [thing], remaining(deadline))
        return None
    return result_from(thing, await fetch_results(front, session, objects, limit, submit=True))


def result_from(thing: Task | DataObject, values: list[Any]) -> Any:
    """The result of a task or object, of the decoded values of `objects_of(thing)`."""
    if isinstance(thing, DataObject) or len(values) == 1:
        return values[0]
    return values or None


def objects_of(thing: Task | DataObject) -> tuple[DataObject, ...]:
    """The objects whose values make up the result."""
    return (thing,) if isinstance(thing, DataObject) else thing._outputs


async def exception_of(front: Front, thing: Task | DataObject, timeout: Timeout) -> RainException | None:
    """The exception that `result` raises, None for none. An expired timeout and a lost connection are raised."""
    try:
        await result_of(front, thing, timeout)
    except (RainTimeoutError, ConnectionError):
        raise
    except RainException as error:
        return error
    return None


async def is_done(front: Front, thing: Task | DataObject) -> bool:
    """Whether the thing is terminal according to the server."""
    if not thing._is_submitted:
        return False
    try:
        (state,) = await ask_states(front, thing._session, array("I", [thing._number]))
    except (RainTimeoutError, ConnectionError):
        raise
    except RainException:  # the session has failed: everything in it is terminal
        return True
    if isinstance(thing, DataObject):
        return state != DataObjectState.unfinished
    return state in TERMINAL_STATES


def prepare(thing: Task | DataObject) -> None:
    """Before the submit: keep what the result is made of.

    Raises:
        RainException: the thing is submitted and not kept.
    """
    if isinstance(thing, CallTask) and thing._made is None:
        thing._keeps = thing._keeps or not thing._is_submitted
        if thing._keeps:
            return
    outputs = objects_of(thing)
    if not thing._is_submitted:
        for output in outputs:
            if isinstance(output, ArrayOutput):
                output._array._set_keep(True)
            if not output._is_submitted:
                output._keep = True
    for output in outputs:
        if not output._keep:
            raise RainException(
                f"The value of {output!r} is not kept, so there is no result to give; call keep() before submit, or "
                "result() before submit"
            )
