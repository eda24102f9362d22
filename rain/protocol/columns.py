"""Which columns of a message belong together, and the check that their lengths agree. Pure.

A receiver may index the columns of a checked message by position without further tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain.common.number_columns import WIDTH, is_column, sizes_in_column
from rain.protocol.limits import ProtocolError
from rain.protocol.messages import (
    INLINE,
    SAME,
    AssignTasks,
    CancelTasks,
    GetCounts,
    Infos,
    ObjectList,
    ObjectsFetched,
    SubmitBlock,
    SubmitChunk,
    TaskList,
    TasksDone,
    TasksExplained,
    TasksReturned,
    TasksStarted,
    TasksStopped,
    ValuesFetched,
    WithdrawTasks,
    WorkerRuns,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_HAS_VALUE = bytes(1 if flags & (INLINE | SAME) else 0 for flags in range(256))


def _refuse(message: Any, name: str, actual: int, expected: str) -> None:
    raise ProtocolError(f"{type(message).__name__}.{name} has {actual} elements, expected {expected}")


def _same(message: Any, *names: str) -> None:
    """All these columns have one length."""
    length = len(getattr(message, names[0]))
    for name in names[1:]:
        if len(getattr(message, name)) != length:
            _refuse(message, name, len(getattr(message, name)), f"{length}, like {names[0]}")


def _same_or_empty(message: Any, length: int, *names: str) -> None:
    """All these columns have this length or are empty (all None)."""
    for name in names:
        actual = len(getattr(message, name))
        if actual and actual != length:
            _refuse(message, name, actual, f"0 or {length}")


def _flattened(message: Any, counts: str, *names: str) -> None:
    """The sum of `counts` is the length of these columns."""
    total = sum(getattr(message, counts))
    for name in names:
        if len(getattr(message, name)) != total:
            _refuse(message, name, len(getattr(message, name)), f"{total}, the sum of {counts}")


def _check_runs(message: TasksStarted | TasksReturned | TasksStopped | WithdrawTasks | CancelTasks) -> None:
    if len(message.tasks) != len(message.runs):
        _same(message, "tasks", "runs")


def _check_submit(message: SubmitChunk) -> None:
    tasks = len(message.tasks)
    if not (tasks == len(message.task_templates) == len(message.input_counts) == len(message.output_counts)):
        _same(message, "tasks", "task_templates", "input_counts", "output_counts")
    if sum(message.input_counts) != len(message.inputs):
        _flattened(message, "input_counts", "inputs")
    if not (sum(message.output_counts) == len(message.outputs) == len(message.output_flags)):
        _flattened(message, "output_counts", "outputs", "output_flags")
    if len(message.objects) != len(message.object_flags):
        _same(message, "objects", "object_flags")
    inline = message.object_flags.translate(_HAS_VALUE).count(1)
    if len(message.values) != inline:
        _refuse(message, "values", len(message.values), f"{inline}, the number of INLINE flags")
    _same_or_empty(message, tasks, "args")
    _same_or_empty(message, len(message.objects), "object_specs")


def _check_block(message: SubmitBlock) -> None:
    if message.column:
        if not is_column(message.column, message.args) or message.arg_sizes != sizes_in_column(message.args):
            raise ProtocolError(f"SubmitBlock.args are no column of numbers of code {message.column!r}")
    elif sum(message.arg_sizes) != len(message.args):
        _refuse(message, "args", len(message.args), f"{sum(message.arg_sizes)}, the sum of arg_sizes")
    if message.start + len(message.arg_sizes) > message.members:
        _refuse(message, "arg_sizes", len(message.arg_sizes), f"at most {message.members - message.start}")
    _same_or_empty(message, len(message.arg_sizes), "keeps")


def _check_assign(message: AssignTasks) -> None:
    tasks = len(message.tasks)
    counts = len(message.input_counts), len(message.output_counts)
    if not (tasks == len(message.runs) == len(message.task_templates)) or counts != (tasks, tasks):
        _same(message, "tasks", "runs", "task_templates", "input_counts", "output_counts")
    if sum(message.input_counts) != len(message.inputs):
        _flattened(message, "input_counts", "inputs")
    if sum(message.output_counts) != len(message.outputs):
        _flattened(message, "output_counts", "outputs")
    if len(message.template_numbers) != len(message.templates):
        _same(message, "template_numbers", "templates")
    if len(message.objects) != len(message.sizes):
        _same(message, "objects", "sizes")
    _same_or_empty(message, tasks, "args", "members", "links")
    _same_or_empty(message, len(message.outputs), "output_specs")
    _same_or_empty(message, len(message.objects), "specs", "infos", "values", "holders")


def _check_worker_runs(message: WorkerRuns) -> None:
    _same(message, "sessions", "tasks", "runs")


def _check_done(message: TasksDone) -> None:
    if not (len(message.tasks) == len(message.runs) == len(message.starts) == len(message.durations)):
        _same(message, "tasks", "runs", "starts", "durations")
    _same_or_empty(message, len(message.tasks), "infos", "blocks")
    _same_or_empty(message, len(message.sizes), "output_infos", "values")


def _check_fetched(message: ObjectsFetched) -> None:
    _same_or_empty(message, len(message.sizes), "specs", "infos", "values", "holders")


def _check_values(message: ValuesFetched) -> None:
    if message.column:
        if message.sizes or not is_column(message.column, message.values):
            _refuse(message, "values", len(message.values), "bytes of a known column, without sizes")
    elif sum(message.sizes) != len(message.values):
        _refuse(message, "values", len(message.values), f"{sum(message.sizes)}, the sum of sizes")
    _same_or_empty(message, len(message.values) // WIDTH if message.column else len(message.sizes), "kinds")
    if message.kinds and max(message.kinds) >= len(message.infos):
        _refuse(message, "infos", len(message.infos), f"more than {max(message.kinds)}, as kinds says")


def _check_explained(message: TasksExplained) -> None:
    _same(message, "ids", "counts", "texts")


def _check_tasks(message: TaskList) -> None:
    _same(message, "ids", "states", "names", "types", "workers", "starts", "durations")


def _check_objects(message: ObjectList) -> None:
    _same(message, "ids", "states", "labels", "sizes", "kept", "producers")


def _check_stretches(message: GetCounts) -> None:
    _same(message, "firsts", "counts")


def _check_infos(message: Infos) -> None:
    _same_or_empty(message, len(message.states), "infos")


COLUMN_CHECKS: dict[type[Any], Callable[[Any], None]] = {
    SubmitChunk: _check_submit,
    SubmitBlock: _check_block,
    AssignTasks: _check_assign,
    TasksDone: _check_done,
    ObjectsFetched: _check_fetched,
    ValuesFetched: _check_values,
    Infos: _check_infos,
    GetCounts: _check_stretches,
    TasksExplained: _check_explained,
    TaskList: _check_tasks,
    ObjectList: _check_objects,
    TasksStarted: _check_runs,
    TasksReturned: _check_runs,
    TasksStopped: _check_runs,
    WithdrawTasks: _check_runs,
    WorkerRuns: _check_worker_runs,
    CancelTasks: _check_runs,
}
"""Per message class with columns that belong together: raises ProtocolError when their lengths differ."""
