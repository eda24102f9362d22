"""A client whose server is a script: no sockets, no processes."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import msgpack
import pytest

from rain.client.client import Client
from rain.client.connect import Target
from rain.client.connection import Connection
from rain.client.session import Session
from rain.common.failure import Failure
from rain.net.address import Address
from rain.net.secret import Secret
from rain.protocol.messages import (
    WAIT_SOME,
    Accepted,
    Cancel,
    Cancelled,
    CloseSession,
    FetchObjects,
    GetInfos,
    GetServerInfo,
    GetStates,
    Heartbeat,
    Infos,
    Message,
    NewSession,
    ObjectsFetched,
    Refused,
    ServerInfo,
    SessionCreated,
    States,
    SubmitChunk,
    SubmitCommit,
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
        self.info: dict = {"workers": [], "server": {"version": "0"}}
        self._sessions = 0

    def all(self, kind: type) -> list:
        """The messages of one kind."""
        return [message for message in self.received if isinstance(message, kind)]

    def __call__(self, message: Message) -> list[Message]:
        if isinstance(message, Heartbeat):
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
            case Cancel():
                return [Cancelled(message.seq, array("I", [n for n in message.ids if n not in self.ended]))]
            case GetServerInfo():
                return [ServerInfo(message.seq, self.info)]
        return []


@pytest.fixture
def server() -> ScriptedServer:
    return ScriptedServer()


@pytest.fixture
def channel(server: ScriptedServer) -> FakeChannel:
    return FakeChannel(server)


@pytest.fixture
def client(channel: FakeChannel) -> Iterator[Client]:
    made = Client.__new__(Client)
    made._attach(
        Connection(channel, "127.0.0.1:7210", request_timeout=5.0),
        Target(Address("127.0.0.1", 7210), Secret(None, "test")),
    )
    yield made
    made.close()


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
