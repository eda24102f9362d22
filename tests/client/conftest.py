"""A client whose server is a script: no sockets, no processes."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgpack
import pytest

from rain.client.client import Client
from rain.client.connect import Target
from rain.client.connection import Connection
from rain.client.session import Session
from rain.common.failure import Failure
from rain.common.states import DataObjectState, TaskState
from rain.net.address import Address
from rain.net.secret import Secret
from rain.protocol.messages import (
    WAIT_SOME,
    Accepted,
    Cancel,
    Cancelled,
    CloseSession,
    Counts,
    FetchObjects,
    GetCounts,
    GetInfos,
    GetServerInfo,
    GetSpecs,
    GetStates,
    Heartbeat,
    Infos,
    ListObjects,
    ListSessions,
    ListTasks,
    Message,
    NewSession,
    ObjectList,
    ObjectsFetched,
    Refused,
    ServerInfo,
    SessionCreated,
    SessionList,
    Specs,
    States,
    StopServer,
    SubmitChunk,
    SubmitCommit,
    TaskList,
    UnkeepObjects,
    Wait,
    WaitDone,
)
from rain.testing.fake_channel import FakeChannel


class ScriptedServer:
    """Answers everything at once; everything submitted is finished at once.

    Attributes:
        received: all messages, heartbeats excepted.
        silent: kinds of messages it does not answer.
        failures: what a failed session answers.
        values: by object id; constants are added when submitted.
        infos: packed info by id.
        finished: what a WAIT_SOME finds finished; None = all asked for.
        ended: what a Cancel finds terminal.
        specs: of what lists tell of, by number.
        portion: most entries of a list, or specs of an answer.
        first_failure: what counts come with.
        sessions: those it tells of.
        on_heartbeat: called with each sign of life.
    """

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.silent: set[type] = set()
        self.failures: dict[int, Failure] = {}
        self.values: dict[int, bytes] = {}
        self.infos: dict[int, bytes] = {}
        self.states: dict[int, int] = {}
        self.finished: set[int] | None = None
        self.ended: set[int] = set()
        self.specs: dict[int, dict] = {}
        self.portion = 1000
        self.on_heartbeat: Callable[[], None] = lambda: None
        self.first_failure = ""
        self.info: dict = {"workers": [], "server": {"version": "0"}}
        self.sessions: list[dict] = []
        self._sessions = 0

    def all(self, kind: type) -> list:
        """The messages of one kind."""
        return [message for message in self.received if isinstance(message, kind)]

    def __call__(self, message: Message) -> list[Message]:
        if isinstance(message, Heartbeat):
            self.on_heartbeat()
            return []
        self.received.append(message)
        if type(message) in self.silent:
            return []
        session = getattr(message, "session", 0)
        seq = getattr(message, "seq", 0)
        if session in self.failures and not isinstance(message, (CloseSession, SubmitChunk)) and seq:
            return [Refused(seq, self.failures[session].to_map())]
        return self._answer(message)

    def _answer(self, message: Message) -> list[Message]:
        match message:
            case NewSession():
                self._sessions += 1
                return [SessionCreated(message.seq, self._sessions)]
            case SubmitChunk():
                flagged = [n for n, flags in zip(message.objects, message.object_flags, strict=True) if flags & 2]
                self.values.update(zip(flagged, message.values, strict=True))
                return []
            case CloseSession() | SubmitCommit() | UnkeepObjects():
                return [Accepted(message.seq)]
            case Wait():
                found = [n for n in message.ids if self.finished is None or n in self.finished]
                return [WaitDone(message.seq, array("I", found if message.mode == WAIT_SOME else []))]
            case FetchObjects():
                values = [self.values.get(n, b"value") for n in message.ids]
                infos = [self.infos.get(n) for n in message.ids]
                sizes = array("Q", map(len, values))
                return [ObjectsFetched(message.seq, sizes, [], infos, list(values), [[] for _ in values])]
            case GetInfos():
                states = bytes(self.states.get(n, 1) for n in message.ids)
                return [Infos(message.seq, states, [self.infos.get(n) for n in message.ids])]
            case GetStates():
                return [States(message.seq, bytes(self.states.get(n, 1) for n in message.ids or sorted(self.states)))]
            case GetCounts():
                return [self._count(message)]
            case ListTasks() | ListObjects():
                return [self._list(message)]
            case GetSpecs():
                specs = [msgpack.packb(self.specs[n]) for n in message.ids[: self.portion]]
                return [Specs(message.seq, specs)]
            case StopServer():
                return [Accepted(message.seq)]
            case Cancel():
                return [Cancelled(message.seq, array("I", [n for n in message.ids if n not in self.ended]))]
            case GetServerInfo():
                return [ServerInfo(message.seq, self.info)]
            case ListSessions():
                return [SessionList(message.seq, {"sessions": self.sessions, "total": len(self.sessions)})]
        return []

    def _count(self, message: GetCounts) -> Counts:
        pairs = zip(message.firsts, message.counts, strict=True)
        numbers = [n for first, count in pairs for n in range(first, first + count)] or sorted(self.states)
        tasks = array("I", [0] * len(TaskState))
        for number in numbers:
            tasks[self.states.get(number, 1)] += 1
        return Counts(message.seq, tasks, array("I", [0] * len(DataObjectState)), self.first_failure)

    def _list(self, message: ListTasks | ListObjects) -> TaskList | ObjectList:
        """What has a spec, `portion` at a time."""
        is_task = isinstance(message, ListTasks)
        kind = {number: spec for number, spec in sorted(self.specs.items()) if ("task_type" in spec) == is_task}
        found = [n for n, spec in kind.items() if message.first <= n <= message.last and self._fits(message, spec)]
        shown, rest = found[: self.portion], found[self.portion :]
        ids, following = array("I", shown), rest[0] if rest else 0
        states = bytes(self.states.get(number, 1) for number in shown)
        texts, zeros = [""] * len(shown), [0] * len(shown)
        if is_task:
            times = array("d", zeros)
            return TaskList(message.seq, ids, states, texts, texts, texts, times, times, following)
        return ObjectList(
            message.seq, ids, states, texts, array("Q", zeros), bytes(zeros), array("I", zeros), following
        )

    def _fits(self, message: ListTasks | ListObjects, spec: dict) -> bool:
        if isinstance(message, ListTasks):
            state = self.states.get(spec["id"], 1)
            return message.name in ("", spec.get("name")) and (not message.states or state in message.states)
        kept = 1 if spec.get("kept") else 2
        return message.label in ("", spec.get("label")) and message.kept in (0, kept)


@pytest.fixture
def server() -> ScriptedServer:
    return ScriptedServer()


@pytest.fixture
def channel(server: ScriptedServer) -> FakeChannel:
    return FakeChannel(server)


@contextmanager
def connected(channel: FakeChannel) -> Iterator[Client]:
    """A client of a script."""
    made = Client.__new__(Client)
    made._attach(
        Connection(channel, "127.0.0.1:7210", request_timeout=5.0),
        Target(Address("127.0.0.1", 7210), Secret(None, "test")),
    )
    yield made
    made.close()


@pytest.fixture
def client(channel: FakeChannel) -> Iterator[Client]:
    with connected(channel) as made:
        yield made


@pytest.fixture
def session(client: Client) -> Iterator[Session]:
    """An open session of `client`, active."""
    with client.new_session("test").bind_only() as made:
        yield made
        made.close()


@pytest.fixture
def graph() -> Iterator[Session]:
    """A session without a client, active."""
    with Session(None, 1).bind_only() as made:
        yield made


@pytest.fixture
def task_failure():
    """A failure of task 12 of a session."""

    def make(session: int = 1, task: int = 12, **changes) -> Failure:
        return Failure(
            "task",
            "Traceback: ValueError: no",
            session=session,
            task=task,
            **{"debug": "line one", "worker": "127.0.0.1:5000", "attempts": 2, **changes},
        )

    return make


@pytest.fixture
def pack():
    return msgpack.packb
