"""The server core: takes events, returns actions. No sockets, clocks or randomness in here."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from rain.common.failure import Failure
from rain.protocol.messages import (
    Cancel,
    CheckNetwork,
    CloseSession,
    ConstantPiece,
    Explain,
    ExplainTasks,
    FetchObjects,
    GetCounts,
    GetDump,
    GetInfos,
    GetServerInfo,
    GetSpecs,
    GetStates,
    GetTaskLog,
    Heartbeat,
    ListObjects,
    ListSessions,
    ListTasks,
    Message,
    NewSession,
    ObjectsMissing,
    ObjectsStored,
    PeersProbed,
    SessionWarning,
    StopServer,
    StopWaiting,
    StopWorkers,
    SubmitBlock,
    SubmitChunk,
    SubmitCommit,
    TaskFailed,
    TaskLogRead,
    TasksDone,
    TasksReturned,
    TasksStarted,
    TasksStopped,
    UnkeepObjects,
    Wait,
    WorkerDigest,
    WorkerHello,
    WorkerInfo,
    WorkerMonitoring,
    WorkerRuns,
    WorkerWelcome,
)
from rain.server.core import (
    block_runs,
    completion,
    draining,
    ending,
    explain,
    fetches,
    forwarding,
    infos,
    inspection,
    listing,
    monitoring,
    recording,
    recovery,
    requests,
    task_specs,
    waits,
    watchdog,
)
from rain.server.core.actions import Drop, Exit, ServerAction
from rain.server.core.check import sanity_check
from rain.server.core.events import ConstantLost, CopyUnreadable, PeerJoined, PeerLeft, PeerSaid, ServerEvent, Tick
from rain.server.core.failing import end_session, internal_error, log_internal_error
from rain.server.core.graph import FINISHED
from rain.server.core.lies import ReportError, check_hello, checked_info
from rain.server.core.reports import report_in_rows
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
                row = session.graph.numbering.row(event.object_id) if session is not None else -1
                if session is not None and session.graph.is_object(row):
                    recovery.drop_copy(state, session, row, event.incarnation)
            elif type(event) is ConstantLost:
                session = self._live_session(event.session)
                if session is not None:
                    recovery.constant_lost(state, session, event.object_id, event.reason)
        if state.info_requests:
            inspection.settle_info_requests(state)
        if state.log_requests or state.network_check is not None:
            forwarding.settle_forwarded(state)
        if state.stop_requests:
            draining.answer_stopped(state)
        if state.stopping is not None:
            requests.settle_stop(state)
        recording.flush_ended(state)
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
        row = known.graph.numbering.row(obj) if known is not None else -1
        if known is None or not known.graph.is_object(row) or known.graph.state[row] != FINISHED:
            return []
        workers = self.state.workers
        return [(w, workers[w].worker_id) for w in sorted(known.graph.replicas_of(row)) if w in workers]

    def metrics(self) -> monitoring.Metrics:
        """Figures for monitoring systems."""
        return monitoring.metrics(self.state)

    def value(self, session: int, obj: int) -> bytes | None:
        """The value of an object if the core itself has it; for the shell, which serves data connections."""
        known = self._live_session(session)
        return None if known is None else fetches.value_at_server(known, obj)

    def _live_session(self, number: int) -> Session | None:
        session = self.state.sessions.get(number)
        return session if session is not None and session.failure is None else None

    # --- peers ---

    def _joined(self, event: PeerJoined) -> None:
        state = self.state
        if event.role == "worker":
            state.joining[event.peer] = (event.address, event.local, event.python)
            return
        is_own = event.role == "http"
        client = ClientPeer(event.peer, event.address, event.local, event.python, is_own=is_own)
        state.clients[event.peer] = client
        if not is_own:
            recording.happened(state, "ClientNew", None, {"client": event.address})

    def _left(self, event: PeerLeft) -> None:
        state = self.state
        client = state.clients.pop(event.peer, None)
        state.joining.pop(event.peer, None)
        if client is not None:
            for number in sorted(client.sessions):
                end_session(state, state.sessions[number], "its client left")
            if not client.is_own:
                about = {"client": client.address, "error_msg": event.reason}
                recording.happened(state, "ClientRemoved", None, about)
            for number in [n for n, request in state.info_requests.items() if request.peer == event.peer]:
                del state.info_requests[number]
        incarnation = state.worker_of_peer.get(event.peer)
        if incarnation is not None:
            recovery.worker_lost(state, state.workers[incarnation], event.reason)

    def _tick(self) -> None:
        state = self.state
        check_infeasible(state)
        watchdog.watch(state)
        draining.drain(state)
        if not state.workers:
            for session in state.sessions.values():
                self._warn_no_worker(session)
        timeout = state.options.idle_timeout
        if timeout is None or state.sessions or any(not client.is_own for client in state.clients.values()):
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
            check_hello(message)
            offer = parse_offer(message.resources)
        except (ValueError, ReportError) as error:
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
        state.workers[incarnation].story.append((state.now, "registered"))
        recording.worker_added(state, state.workers[incarnation])
        state.log("info", f"worker {worker_id} (incarnation {incarnation}) registered with {message.resources}")
        state.send(peer, WorkerWelcome(incarnation, worker_id, state.options.cache))

    def _worker_message(self, worker: Worker, message: Message) -> None:
        try:
            self._worker_report(worker, message)
        except ReportError as error:
            text = f"{type(message).__name__} of worker {worker.worker_id}: {error}"
            self.state.actions.append(Drop(worker.peer, text))

    def _worker_report(self, worker: Worker, message: Message) -> None:
        state = self.state
        if type(message) is WorkerInfo:
            request = state.info_requests.get(message.seq)
            if request is not None:
                request.missing.discard(worker.incarnation)
                request.answers[worker.incarnation] = checked_info(message.info)
            return
        answer = _WORKER_ANSWERS.get(type(message))
        if answer is not None:
            answer(state, worker, message)
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
            in_rows = report_in_rows(session.graph, message)
            self._guarded(session, message, lambda: report(state, session, worker, in_rows))

    def _guarded(self, session: Session, message: Message, work: Callable[[], None]) -> str | None:
        """Do it; an internal error costs the session at most. Returns its text."""
        try:
            work()
        except ReportError:
            raise
        except Exception:
            where = f"{type(message).__name__} of session {session.number}"
            return internal_error(self.state, session, f"while handling {where}", traceback.format_exc())
        return None

    def _plain_request(self, client: ClientPeer, message: Message) -> None:
        """A request that belongs to no session: an internal error costs the answer."""
        state = self.state
        try:
            _PLAIN_REQUESTS[type(message)](state, client, message)
        except Exception:
            what = f"while handling {type(message).__name__} of {client.address}"
            text = log_internal_error(state, what, traceback.format_exc())
            seq: int = getattr(message, "seq")  # noqa: B009 - all messages in the table have it
            state.refuse(client.peer, seq, Failure("internal", text))

    def _client_message(self, client: ClientPeer, message: Message) -> None:
        state = self.state
        kind = type(message)
        if kind in _PLAIN_REQUESTS:
            self._plain_request(client, message)
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
        if session is None or (session.peer != client.peer and kind not in _FOR_ALL_SESSIONS):
            if seq:
                state.refuse(client.peer, seq, state.no_session(number))
            return
        if session.failure is not None:
            if seq:
                state.refuse(client.peer, seq, session.failure)
            return
        text = self._guarded(session, message, lambda: handler(state, session, client, message))
        if text is not None and seq:
            state.refuse(client.peer, seq, Failure("internal", text, session=number))


def _stage(_state: ServerState, session: Session, _client: ClientPeer, message: SubmitChunk | SubmitBlock) -> None:
    stage_chunk(session, message)


def _piece(state: ServerState, session: Session, _client: ClientPeer, message: ConstantPiece) -> None:
    requests.constant_piece(state, session, message)


def _wait(state: ServerState, session: Session, client: ClientPeer, message: Wait) -> None:
    waits.wait(state, session, client.peer, message)


def _fetch(state: ServerState, session: Session, client: ClientPeer, message: FetchObjects) -> None:
    fetches.fetch(state, session, client.peer, message)


_WORKER_REPORTS: dict[type, Callable[[ServerState, Session, Worker, Any], None]] = {
    TasksDone: block_runs.tasks_done,
    TasksStarted: completion.tasks_started,
    TaskFailed: block_runs.task_failed,
    TasksReturned: completion.tasks_returned,
    TasksStopped: ending.tasks_stopped,
    ObjectsStored: completion.objects_stored,
    ObjectsMissing: recovery.object_missing,
}

_WORKER_ANSWERS: dict[type, Callable[[ServerState, Worker, Any], None]] = {
    WorkerDigest: watchdog.worker_digest,
    WorkerRuns: watchdog.worker_runs,
    WorkerMonitoring: monitoring.worker_monitoring,
    TaskLogRead: forwarding.task_log_read,
    PeersProbed: forwarding.peers_probed,
}

_PLAIN_REQUESTS: dict[type, Callable[[ServerState, ClientPeer, Any], None]] = {
    NewSession: requests.new_session,
    CloseSession: requests.close_session,
    GetServerInfo: inspection.get_server_info,
    GetDump: inspection.get_dump,
    Explain: explain.explain,
    ExplainTasks: explain.explain_tasks,
    StopServer: requests.stop_server,
    ListSessions: listing.list_sessions,
    GetTaskLog: forwarding.get_task_log,
    CheckNetwork: forwarding.check_network,
    StopWorkers: draining.stop_workers,
}

_SESSION_REQUESTS: dict[type, Callable[[ServerState, Session, ClientPeer, Any], None]] = {
    SubmitChunk: _stage,
    SubmitBlock: _stage,
    ConstantPiece: _piece,
    SubmitCommit: requests.submit_commit,
    Wait: _wait,
    FetchObjects: _fetch,
    UnkeepObjects: requests.unkeep,
    GetInfos: infos.get_infos,
    GetStates: infos.get_states,
    GetCounts: infos.get_counts,
    ListTasks: listing.list_tasks,
    ListObjects: listing.list_objects,
    GetSpecs: task_specs.get_specs,
    Cancel: ending.cancel,
}

_FOR_ALL_SESSIONS = {GetInfos, GetStates, GetCounts, Cancel, ListTasks, ListObjects, GetSpecs}
"""Requests about sessions of other clients are answered too: the command line is one."""
