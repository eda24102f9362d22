"""The state all parts of the server core work on, and what is about to be sent."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import field
from typing import TYPE_CHECKING, Any

from rain.common.failure import Failure
from rain.common.states import TaskState
from rain.common.structs import dataclass
from rain.protocol.messages import DeleteObjects, Message, Refused
from rain.server.core import recording
from rain.server.core.actions import Log, Send, ServerAction
from rain.server.core.counts import count_tasks
from rain.server.core.graph import READY
from rain.server.core.story import Story, new_story
from rain.server.scheduler.queues import Entry, ReadyQueue, entry, split

if TYPE_CHECKING:
    from rain.server.core.draining import StopRequest
    from rain.server.core.forwarding import LogRequest, NetworkCheck
    from rain.server.core.session import Session
    from rain.server.core.workers import Worker


@dataclass(frozen=True, slots=True)
class CoreOptions:
    """Settings of the server core.

    crash_limit: workers a task may be running on when they are lost (0 = any number). infeasible_timeout: seconds
    until a task that can never run fails (None = never). idle_timeout: seconds without clients, sessions and tasks
    until the server ends (None = never). first_session: number of the first session. prefetch_seconds: work sent
    ahead of a worker's needs. inline_limit: values below this many bytes ride in messages. message_budget: bytes of
    values and arguments in one message; far below what a channel takes. constant_memory: constants
    from this many bytes on go to the constant store. check: run `sanity_check` after each batch. test_mode: obey
    placements asked for by constants (spec 6.6). http_url: of the dashboard, None without one. cache: what workers are
    told of the result cache, empty without one.
    """

    crash_limit: int = 3
    infeasible_timeout: float | None = 60.0
    idle_timeout: float | None = None
    first_session: int = 1
    prefetch_seconds: float = 0.1
    inline_limit: int = 64 << 10
    message_budget: int = 8 << 20
    constant_memory: int = 256 << 10
    version: str = ""
    check: bool = False
    test_mode: bool = False
    http_url: str | None = None
    cache: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class ClientPeer:
    """A connected client. sessions: those it opened and has not closed. is_own: it is part of the server."""

    peer: int
    address: str
    local: str
    python: str
    sessions: set[int] = field(default_factory=set)
    is_own: bool = False


@dataclass(slots=True)
class InfoRequest:
    """A GetServerInfo or (full) a GetDump that waits for the workers' answers. deadline: when it is answered with what
    is there."""

    peer: int
    seq: int
    deadline: float
    missing: set[int]
    full: bool
    answers: dict[int, dict[str, object]] = field(default_factory=dict)


class ServerState:
    """Everything the server knows."""

    def __init__(self, options: CoreOptions) -> None:
        self.options = options
        self.now = 0.0
        self.started: float | None = None
        self.clients: dict[int, ClientPeer] = {}
        self.joining: dict[int, tuple[str, str, str]] = {}
        self.workers: dict[int, Worker] = {}
        self.worker_of_peer: dict[int, int] = {}
        self.worker_ids: list[str] = [""]
        self.sessions: dict[int, Session] = {}
        self.next_session = options.first_session
        self.queue = ReadyQueue()
        self.info_requests: dict[int, InfoRequest] = {}
        self.next_info = 1
        self.log_requests: dict[int, LogRequest] = {}
        self.network_check: NetworkCheck | None = None
        self.next_forwarded = 1
        self.idle_since: float | None = None
        self.errors = 0
        self.gone_workers: Story = new_story()
        self.stop_requests: list[StopRequest] = []
        self.stopping: tuple[int, int, float] | None = None
        self.actions: list[ServerAction] = []
        self.totals: Counter[str] = Counter()
        self.ended: dict[tuple[int, str], tuple[array[int], array[int]]] = {}
        self._deletes: dict[tuple[int, int], array[int]] = {}

    # --- out ---

    def send(self, peer: int, message: Message) -> None:
        """Send a message to a peer."""
        incarnation = self.worker_of_peer.get(peer)
        if incarnation is not None:
            self.workers[incarnation].told += 1
        self.actions.append(Send(peer, message))

    def refuse(self, peer: int, seq: int, failure: Failure) -> None:
        """Answer a request with a failure."""
        client = self.clients.get(peer)
        if failure.kind == "invalid" and client is not None and not client.is_own:
            fields = {"client": client.address, "error_msg": failure.message}
            recording.happened(self, "ClientInvalidRequest", failure.session or None, fields)
        self.actions.append(Send(peer, Refused(seq, failure.to_map())))

    def log(self, level: str, text: str) -> None:
        """Write a line to the log."""
        self.actions.append(Log(level, text))

    def delete_copy(self, incarnation: int, session: int, obj: int) -> None:
        """Tell a worker, at the end of this batch, that an object is not needed."""
        key = (incarnation, session)
        objects = self._deletes.get(key)
        if objects is None:
            objects = self._deletes[key] = array("I")
        objects.append(obj)

    def forget_deletes(self, session: int) -> None:
        """EndSession says it all."""
        for key in [key for key in self._deletes if key[1] == session]:
            del self._deletes[key]

    def flush_deletes(self) -> None:
        """Emit the deletions of this batch; they must precede its assignments."""
        if self._deletes:
            for (incarnation, session), objects in self._deletes.items():
                worker, known = self.workers.get(incarnation), self.sessions.get(session)
                if worker is not None and known is not None:
                    ids = known.graph.numbering.ids(objects)
                    self.send(worker.peer, DeleteObjects(session, ids))
            self._deletes.clear()

    # --- ready tasks ---

    def make_ready(self, session: Session, task: int) -> None:
        """All inputs of the task are finished: queue it."""
        graph = session.graph
        graph.state[task] = READY
        template = session.templates[graph.template[task]]
        session.ready += 1
        packed, again = entry(session.number, task), graph.run[task] > 0
        self.queue.push(template.priority, template.request, graph.level[task], packed, again=again)

    def no_session(self, number: int) -> Failure:
        """Why a request about a session that is gone is refused."""
        return Failure("session", f"Session {number} is closed", session=number)

    def is_ready(self, packed: Entry) -> bool:
        """True if the queue entry is not outdated."""
        number, task = split(packed)
        session = self.sessions.get(number)
        return session is not None and session.failure is None and session.graph.state[task] == READY

    def worker_id(self, incarnation: int) -> str:
        """Id of a worker, past ones included."""
        return self.worker_ids[incarnation]

    def task_counts(self, session: Session) -> dict[str, int]:
        """Tasks of a session by state."""
        return {TaskState(state).name: count for state, count in enumerate(count_tasks(session.graph)) if count}
