"""Loss of workers and of objects: tasks go back, lost objects are recomputed by lineage (spec 6.9)."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.common.failure import Failure
from rain.protocol.messages import WithdrawTasks
from rain.server.core import recording
from rain.server.core.completion import back_to_waiting
from rain.server.core.dissolving import dissolve
from rain.server.core.ending import abort_lost_object, run_is_gone
from rain.server.core.failing import fail_session, fail_task
from rain.server.core.graph import (
    AHEAD,
    ASSIGNED,
    CONSTANT,
    FINISHED,
    NOT_ASSIGNED,
    OBJECT,
    OBJECT_ABORTED,
    READY,
    REMOVED,
    RUNNING,
    TASK_FINISHED,
    UNFINISHED,
)
from rain.server.core.story import note

if TYPE_CHECKING:
    from rain.protocol.messages import ObjectsMissing
    from rain.server.core.session import Session
    from rain.server.core.state import ServerState
    from rain.server.core.workers import Worker

UNREADABLE_LIMIT = 20
"""Failed reads of one object after which its session fails instead of trying for ever."""


def worker_lost(state: ServerState, worker: Worker, reason: str) -> None:
    """The worker is dead, for ever: what it ran goes back, what only it held is recomputed."""
    reason = worker.ending or reason
    del state.workers[worker.incarnation]
    state.worker_of_peer.pop(worker.peer, None)
    recording.worker_removed(state, worker, reason)
    back = recomputed = 0
    for number in sorted(state.sessions):
        session = state.sessions[number]
        if session.failure is not None or worker.incarnation not in session.workers:
            continue
        session.workers.discard(worker.incarnation)
        returned, hopeless = _take_back(state, session, worker, reason)
        lost = _drop_copies(session, worker.incarnation)
        for task in hopeless:
            _too_many_crashes(state, session, task, worker.worker_id)
            if session.failure is not None:
                break
        if session.failure is not None:
            continue
        recomputed += lose_objects(state, session, [obj for obj in lost if is_lost(session, obj)])
        for task in returned:
            if session.graph.state[task] == NOT_ASSIGNED:
                back_to_waiting(state, session, task)
        back += len(returned)
    for request in state.info_requests.values():
        request.missing.discard(worker.incarnation)
    if state.stopping is not None:
        state.log("info", f"worker {worker.worker_id} (incarnation {worker.incarnation}) ended")
        return
    state.gone_workers.append((state.now, f"{worker.worker_id} (incarnation {worker.incarnation}) lost: {reason}"))
    state.log(
        "warning",
        f"worker {worker.worker_id} (incarnation {worker.incarnation}) lost: {reason}; "
        f"{back} tasks run elsewhere, {recomputed} finished tasks run again for their lost results",
    )


def _take_back(state: ServerState, session: Session, worker: Worker, reason: str) -> tuple[list[int], list[int]]:
    """Tasks that go back, and those of them that were running on too many lost workers."""
    graph = session.graph
    limit = state.options.crash_limit
    tasks, hopeless = [], []
    for task in list(worker.assigned.get(session.number, ())):
        if task in session.stopping:
            run_is_gone(state, session, task)
            continue
        was_running, was_ahead = graph.state[task] == RUNNING, graph.flags[task] & AHEAD
        graph.worker[task] = 0
        graph.flags[task] &= ~AHEAD
        if was_running:
            graph.last_worker[task] = worker.incarnation
        graph.state[task] = NOT_ASSIGNED
        session.began.pop(task, None)
        did = "run was lost" if was_running else "given back: it had not started"
        note(state, session, task, f"{did} when {worker.worker_id} was lost ({reason})")
        if was_running:
            recording.task_runs_again(state, session, task, f"{worker.worker_id} was lost: {reason}")
        block = graph.blocks.get(task)
        # Which member was running is not known: each may have brought the worker down.
        suspects = [task] if block is None or not was_running else dissolve(state, session, block)
        tasks += suspects
        for suspect in suspects:
            if not was_running:
                session.returned[suspect] = session.returned.get(suspect, 0) + 1
                if not worker.ending and not was_ahead:
                    _lost_unstarted(session, suspect)
                continue
            if worker.ending:
                continue  # the run is not to blame
            victims = session.attempts_lost.setdefault(suspect, [])
            victims.append(worker.worker_id)
            if limit and len(victims) >= limit:
                hopeless.append(suspect)
    return tasks, hopeless


def _lost_unstarted(session: Session, task: int) -> None:
    """Workers do not tell of brief runs at once, so one that was lost may have been running: the second time the task
    counts among those which run alone and are told of."""
    if task in session.lost_unstarted:
        session.attempts_lost.setdefault(task, [])
    session.lost_unstarted.add(task)


def _too_many_crashes(state: ServerState, session: Session, task: int, worker_id: str) -> None:
    victims = session.attempts_lost[task]
    text = f"The task was running on {len(victims)} workers when they were lost: {', '.join(victims)}"
    fail_task(state, session, task, Failure("task", text, retriable=False), worker_id)


def _drop_copies(session: Session, incarnation: int) -> list[int]:
    """Forget all copies on the worker; returns the finished objects of which none is left."""
    graph = session.graph
    lost = []
    for obj, known in enumerate(graph.replicas):
        if known is None or graph.kind[obj] != OBJECT:
            continue
        if graph.remove_replica(obj, incarnation) and is_lost(session, obj):
            lost.append(obj)
    return lost


def is_lost(session: Session, obj: int) -> bool:
    """True if the object counts as finished but nobody has its value."""
    graph = session.graph
    return graph.state[obj] == FINISHED and graph.replicas[obj] is None and not graph.at_server(obj)


def drop_copy(state: ServerState, session: Session, obj: int, incarnation: int) -> None:
    """This worker's copy cannot be read: it counts as not having the object."""
    if not session.graph.remove_replica(obj, incarnation):
        return
    state.delete_copy(incarnation, session.number, obj)
    if is_lost(session, obj):
        count = lose_objects(state, session, [obj])
        state.log("warning", f"data object {session.id_of(obj)} is unreadable; {count} tasks run again for it")


