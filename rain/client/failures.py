"""From a failure told by the server to the exception a caller sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.client.site import format_site
from rain.common.errors import (
    InvalidRequestError,
    RainConnectionError,
    RainException,
    SessionException,
    TaskCancelled,
    TaskException,
)
from rain.common.ids import ID
from rain.common.states import TaskState

if TYPE_CHECKING:
    from rain.client.task import Task
    from rain.common.failure import Failure


def blame(failure: Failure, task: Task | None) -> None:
    """Note on the handle of the task to blame, if there is one, how it ended."""
    if task is not None and failure.kind in ("task", "cancelled"):
        task.state = TaskState.failed if failure.kind == "task" else TaskState.cancelled


def to_exception(failure: Failure, task: Task | None) -> RainException:
    """Make the exception. `task`: this client's handle of the task to blame, None if it has none."""
    match failure.kind:
        case "task" | "cancelled":
            return _task_exception(failure, task)
        case "session":
            return SessionException(failure.message)
        case "invalid":
            return InvalidRequestError(failure.message)
        case "connection":
            return RainConnectionError(failure.message)
        case _:
            return RainException(failure.message)


def _task_exception(failure: Failure, task: Task | None) -> TaskException:
    kind = TaskCancelled if failure.kind == "cancelled" else TaskException
    return kind(
        _text(failure, task),
        task=task,
        task_id=ID(failure.session, failure.task) if failure.task else None,
        message=failure.message,
        debug=failure.debug,
        worker=failure.worker,
        attempts=failure.attempts,
        pickled_cause=failure.exception,
    )


def _text(failure: Failure, task: Task | None) -> str:
    name = repr(task) if task is not None else f"<Task id={failure.session}/{failure.task}>"
    verb = "was cancelled" if failure.kind == "cancelled" else "failed"
    lines = [f"Task {name} {verb}", f"Message: {failure.message}"]
    if failure.worker:
        lines.append(f"Worker: {failure.worker}, run {failure.attempts}")
    created = format_site(task._stack) if task is not None else ""
    if created:
        lines += ["Task created at:", created]
    if failure.debug:
        lines += ["Debug:", failure.debug]
    return "\n".join(lines)
