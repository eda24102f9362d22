"""Every invariant of the server core, walked on demand (tests call it after each batch)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.server.core.graph import (
    ASSIGNED,
    CONSTANT,
    FINISHED,
    NOT_ASSIGNED,
    OBJECT_ABORTED,
    READY,
    REMOVED,
    RUNNING,
    TASK_FINISHED,
    UNFINISHED,
)
from rain.server.scheduler.queues import split

if TYPE_CHECKING:
    from rain.server.core.session import Session
    from rain.server.core.state import ServerState


def sanity_check(state: ServerState) -> None:
    """Raises AssertionError naming the invariant that is broken."""
    queued = {packed for queue in state.queue.classes() for packed in queue.entries()}
    queued_tasks = {split(packed) for packed in queued}
    for number, session in state.sessions.items():
        assert session.number == number
        assert session.peer in state.clients, f"session {number} has no client"
        assert number in state.clients[session.peer].sessions
        if session.failure is None:
            _check_tasks(state, session, queued_tasks)
            _check_objects(state, session)
        else:
            assert not len(session.graph), f"failed session {number} still has a graph"
    _check_workers(state)


def _check_tasks(state: ServerState, session: Session, queued: set[tuple[int, int]]) -> None:
    graph, number = session.graph, session.number
    unfinished = ready = 0
    consumers = {obj: set(graph.consumers_of(obj)) for obj in graph.objects()}
    for task in graph.tasks():
        name = f"task {number}/{task}"
        status = graph.state[task]
        inputs = graph.distinct(task)
        if status < TASK_FINISHED:
            unfinished += 1
            missing = sum(graph.state[obj] != FINISHED for obj in inputs)
            assert graph.missing[task] == missing, f"{name}: missing {graph.missing[task]}, really {missing}"
            for obj in inputs:
                assert graph.state[obj] != REMOVED, f"{name}: input {obj} was removed"
                assert task in consumers[obj], f"{name}: unknown to its input {obj}"
        if status == NOT_ASSIGNED:
            assert graph.missing[task], f"{name}: has all inputs but is not ready"
        if status == READY:
            ready += 1
            assert not graph.missing[task], f"{name}: ready with missing inputs"
            assert (number, task) in queued, f"{name}: ready but nowhere queued"
        if status in (ASSIGNED, RUNNING):
            worker = state.workers.get(graph.worker[task])
            assert worker is not None, f"{name}: assigned to a dead worker"
            assert task in worker.assigned.get(number, ()), f"{name}: unknown to its worker"
            assert graph.worker[task] in session.workers
        elif task in session.stopping:
            assert graph.worker[task] == session.stopping[task], f"{name}: is being stopped elsewhere"
            assert session.stopping[task] in state.workers, f"{name}: is being stopped on a dead worker"
        else:
            assert not graph.worker[task], f"{name}: in state {status} but has a worker"
    assert session.unfinished == unfinished, f"session {number}: unfinished {session.unfinished}, really {unfinished}"
    assert session.ready == ready, f"session {number}: ready {session.ready}, really {ready}"
    assert not session.whole or unfinished, f"session {number}: waiters of a finished session"


def _check_objects(state: ServerState, session: Session) -> None:
    graph, number = session.graph, session.number
    for obj in graph.objects():
        name = f"object {number}/{obj}"
        status = graph.state[obj]
        consumers = graph.consumers_of(obj)
        needed = sum(graph.state[task] < TASK_FINISHED for task in consumers)
        assert graph.needed[obj] == needed, f"{name}: needed {graph.needed[obj]}, really {needed}"
        assert graph.pins[obj] >= needed, f"{name}: fewer pins than unfinished consumers"
        producer = graph.producer[obj]
        assert bool(producer) != bool(graph.flags[obj] & CONSTANT), f"{name}: constant and produced"
        if status == FINISHED:
            assert graph.is_needed(obj), f"{name}: finished but not needed"
            assert graph.replicas[obj] is not None or graph.at_server(obj), f"{name}: finished but nobody has it"
            for incarnation in graph.replicas_of(obj):
                assert incarnation in state.workers, f"{name}: a copy on a dead worker"
        else:
            assert graph.replicas[obj] is None, f"{name}: copies in state {status}"
        if status == UNFINISHED and producer:
            assert graph.state[producer] < TASK_FINISHED, f"{name}: its producer is terminal"
        if status == OBJECT_ABORTED:
            assert obj in session.blame, f"{name}: aborted without a reason"
        if status == REMOVED:
            assert not graph.is_needed(obj), f"{name}: removed but needed"
            if graph.flags[obj] & CONSTANT and graph.pins[obj]:
                assert graph.at_server(obj), f"{name}: a pinned constant lost its data"
        for waiter in session.watch.get(obj, ()):
            assert waiter.peer in state.clients
            assert waiter.remaining > 0


def _check_workers(state: ServerState) -> None:
    for incarnation, worker in state.workers.items():
        assert worker.incarnation == incarnation
        assert state.worker_of_peer.get(worker.peer) == incarnation
        cpus = 0
        amounts: dict[str, int] = {}
        for number, tasks in worker.assigned.items():
            session = state.sessions[number]
            for task in tasks:
                assert session.graph.worker[task] == incarnation, f"task {number}/{task}: its worker disagrees"
                request = session.templates[session.graph.template[task]].request
                cpus += request.cpus
                for name, amount in request.other:
                    amounts[name] = amounts.get(name, 0) + amount
        assert worker.free_cpus == worker.cpus - cpus, f"worker {worker.worker_id}: cpus do not add up"
        for name, offered in worker.offer.items():
            if name != "cpus":
                assert worker.free[name] == offered - amounts.get(name, 0), f"worker {worker.worker_id}: {name}"
                assert worker.free[name] >= 0, f"worker {worker.worker_id}: too much {name} in use"
