"""Requests of clients."""

from __future__ import annotations

from base64 import b64encode

import msgpack

from rain.common.failure import Failure
from rain.common.states import TaskState
from rain.protocol.messages import (
    KEEP,
    Accepted,
    CloseSession,
    ConstantPiece,
    GetInfos,
    GetServerInfo,
    GetStates,
    GetWorkerInfo,
    Infos,
    NewSession,
    ServerInfo,
    SessionCreated,
    SessionWarning,
    States,
    StopServer,
    StopWorker,
    SubmitCommit,
    UnkeepObjects,
)
from rain.server.core.actions import Exit, WriteConstant
from rain.server.core.ending import attempts
from rain.server.core.failing import end_session
from rain.server.core.graph import FINISHED, OBJECT, TASK
from rain.server.core.plan import InvalidSubmitError
from rain.server.core.retention import object_unneeded
from rain.server.core.session import Session
from rain.server.core.staging import StagedSubmit
from rain.server.core.state import ClientPeer, InfoRequest, ServerState
from rain.server.core.submit import commit
from rain.server.core.waits import unknown_id

INFO_SECONDS = 2.0
"""How long workers may take to answer a GetServerInfo."""
STOP_SECONDS = 5.0
"""How long workers may take to end."""


def new_session(state: ServerState, client: ClientPeer, message: NewSession) -> None:
    """Open a session."""
    if message.on_failure not in ("fail", "continue"):
        failure = Failure("invalid", f"on_failure={message.on_failure!r} is neither 'fail' nor 'continue'")
        state.refuse(client.peer, message.seq, failure)
        return
    number = state.next_session
    state.next_session += 1
    state.sessions[number] = Session(number, client.peer, message.name, on_failure=message.on_failure)
    client.sessions.add(number)
    state.send(client.peer, SessionCreated(message.seq, number))


def close_session(state: ServerState, client: ClientPeer, message: CloseSession) -> None:
    """Close a session; closing what is gone is fine."""
    session = state.sessions.get(message.session)
    if session is not None and session.peer == client.peer:
        end_session(state, session, "closed by its client")
    state.send(client.peer, Accepted(message.seq))


def constant_piece(state: ServerState, session: Session, message: ConstantPiece) -> None:
    """Take a piece of a large constant."""
    received, total = session.uploads.get(message.object_id, (0, message.total))
    end = message.offset + len(message.data)
    if message.offset != received or message.total != total or end > total:
        if session.staged is None:
            session.staged = StagedSubmit()
        session.staged.error = f"data object {session.number}/{message.object_id}: the pieces do not fit together"
        return
    session.uploads[message.object_id] = (end, total)
    state.actions.append(WriteConstant(session.number, message.object_id, message.offset, total, message.data))


def submit_commit(state: ServerState, session: Session, client: ClientPeer, message: SubmitCommit) -> None:
    """Commit or discard what was staged."""
    if message.discard:
        session.staged = None
        session.uploads.clear()
        state.send(client.peer, Accepted(message.seq))
        return
    try:
        commit(state, session)
    except InvalidSubmitError as error:
        session.uploads.clear()
        state.log("warning", f"submit of client {client.address} refused: {error}")
        state.refuse(client.peer, message.seq, Failure("invalid", str(error), session=session.number))
        return
    _warn_of_python(state, session, client)
    state.send(client.peer, Accepted(message.seq))


def _warn_of_python(state: ServerState, session: Session, client: ClientPeer) -> None:
    """Pickled functions run only under the Python minor version that made them."""
    if "python" in session.warned or not any(template.is_python for template in session.templates):
        return
    session.warned.add("python")
    mine = minor_version(client.python)
    others = sorted({w.python for w in state.workers.values() if minor_version(w.python) != mine})
    if others:
        versions = ", ".join(others)
        text = f"The client runs Python {client.python}, workers run Python {versions}: functions may fail there"
        state.send(client.peer, SessionWarning(session.number, text))


def minor_version(version: str) -> str:
    """`3.11` of `3.11.7`."""
    return ".".join(version.split(".")[:2])


def unkeep(state: ServerState, session: Session, client: ClientPeer, message: UnkeepObjects) -> None:
    """Take the keep flag away."""
    graph = session.graph
    failure = unknown_id(session, message.ids)
    for obj in message.ids if failure is None else ():
        if graph.kind[obj] != OBJECT or not graph.is_kept(obj):
            failure = Failure("invalid", f"{session.number}/{obj} is not a kept data object", session=session.number)
            break
    if failure is not None:
        state.refuse(client.peer, message.seq, failure)
        return
    for obj in dict.fromkeys(message.ids):
        graph.flags[obj] &= ~KEEP
        if not graph.needed[obj] and graph.state[obj] == FINISHED:
            object_unneeded(state, session, obj)
    state.send(client.peer, Accepted(message.seq))


