"""Ends of single tasks other than success: failed under `on_failure="continue"`, cancelled, aborted (spec 11.6, 11.9).

What such a task blames is a Failure, kept for it, for its outputs and for everything that depends on them.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.common.failure import Failure
from rain.protocol.messages import Cancel, Cancelled, CancelTasks, TasksStopped
from rain.server.core import recording
from rain.server.core.ahead import leave_worker
from rain.server.core.blocks import failure_of_member, leave_run
from rain.server.core.dissolving import dissolve
from rain.server.core.graph import (
    ABORTED,
    ABSENT,
    AHEAD,
    ASSIGNED,
    CANCELLED,
    FAILED,
    NOT_ASSIGNED,
    OBJECT_ABORTED,
    READY,
    RUNNING,
    TASK_FINISHED,
    UNFINISHED,
)
from rain.server.core.retention import inputs_consumed, task_will_not_run_again
from rain.server.core.session import CancelRequest
from rain.server.core.story import note
from rain.server.core.waits import notify, pieces_of, unknown_id

if TYPE_CHECKING:
    from rain.server.core.blocks import Block
    from rain.server.core.graph import Graph
    from rain.server.core.session import Session
    from rain.server.core.state import ClientPeer, ServerState
    from rain.server.core.workers import Worker

GRACE_SECONDS = 2.0
"""Between SIGTERM and SIGKILL for what runs."""


def attempts(session: Session, task: int) -> int:
    """Runs of the task that were started."""
    return int(session.graph.run[task]) - session.returned.get(task, 0)


def fail_in_place(state: ServerState, session: Session, task: int, failure: Failure) -> None:
    """The task failed for good, its session goes on: what depends on it is aborted."""
    if session.first_failure is None:
        session.first_failure = failure
    _end(state, session, task, FAILED, failure)
    _abort_dependents(state, session, [task], failure)
    _session_done(state, session)


def abort_submitted(state: ServerState, session: Session, tasks: list[int]) -> None:
    """Tasks just submitted whose inputs can never come."""
    graph = session.graph
    hopeless: list[int] = []
    for task in tasks:
        blamed = _aborted_input(graph, task)
        if blamed is not None:
            hopeless += _apart(state, session, task, session.blame[blamed])
    for task in hopeless:
        blamed = _aborted_input(graph, task)
        if blamed is not None and graph.state[task] < TASK_FINISHED:
            failure = session.blame[blamed]
            _end(state, session, task, ABORTED, failure)
            _abort_dependents(state, session, [task], failure)
    _session_done(state, session)


def _aborted_input(graph: Graph, task: int) -> int | None:
    return next((obj for obj in graph.inputs[task] if graph.state[obj] == OBJECT_ABORTED), None)


def _apart(state: ServerState, session: Session, task: int, failure: Failure) -> list[int]:
    """The task; instead of a linked block its members, not all of which need the input that will never come."""
    graph = session.graph
    block = graph.blocks.get(task)
    if block is None or block.link is None:
        return [task]
    if graph.state[task] in (ASSIGNED, RUNNING):
        _end(state, session, leave_run(session, block), CANCELLED, failure)
    rows = dissolve(state, session, block)
    for row in rows:
        if not graph.missing[row]:
            state.make_ready(session, row)
    return rows


def _that_need(state: ServerState, session: Session, obj: int, failure: Failure) -> list[int]:
    """Tasks and blocks that need an object which will never come."""
    graph = session.graph
    for task in list(graph.consumers_of(obj)):
        if graph.state[task] < TASK_FINISHED:
            _apart(state, session, task, failure)
    return [task for task in graph.consumers_of(obj) if graph.state[task] < TASK_FINISHED]


def abort_lost_object(state: ServerState, session: Session, obj: int) -> None:
    """The object is lost, or was aborted, and its producer can never run again: what needs it will not either."""
    graph = session.graph
    failure = session.blame.get(obj) or session.blame[graph.producer[obj]]
    graph.state[obj] = OBJECT_ABORTED
    session.blame[obj] = failure
    consumers = _that_need(state, session, obj, failure)
    for task in consumers:
        _end(state, session, task, ABORTED, failure)
    notify(state, session, obj)
    _abort_dependents(state, session, consumers, failure)
    _session_done(state, session)


def _abort_dependents(state: ServerState, session: Session, ended: list[int], failure: Failure) -> None:
    """What needs outputs of these tasks, transitively, will never run."""
    graph = session.graph
    stack = [(task, failure) for task in ended]
    while stack:
        task, blamed = stack.pop()
        for obj in graph.outputs_of(task):
            if graph.state[obj] != UNFINISHED:
                continue
            reason = _of_member(graph, task, obj, blamed)
            graph.state[obj] = OBJECT_ABORTED
            session.blame[obj] = reason
            for consumer in _that_need(state, session, obj, reason):
                _end(state, session, consumer, ABORTED, reason)
                stack.append((consumer, reason))
            notify(state, session, obj)


def _of_member(graph: Graph, task: int, obj: int, failure: Failure) -> Failure:
    """The failure of a block as that of the member whose output this is."""
    block = graph.blocks.get(task)
    if block is None:
        return failure
    index = next(index for index, row in block.claimed.items() if row == obj)
    return failure_of_member(failure, block, index)


def _end(state: ServerState, session: Session, task: int, final: int, failure: Failure) -> None:
    """The task becomes terminal without success; a run of it is stopped, its result will be ignored."""
    graph = session.graph
    before = graph.state[task]
    graph.state[task] = final
    session.unfinished -= 1
    session.blame[task] = failure
    if session.began:
        session.began.pop(task, None)
    if final == ABORTED:
        note(state, session, task, f"aborted, because of task {session.number}/{failure.task}")
        recording.task_ended(state, session, task, "TaskAborted")
    elif final == CANCELLED:
        note(state, session, task, "cancelled")
        recording.task_ended(state, session, task, "TaskCancelled")
    if before == READY:
        session.ready -= 1
    elif before in (ASSIGNED, RUNNING):
        _stop_run(state, session, task)
    inputs_consumed(state, session, task)
    task_will_not_run_again(state, session, task)
    if task in graph.blocks:
        graph.blocks[task].args = None
    if session.watch:
        notify(state, session, task)


def _stop_run(state: ServerState, session: Session, task: int) -> None:
    """The worker stops the run; until it says so the task keeps its resources."""
    graph = session.graph
    session.stopping[task] = graph.worker[task]
    worker = state.workers[graph.worker[task]]
    worker.withdrawing.discard((session.number, task))
    runs = array("I", [graph.run[task]])
    state.send(worker.peer, CancelTasks(session.number, graph.numbering.ids([task]), runs, GRACE_SECONDS))


def _session_done(state: ServerState, session: Session) -> None:
    if not session.unfinished and session.whole:
        notify(state, session, 0)


# --- cancel ---


def cancel(state: ServerState, session: Session, client: ClientPeer, message: Cancel) -> None:
    """Stop tasks; answered when nothing of them runs."""
    failure = unknown_id(session, message.ids) or _not_task(session, message.ids)
    if failure is not None:
        state.refuse(client.peer, message.seq, failure)
        return
    graph = session.graph
    ghosts: list[int] = []
    waiting: list[int] = []
    if message.ids:
        asked = _rows_to_cancel(state, session, message.ids, ghosts, waiting)
    else:
        asked = graph.tasks()
    chosen = [task for task in asked if graph.state[task] < TASK_FINISHED]
    stopped = _ids_of_tasks(session, chosen)
    failures = {task: _cancelled(state, session, task) for task in [*chosen, *ghosts]}
    for task in failures:
        _end(state, session, task, CANCELLED, failures[task])
    for task in chosen:
        _abort_dependents(state, session, [task], failures[task])
    for task in waiting:
        if graph.state[task] == NOT_ASSIGNED and not graph.missing[task]:
            state.make_ready(session, task)
    running = {task for task in failures if task in session.stopping}
    request = CancelRequest(client.peer, message.seq, running, stopped)
    if running:
        session.cancels.append(request)
    else:
        _answer(state, request)
    _session_done(state, session)


def _not_task(session: Session, ids: array[int]) -> Failure | None:
    """A failure naming the first id that is no task."""
    graph = session.graph
    for piece in pieces_of(session, ids):
        if piece.block is None:
            wrong = next((row for row in range(piece.start, piece.stop) if not graph.is_task(row)), None)
        else:
            wrong = None if piece.is_task else piece.start
        if wrong is not None:
            name = f"{session.number}/{piece.number(graph.numbering, wrong)}"
            return Failure("invalid", f"{name} is not a task", session=session.number)
    return None


def _rows_to_cancel(
    state: ServerState, session: Session, ids: array[int], ghosts: list[int], waiting: list[int]
) -> list[int]:
    """Rows of tasks and whole blocks. A block of which only some members are asked for is taken apart: its members
    are added to `waiting`, and if it was assigned, what stands for its run to `ghosts`."""
    graph = session.graph
    rows: dict[int, None] = {}
    asked: dict[Block, set[int]] = {}
    for piece in pieces_of(session, ids):
        if piece.block is None:
            rows.update(dict.fromkeys(range(piece.start, piece.stop)))
        else:
            asked.setdefault(piece.block, set()).update(range(piece.start, piece.stop))
    for block, indices in asked.items():
        if len(indices) == block.count or graph.state[block.row] >= TASK_FINISHED:
            rows[block.row] = None
            continue
        if graph.state[block.row] in (ASSIGNED, RUNNING):
            ghosts.append(leave_run(session, block))
        first = block.start
        members = dissolve(state, session, block)
        waiting += members
        rows.update(dict.fromkeys(members[index - first] for index in sorted(indices)))
    return list(rows)


def _ids_of_tasks(session: Session, rows: list[int]) -> array[int]:
    """Ids of tasks and of the members of blocks."""
    graph = session.graph
    if not graph.blocks:
        return graph.numbering.ids(rows)
    ids = array("I")
    for row in rows:
        block = graph.blocks.get(row)
        if block is None:
            ids.append(graph.numbering.id(row))
        else:
            ids.extend(range(block.task, block.task + block.count))
    return ids


def _cancelled(state: ServerState, session: Session, task: int) -> Failure:
    worker = state.worker_id(session.graph.worker[task])
    count = attempts(session, task)
    number = session.graph.numbering.id(task)
    return Failure("cancelled", "The task was cancelled", session.number, number, worker=worker, attempts=count)


def _answer(state: ServerState, request: CancelRequest) -> None:
    if request.peer in state.clients:
        state.send(request.peer, Cancelled(request.seq, request.stopped))


def tasks_stopped(state: ServerState, session: Session, worker: Worker, message: TasksStopped) -> None:
    """A worker has stopped runs."""
    for task, run in zip(message.tasks, message.runs, strict=True):
        if session.stopping.get(task) == worker.incarnation and session.graph.run[task] == run:
            run_is_gone(state, session, task)


def run_is_gone(state: ServerState, session: Session, task: int) -> None:
    """Nothing of a stopped run is left: its resources are free, who cancelled it is told."""
    graph = session.graph
    graph.last_worker[task] = incarnation = session.stopping.pop(task)
    worker = state.workers.get(incarnation)
    if worker is not None:
        leave_worker(session, worker, task)
    graph.flags[task] &= ~AHEAD
    graph.worker[task] = 0
    if graph.numbering.is_ghost(task):
        graph.numbering.drop_ghost(task)
        graph.kind[task] = ABSENT
        session.stories.pop(task, None)
        session.blame.pop(task, None)
    for request in list(session.cancels):
        request.running.discard(task)
        if not request.running:
            session.cancels.remove(request)
            _answer(state, request)
