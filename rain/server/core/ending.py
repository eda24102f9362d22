"""Ends of single tasks other than success: failed under `on_failure="continue"`, cancelled, aborted (spec 11.6, 11.9).

What such a task blames is a Failure, kept for it, for its outputs and for everything that depends on them.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.common.failure import Failure
from rain.protocol.messages import Cancel, Cancelled, CancelTasks, TasksStopped
from rain.server.core.graph import (
    ABORTED,
    ASSIGNED,
    CANCELLED,
    FAILED,
    OBJECT_ABORTED,
    READY,
    RUNNING,
    TASK_FINISHED,
    UNFINISHED,
)
from rain.server.core.retention import inputs_consumed, task_will_not_run_again
from rain.server.core.session import CancelRequest
from rain.server.core.waits import notify, unknown_id

if TYPE_CHECKING:
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
    for task in tasks:
        blamed = [obj for obj in graph.inputs[task] if graph.state[obj] == OBJECT_ABORTED]
        if blamed and graph.state[task] < TASK_FINISHED:
            failure = session.blame[blamed[0]]
            _end(state, session, task, ABORTED, failure)
            _abort_dependents(state, session, [task], failure)
    _session_done(state, session)


def abort_lost_object(state: ServerState, session: Session, obj: int) -> None:
    """The object is lost and its producer can never run again."""
    graph = session.graph
    failure = session.blame[graph.producer[obj]]
    graph.state[obj] = OBJECT_ABORTED
    session.blame[obj] = failure
    consumers = [task for task in graph.consumers_of(obj) if graph.state[task] < TASK_FINISHED]
    for task in consumers:
        _end(state, session, task, ABORTED, failure)
    notify(state, session, obj)
    _abort_dependents(state, session, consumers, failure)
    _session_done(state, session)


def _abort_dependents(state: ServerState, session: Session, ended: list[int], failure: Failure) -> None:
    """What needs outputs of these tasks, transitively, will never run."""
    graph = session.graph
    stack = list(ended)
    while stack:
        task = stack.pop()
        for obj in graph.outputs_of(task):
            if graph.state[obj] != UNFINISHED:
                continue
            graph.state[obj] = OBJECT_ABORTED
            session.blame[obj] = failure
            for consumer in graph.consumers_of(obj):
                if graph.state[consumer] < TASK_FINISHED:
                    _end(state, session, consumer, ABORTED, failure)
                    stack.append(consumer)
            notify(state, session, obj)


def _end(state: ServerState, session: Session, task: int, final: int, failure: Failure) -> None:
    """The task becomes terminal without success; a run of it is stopped, its result will be ignored."""
    graph = session.graph
    before = graph.state[task]
    graph.state[task] = final
    session.unfinished -= 1
    session.blame[task] = failure
    if before == READY:
        session.ready -= 1
    elif before in (ASSIGNED, RUNNING):
        _stop_run(state, session, task)
    inputs_consumed(state, session, task)
    task_will_not_run_again(state, session, task)
    if session.watch:
        notify(state, session, task)


def _stop_run(state: ServerState, session: Session, task: int) -> None:
    """The worker stops the run; until it says so the task keeps its resources."""
    graph = session.graph
    session.stopping[task] = graph.worker[task]
    worker = state.workers[graph.worker[task]]
    worker.withdrawing.discard((session.number, task))
    runs = array("I", [graph.run[task]])
    state.send(worker.peer, CancelTasks(session.number, array("I", [task]), runs, GRACE_SECONDS))


def _session_done(state: ServerState, session: Session) -> None:
    if not session.unfinished and session.whole:
        notify(state, session, 0)


# --- cancel ---


def cancel(state: ServerState, session: Session, client: ClientPeer, message: Cancel) -> None:
    """Stop tasks; answered when nothing of them runs."""
    graph = session.graph
    failure = unknown_id(session, message.ids)
    for number in message.ids if failure is None else ():
        if not graph.is_task(number):
            failure = Failure("invalid", f"{session.number}/{number} is not a task", session=session.number)
    if failure is not None:
        state.refuse(client.peer, message.seq, failure)
        return
    chosen = [t for t in dict.fromkeys(message.ids or graph.tasks()) if graph.state[t] < TASK_FINISHED]
    failures = {task: _cancelled(state, session, task) for task in chosen}
    for task in chosen:
        _end(state, session, task, CANCELLED, failures[task])
    for task in chosen:
        _abort_dependents(state, session, [task], failures[task])
    running = {task for task in chosen if task in session.stopping}
    request = CancelRequest(client.peer, message.seq, running, chosen)
    if running:
        session.cancels.append(request)
    else:
        _answer(state, request)
    _session_done(state, session)


def _cancelled(state: ServerState, session: Session, task: int) -> Failure:
    worker = state.worker_id(session.graph.worker[task])
    count = attempts(session, task)
    return Failure("cancelled", "The task was cancelled", session.number, task, worker=worker, attempts=count)


def _answer(state: ServerState, request: CancelRequest) -> None:
    if request.peer in state.clients:
        state.send(request.peer, Cancelled(request.seq, array("I", request.stopped)))


def tasks_stopped(state: ServerState, session: Session, worker: Worker, message: TasksStopped) -> None:
    """A worker has stopped runs."""
    for task, run in zip(message.tasks, message.runs, strict=True):
        if session.stopping.get(task) == worker.incarnation and session.graph.run[task] == run:
            run_is_gone(state, session, task)


def run_is_gone(state: ServerState, session: Session, task: int) -> None:
    """Nothing of a stopped run is left: its resources are free, who cancelled it is told."""
    graph = session.graph
    worker = state.workers.get(session.stopping.pop(task))
    if worker is not None:
        worker.release(session.number, task, session.templates[graph.template[task]].request)
    graph.worker[task] = 0
    for request in list(session.cancels):
        request.running.discard(task)
        if not request.running:
            session.cancels.remove(request)
            _answer(state, request)
