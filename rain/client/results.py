"""`result()`, `done()` and `exception()` of tasks and data objects."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rain.client.data import DataObject
from rain.client.updates import ask_infos
from rain.common.content_type import has_codec
from rain.common.data_type import DataType
from rain.common.errors import RainException, RainTimeoutError
from rain.common.states import DataObjectState, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.client.task import Task
    from rain.common.data_instance import DataInstance

_UNFINISHED = (
    TaskState.notAssigned,
    TaskState.ready,
    TaskState.assigned,
    TaskState.running,
)


def result_of_task(task: Task, timeout: float | None) -> Any:
    """The value of the output, a list for several, None for none."""
    deadline = _deadline(timeout)
    _submit_if_needed(task, task._outputs)
    if not task._outputs:
        task._session.wait((task,), timeout=timeout)
        return None
    instances = task._session._fetch_all(task._outputs, _remaining(deadline))
    values = [_value(instance) for instance in instances]
    return values[0] if len(values) == 1 else values


def result_of_object(dataobj: DataObject, timeout: float | None) -> Any:
    """The value of an object."""
    deadline = _deadline(timeout)
    _submit_if_needed(dataobj, (dataobj,))
    return _value(dataobj._session.fetch(dataobj, timeout=_remaining(deadline)))


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
        state = ask_infos(thing._session, [thing]).states[0]
    except (RainTimeoutError, ConnectionError):
        raise
    except RainException:  # the session has failed: everything in it is terminal
        return True
    if isinstance(thing, DataObject):
        return state != DataObjectState.unfinished
    return state not in _UNFINISHED


def _submit_if_needed(thing: Task | DataObject, outputs: Iterable[DataObject]) -> None:
    if not thing._is_submitted:
        for output in outputs:
            if not output._is_submitted:
                output._keep = True
        thing._session.submit()
        return
    for output in outputs:
        if not output._keep:
            raise RainException(
                f"The value of {output!r} is not kept, so there is no result to give; call keep() before submit, or "
                "result() before submit"
            )


def _value(instance: DataInstance) -> Any:
    if instance.data_type is DataType.DIRECTORY:
        return instance
    if has_codec(instance.content_type):
        return instance.load()
    return instance.get_bytes()


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
