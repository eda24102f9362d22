"""Requests of clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.common.failure import Failure
from rain.protocol.messages import (
    KEEP,
    Accepted,
    CloseSession,
    ConstantPiece,
    NewSession,
    SessionCreated,
    SessionWarning,
    StopServer,
    StopWorker,
    SubmitCommit,
    UnkeepObjects,
)
from rain.server.core import recording
from rain.server.core.actions import Exit, WriteConstant
from rain.server.core.failing import end_session
from rain.server.core.graph import FINISHED, OBJECT
from rain.server.core.retention import object_unneeded
from rain.server.core.session import Session
from rain.server.core.staging import InvalidSubmitError, StagedSubmit
from rain.server.core.submit import commit
from rain.server.core.waits import pieces_of, unknown_id

if TYPE_CHECKING:
    from array import array

    from rain.server.core.state import ClientPeer, ServerState

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
    state.sessions[number] = Session(
        number, client.peer, message.name, on_failure=message.on_failure, created=state.now
    )
    client.sessions.add(number)
    spec = {"name": message.name, "on_failure": message.on_failure, "persistent": message.persistent}
    recording.happened(state, "SessionNew", number, {"session": number, "client": client.address, "spec": spec})
    state.send(client.peer, SessionCreated(message.seq, number))


def close_session(state: ServerState, client: ClientPeer, message: CloseSession) -> None:
    """Close a session; closing what is gone is fine."""
    session = state.sessions.get(message.session)
    if session is not None:
        own = session.peer == client.peer
        end_session(state, session, "closed by its client" if own else f"closed by {client.address}")
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
    if not session.graph.numbering.arrays and _are_kept_rows(session, message.ids):
        for row in message.ids:
            _unkeep_row(state, session, row)
        recording.objects_unkept(state, session, message.ids)
        state.send(client.peer, Accepted(message.seq))
        return
    failure = unknown_id(session, message.ids) or _not_kept(session, message.ids)
    if failure is not None:
        state.refuse(client.peer, message.seq, failure)
        return
    for piece in pieces_of(session, message.ids):
        if piece.block is None:
            for row in range(piece.start, piece.stop):
                _unkeep_row(state, session, row)
            continue
        piece.block.unkeep(piece.start, piece.stop)
        for index, obj in list(piece.block.claimed.items()):
            if piece.start <= index < piece.stop:
                _unkeep_row(state, session, obj)
    recording.objects_unkept(state, session, message.ids)
    state.send(client.peer, Accepted(message.seq))


def _are_kept_rows(session: Session, ids: array[int]) -> bool:
    """True if all of these rows are kept data objects."""
    kind, flags = session.graph.kind, session.graph.flags
    return not ids or (max(ids) < len(kind) and all([kind[row] == OBJECT and flags[row] & KEEP for row in ids]))


def _not_kept(session: Session, ids: array[int]) -> Failure | None:
    """A failure naming the first id that is no kept data object."""
    graph = session.graph
    for piece in pieces_of(session, ids):
        if piece.block is not None and not piece.is_task and piece.block.are_kept(piece.start, piece.stop):
            continue
        for position in range(piece.start, piece.stop):
            if piece.block is None:
                is_kept = graph.kind[position] == OBJECT and graph.is_kept(position)
            else:
                is_kept = not piece.is_task and piece.block.is_kept(position)
            if not is_kept:
                name = f"{session.number}/{piece.number(graph.numbering, position)}"
                return Failure("invalid", f"{name} is not a kept data object", session=session.number)
    return None


def _unkeep_row(state: ServerState, session: Session, obj: int) -> None:
    graph = session.graph
    graph.flags[obj] &= ~KEEP
    if not graph.needed[obj] and graph.state[obj] == FINISHED:
        object_unneeded(state, session, obj)


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
