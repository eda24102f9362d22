"""Reports of workers name tasks and objects by ids; the core goes by rows."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rain.protocol.messages import (
    ObjectsMissing,
    ObjectsStored,
    TaskFailed,
    TasksDone,
    TasksReturned,
    TasksStarted,
    TasksStopped,
)

if TYPE_CHECKING:
    from rain.server.core.graph import Graph

_NOTHING = (1 << 32) - 1
"""A row that nothing has."""


def report_in_rows(graph: Graph, message: Any) -> Any:
    """The report of a worker with rows instead of ids."""
    numbering = graph.numbering
    if not numbering.arrays:
        return message
    if isinstance(message, TasksStarted | TasksDone | TasksReturned | TasksStopped):
        pairs = zip(message.tasks, message.runs, strict=True)
        rows = [numbering.row_of_report(number, run, graph.run) for number, run in pairs]
        return replace(message, tasks=_column(rows))
    if isinstance(message, TaskFailed):
        row = numbering.row_of_report(message.task, message.run, graph.run)
        return replace(message, task=row if row >= 0 else _NOTHING)
    if isinstance(message, ObjectsStored):
        return replace(message, objects=_column([numbering.row(number) for number in message.objects]))
    if isinstance(message, ObjectsMissing):
        row = numbering.row(message.object_id)
        return replace(message, object_id=row if row >= 0 else _NOTHING)
    return message


def _column(rows: list[int]) -> array[int]:
    return array("I", [row if row >= 0 else _NOTHING for row in rows])
