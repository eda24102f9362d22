"""Finds tasks that would wait for ever because of a defect of Rain, and does not let them: the story goes to the log,
the session fails, or the worker that does not have them is dropped.

Every check is cheap: counters each tick, a slice of the rows each tick, and digests of what workers hold.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.protocol.messages import CancelTasks, ListRuns, WorkerDigest, WorkerRuns
from rain.protocol.worker_messages import run_digest
from rain.server.core.actions import Drop
from rain.server.core.explain import explain_task
from rain.server.core.failing import internal_error
from rain.server.core.graph import ASSIGNED, NOT_ASSIGNED, READY, RUNNING, TASK

if TYPE_CHECKING:
    from rain.server.core.session import Session
    from rain.server.core.state import ServerState
    from rain.server.core.workers import Worker

SLICE = 5000
"""Rows looked at per session and tick."""
PATIENCE = 2
"""A check must fail so often in a row."""
NAMED = 5
"""Stories in an error text."""


def watch(state: ServerState) -> None:
    """Called on each tick."""
    queued = any(queue.head(state.is_ready) is not None for queue in state.queue.classes())
    busy = {number for worker in state.workers.values() for number in worker.assigned}
    for session in [session for session in state.sessions.values() if session.failure is None]:
        stuck = session.unfinished > 0 and session.number not in busy and not session.stopping
        suspicious = stuck and (not queued if session.ready else True)
        session.suspicions = session.suspicions + 1 if suspicious else 0
        if session.suspicions >= PATIENCE:
            state_of_stuck = READY if session.ready else NOT_ASSIGNED
            what = "ready but nowhere queued" if session.ready else "waiting for inputs that nothing makes"
            _report(state, session, what, _tasks_in(session, state_of_stuck))
        else:
            _look_at_slice(state, session)


def _tasks_in(session: Session, status: int) -> list[int]:
    graph = session.graph
    return [task for task in graph.tasks() if graph.state[task] == status]


def _look_at_slice(state: ServerState, session: Session) -> None:
    graph = session.graph
    start = session.watched if session.watched < len(graph) else 0
    stop = min(start + SLICE, len(graph))
    session.watched = stop
    wrong = []
    for row in range(start, stop):
        status = graph.state[row]
        if status and graph.kind[row] == TASK and status in (ASSIGNED, RUNNING):
            worker = state.workers.get(graph.worker[row])
            if worker is None or row not in worker.assigned.get(session.number, ()):
                wrong.append(row)
    if wrong:
        _report(state, session, "assigned to a worker that is gone", wrong)


def _report(state: ServerState, session: Session, what: str, tasks: list[int]) -> None:
    stories = "\n".join(explain_task(state, session, task) for task in tasks[:NAMED])
    first = session.task_name(tasks[0]) if tasks else "?"
    internal_error(state, session, f"found {len(tasks)} tasks {what}, first {first}", stories)


def worker_digest(state: ServerState, worker: Worker, message: WorkerDigest) -> None:
    """A worker tells what it holds: if nothing is under way, both sides must agree."""
    if message.heard != worker.told:
        return
    mine = _runs_at(state, worker)
    digest = 0
    for number, task, run in mine:
        digest ^= run_digest(number, task, run)
    if (len(mine), digest) == (message.runs, message.digest):
        worker.disagreements = 0
        return
    worker.disagreements += 1
    if worker.disagreements >= PATIENCE:
        state.send(worker.peer, ListRuns())


def _runs_at(state: ServerState, worker: Worker) -> set[tuple[int, int, int]]:
    """(session, id, run) of all runs that occupy the worker."""
    runs: set[tuple[int, int, int]] = set()
    for number, tasks in worker.assigned.items():
        graph = state.sessions[number].graph
        runs.update((number, graph.numbering.id(task), graph.run[task]) for task in tasks)
    return runs


def worker_runs(state: ServerState, worker: Worker, message: WorkerRuns) -> None:
    """The answer to ListRuns: what only one side knows is a defect. A worker without tasks it should have is dropped,
    so that they run elsewhere; runs that nobody asked for are stopped."""
    if message.heard != worker.told:
        return
    worker.disagreements = 0
    theirs = set(zip(message.sessions, message.tasks, message.runs, strict=True))
    mine = _runs_at(state, worker)
    lost = sorted(mine - theirs)
    if lost:
        stories = []
        for number, task, run in lost[:NAMED]:
            session = state.sessions[number]
            row = session.graph.numbering.row_of_report(task, run, session.graph.run)
            stories.append(explain_task(state, session, row))
        state.errors += 1
        what = f"{len(lost)} tasks assigned to {worker.worker_id}, which says that it has {len(theirs)} others"
        state.log("error", f"internal error {state.errors}: {what}\n" + "\n".join(stories))
        state.actions.append(Drop(worker.peer, what))
        return
    surplus: dict[int, list[tuple[int, int]]] = {}
    for number, task, run in theirs - mine:
        surplus.setdefault(number, []).append((task, run))
    for number, runs in sorted(surplus.items()):
        names = ", ".join(f"{number}/{task} run {run}" for task, run in sorted(runs)[:NAMED])
        state.log("error", f"worker {worker.worker_id} holds {len(runs)} runs nobody asked for: {names}; stopped")
        tasks, numbers = array("I", [task for task, _ in runs]), array("I", [run for _, run in runs])
        state.send(worker.peer, CancelTasks(number, tasks, numbers, 0.0))
