"""Ready tasks that no connected worker could ever run (spec 6.10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.common.failure import Failure
from rain.protocol.messages import SessionWarning
from rain.server.core import recording
from rain.server.core.failing import fail_task
from rain.server.scheduler.placement import could_run
from rain.server.scheduler.queues import ClassQueue, split
from rain.server.scheduler.resources import Request, shortage

if TYPE_CHECKING:
    from rain.server.core.session import Session
    from rain.server.core.state import ServerState

WARN_AFTER = 0.5
"""Seconds; with the tick every 0.5 s the warning comes within 1 s."""


def check_infeasible(state: ServerState) -> None:
    """Called on each tick: warn about such tasks, and fail them after the time limit."""
    workers = state.workers.values()
    for queue in list(state.queue.classes()):
        if not workers or any(could_run(worker, queue.request) for worker in workers):
            queue.infeasible_since = None
            continue
        if queue.infeasible_since is None:
            queue.infeasible_since = state.now
        waited = state.now - queue.infeasible_since
        if waited >= WARN_AFTER:
            _warn_or_fail(state, queue, waited)


def _warn_or_fail(state: ServerState, queue: ClassQueue, waited: float) -> None:
    text = reason(state, queue.request)
    limit = state.options.infeasible_timeout
    for packed in list(queue.entries()):
        if not state.is_ready(packed):
            continue
        number, task = split(packed)
        session = state.sessions[number]
        if limit is not None and waited >= limit:
            failure = Failure("task", f"No worker can run the task: {text}", retriable=False)
            fail_task(state, session, task, failure, "")
        else:
            _warn(state, session, task, text)


def _warn(state: ServerState, session: Session, task: int, text: str) -> None:
    key = f"infeasible {task}"
    if key not in session.warned:
        session.warned.add(key)
        warning = f"Task {session.task_name(task)} cannot run: {text}"
        state.log("warning", warning)
        recording.task_happened(state, session, task, "TaskInfeasible", reason=text)
        state.send(session.peer, SessionWarning(session.number, warning))


def reason(state: ServerState, request: Request) -> str:
    """`needs cpus=8; largest worker offers cpus=4 (2 workers)`."""
    workers = [worker for worker in state.workers.values() if worker.draining is None]
    if not workers:
        return f"needs {request.describe()}; all {len(state.workers)} workers are to stop"
    largest = max(workers, key=lambda w: (w.cpus, w.incarnation))
    lacking = shortage(request, largest.offer)
    count = f"{len(workers)} worker{'s' if len(workers) != 1 else ''}"
    return f"needs {request.describe()}; largest worker offers {lacking} ({count})"
