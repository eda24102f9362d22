"""Single events, taken into what is known of sessions and workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain.dashboard import progress
from rain.dashboard.runs import sound_duration
from rain.dashboard.session_view import LONGEST_TEXT, Note
from rain.dashboard.states import ABORTED, CANCELLED, FINISHED
from rain.dashboard.times import moment, number

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.dashboard.session_view import SessionView
    from rain.dashboard.workers import Workers

Fields = dict[str, Any]

_STATUS = {"ClientClose": "closed", "Error": "error", "ServerLost": "lost", "Expired": "expired"}


def worker_event(workers: Workers, time: float, type: str, fields: Fields) -> None:
    """An event of a worker; others are passed over."""
    worker_id = fields.get("worker")
    if not isinstance(worker_id, str):
        return
    if type == "WorkerNew":
        workers.added(time, worker_id, fields)
    elif type == "WorkerRemoved":
        workers.removed(time, worker_id, str(fields.get("error_msg") or ""))
    elif type == "WorkerStopping":
        workers.stopping(worker_id)
    elif type == "Monitoring":
        workers.get(worker_id, time).told(time, fields)


def session_event(session: SessionView, workers: Workers, event: int, time: float, type: str, fields: Fields) -> None:
    """An event of a session; what is not shown is passed over."""
    handler = _OF_SESSION.get(type)
    if handler is not None:
        handler(session, time, fields)
        return
    task = _number(fields.get("task"))
    if session.state(task):
        task_handler = _OF_TASK.get(type)
        if task_handler is not None:
            task_handler(session, workers, time, task, fields)
            if type in _NOTED:
                session.note(task, Note(time, event))


def _number(pair: Any) -> int:
    """The second part of an id."""
    sound = isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[1], int)
    return pair[1] if sound else -1


# --- sessions ---


def _new(session: SessionView, time: float, fields: Fields) -> None:
    spec = fields.get("spec") or {}
    session.created = time
    session.client = str(fields.get("client") or "")
    session.name = str(spec.get("name") or "")
    session.on_failure = str(spec.get("on_failure") or "fail")


def _closed(session: SessionView, time: float, fields: Fields) -> None:
    if session.ended is None:
        status = _STATUS.get(str(fields.get("reason")), "closed")
        fate = ABORTED if status == "error" else CANCELLED
        session.end(time, status, str(fields.get("message") or ""), fate)


def _detached(session: SessionView, time: float, fields: Fields) -> None:
    if session.ended is None:
        session.status = "detached"


def _attached(session: SessionView, time: float, fields: Fields) -> None:
    if session.ended is None:
        session.status = "open"
        session.client = str(fields.get("client") or session.client)


def _object_finished(session: SessionView, time: float, fields: Fields) -> None:
    session.set_size(_number(fields.get("dataobject")), int(number(fields.get("size"))))


_OF_SESSION: dict[str, Callable[[SessionView, float, Fields], None]] = {
    "SessionNew": _new,
    "SessionClosed": _closed,
    "SessionDetached": _detached,
    "SessionAttached": _attached,
    "DataObjectFinished": _object_finished,
}


# --- tasks ---


def _started(session: SessionView, workers: Workers, time: float, task: int, fields: Fields) -> None:
    worker_id = str(fields.get("worker") or "")
    workers.get(worker_id, time)
    session.begin(task, workers.number(worker_id), moment((fields.get("info") or {}).get("start_time")) or time)


def _finished(session: SessionView, workers: Workers, time: float, task: int, fields: Fields) -> None:
    info = fields.get("info") or {}
    worker_id = str(info.get("governor") or "")
    worker = workers.number(worker_id) if worker_id else None
    duration = sound_duration(number(info.get("duration")))
    start = moment(info.get("start_time"))
    if start is None and session.numbers[task]:
        start = session.runs.starts[session.numbers[task]]
        duration = duration or sound_duration(time - start)
    if start is None:
        start = time - duration
    if info.get("error"):
        _failed(session, task, worker, start, duration, str(info["error"]))
    elif worker is not None:
        if session.state(task) == FINISHED:
            session.reopen(task, time)
        progress.run_succeeded(session, task, worker, start, duration)
        workers.get(worker_id, time).finished += 1


def _failed(session: SessionView, task: int, worker: int | None, start: float, duration: float, error: str) -> None:
    progress.run_failed(session, task, worker, start, duration)
    if session.first_error is None:
        name = session.names.texts[session.links[task]]
        session.first_error = {"task": task, "name": name, "message": error[:LONGEST_TEXT]}


def _retried(session: SessionView, workers: Workers, time: float, task: int, fields: Fields) -> None:
    session.retries[task] = session.retries.get(task, 0) + 1
    session.reopen(task, time)


def _cancelled(session: SessionView, workers: Workers, time: float, task: int, fields: Fields) -> None:
    progress.task_ended(session, task, time, CANCELLED)


def _aborted(session: SessionView, workers: Workers, time: float, task: int, fields: Fields) -> None:
    progress.task_ended(session, task, time, ABORTED)


def _infeasible(session: SessionView, workers: Workers, time: float, task: int, fields: Fields) -> None:
    """It goes on waiting; the note tells why."""


_OF_TASK: dict[str, Callable[[SessionView, Workers, float, int, Fields], None]] = {
    "TaskStarted": _started,
    "TaskFinished": _finished,
    "TaskRetried": _retried,
    "TaskCancelled": _cancelled,
    "TaskAborted": _aborted,
    "TaskInfeasible": _infeasible,
}
_NOTED = {"TaskFinished", "TaskRetried", "TaskCancelled", "TaskAborted", "TaskInfeasible"}
"""Read from the log when somebody asks for the history of the task."""
