"""Ends of runs, as workers report them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain.common.failure import Failure
from rain.common.lines import one_line
from rain.common.task_template import CACHED_INFO
from rain.server.core import recording
from rain.server.core.ahead import inputs_came, leave_worker
from rain.server.core.ending import attempts, run_is_gone
from rain.server.core.failing import fail_task
from rain.server.core.graph import AHEAD, ASSIGNED, FINISHED, NOT_ASSIGNED, RUNNING, TASK_FINISHED, UNFINISHED
from rain.server.core.lies import check_run, reported_failure
from rain.server.core.retention import inputs_consumed, object_unneeded, task_will_not_run_again
from rain.server.core.story import note
from rain.server.core.usual_ends import commit_usual
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
    began = []
    for task, run in zip(message.tasks, message.runs, strict=True):
        if is_current(session, worker, task, run):
            session.graph.state[task] = RUNNING
            if session.graph.flags[task] & AHEAD:
                inputs_came(state, session, task)
            session.began[task] = state.now
            worker.withdrawing.discard((session.number, task))
            began.append(task)
    if began:
        recording.runs_started(state, session, worker, message, began)


def tasks_done(state: ServerState, session: Session, worker: Worker, message: TasksDone) -> None:
    """Runs succeeded: commit their results, each task exactly once."""
    graph = session.graph
    known = recording.announced(session, message)
    outdated = set()
    seen = at = 0
    while seen < len(message.tasks):
        usual = commit_usual(state, session, worker, message, seen, at)
        if usual:
            seen += usual
            at += usual
            continue
        task = message.tasks[seen]
        if not graph.is_task(task):
            break  # without its outputs the columns cannot be read on
        outputs = len(graph.outputs_of(task))
        check_run(message, seen, at, outputs)
        if not task_done(state, session, worker, message, seen, at):
            outdated.add(seen)
        seen += 1
        at += outputs
    if not outdated and seen == len(message.tasks):
        recording.all_runs_finished(state, session, worker, message, known)
    else:
        accepted = _accepted(session, message, seen, outdated)
        recording.some_runs_finished(state, session, worker, message, accepted, known)


def _accepted(session: Session, message: TasksDone, seen: int, outdated: set[int]) -> list[tuple[int, int, int]]:
    """(row of the task, position in the message, where its outputs begin) of the first `seen` runs that counted."""
    accepted = []
    at = 0
    for k, task in enumerate(message.tasks[:seen]):
        if k not in outdated:
            accepted.append((task, k, at))
        at += len(session.graph.outputs_of(task))
    return accepted


def task_done(state: ServerState, session: Session, worker: Worker, message: TasksDone, k: int, at: int) -> bool:
    """The run at position `k` of the message succeeded; its outputs begin at `at`. False if nobody waits for it."""
    task = message.tasks[k]
    if not is_current(session, worker, task, message.runs[k]):
        outdated_result(state, session, worker, task, message.runs[k])
        return False
    unassign(session, worker, task)
    info = message.infos[k] if message.infos else None
    succeeded(session, worker, task, message.starts[k], message.durations[k], info)
    commit_outputs(state, session, worker, task, message, at)
    finish(state, session, task)
    return True


def succeeded(session: Session, worker: Worker, task: int, start: float, duration: float, info: bytes | None) -> None:
    """Record the end of a successful run of a task."""
    graph = session.graph
    ended_well(session, worker, task, start, duration)
    if info == CACHED_INFO:  # nothing ran
        session.returned[task] = session.returned.get(task, 0) + 1
    else:
        session.groups[graph.group[task]].add(duration)
    if info is not None:
        graph.info[task] = info


def ended_well(session: Session, worker: Worker, task: int, start: float, duration: float) -> None:
    """The task, or block, is finished."""
    graph = session.graph
    graph.state[task] = TASK_FINISHED
    session.unfinished -= 1
    graph.start[task] = start
    graph.duration[task] = duration
    graph.last_worker[task] = worker.incarnation


def commit_outputs(
    state: ServerState, session: Session, worker: Worker, task: int, message: TasksDone, at: int
) -> None:
    """Record the outputs of a successful run; their columns begin at `at`."""
    graph = session.graph
    states, sizes, values, output_infos = graph.state, message.sizes, message.values, message.output_infos
    for position, obj in enumerate(graph.outputs_of(task), at):
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


def outdated_result(state: ServerState, session: Session, worker: Worker, task: int, run: int) -> None:
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
            if not left:
                if states[task] == NOT_ASSIGNED:
                    state.make_ready(session, task)
                elif graph.flags[task] & AHEAD:
                    inputs_came(state, session, task)
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
    leave_worker(session, worker, task)
    graph.worker[task] = 0
    if session.began:
        session.began.pop(task, None)
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
        outdated_result(state, session, worker, task, message.run)
        return
    reported_failure(message.failure)
    is_announced = task in session.began
    unassign(session, worker, task)
    times = message.start, message.duration
    run_failed(state, session, worker, task, message.failure, *times, is_announced=is_announced)


def run_failed(
    state: ServerState,
    session: Session,
    worker: Worker,
    task: int,
    failure: dict[str, Any],
    start: float,
    duration: float,
    *,
    is_announced: bool,
) -> None:
    """The run of a task, which the worker does not have any more, failed: again, or for good."""
    graph = session.graph
    graph.state[task] = NOT_ASSIGNED
    graph.start[task], graph.duration[task] = start, duration
    graph.last_worker[task] = worker.incarnation
    if start and not is_announced:
        recording.run_began(state, session, task, worker.worker_id)
    reported = Failure.from_map(failure)
    failures = session.failures[task] = session.failures.get(task, 0) + 1
    if reported.retriable and failures <= session.templates[graph.template[task]].retries:
        session.failed_on[task] = worker.incarnation
        state.log("info", f"task {session.task_name(task)} failed on {worker.worker_id} and runs again")
        why = one_line(reported.message)
        note(state, session, task, f"run {attempts(session, task)} failed on {worker.worker_id}: {why}; runs again")
        recording.task_runs_again(state, session, task, f"failed on {worker.worker_id}: {why}")
        back_to_waiting(state, session, task)
        return
    fail_task(state, session, task, reported, worker.worker_id)


def tasks_returned(state: ServerState, session: Session, worker: Worker, message: TasksReturned) -> None:
    """Runs came back before they started."""
    for task, run in zip(message.tasks, message.runs, strict=True):
        if is_current(session, worker, task, run):
            unassign(session, worker, task)
            session.returned[task] = session.returned.get(task, 0) + 1
            note(state, session, task, f"given back by {worker.worker_id} before it started")
            back_to_waiting(state, session, task)
        else:
            outdated_result(state, session, worker, task, run)


def back_to_waiting(state: ServerState, session: Session, task: int) -> None:
    """The task waits again: for its inputs, or for a worker."""
    session.graph.state[task] = NOT_ASSIGNED
    if not session.graph.missing[task]:
        state.make_ready(session, task)
