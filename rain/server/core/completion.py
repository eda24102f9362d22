"""Ends of runs, as workers report them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.common.failure import Failure
from rain.server.core.ending import run_is_gone
from rain.server.core.failing import fail_task
from rain.server.core.graph import ASSIGNED, FINISHED, NOT_ASSIGNED, RUNNING, TASK_FINISHED, UNFINISHED
from rain.server.core.retention import inputs_consumed, object_unneeded, task_will_not_run_again
from rain.server.core.waits import notify

if TYPE_CHECKING:
    from rain.protocol.messages import ObjectsStored, TaskFailed, TasksDone, TasksReturned, TasksStarted
    from rain.server.core.session import Session
    from rain.server.core.state import ServerState
    from rain.server.core.workers import Worker


def is_current(session: Session, worker: Worker, task: int, run: int) -> bool:
    """True if this run of the task is the one the server waits for."""
    graph = session.graph
    return (
        graph.is_task(task)
        and graph.run[task] == run
        and graph.worker[task] == worker.incarnation
        and graph.state[task] in (ASSIGNED, RUNNING)
    )


def tasks_started(state: ServerState, session: Session, worker: Worker, message: TasksStarted) -> None:
    """Runs began."""
    for task, run in zip(message.tasks, message.runs, strict=True):
        if is_current(session, worker, task, run):
            session.graph.state[task] = RUNNING
            worker.withdrawing.discard((session.number, task))


def tasks_done(state: ServerState, session: Session, worker: Worker, message: TasksDone) -> None:
    """Runs succeeded: commit their results, each task exactly once."""
    graph = session.graph
    outputs_of, states = graph.outputs_of, graph.state
    sizes, values, output_infos, infos = message.sizes, message.values, message.output_infos, message.infos
    at = 0
    for k, task in enumerate(message.tasks):
        if not graph.is_task(task):
            return  # without its outputs the columns cannot be read on
        outputs = outputs_of(task)
        end = at + len(outputs)
        if is_current(session, worker, task, message.runs[k]):
            unassign(session, worker, task)
            states[task] = TASK_FINISHED
            session.unfinished -= 1
            graph.start[task] = message.starts[k]
            duration = graph.duration[task] = message.durations[k]
            graph.last_worker[task] = worker.incarnation
            session.groups[graph.group[task]].add(duration)
            if infos and (info := infos[k]) is not None:
                graph.info[task] = info
            for position, obj in enumerate(outputs, at):
                if states[obj] == UNFINISHED:
                    states[obj] = FINISHED
                    graph.size[obj] = sizes[position]
                    graph.replicas[obj] = worker.incarnation
                    if values and (value := values[position]) is not None and graph.is_kept(obj):
                        graph.value[obj] = value
                    if output_infos and (info := output_infos[position]) is not None:
                        graph.info[obj] = info
                    feed_consumers(state, session, obj)
                else:
                    _surplus_copy(state, session, worker, obj)
            finish(state, session, task)
        else:
            _outdated_result(state, session, worker, task, message.runs[k])
        at = end


def _outdated_result(state: ServerState, session: Session, worker: Worker, task: int, run: int) -> None:
    """The report crossed the order to stop the run: nothing of it is left, its values are not wanted."""
    graph = session.graph
    if session.stopping.get(task) == worker.incarnation and graph.run[task] == run:
        run_is_gone(state, session, task)
        for obj in graph.outputs_of(task):
            _surplus_copy(state, session, worker, obj)


def _surplus_copy(state: ServerState, session: Session, worker: Worker, obj: int) -> None:
    """A value nobody waits for: the object was never lost and the first value stays, or it is not wanted."""
    if worker.incarnation not in session.graph.replicas_of(obj):
        state.delete_copy(worker.incarnation, session.number, obj)


def feed_consumers(state: ServerState, session: Session, obj: int) -> None:
    """The object has just become finished: its consumers miss one input less."""
    graph = session.graph
    consumers = graph.consumers[obj]
    if consumers is not None:
        missing, states = graph.missing, graph.state
        for task in (consumers,) if isinstance(consumers, int) else consumers:
            if states[task] >= TASK_FINISHED:
                continue
            left = missing[task] - 1
            missing[task] = left
            if not left and states[task] == NOT_ASSIGNED:
                state.make_ready(session, task)
    if session.watch:
        notify(state, session, obj)


def finish(state: ServerState, session: Session, task: int) -> None:
    """The task is finished and its outputs are recorded: settle what is needed, wake who waits."""
    graph = session.graph
    inputs_consumed(state, session, task)
    outputs = graph.outputs_of(task)
    for obj in outputs:
        if graph.state[obj] == FINISHED and not graph.is_needed(obj):
            object_unneeded(state, session, obj)
    if not outputs:
        task_will_not_run_again(state, session, task)
    if session.watch:
        notify(state, session, task)
    if not session.unfinished and session.whole:
        notify(state, session, 0)


def unassign(session: Session, worker: Worker, task: int) -> None:
    """The task left the worker."""
    graph = session.graph
    worker.release(session.number, task, session.templates[graph.template[task]].request)
    graph.worker[task] = 0
    if worker.withdrawing:
        worker.withdrawing.discard((session.number, task))


def objects_stored(state: ServerState, session: Session, worker: Worker, message: ObjectsStored) -> None:
    """The worker has copies; of what is not needed (any more) it shall not keep them."""
    graph = session.graph
    for obj in message.objects:
        if graph.is_object(obj):
            if graph.state[obj] == FINISHED:
                graph.add_replica(obj, worker.incarnation)
            else:
                state.delete_copy(worker.incarnation, session.number, obj)


def task_failed(state: ServerState, session: Session, worker: Worker, message: TaskFailed) -> None:
    """A run failed: again, or for good."""
    task = message.task
    if not is_current(session, worker, task, message.run):
        _outdated_result(state, session, worker, task, message.run)
        return
    graph = session.graph
    unassign(session, worker, task)
    graph.state[task] = NOT_ASSIGNED
    graph.start[task], graph.duration[task] = message.start, message.duration
    graph.last_worker[task] = worker.incarnation
    reported = Failure.from_map(message.failure)
    failures = session.failures[task] = session.failures.get(task, 0) + 1
    if reported.retriable and failures <= session.templates[graph.template[task]].retries:
        session.failed_on[task] = worker.incarnation
        state.log("info", f"task {session.task_name(task)} failed on {worker.worker_id} and runs again")
        back_to_waiting(state, session, task)
        return
    fail_task(state, session, task, reported, worker.worker_id)


def tasks_returned(state: ServerState, session: Session, worker: Worker, message: TasksReturned) -> None:
    """Runs came back before they started."""
    for task, run in zip(message.tasks, message.runs, strict=True):
        if is_current(session, worker, task, run):
            unassign(session, worker, task)
            session.returned[task] = session.returned.get(task, 0) + 1
            back_to_waiting(state, session, task)
        else:
            _outdated_result(state, session, worker, task, run)


def back_to_waiting(state: ServerState, session: Session, task: int) -> None:
    """The task waits again: for its inputs, or for a worker."""
    session.graph.state[task] = NOT_ASSIGNED
    if not session.graph.missing[task]:
        state.make_ready(session, task)