def constant_lost(state: ServerState, session: Session, object_id: int, reason: str) -> None:
    """The server could not store a constant: nobody else has it, so its session fails."""
    text = f"The server cannot store data object {session.number}/{object_id}: {reason}"
    fail_session(state, session, Failure("session", text, session=session.number))


def object_missing(state: ServerState, session: Session, _worker: Worker, message: ObjectsMissing) -> None:
    """A worker could not read the object from these holders, or its own store refused it: then tasks fail there, and
    nothing is wrong with the object. Nor if it is not finished: a task sent ahead waited for it in vain."""
    obj, holders = message.object_id, message.holders
    if not session.graph.is_object(obj) or session.graph.state[obj] != FINISHED:
        return
    reports = session.unreadable[obj] = session.unreadable.get(obj, 0) + (not message.refused)
    if reports > UNREADABLE_LIMIT:
        text = f"data object {session.id_of(obj)} could not be read {reports} times, last from {', '.join(holders)}"
        fail_session(state, session, Failure("session", text, session=session.number))
        return
    for worker in list(state.workers.values()):
        if worker.worker_id in holders:
            drop_copy(state, session, obj, worker.incarnation)


def lose_objects(state: ServerState, session: Session, lost: list[int]) -> int:
    """The values are gone: consumers wait again, producers run again. Returns the number of tasks that do."""
    graph = session.graph
    withdraw: dict[int, list[int]] = {}
    for obj in lost:
        graph.state[obj] = UNFINISHED
        for task in graph.consumers_of(obj):
            if graph.state[task] >= TASK_FINISHED:
                continue
            graph.missing[task] += 1
            if graph.state[task] == READY:
                graph.state[task] = NOT_ASSIGNED
                session.ready -= 1
            elif graph.state[task] == ASSIGNED:
                withdraw.setdefault(graph.worker[task], []).append(task)
    for incarnation, tasks in withdraw.items():
        withdraw_tasks(state, session, incarnation, tasks)
    revived = 0
    for obj in lost:
        if graph.state[graph.producer[obj]] > TASK_FINISHED:
            abort_lost_object(state, session, obj)
        else:
            revived += _revive(state, session, graph.producer[obj])
    return revived


def withdraw_tasks(state: ServerState, session: Session, incarnation: int, tasks: list[int]) -> None:
    """Ask a worker to give back tasks it has not started."""
    worker = state.workers.get(incarnation)
    if worker is None:
        return
    worker.withdrawing.update((session.number, task) for task in tasks)
    graph = session.graph
    runs = array("I", [graph.run[task] for task in tasks])
    for task in tasks:
        note(state, session, task, f"asked back from {worker.worker_id}")
    state.send(worker.peer, WithdrawTasks(session.number, graph.numbering.ids(tasks), runs))


def _revive(state: ServerState, session: Session, first: int) -> int:
    """A finished task runs again, and so do, as far as needed, those that made its inputs."""
    graph = session.graph
    stack, revived, hopeless = [first], [], []
    note(state, session, first, "runs again: a result of it was lost and is still needed")
    while stack:
        task = stack.pop()
        if graph.state[task] != TASK_FINISHED:
            continue
        graph.state[task] = NOT_ASSIGNED
        session.unfinished += 1
        session.recomputed.add(task)
        revived.append(task)
        state.totals["recomputed"] += 1
        recording.task_runs_again(state, session, task, "a result of it was lost and is still needed")
        missing = 0
        for obj in graph.distinct(task):
            graph.needed[obj] += 1
            if graph.state[obj] == REMOVED:
                if graph.flags[obj] & CONSTANT:
                    graph.state[obj] = FINISHED
                else:
                    graph.state[obj] = UNFINISHED
                    stack.append(graph.producer[obj])
            if graph.state[obj] == OBJECT_ABORTED or (
                graph.state[obj] == UNFINISHED and graph.state[graph.producer[obj]] > TASK_FINISHED
            ):
                hopeless.append(obj)
            if graph.state[obj] != FINISHED:
                missing += 1
        graph.missing[task] = missing
    for obj in dict.fromkeys(hopeless):
        abort_lost_object(state, session, obj)
    for task in revived:
        if not graph.missing[task] and graph.state[task] == NOT_ASSIGNED:
            state.make_ready(session, task)
    return len(revived)
