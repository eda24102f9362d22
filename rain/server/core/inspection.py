"""What the server and its workers know of themselves: `get_server_info` and dumps (spec 5.1, 9.4)."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import msgpack

from rain.common.lines import one_line
from rain.common.states import TaskState
from rain.protocol.messages import Dump, GetDump, GetServerInfo, GetWorkerInfo, ServerInfo
from rain.server.core.explain import explain_task
from rain.server.core.graph import TASK_FINISHED
from rain.server.core.state import ClientPeer, InfoRequest, ServerState
from rain.server.core.story import told
from rain.server.scheduler.resources import free_resources

if TYPE_CHECKING:
    from rain.server.core.session import Session
    from rain.server.core.workers import Worker

INFO_SECONDS = 2.0
"""How long workers may take to answer."""
EXPLAINED = 200
"""Unfinished tasks per session that a dump explains; their state tells most of them apart."""
WAITERS = 100
"""Waits per session that a dump lists."""
TEXTS_ROOM = 2 << 20
"""Characters of explanations in a dump, so that the server is not kept busy for long."""
WORKERS_ROOM = 32 << 20
"""Bytes of what workers tell in a dump, which is one message."""


def get_server_info(state: ServerState, client: ClientPeer, message: GetServerInfo) -> None:
    """Ask every worker; answered when all have answered."""
    _ask_workers(state, client, message.seq, full=False)


def get_dump(state: ServerState, client: ClientPeer, message: GetDump) -> None:
    """Ask every worker for all it knows; answered when all have answered."""
    _ask_workers(state, client, message.seq, full=True)


def _ask_workers(state: ServerState, client: ClientPeer, seq: int, *, full: bool) -> None:
    number = state.next_info
    state.next_info += 1
    state.info_requests[number] = InfoRequest(client.peer, seq, state.now + INFO_SECONDS, set(state.workers), full)
    for worker in state.workers.values():
        state.send(worker.peer, GetWorkerInfo(number, full))


def settle_info_requests(state: ServerState) -> None:
    """Answer those that are complete or late."""
    for number, request in list(state.info_requests.items()):
        if request.missing and state.now < request.deadline:
            continue
        del state.info_requests[number]
        if request.full:
            _send_dump(state, request)
            continue
        nothing: dict[str, Any] = {"tasks": [], "objects": [], "objects_to_delete": []}
        workers = [
            _worker_info(worker) | _state_of(worker) | nothing | request.answers.get(worker.incarnation, {})
            for worker in state.workers.values()
        ]
        server = _server_info(state, state.clients[request.peer])
        state.send(request.peer, ServerInfo(request.seq, {"server": server, "workers": workers}))


def _send_dump(state: ServerState, request: InfoRequest) -> None:
    server = _server_info(state, state.clients[request.peer])
    server["gone_workers"] = told(state.now, state.gone_workers)
    server["clients"] = [
        {"address": client.address, "python": client.python, "sessions": sorted(client.sessions)}
        for client in state.clients.values()
    ]
    server["internal_errors"] = state.errors
    server["queues"] = [
        {"priority": queue.priority, "request": queue.request.describe(), "entries": len(queue)}
        for queue in state.queue.classes()
    ]
    sessions, room = [], TEXTS_ROOM
    for session in state.sessions.values():
        sessions.append(_session_dump(state, session, room))
        room -= sum(map(len, sessions[-1]["explained"]))
    workers, room = [], WORKERS_ROOM
    for worker in state.workers.values():
        told_by_it = request.answers.get(worker.incarnation)
        size = len(msgpack.packb(told_by_it))
        if size > room:
            told_by_it = {"left_out": f"{size} bytes, the dump would be too large"}
        else:
            room -= size
        entry = _worker_info(worker) | {"answered": told_by_it is not None, "at_server": _worker_dump(state, worker)}
        workers.append(entry | (told_by_it or {}))
    state.send(request.peer, Dump(request.seq, {"server": server, "sessions": sessions, "workers": workers}))


def _worker_info(worker: Worker) -> dict[str, Any]:
    return {
        "worker_id": worker.worker_id,
        "resources": worker.resources,
        "hostname": worker.hostname,
        "pid": worker.pid,
        "free_cpus": max(0, worker.free_cpus),
        "free": free_resources(worker.free_cpus, worker.free),
        "store": worker.told_of_itself.get("store", {}),
    }


def _state_of(worker: Worker) -> dict[str, str]:
    return {"state": "connected" if worker.draining is None else "draining"}


def _server_info(state: ServerState, client: ClientPeer) -> dict[str, Any]:
    tasks: dict[str, int] = {}
    for session in state.sessions.values():
        for name, count in state.task_counts(session).items():
            tasks[name] = tasks.get(name, 0) + count
    return {
        "version": state.options.version,
        "address": client.local,
        "http_url": state.options.http_url,
        "uptime": state.now - (state.started or state.now),
        "sessions": len(state.sessions),
        "tasks": tasks,
    }


def _session_dump(state: ServerState, session: Session, room: int) -> dict[str, Any]:
    """What is told of a session; `room`: characters left for explanations."""
    graph = session.graph
    found: dict[str, Any] = {
        "session": session.number,
        "name": session.name,
        "client": state.clients[session.peer].address if session.peer in state.clients else None,
        "on_failure": session.on_failure,
        "failure": None if session.failure is None else one_line(session.failure.message),
        "tasks": state.task_counts(session),
        "waiters": [
            {"ids": len(waiter.ids), "remaining": waiter.remaining, "seconds": state.now - waiter.since}
            for waiter in islice(session.waiters(), WAITERS)
        ],
    }
    by_state: dict[int, int] = {}
    texts = []
    for task in graph.tasks():
        status = graph.state[task]
        if room > 0 and status != TASK_FINISHED and by_state.get(status, 0) < EXPLAINED // len(TaskState):
            by_state[status] = by_state.get(status, 0) + 1
            texts.append(explain_task(state, session, task))
            room -= len(texts[-1])
    return found | {"explained": texts}


def _worker_dump(state: ServerState, worker: Worker) -> dict[str, Any]:
    return {
        "incarnation": worker.incarnation,
        "free": {"cpus": worker.free_cpus, **worker.free},
        "queued_seconds": worker.queued,
        "assigned": {str(number): len(tasks) for number, tasks in worker.assigned.items()},
        "reserved": None if worker.reserved is None else worker.reserved.describe(),
        "withdrawing": len(worker.withdrawing),
        **_state_of(worker),
        "story": told(state.now, worker.story),
    }
