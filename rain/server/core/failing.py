"""Failing and ending of sessions (spec 6.3, 6.4)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rain.common.failure import Failure
from rain.common.lines import one_line
from rain.protocol.messages import EndSession
from rain.server.core import recording
from rain.server.core.actions import DropConstants
from rain.server.core.ahead import leave_worker
from rain.server.core.ending import attempts, fail_in_place
from rain.server.core.graph import Graph
from rain.server.core.story import note

if TYPE_CHECKING:
    from rain.server.core.session import CancelRequest, Session, Waiter
    from rain.server.core.state import ServerState


def fail_task(state: ServerState, session: Session, task: int, reported: Failure, worker_id: str) -> None:
    """The task failed for good; so does its session, or what depends on the task."""
    message = reported.message
    if task in session.recomputed:
        message = f"while recomputing a result lost with a worker: {message}"
    failure = replace(
        reported,
        kind="task",
        message=message,
        session=session.number,
        task=session.graph.numbering.id(task),
        worker=worker_id,
        attempts=attempts(session, task),
    )
    note(state, session, task, f"failed for good on {worker_id or 'no worker'}: {one_line(message)}")
    recording.task_failed(state, session, task, failure)
    if session.on_failure == "continue":
        fail_in_place(state, session, task, failure)
    else:
        session.failed_task = (session.task_name(task), session.stories[task])
        session.failed_at = session.graph.worker[task] or session.graph.last_worker[task]
        fail_session(state, session, failure)


def fail_session(state: ServerState, session: Session, failure: Failure) -> None:
    """Stop everything of the session, drop its data, and tell everybody who waits."""
    if session.failure is not None:
        return
    session.failure = failure
    recording.session_closed(state, session, "Error", failure.message)
    waiting: list[Waiter | CancelRequest] = [*session.waiters(), *session.cancels]
    _drop_everything(state, session)
    for waiter in waiting:
        state.refuse(waiter.peer, waiter.seq, failure)


def internal_error(state: ServerState, session: Session, what: str, details: str) -> str:
    """A defect of Rain, which costs the session at most. Returns the text for the user."""
    text = log_internal_error(state, what, details)
    fail_session(state, session, Failure("internal", text, session=session.number))
    return text


def log_internal_error(state: ServerState, what: str, details: str) -> str:
    """Number and log a defect. Returns the text for the user, which names the log entry."""
    state.errors += 1
    name = f"internal error {state.errors} {what}"
    state.log("error", f"{name}\n{details}")
    return f"{name}; the server's log tells more under this number"


def end_session(state: ServerState, session: Session, reason: str) -> None:
    """Forget the session; who still waits is told that it is closed."""
    waiting: list[Waiter | CancelRequest] = [*session.waiters(), *session.cancels]
    if session.failure is None:
        recording.session_closed(state, session, "ClientClose", reason)
    del state.sessions[session.number]
    for array in session.graph.numbering.arrays:
        array.blocks.clear()  # a block knows its array: such a cycle would hold all values until garbage is collected
    _drop_everything(state, session)
    client = state.clients.get(session.peer)
    if client is not None:
        client.sessions.discard(session.number)
        closed = Failure("session", f"Session is closed ({reason})", session=session.number)
        for waiter in waiting:
            state.refuse(waiter.peer, waiter.seq, closed)


def _drop_everything(state: ServerState, session: Session) -> None:
    number = session.number
    for worker in state.workers.values():
        for task in list(worker.assigned.get(number, ())):
            leave_worker(session, worker, task)
        if worker.incarnation in session.workers:
            worker.templates = {key for key in worker.templates if key[0] != number}
            worker.withdrawing = {key for key in worker.withdrawing if key[0] != number}
    state.forget_deletes(number)
    for incarnation in sorted(session.workers):
        known = state.workers.get(incarnation)
        if known is not None:
            state.send(known.peer, EndSession(number))
    state.actions.append(DropConstants(number, None))
    outdated = session.ready
    session.graph = Graph()
    session.workers = set()
    session.watch, session.whole = {}, []
    session.staged = None
    session.uploads = {}
    session.unfinished = session.ready = 0
    session.returned, session.failures, session.attempts_lost, session.moves = {}, {}, {}, {}
    session.lost_unstarted = set()
    session.blame, session.stopping, session.failed_on, session.weights = {}, {}, {}, {}
    session.recomputed, session.cancels, session.first_failure = set(), [], None
    session.stories, session.began, session.suspicions, session.watched = {}, {}, 0, 0
    session.templates, session.groups, session.group_keys = [], [], {}
    state.queue.compact(outdated, state.is_ready)
