"""Takes tasks back from workers that have more than they can run while others have nothing to do."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from rain.server.core.graph import AHEAD, ASSIGNED
from rain.server.core.recovery import withdraw_tasks

if TYPE_CHECKING:
    from rain.server.core.state import ServerState
    from rain.server.core.workers import Worker

MAX_MOVES = 3
"""A task is asked back at most so often."""
LOOKED_AT = 5000
"""So many tasks of a worker are considered at most."""
WORTH_MOVING = 0.005
"""Seconds of queued work per cpu below which a worker is left alone."""


def balance(state: ServerState) -> None:
    """Ask overcommitted workers to give back half of what waits there, if others are idle."""
    workers = state.workers
    if len(workers) < 2:
        return
    idle = [
        worker
        for worker in workers.values()
        if worker.free_cpus > 0 and worker.reserved is None and worker.draining is None
    ]
    if not idle or any(queue.head(state.is_ready) is not None for queue in state.queue.classes()):
        return
    for worker in workers.values():
        if worker.free_cpus < 0 and not worker.withdrawing and worker.queued / (worker.cpus or 1) > WORTH_MOVING:
            _withdraw(state, worker, idle)


def _withdraw(state: ServerState, worker: Worker, idle: list[Worker]) -> None:
    """Ask back up to half of the waiting tasks, the last assigned first, of requests an idle worker can take.

    Those sent ahead stay with the tasks for which they wait: they come back with these.
    """
    wanted = max(1, -worker.free_cpus // 2)
    for number, assigned in list(worker.assigned.items()):
        session = state.sessions[number]
        graph, templates = session.graph, session.templates
        tasks = []
        flags = graph.flags
        waiting = (task for task in islice(reversed(assigned), LOOKED_AT) if not flags[task] & AHEAD)
        for task in islice(waiting, wanted):
            request = templates[graph.template[task]].request
            if graph.state[task] != ASSIGNED or session.moves.get(task, 0) >= MAX_MOVES:
                continue
            if any(other.fits_now(request) for other in idle):
                session.moves[task] = session.moves.get(task, 0) + 1
                tasks.append(task)
        if tasks:
            withdraw_tasks(state, session, worker.incarnation, tasks)
            wanted -= len(tasks)
        if wanted <= 0:
            return