def get_infos(state: ServerState, session: Session, client: ClientPeer, message: GetInfos) -> None:
    """States and infos as they are now."""
    failure = unknown_id(session, message.ids)
    if failure is not None:
        state.refuse(client.peer, message.seq, failure)
        return
    graph = session.graph
    states = bytes(graph.state[number] for number in message.ids)
    infos = [
        _task_info(state, session, number) if graph.kind[number] == TASK else _object_info(session, number)
        for number in message.ids
    ]
    state.send(client.peer, Infos(message.seq, states, infos))


def get_states(state: ServerState, session: Session, client: ClientPeer, message: GetStates) -> None:
    """States as they are now."""
    failure = unknown_id(session, message.ids)
    if failure is not None:
        state.refuse(client.peer, message.seq, failure)
        return
    numbers = message.ids or session.graph.tasks()
    state.send(client.peer, States(message.seq, bytes(map(session.graph.state.__getitem__, numbers))))


def _task_info(state: ServerState, session: Session, task: int) -> bytes | None:
    graph = session.graph
    if not graph.run[task]:
        return None
    info = msgpack.unpackb(graph.info[task]) if task in graph.info else {}
    info["attempts"] = attempts(session, task)
    if graph.state[task] in (TaskState.finished, TaskState.failed) and graph.start[task]:
        info["start_time"] = graph.start[task]
        info["duration"] = graph.duration[task]
    blamed = session.blame.get(task)
    if blamed is not None and graph.state[task] == TaskState.failed:
        info["error"], info["debug"] = blamed.message, blamed.debug
        if blamed.exception is not None:
            info["exception"] = b64encode(blamed.exception).decode()
    incarnation = graph.worker[task] or graph.last_worker[task]
    info["governor"] = state.worker_id(incarnation)
    packed: bytes = msgpack.packb(info)
    return packed


def _object_info(session: Session, obj: int) -> bytes | None:
    graph = session.graph
    if graph.state[obj] != FINISHED:
        return None
    info = msgpack.unpackb(graph.info[obj]) if obj in graph.info else {}
    info["size"] = graph.size[obj]
    packed: bytes = msgpack.packb(info)
    return packed


def get_server_info(state: ServerState, client: ClientPeer, message: GetServerInfo) -> None:
    """Ask every worker; answered when all have answered."""
    number = state.next_info
    state.next_info += 1
    request = InfoRequest(client.peer, message.seq, state.now + INFO_SECONDS, set(state.workers))
    state.info_requests[number] = request
    for worker in state.workers.values():
        state.send(worker.peer, GetWorkerInfo(number))


def settle_info_requests(state: ServerState) -> None:
    """Answer those that are complete or late."""
    for number, request in list(state.info_requests.items()):
        if request.missing and state.now < request.deadline:
            continue
        del state.info_requests[number]
        workers = []
        for worker in state.workers.values():
            entry: dict[str, object] = {
                "worker_id": worker.worker_id,
                "tasks": [],
                "objects": [],
                "objects_to_delete": [],
                "resources": worker.resources,
                "hostname": worker.hostname,
                "pid": worker.pid,
                "free_cpus": max(0, worker.free_cpus),
            }
            entry.update(request.answers.get(worker.incarnation, {}))
            workers.append(entry)
        tasks: dict[str, int] = {}
        for session in state.sessions.values():
            for name, count in state.task_counts(session).items():
                tasks[name] = tasks.get(name, 0) + count
        server = {
            "version": state.options.version,
            "address": state.clients[request.peer].local,
            "http_url": None,
            "uptime": state.now - (state.started or state.now),
            "sessions": len(state.sessions),
            "tasks": tasks,
        }
        state.send(request.peer, ServerInfo(request.seq, {"server": server, "workers": workers}))


def stop_server(state: ServerState, client: ClientPeer, message: StopServer) -> None:
    """End sessions and workers; the answer and the end follow when the workers are gone."""
    if state.stopping is None:
        state.log("info", f"stop asked by client {client.address}")
        for session in list(state.sessions.values()):
            end_session(state, session, "the server stops")
        for worker in state.workers.values():
            state.send(worker.peer, StopWorker())
        state.stopping = (client.peer, message.seq, state.now + STOP_SECONDS)


def settle_stop(state: ServerState) -> None:
    """End the server when the workers are gone or late."""
    if state.stopping is None:
        return
    peer, seq, deadline = state.stopping
    if state.workers and state.now < deadline:
        return
    state.stopping = None
    if peer in state.clients:
        state.send(peer, Accepted(seq))
    state.actions.append(Exit(0))
