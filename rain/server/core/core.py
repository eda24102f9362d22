"""The server core: takes events, returns actions. No sockets, clocks or randomness in here."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from rain.common.failure import Failure
from rain.protocol.messages import (
    Cancel,
    CloseSession,
    ConstantPiece,
    FetchObjects,
    GetInfos,
    GetServerInfo,
    GetStates,
    Heartbeat,
    Message,
    NewSession,
    ObjectsMissing,
    ObjectsStored,
    SessionWarning,
    StopServer,
    StopWaiting,
    SubmitChunk,
    SubmitCommit,
    TaskFailed,
    TasksDone,
    TasksReturned,
    TasksStarted,
    TasksStopped,
    UnkeepObjects,
    Wait,
    WorkerHello,
    WorkerInfo,
    WorkerWelcome,
)
from rain.server.core import completion, ending, recovery, requests, waits
from rain.server.core.actions import Drop, Exit, ServerAction
from rain.server.core.check import sanity_check
from rain.server.core.events import CopyUnreadable, PeerJoined, PeerLeft, PeerSaid, ServerEvent, Tick
from rain.server.core.failing import end_session, fail_session
from rain.server.core.graph import FINISHED
from rain.server.core.state import ClientPeer, CoreOptions, ServerState
from rain.server.core.submit import stage_chunk
from rain.server.core.workers import Worker
from rain.server.scheduler.balance import balance
from rain.server.scheduler.infeasible import check_infeasible
from rain.server.scheduler.placement import schedule
from rain.server.scheduler.resources import parse_offer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.server.core.session import Session

NO_WORKER_AFTER = 4.5
"""Seconds; with the tick every 0.5 s the warning comes within 5 s (spec 6.10)."""


class ServerCore:
    """The server's state machine.

    Args:
        options: settings.
    """

    def __init__(self, options: CoreOptions | None = None) -> None:
        self.state = ServerState(options or CoreOptions())

    def handle(self, events: list[ServerEvent], now: float) -> list[ServerAction]:
        """Take a batch of events; returns what to do, in order.

        Args:
            events: in the order they happened.
            now: monotonic seconds.
        """
        state = self.state
        state.now = now
        if state.started is None:
            state.started = now
        for event in events:
            if type(event) is PeerSaid:
                self._message(event.peer, event.message)
            elif type(event) is Tick:
                self._tick()
            elif type(event) is PeerJoined:
                self._joined(event)
            elif type(event) is PeerLeft:
                self._left(event)
            elif type(event) is CopyUnreadable:
                session = self._live_session(event.session)
                if session is not None and session.graph.is_object(event.object_id):
                    recovery.drop_copy(state, session, event.object_id, event.incarnation)
        if state.info_requests:
            requests.settle_info_requests(state)
        if state.stopping is not None:
            requests.settle_stop(state)
        state.flush_deletes()
        schedule(state)
        balance(state)
        if state.options.check:
            sanity_check(state)
        actions, state.actions = state.actions, []
        return actions

    def sanity_check(self) -> None:
        """Walk every invariant; raises AssertionError naming the one that is broken."""
        sanity_check(self.state)

    def holders(self, session: int, obj: int) -> list[tuple[int, str]]:
        """(incarnation, data address) of the workers that hold an object; for the shell, which relays."""
        known = self._live_session(session)
        if known is None or not known.graph.is_object(obj) or known.graph.state[obj] != FINISHED:
            return []
        workers = self.state.workers
        return [(w, workers[w].worker_id) for w in sorted(known.graph.replicas_of(obj)) if w in workers]

    def value(self, session: int, obj: int) -> bytes | None:
        """The value of an object if the core itself has it; for the shell, which serves data connections."""
        known = self._live_session(session)
        if known is None or not known.graph.is_object(obj):
            return None
        return known.graph.value[obj]

    def _live_session(self, number: int) -> Session | None:
        session = self.state.sessions.get(number)
        return session if session is not None and session.failure is None else None

    # --- peers ---

    def _joined(self, event: PeerJoined) -> None:
        state = self.state
        if event.role == "client":
            state.clients[event.peer] = ClientPeer(event.peer, event.address, event.local, event.python)
        else:
            state.joining[event.peer] = (event.address, event.local, event.python)

    def _left(self, event: PeerLeft) -> None:
        state = self.state
        client = state.clients.pop(event.peer, None)
        state.joining.pop(event.peer, None)
        if client is not None:
            for number in sorted(client.sessions):
                end_session(state, state.sessions[number], "its client left")
            for number in [n for n, request in state.info_requests.items() if request.peer == event.peer]:
                del state.info_requests[number]
        incarnation = state.worker_of_peer.get(event.peer)
        if incarnation is not None:
            recovery.worker_lost(state, state.workers[incarnation], event.reason)

    def _tick(self) -> None:
        state = self.state
        check_infeasible(state)
        if not state.workers:
            for session in state.sessions.values():
                self._warn_no_worker(session)
        timeout = state.options.idle_timeout
        if timeout is None or state.clients or state.sessions:
            state.idle_since = None
        elif state.idle_since is None:
            state.idle_since = state.now
        elif state.now - state.idle_since >= timeout:
            state.log("info", f"nothing to do for {timeout:g} s: the server ends")
            state.actions.append(Exit(0))

    def _warn_no_worker(self, session: Session) -> None:
        if "no worker" in session.warned:
            return
        if any(self.state.now - waiter.since >= NO_WORKER_AFTER for waiter in session.waiters()):
            session.warned.add("no worker")
            self.state.send(session.peer, SessionWarning(session.number, "no worker is connected"))

    # --- messages ---

    def _message(self, peer: int, message: Message) -> None:
        state = self.state
        if type(message) is Heartbeat:
            return
        incarnation = state.worker_of_peer.get(peer)
        if incarnation is not None:
            self._worker_message(state.workers[incarnation], message)
        elif peer in state.clients:
            self._client_message(state.clients[peer], message)
        elif peer in state.joining and type(message) is WorkerHello:
            self._worker_hello(peer, message)
        elif peer in state.joining:
            state.actions.append(Drop(peer, f"unexpected {type(message).__name__} of an unregistered worker"))

    def _worker_hello(self, peer: int, message: WorkerHello) -> None:
        state = self.state
        address, local, _ = state.joining.pop(peer)
        try:
            offer = parse_offer(message.resources)
        except ValueError as error:
            state.actions.append(Drop(peer, f"worker {address}: {error}"))
            return
        incarnation = len(state.worker_ids)
        worker_id = message.address
        host, _, port = worker_id.rpartition(":")
        if host in ("0.0.0.0", "[::]"):
            worker_id = f"{address.rpartition(':')[0]}:{port}"
        state.worker_ids.append(worker_id)
        state.workers[incarnation] = Worker(
            incarnation, peer, worker_id, message.hostname, message.pid, message.python, message.resources, offer, local
        )
        state.worker_of_peer[peer] = incarnation
        state.log("info", f"worker {worker_id} (incarnation {incarnation}) registered with {message.resources}")
        state.send(peer, WorkerWelcome(incarnation, worker_id))

    def _worker_message(self, worker: Worker, message: Message) -> None:
        state = self.state
        if type(message) is WorkerInfo:
            request = state.info_requests.get(message.seq)
            if request is not None:
                request.missing.discard(worker.incarnation)
                request.answers[worker.incarnation] = message.info
            return
        number = getattr(message, "session", None)
        session = self._live_session(number) if number is not None else None
        if session is None:
            if number is None:
                state.actions.append(Drop(worker.peer, f"unexpected {type(message).__name__} of a worker"))
            return
        report = _WORKER_REPORTS.get(type(message))
        if report is None:
            state.actions.append(Drop(worker.peer, f"unexpected {type(message).__name__} of a worker"))
        else:
            self._guarded(session, message, lambda: report(state, session, worker, message))

    def _guarded(self, session: Session, message: Message, work: Callable[[], None]) -> str | None:
        """Do it; an internal error costs the session at most, and is told with its story. Returns its text."""
        try:
            work()
        except Exception:
            text = f"internal error in {type(message).__name__} of session {session.number}"
            self.state.log("error", f"{text}\n{traceback.format_exc()}")
            fail_session(self.state, session, Failure("internal", text, session=session.number))
            return text
        return None

    def _client_message(self, client: ClientPeer, message: Message) -> None:
        state = self.state
        kind = type(message)
        if kind in _PLAIN_REQUESTS:
            _PLAIN_REQUESTS[kind](state, client, message)
            return
        if type(message) is StopWaiting:
            waits.stop_waiting(state, client.peer, message)
            return
        handler = _SESSION_REQUESTS.get(kind)
        if handler is None:
            state.actions.append(Drop(client.peer, f"unexpected {kind.__name__} of a client"))
            return
        number: int = getattr(message, "session")  # noqa: B009 - the union's members in the table all have it
        seq: int = getattr(message, "seq", 0)
        session = state.sessions.get(number)
        if session is None or session.peer != client.peer:
            if seq:
                failure = Failure("session", f"Session {number} is closed", session=number)
                state.refuse(client.peer, seq, failure)
            return
        if session.failure is not None:
            if seq:
                state.refuse(client.peer, seq, session.failure)
            return
        text = self._guarded(session, message, lambda: handler(state, session, client, message))
        if text is not None and seq:
            state.refuse(client.peer, seq, Failure("internal", text, session=number))


def _stage(_state: ServerState, session: Session, _client: ClientPeer, message: SubmitChunk) -> None:
    stage_chunk(session, message)


def _piece(state: ServerState, session: Session, _client: ClientPeer, message: ConstantPiece) -> None:
    requests.constant_piece(state, session, message)


def _wait(state: ServerState, session: Session, client: ClientPeer, message: Wait) -> None:
    waits.wait(state, session, client.peer, message)


def _fetch(state: ServerState, session: Session, client: ClientPeer, message: FetchObjects) -> None:
    waits.fetch(state, session, client.peer, message)


_WORKER_REPORTS: dict[type, Callable[[ServerState, Session, Worker, Any], None]] = {
    TasksDone: completion.tasks_done,
    TasksStarted: completion.tasks_started,
    TaskFailed: completion.task_failed,
    TasksReturned: completion.tasks_returned,
    TasksStopped: ending.tasks_stopped,
    ObjectsStored: completion.objects_stored,
    ObjectsMissing: recovery.object_missing,
}

_PLAIN_REQUESTS: dict[type, Callable[[ServerState, ClientPeer, Any], None]] = {
    NewSession: requests.new_session,
    CloseSession: requests.close_session,
    GetServerInfo: requests.get_server_info,
    StopServer: requests.stop_server,
}

_SESSION_REQUESTS: dict[type, Callable[[ServerState, Session, ClientPeer, Any], None]] = {
    SubmitChunk: _stage,
    ConstantPiece: _piece,
    SubmitCommit: requests.submit_commit,
    Wait: _wait,
    FetchObjects: _fetch,
    UnkeepObjects: requests.unkeep,
    GetInfos: requests.get_infos,
    GetStates: requests.get_states,
    Cancel: ending.cancel,
}
