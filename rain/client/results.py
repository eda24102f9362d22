"""`result()`, `done()` and `exception()` of tasks and data objects."""

from __future__ import annotations

import time
from array import array
from typing import TYPE_CHECKING, Any

from rain.client.data import DataObject
from rain.client.fetch import fetch_values
from rain.client.handles import ArrayOutput
from rain.client.states import ask_states
from rain.common.content_type import has_codec
from rain.common.data_type import DataType
from rain.common.errors import RainException, RainTimeoutError
from rain.common.states import TERMINAL_STATES, DataObjectState

if TYPE_CHECKING:
    from rain.client.task import Task
    from rain.common.data_instance import DataInstance


def result_of_task(task: Task, timeout: float | None) -> Any:
    """The value of the output, a list for several, None for none."""
    deadline = deadline_of(timeout)
    prepare(task)
    if not task._outputs:
        if not task._is_submitted:
            task._session.submit()
        task._session.wait((task,), timeout=remaining(deadline))
        return None
    return result_from(task, fetch_values(task._session, list(task._outputs), timeout, None, submit=True))


def result_of_object(dataobj: DataObject, timeout: float | None) -> Any:
    """The value of an object."""
    prepare(dataobj)
    return decoded(fetch_values(dataobj._session, [dataobj], timeout, None, submit=True)[0])


def result_from(thing: Task | DataObject, instances: list[DataInstance]) -> Any:
    """The result of a task or object, of the values of `objects_of(thing)`."""
    values = [decoded(instance) for instance in instances]
    if isinstance(thing, DataObject) or len(values) == 1:
        return values[0]
    return values or None


def objects_of(thing: Task | DataObject) -> tuple[DataObject, ...]:
    """The objects whose values make up the result."""
    return (thing,) if isinstance(thing, DataObject) else thing._outputs


def exception_of(thing: Task | DataObject, timeout: float | None) -> RainException | None:
    """The exception that `result` raises, None for none. An expired timeout and a lost connection are raised."""
    try:
        thing.result(timeout)
    except (RainTimeoutError, ConnectionError):
        raise
    except RainException as error:
        return error
    return None


def is_done(thing: Task | DataObject) -> bool:
    """Whether the thing is terminal according to the server."""
    if not thing._is_submitted:
        return False
    try:
        state = ask_states(thing._session, array("I", [thing._number]))[0]
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


def decoded(instance: DataInstance) -> Any:
    """The value by its content type; bytes where there is no decoder, a directory as it is."""
    if instance.data_type is DataType.DIRECTORY:
        return instance
    if has_codec(instance.content_type):
        return instance.load()
    return instance.get_bytes()


def deadline_of(timeout: float | None) -> float | None:
    """The monotonic time at which `timeout` seconds are over; None = never."""
    return None if timeout is None else time.monotonic() + timeout


def remaining(deadline: float | None) -> float | None:
    """Seconds until a deadline, at least 0."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())
