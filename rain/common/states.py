"""States of tasks and data objects, as users see them."""

from enum import IntEnum


class TaskState(IntEnum):
    """Life of a task; the values are part of the API."""

    notAssigned = 0
    ready = 1
    assigned = 2
    running = 3
    finished = 4
    failed = 5
    cancelled = 6
    aborted = 7


class DataObjectState(IntEnum):
    """Life of a data object; the values are part of the API."""

    unfinished = 0
    finished = 1
    removed = 2
    aborted = 3


TERMINAL_STATES = frozenset(
    {TaskState.finished, TaskState.failed, TaskState.cancelled, TaskState.aborted}
)
