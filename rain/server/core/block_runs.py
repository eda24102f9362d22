"""Ends of runs of blocks, as workers report them; what is no block goes on to `completion`."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.common.blocks import STORED, BlockResult
from rain.common.lines import one_line
from rain.protocol.messages import DeleteObjects
from rain.server.core import completion, recording
from rain.server.core.blocks import Results, cut, settle_claim, single_out
from rain.server.core.completion import back_to_waiting, feed_consumers, finish, is_current, unassign
from rain.server.core.dissolving import dissolve
from rain.server.core.graph import FINISHED, NOT_ASSIGNED, RUNNING
from rain.server.core.lies import ReportError, check_run, reported_failure
from rain.server.core.linked import learn
from rain.server.core.retention import object_unneeded
from rain.server.core.story import note

if TYPE_CHECKING:
    from rain.protocol.messages import TaskFailed, TasksDone
    from rain.server.core.blocks import Block
    from rain.server.core.session import Session
    from rain.server.core.state import ServerState
    from rain.server.core.workers import Worker


def tasks_done(state: ServerState, session: Session, worker: Worker, message: TasksDone) -> None:
    """Runs succeeded, some of blocks perhaps: commit their results."""
    graph = session.graph
    if not message.blocks and (not graph.blocks or graph.blocks.keys().isdisjoint(message.tasks)):
        completion.tasks_done(state, session, worker, message)
        return
    known = recording.announced(session, message)
    accepted: list[tuple[int, int, int]] = []
    at = 0
    for k, task in enumerate(message.tasks):
        packed = message.blocks[k] if message.blocks else None
        if packed is None:
            if task in graph.blocks and is_current(session, worker, task, message.runs[k]):
                raise ReportError(f"the block of task {session.id_of(task)} is reported as a task")
            if not graph.is_task(task):
                break  # without its outputs the columns cannot be read on
            outputs = len(graph.outputs_of(task))
            check_run(message, k, at, outputs)
            if completion.task_done(state, session, worker, message, k, at):
                accepted.append((task, k, at))
        else:
            recording.some_runs_finished(state, session, worker, message, accepted, known)
            accepted = []
            result = _unpacked(packed)
            outputs = 1 if result.end == STORED else 0
            check_run(message, k, at, outputs)
            _run_ended(state, session, worker, message, k, at, result)
        if session.failure is not None:
            return
        at += outputs
    recording.some_runs_finished(state, session, worker, message, accepted, known)


def _unpacked(packed: bytes) -> BlockResult:
    try:
        result = BlockResult.unpack(packed)
    except ValueError as error:
        raise ReportError(str(error)) from error
    if isinstance(result.end, dict):
        reported_failure(result.end)
    return result


def _run_ended(
    state: ServerState, session: Session, worker: Worker, message: TasksDone, k: int, at: int, result: BlockResult
) -> None:
    """A run of a block ended: commit what is done of it, see to the member that ended it, let the others wait."""
    row, run = message.tasks[k], message.runs[k]
    graph = session.graph
    if not is_current(session, worker, row, run):
        _outdated(state, session, worker, row, run, result)
        return
    block = graph.blocks.get(row)
    if (
        block is None
        or result.done + (result.end is not None) > block.count
        or (result.end is None and result.done != block.count)
    ):
        raise ReportError(f"{result.done} members reported of task {session.id_of(row)}")
    is_announced = row in session.began
    unassign(session, worker, row)
    graph.state[row] = NOT_ASSIGNED
    start = message.starts[k]
    if result.done == block.count:
        _finish_block(state, session, worker, block, start, result, is_announced=is_announced)
        return
    if block.link is not None:
        _linked_run_ended(state, session, worker, block, message, k, at, result, is_announced=is_announced)
        return
    if result.done:
        done = cut(session, block, result.done)
        _finish_block(state, session, worker, done, start, result, is_announced=is_announced)
        is_announced = False
    is_named = result.end == STORED or isinstance(result.end, dict)
    has_rest = block.count > is_named
    if is_named:
        session.groups[graph.group[row]].one_by_one = True
        (member,) = single_out(session, block, 1)
        if has_rest:
            session.returned[row] = session.returned.get(row, 0) + 1
        _member_ended(state, session, worker, member, message, k, at, result, is_announced=is_announced)
    else:
        session.returned[row] = session.returned.get(row, 0) + 1
    if has_rest and session.failure is None and graph.state[row] == NOT_ASSIGNED:
        back_to_waiting(state, session, row)


def _linked_run_ended(
    state: ServerState,
    session: Session,
    worker: Worker,
    block: Block,
    message: TasksDone,
    k: int,
    at: int,
    result: BlockResult,
    *,
    is_announced: bool,
) -> None:
    """A run of a linked block ended early: what it left undone becomes tasks of their own, which may use the rest."""
    graph = session.graph
    done = cut(session, block, result.done) if result.done else None
    rows = dissolve(state, session, block)
    is_named = result.end == STORED or isinstance(result.end, dict)
    if is_named:
        graph.state[rows[0]] = RUNNING  # its run is over, but not yet settled
        session.groups[graph.group[rows[0]]].one_by_one = True
    if done is not None:
        _finish_block(state, session, worker, done, message.starts[k], result, is_announced=is_announced)
        is_announced = False
    for row in rows[is_named:]:
        session.returned[row] = session.returned.get(row, 0) + 1
    if is_named:
        _member_ended(state, session, worker, rows[0], message, k, at, result, is_announced=is_announced)
    if session.failure is None:
        for row in rows[is_named:]:
            if graph.state[row] == NOT_ASSIGNED:
                back_to_waiting(state, session, row)


def _outdated(state: ServerState, session: Session, worker: Worker, row: int, run: int, result: BlockResult) -> None:
    """The report crossed the order to stop the run: the one value that it left at the worker is not wanted."""
    graph, numbering = session.graph, session.graph.numbering
    if result.end == STORED and session.stopping.get(row) == worker.incarnation and graph.run[row] == run:
        task = numbering.id(row) + result.done
        members = numbering.array_of(task)
        if members is not None:
            output = members.output(task - members.task(0))
            state.send(worker.peer, DeleteObjects(session.number, array("I", [output])))
    completion.outdated_result(state, session, worker, row, run)


def _finish_block(
    state: ServerState,
    session: Session,
    worker: Worker,
    block: Block,
    start: float,
    result: BlockResult,
    *,
    is_announced: bool,
) -> None:
    """All members of the block succeeded."""
    graph, row = session.graph, block.row
    recording.members_finished(state, session, worker, block, start, result, is_announced=is_announced)
    seconds = result.total()
    if block.link is None:
        completion.succeeded(session, worker, row, start, seconds / block.count, None)
    else:
        completion.ended_well(session, worker, row, start, seconds / block.count)
        learn(session, block, result.durations)
    block.results = Results(result)
    block.args = None
    for index in block.claimed:
        obj = settle_claim(graph, block, index)
        feed_consumers(state, session, obj)
    graph.set_outputs(row, ())
    if not block.keep or len(block.unkept) == block.count:
        block.results.drop_values()
    finish(state, session, row)
    for obj in block.claimed.values():
        if graph.state[obj] == FINISHED and not graph.is_needed(obj):
            object_unneeded(state, session, obj)


def _member_ended(
    state: ServerState,
    session: Session,
    worker: Worker,
    task: int,
    message: TasksDone,
    k: int,
    at: int,
    result: BlockResult,
    *,
    is_announced: bool,
) -> None:
    """The member that ended the run of its block: it failed, or its output is in the worker's store."""
    if isinstance(result.end, dict):
        times = result.start, result.duration
        completion.run_failed(state, session, worker, task, result.end, *times, is_announced=is_announced)
        return
    info = message.infos[k] if message.infos else None
    completion.succeeded(session, worker, task, result.start, result.duration, info)
    completion.commit_outputs(state, session, worker, task, message, at)
    finish(state, session, task)
    size = message.sizes[at]
    recording.run_of_member_finished(state, session, worker, task, result, size, is_announced=is_announced)


def task_failed(state: ServerState, session: Session, worker: Worker, message: TaskFailed) -> None:
    """A run failed. That of a block gave nothing: its members run one by one, to find out which is to blame."""
    row = message.task
    block = session.graph.blocks.get(row)
    if block is None or not is_current(session, worker, row, message.run):
        completion.task_failed(state, session, worker, message)
        return
    reported_failure(message.failure)
    unassign(session, worker, row)
    session.groups[session.graph.group[row]].one_by_one = True
    note(state, session, row, f"a block failed on {worker.worker_id}: {one_line(message.failure['message'])}")
    for task in dissolve(state, session, block):
        session.returned[task] = session.returned.get(task, 0) + 1
        back_to_waiting(state, session, task)
