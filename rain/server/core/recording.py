"""What happened, as records for the event log (spec 10.2), and running totals for metrics."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rain.eventlog.records import (
    Event,
    MembersFinished,
    ObjectsUnkept,
    RunsFinished,
    RunsStarted,
    Submitted,
    TasksEnded,
)
from rain.protocol.messages import SubmitBlock, SubmitChunk
from rain.server.core.actions import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rain.common.blocks import BlockResult
    from rain.common.failure import Failure
    from rain.eventlog.records import Record as LogRecord
    from rain.protocol.messages import TasksDone, TasksStarted
    from rain.server.core.blocks import Block
    from rain.server.core.session import Session
    from rain.server.core.state import ServerState
    from rain.server.core.workers import Worker


def happened(state: ServerState, type: str, session: int | None, fields: dict[str, Any]) -> None:
    """Record a single event."""
    _record(state, Event(type, session, fields))


def _record(state: ServerState, record: LogRecord) -> None:
    flush_ended(state)
    state.actions.append(Record(record))


def task_happened(state: ServerState, session: Session, task: int, type: str, **fields: Any) -> None:
    """Record a single event of a task."""
    number = session.number
    happened(state, type, number, {"task": [number, session.graph.numbering.id(task)], **fields})


def worker_fields(worker_id: str) -> dict[str, str]:
    """How events name a worker; `governor` is what it was called in Rain 0.4."""
    return {"worker": worker_id, "governor": worker_id}


def worker_added(state: ServerState, worker: Worker) -> None:
    """A worker registered."""
    about = {"hostname": worker.hostname, "pid": worker.pid, "resources": worker.resources}
    happened(state, "WorkerNew", None, worker_fields(worker.worker_id) | about)


def worker_stopping(state: ServerState, worker: Worker, *, now: bool) -> None:
    """A worker is to end by demand."""
    happened(state, "WorkerStopping", None, {**worker_fields(worker.worker_id), "now": now})


def worker_removed(state: ServerState, worker: Worker, reason: str) -> None:
    """A worker ended or was lost."""
    state.totals["lost_workers" if state.stopping is None else "stopped_workers"] += 1
    happened(state, "WorkerRemoved", None, {**worker_fields(worker.worker_id), "error_msg": reason})


def session_closed(state: ServerState, session: Session, reason: str, message: str) -> None:
    """The session ended; once per session."""
    number = session.number
    happened(state, "SessionClosed", number, {"session": number, "reason": reason, "message": message})


def submitted(
    state: ServerState, session: Session, first_template: int, chunks: list[SubmitChunk | SubmitBlock]
) -> None:
    """A submit was committed."""
    for chunk in chunks:
        state.totals["submitted"] += len(chunk.arg_sizes if isinstance(chunk, SubmitBlock) else chunk.tasks)
    # Values would stay in memory until the log is written.
    bare = [replace(chunk, values=[]) if isinstance(chunk, SubmitChunk) and chunk.values else chunk for chunk in chunks]
    _record(state, Submitted(session.number, first_template, bare))


def runs_started(
    state: ServerState, session: Session, worker: Worker, message: TasksStarted, rows: Sequence[int]
) -> None:
    """These runs of the message, by the rows of their tasks, have begun."""
    graph = session.graph
    state.totals["started"] += len(rows)
    runs = message.runs if len(rows) == len(message.tasks) else array("I", [graph.run[row] for row in rows])
    ids = graph.numbering.ids(rows)
    _record(state, RunsStarted(session.number, worker.worker_id, ids, runs))


def announced(session: Session, message: TasksDone) -> array[int]:
    """Positions of runs whose beginning was recorded; ask before they are committed."""
    began = session.began
    if not began:
        return _NONE
    return array("I", [k for k, task in enumerate(message.tasks) if task in began])


def all_runs_finished(
    state: ServerState, session: Session, worker: Worker, message: TasksDone, known: array[int]
) -> None:
    """All runs of the message succeeded; `known` are those announced before."""
    graph, tasks = session.graph, message.tasks
    outputs, counts = graph.outputs_in_columns(tasks)
    numbering = graph.numbering
    if numbering.arrays:
        tasks, outputs = numbering.ids(tasks), numbering.ids(outputs)
    state.totals["finished"] += len(tasks)
    state.totals["started"] += len(tasks) - len(known)
    columns = message.starts, message.durations, message.infos, counts, outputs, message.sizes, known
    _record(state, RunsFinished(session.number, worker.worker_id, tasks, message.runs, *columns))


def some_runs_finished(
    state: ServerState,
    session: Session,
    worker: Worker,
    message: TasksDone,
    accepted: Sequence[tuple[int, int, int]],
    known: array[int],
) -> None:
    """Some runs succeeded: (row of the task, position in the message, where its outputs begin) of each."""
    if not accepted:
        return
    graph = session.graph
    rows = [row for row, _, _ in accepted]
    positions = [k for _, k, _ in accepted]
    outputs, counts = graph.outputs_in_columns(rows)
    sizes = array("Q")
    for row, _, at in accepted:
        sizes.extend(message.sizes[at : at + len(graph.outputs_of(row))])
    before = set(known)
    early = array("I", [n for n, k in enumerate(positions) if k in before])
    state.totals["finished"] += len(rows)
    state.totals["started"] += len(rows) - len(early)
    record = RunsFinished(
        session=session.number,
        worker=worker.worker_id,
        tasks=graph.numbering.ids(rows),
        runs=array("I", [message.runs[k] for k in positions]),
        starts=array("d", [message.starts[k] for k in positions]),
        durations=array("d", [message.durations[k] for k in positions]),
        infos=[message.infos[k] for k in positions] if message.infos else [],
        output_counts=counts,
        outputs=graph.numbering.ids(outputs),
        sizes=sizes,
        announced=early,
    )
    _record(state, record)


def run_of_member_finished(
    state: ServerState,
    session: Session,
    worker: Worker,
    task: int,
    result: BlockResult,
    size: int,
    *,
    is_announced: bool,
) -> None:
    """A member of a block, by now a task of its own, succeeded; its output stays at the worker."""
    graph = session.graph
    state.totals["finished"] += 1
    state.totals["started"] += not is_announced
    outputs, counts = graph.outputs_in_columns([task])
    names = graph.numbering.ids([task]), array("I", [graph.run[task]])
    columns = counts, graph.numbering.ids(outputs), array("Q", [size]), array("I", [0] if is_announced else [])
    when = array("d", [result.start]), array("d", [result.duration])
    record = RunsFinished(session.number, worker.worker_id, *names, *when, [], *columns)
    _record(state, record)


def members_finished(
    state: ServerState,
    session: Session,
    worker: Worker,
    block: Block,
    start: float,
    result: BlockResult,
    *,
    is_announced: bool,
) -> None:
    """All members of a block succeeded."""
    state.totals["finished"] += block.count
    state.totals["started"] += block.count - is_announced
    run = session.graph.run[block.row]
    columns = result.durations, result.sizes
    names = session.number, worker.worker_id, block.task, block.output, run
    _record(state, MembersFinished(*names, start, *columns, is_announced))


def task_failed(state: ServerState, session: Session, task: int, failure: Failure) -> None:
    """The task failed for good."""
    graph = session.graph
    state.totals["failed"] += 1
    info: dict[str, Any] = {"error": failure.message, "governor": failure.worker, "attempts": failure.attempts}
    if failure.debug:
        info["debug"] = failure.debug
    if graph.start[task] and failure.worker:
        info |= {"start_time": graph.start[task], "duration": graph.duration[task]}
    task_happened(state, session, task, "TaskFinished", info=info)


def run_began(state: ServerState, session: Session, task: int, worker_id: str) -> None:
    """A run is known to have begun only by its end."""
    state.totals["started"] += 1
    info = {"start_time": session.graph.start[task]}
    task_happened(state, session, task, "TaskStarted", **worker_fields(worker_id), info=info)


def task_runs_again(state: ServerState, session: Session, task: int, reason: str) -> None:
    """A run came to nothing, or its result was lost."""
    state.totals["retried"] += 1
    task_happened(state, session, task, "TaskRetried", run=session.graph.run[task] + 1, reason=reason)


def task_ended(state: ServerState, session: Session, task: int, type: str) -> None:
    """The task, or every member of the block, is cancelled or aborted."""
    if session.graph.numbering.is_ghost(task):  # its members go on
        return
    block = session.graph.blocks.get(task)
    number, count = (session.graph.numbering.id(task), 1) if block is None else (block.task, block.count)
    state.totals["cancelled" if type == "TaskCancelled" else "aborted"] += count
    firsts, counts = state.ended.setdefault((session.number, type), (array("I"), array("I")))
    if firsts and firsts[-1] + counts[-1] == number:
        counts[-1] += count
    else:
        firsts.append(number)
        counts.append(count)


def flush_ended(state: ServerState) -> None:
    """Record what ended without success; before anything else is recorded, and at the end of a turn."""
    if state.ended:
        ended, state.ended = state.ended, {}
        for (session, type), (firsts, counts) in ended.items():
            state.actions.append(Record(TasksEnded(session, type, firsts, counts)))


def objects_unkept(state: ServerState, session: Session, ids: array[int]) -> None:
    """The client does not want these any more."""
    _record(state, ObjectsUnkept(session.number, ids))


_NONE = array("I")
