"""Questions of clients that workers answer: what a task wrote, whether workers reach one another."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from rain.common.failure import Failure
from rain.common.lines import one_line
from rain.common.states import TaskState
from rain.common.structs import dataclass
from rain.protocol.messages import NetworkChecked, ProbePeers, ReadTaskLog, TaskLog
from rain.server.core.ending import attempts
from rain.server.core.explain import not_open
from rain.server.core.graph import ASSIGNED, TASK_FINISHED
from rain.server.core.lies import ReportError

if TYPE_CHECKING:
    from rain.protocol.messages import CheckNetwork, GetTaskLog, PeersProbed, TaskLogRead
    from rain.server.core.session import Session
    from rain.server.core.state import ClientPeer, ServerState
    from rain.server.core.workers import Worker

STREAMS = ("stdout", "stderr")
LOG_SECONDS = 5.0
"""How long a worker may take to read a log."""
CHECK_SECONDS = 23.0
"""How long workers may take to try to reach all others; they stop after 20."""
LONGEST_LOG = 64 << 10
"""Bytes in one answer, whatever is asked for."""

_BUILTIN_PREFIXES = ("buildin/", "builtin/", "!")
_PROGRAMS = ("buildin/run", "builtin/run", "!run")
_LONGEST_TEXT = 2000


@dataclass(slots=True)
class LogRequest:
    """A GetTaskLog that waits for the worker. task: an id. limit: bytes asked for."""

    peer: int
    seq: int
    session: int
    task: int
    incarnation: int
    limit: int
    deadline: float


@dataclass(slots=True)
class NetworkCheck:
    """A CheckNetwork, or several, that wait for the workers.

    number: of the question. askers: (peer, seq). asked: per incarnation the id of the worker and the addresses it
    tries. answers: per incarnation what it told.
    """

    number: int
    deadline: float
    askers: list[tuple[int, int]]
    asked: dict[int, tuple[str, list[str]]]
    answers: dict[int, list[str]] = field(default_factory=dict)


# --- logs ---------------------------------------------------------------------------------------


def get_task_log(state: ServerState, client: ClientPeer, message: GetTaskLog) -> None:
    """Ask the worker where the task runs, or ran last."""
    session = state.sessions.get(message.session)
    if session is None:
        state.refuse(client.peer, message.seq, not_open(state, message.session))
        return
    if message.stream not in STREAMS:
        text = f"A task has no stream {message.stream[:20]!r}, only {' and '.join(STREAMS)}"
        state.refuse(client.peer, message.seq, Failure("invalid", text, session=session.number))
        return
    found = _in_failed(session, message.task) if session.failure is not None else _place(session, message.task)
    if isinstance(found, Failure):
        state.refuse(client.peer, message.seq, found)
        return
    if isinstance(found, str):
        ended = _is_over(state, session.number, message.task)
        state.send(client.peer, TaskLog(message.seq, b"", 0, 0, ended, found))
        return
    number = state.next_forwarded
    state.next_forwarded += 1
    limit = min(message.limit, LONGEST_LOG)
    deadline = state.now + LOG_SECONDS
    request = LogRequest(client.peer, message.seq, session.number, message.task, found, limit, deadline)
    state.log_requests[number] = request
    worker = state.workers.get(found)
    if worker is not None:  # else it is answered at the end of this turn
        asked = ReadTaskLog(number, session.number, message.task, message.stream, message.offset, limit)
        state.send(worker.peer, asked)


def _place(session: Session, number: int) -> int | str | Failure:
    """Incarnation of the worker that runs or ran a task; or why it wrote nothing, or why nothing can be said."""
    row = _row_of_task(session, number)
    if row < 0:
        text = f"{session.number}/{number} is no task"
        return Failure("invalid", text, session=session.number)
    graph = session.graph
    kind = session.templates[graph.template[row]].type
    if kind.startswith(_BUILTIN_PREFIXES) and kind not in _PROGRAMS:
        return f"the worker itself runs tasks of the type {kind}; they write nothing"
    incarnation = graph.worker[row] or graph.last_worker[row]
    if incarnation:
        return int(incarnation)
    if attempts(session, row) > 0:
        return "it is not known any more where the task ran"
    text = f"Task {session.number}/{number} has not run: it is {TaskState(graph.state[row]).name}"
    return Failure("invalid", text, session=session.number, task=number)


def _in_failed(session: Session, number: int) -> int | Failure:
    """The same for a session that failed, of which only the task to blame is remembered."""
    failure = session.failure
    assert failure is not None
    if session.failed_task is None or number != failure.task:
        text = f"Session {session.number} failed, and with it all is forgotten about {session.number}/{number}"
        if session.failed_task is not None:
            text += f"; what task {session.failed_task[0]} wrote, which failed, can be read"
        return Failure("session", text, session=session.number)
    if not session.failed_at:
        text = f"Task {session.failed_task[0]} failed without having run: {one_line(failure.message)}"
        return Failure("invalid", text, session=session.number, task=number)
    return session.failed_at


def _row_of_task(session: Session, number: int) -> int:
    """Row of a task, of the block to which it belongs; -1 if there is no such task."""
    graph = session.graph
    row = graph.numbering.row(number)
    if row >= 0:
        return row if graph.is_task(row) else -1
    member = graph.numbering.member(number)
    return member[0].row if member is not None and member[2] else -1


def _is_over(state: ServerState, number: int, task: int) -> bool:
    """Whether a task will not run (again)."""
    session = state.sessions.get(number)
    if session is None or session.failure is not None:
        return True
    row = _row_of_task(session, task)
    return row < 0 or session.graph.state[row] >= TASK_FINISHED


def task_log_read(state: ServerState, worker: Worker, message: TaskLogRead) -> None:
    """A worker answered."""
    request = state.log_requests.get(message.seq)
    if request is None:  # it was answered with what was known, or its client left
        return
    if request.incarnation != worker.incarnation:
        raise ReportError("another worker was asked for this log")
    fits = len(message.data) <= request.limit and message.offset + len(message.data) <= message.size
    if not fits or len(message.hint) > _LONGEST_TEXT:
        raise ReportError("the log is longer than it can be")
    del state.log_requests[message.seq]
    if request.peer in state.clients:
        ended = message.ended and _is_over(state, request.session, request.task)
        hint = _printable(message.hint)
        if not message.size and _is_not_begun(state, request):
            hint = "the task has not begun yet"
        answer = TaskLog(request.seq, message.data, message.offset, message.size, ended, hint)
        state.send(request.peer, answer)


def _is_not_begun(state: ServerState, request: LogRequest) -> bool:
    session = state.sessions.get(request.session)
    row = -1 if session is None or session.failure is not None else _row_of_task(session, request.task)
    return session is not None and row >= 0 and session.graph.state[row] == ASSIGNED


def _printable(text: str) -> str:
    """What a worker says, as it may come before the eyes of users."""
    return "".join(char if char.isprintable() else "?" for char in one_line(text))


# --- network ------------------------------------------------------------------------------------


def check_network(state: ServerState, client: ClientPeer, message: CheckNetwork) -> None:
    """Let every worker try to reach every other one; who asks while that goes on gets the same answer."""
    check = state.network_check
    if check is not None:
        check.askers.append((client.peer, message.seq))
        return
    number = state.next_forwarded
    state.next_forwarded += 1
    asked = {
        worker.incarnation: (
            worker.worker_id,
            [other.worker_id for other in state.workers.values() if other is not worker],
        )
        for worker in state.workers.values()
    }
    check = NetworkCheck(number, state.now + CHECK_SECONDS, [(client.peer, message.seq)], asked)
    state.network_check = check
    for incarnation, (_, addresses) in asked.items():
        if addresses:
            state.send(state.workers[incarnation].peer, ProbePeers(number, addresses))
        else:
            check.answers[incarnation] = []


def peers_probed(state: ServerState, worker: Worker, message: PeersProbed) -> None:
    """A worker answered."""
    check = state.network_check
    if check is None or message.seq != check.number:  # it comes late
        return
    asked = check.asked.get(worker.incarnation)
    if asked is None or worker.incarnation in check.answers or len(message.errors) != len(asked[1]):
        raise ReportError("what it tells of its peers is not what was asked")
    if any(len(error) > _LONGEST_TEXT for error in message.errors):
        raise ReportError("what it tells of its peers is too long")
    check.answers[worker.incarnation] = message.errors


def _check_result(check: NetworkCheck) -> dict[str, Any]:
    workers = []
    for incarnation, (worker_id, addresses) in check.asked.items():
        errors = check.answers.get(incarnation)
        failures = [
            {"to": address, "error": _printable(error)}
            for address, error in zip(addresses, errors or [""] * len(addresses), strict=True)
            if error
        ]
        workers.append({"worker_id": worker_id, "answered": errors is not None, "failures": failures})
    return {"workers": workers}


# --- both ---------------------------------------------------------------------------------------


def settle_forwarded(state: ServerState) -> None:
    """Answer what is complete or late; called at the end of each turn if something is pending."""
    for number, request in list(state.log_requests.items()):
        hint = _why_no_log(state, request)
        if hint is not None:
            del state.log_requests[number]
            if request.peer in state.clients:
                ended = _is_over(state, request.session, request.task)
                state.send(request.peer, TaskLog(request.seq, b"", 0, 0, ended, hint))
    check = state.network_check
    if check is not None:
        check.askers = [asker for asker in check.askers if asker[0] in state.clients]
        missing = check.asked.keys() - check.answers.keys()
        if check.askers and state.now < check.deadline and not missing.isdisjoint(state.workers):
            return
        state.network_check = None
        for peer, seq in check.askers:
            state.send(peer, NetworkChecked(seq, _check_result(check)))


def _why_no_log(state: ServerState, request: LogRequest) -> str | None:
    """Why a log cannot be had; None while it still may come."""
    worker_id = state.worker_id(request.incarnation)
    if request.peer not in state.clients:
        return "its client left"
    if request.incarnation not in state.workers:
        return f"the worker {worker_id}, where the task ran, is gone, and what it wrote with it"
    if state.now >= request.deadline:
        return f"the worker {worker_id}, where the task is or was, did not answer within {LOG_SECONDS:g} s"
    return None
