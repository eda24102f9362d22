"""Workers that end while the cluster goes on: they finish what runs, what only they hold is copied (spec 9.4).

A *draining* worker gets no task any more and gives back what it has not started. When nothing of it runs, the data
objects that only it holds are copied to other workers; then it is told to stop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.common.failure import Failure
from rain.common.structs import dataclass
from rain.protocol.messages import Accepted, StopWorker
from rain.server.core import recording
from rain.server.core.assign import assignment_message
from rain.server.core.graph import ASSIGNED, FINISHED, OBJECT
from rain.server.core.recovery import withdraw_tasks
from rain.server.core.workers import Draining, Worker

if TYPE_CHECKING:
    from rain.protocol.messages import StopWorkers
    from rain.server.core.session import Session
    from rain.server.core.state import ClientPeer, ServerState

COPY_SECONDS = 60.0
"""Copying may go on for so long without any progress."""
COPY_ROUNDS = 3
"""Attempts to copy; after them the worker stops, and what was not copied is recomputed if needed."""


@dataclass(slots=True, eq=False)
class StopRequest:
    """A StopWorkers that is answered when these incarnations are gone."""

    peer: int
    seq: int
    incarnations: set[int]


def stop_workers(state: ServerState, client: ClientPeer, message: StopWorkers) -> None:
    """End these workers; answered when they are gone."""
    by_id = {worker.worker_id: worker for worker in state.workers.values()}
    unknown = [name for name in message.workers if name not in by_id]
    if unknown:
        known = ", ".join(sorted(by_id)) or "none"
        failure = Failure("invalid", f"there is no worker {unknown[0]}; connected workers: {known}")
        state.refuse(client.peer, message.seq, failure)
        return
    workers = [by_id[name] for name in dict.fromkeys(message.workers)]
    state.stop_requests.append(StopRequest(client.peer, message.seq, {worker.incarnation for worker in workers}))
    for worker in workers:
        how = "at once" if message.now else "when its tasks are finished"
        state.log("info", f"worker {worker.worker_id} shall stop {how}, says client {client.address}")
        worker.story.append((state.now, f"told to stop {how}"))
        recording.worker_stopping(state, worker, now=message.now)
        worker.ending = f"stopped {how} on demand"
        if worker.draining is None:
            worker.draining = Draining(since=state.now)
            _give_back(state, worker)
        if message.now:
            _tell(state, worker, worker.draining)


def answer_stopped(state: ServerState) -> None:
    """Answer those who wait for the end of workers that are gone."""
    for request in list(state.stop_requests):
        request.incarnations.intersection_update(state.workers)
        if request.peer not in state.clients:
            state.stop_requests.remove(request)
        elif not request.incarnations:
            state.stop_requests.remove(request)
            state.send(request.peer, Accepted(request.seq))


def drain(state: ServerState) -> None:
    """Called on each tick: bring draining workers further."""
    for worker in list(state.workers.values()):
        if worker.draining is not None and not worker.draining.is_told and not worker.assigned:
            _copy_or_stop(state, worker, worker.draining)


def _give_back(state: ServerState, worker: Worker) -> None:
    for number, tasks in list(worker.assigned.items()):
        session = state.sessions[number]
        waiting = [task for task in tasks if session.graph.state[task] == ASSIGNED]
        if waiting:
            withdraw_tasks(state, session, worker.incarnation, waiting)


def _tell(state: ServerState, worker: Worker, draining: Draining) -> None:
    if not draining.is_told:
        draining.is_told = True
        state.send(worker.peer, StopWorker())


def _copy_or_stop(state: ServerState, worker: Worker, draining: Draining) -> None:
    """Nothing runs there any more: stop it once nothing is held by it alone."""
    alone = [(session, _held_alone(session, worker)) for session in state.sessions.values()]
    left = sum(len(objects) for _, objects in alone)
    if left != draining.left:
        is_first = draining.left < 0
        draining.left, draining.since = left, state.now
        if left and not is_first and draining.rounds:
            return  # copying goes on
    elif draining.rounds and state.now - draining.since < COPY_SECONDS:
        return
    targets = sorted(
        (other for other in state.workers.values() if other.draining is None),
        key=lambda other: (other.load, other.incarnation),
    )
    if left and targets and draining.rounds < COPY_ROUNDS:
        target = targets[draining.rounds % len(targets)]
        draining.rounds += 1
        draining.since = state.now
        for session, objects in alone:
            if objects:
                state.send(target.peer, assignment_message(state, session, target, [], extra=objects))
        return
    if left:
        text = f"{left} data objects of worker {worker.worker_id} were not copied: they are recomputed if needed"
        state.log("warning", text)
    _tell(state, worker, draining)


def _held_alone(session: Session, worker: Worker) -> list[int]:
    """Rows of the objects of which the worker has the only copy."""
    if session.failure is not None or worker.incarnation not in session.workers:
        return []
    graph = session.graph
    return [
        obj
        for obj, known in enumerate(graph.replicas)
        if known is not None
        and graph.kind[obj] == OBJECT
        and graph.state[obj] == FINISHED
        and (known == worker.incarnation or known == {worker.incarnation})
        and not graph.at_server(obj)
    ]
