"""The server's shell: what it adds to what the core says."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import pytest

from rain.protocol.messages import (
    WAIT_SESSION,
    Accepted,
    Dump,
    FetchObjects,
    GetDump,
    Message,
    Refused,
    SubmitCommit,
    Wait,
)
from rain.server.core.actions import Drop, Exit, Send
from rain.server.shell import HOLD_SECONDS, ServerShell
from rain.testing.simloop import SimLoop


class Core:
    """Answers everything with what was prepared."""

    def __init__(self, *messages: Message) -> None:
        self.messages = messages

    def handle(self, events: list[Any], now: float) -> list[Any]:
        return [Send(1, message) for message in self.messages]


class Channel:
    peer = local = "10.0.0.1:1"

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def send_all(self, messages: list[Message]) -> None:
        self.sent += messages


@pytest.fixture
def loop() -> Any:
    loop = SimLoop(seed=1)
    yield loop
    loop.shutdown()


def answers(loop: SimLoop, core: Core, *look: Any) -> list[Message]:
    """What is sent to a client that asks for a dump."""
    channel, exits = Channel(), list[int]()
    shell = ServerShell(core, loop, None, exits.append, *look)  # type: ignore[arg-type]
    handler = shell.accept(channel, "client", "3.11")  # type: ignore[arg-type]
    handler.messages_received(channel, [GetDump(1)])
    loop.call_later(0.1, loop.stop)
    loop.run_forever()
    assert exits == []
    return channel.sent


def test_dumps_are_completed_and_nothing_else(loop: SimLoop) -> None:
    dump = {"server": {"version": "1", "log": None}, "sessions": [5], "workers": []}
    sent = answers(loop, Core(Accepted(1), Dump(2, dump)), lambda: {"log": ["line"]})
    whole = {"server": {"version": "1", "log": ["line"]}, "sessions": [5], "workers": []}
    assert sent == [Accepted(1), Dump(2, whole)]
    assert dump["server"] == {"version": "1", "log": None}


def test_what_a_peer_says_is_handled_at_once_when_nothing_else_goes_on(loop: SimLoop) -> None:
    channel, exits = Channel(), list[int]()
    shell = ServerShell(Core(Accepted(1)), loop, None, exits.append)  # type: ignore[arg-type]
    handler = shell.accept(channel, "client", "3.11")  # type: ignore[arg-type]
    handler.messages_received(channel, [GetDump(1)])
    assert channel.sent == []  # with the news of the peer
    loop.call_later(0.1, loop.stop)
    loop.run_forever()
    assert len(channel.sent) == 1
    handler.messages_received(channel, [GetDump(1)])
    assert len(channel.sent) == 2
    handler.messages_received(channel, [GetDump(1)])
    assert len(channel.sent) == 2  # a moment later: with what else comes in this turn
    loop.call_later(0.1, loop.stop)
    loop.run_forever()
    assert len(channel.sent) == 3


def test_nothing_to_add(loop: SimLoop) -> None:
    dump = Dump(2, {"server": {"version": "1"}, "sessions": [], "workers": []})
    assert answers(loop, Core(dump)) == [dump]


class Talking(Core):
    """Answers each event with what is due."""

    def __init__(self) -> None:
        self.due: list[Any] = []

    def handle(self, events: list[Any], now: float) -> list[Any]:
        due, self.due = self.due, []
        return [action if isinstance(action, Drop | Exit) else Send(1, action) for action in due]


SUBMIT = SubmitCommit(1, 1, discard=False)
FETCH = FetchObjects(2, 1, array("I", [1]), [])


class Bench:
    """A shell with one client, some time after that one came."""

    def __init__(self, loop: SimLoop) -> None:
        self.loop, self.core, self.channel, self.exits = loop, Talking(), Closable(), list[int]()
        self.shell = ServerShell(self.core, loop, None, self.exits.append)  # type: ignore[arg-type]
        self.handler = self.shell.accept(self.channel, "client", "3.11")  # type: ignore[arg-type]
        self.spend(1.0)

    def spend(self, seconds: float) -> None:
        self.loop.call_later(seconds, self.loop.stop)
        self.loop.run_forever()

    def hear(self, *messages: Message, answers: Sequence[Any]) -> None:
        """The client says something, and the core answers with these messages or actions."""
        self.core.due = list(answers)
        self.handler.messages_received(self.channel, list(messages))


class Closable(Channel):
    is_closed = False

    def close(self) -> None:
        self.is_closed = True


def test_accepted_leaves_with_the_answer_to_the_question_that_came_along(loop: SimLoop) -> None:
    bench = Bench(loop)
    bench.hear(SUBMIT, FETCH, answers=[Accepted(1)])
    assert bench.channel.sent == []
    bench.spend(HOLD_SECONDS / 2)
    bench.hear(SUBMIT, answers=[Accepted(2), Accepted(3)])
    assert bench.channel.sent == [Accepted(1), Accepted(2), Accepted(3)]
    bench.spend(1.0)
    assert len(bench.channel.sent) == 3


def test_accepted_waits_only_for_a_moment(loop: SimLoop) -> None:
    bench = Bench(loop)
    bench.hear(SUBMIT, Wait(2, 1, WAIT_SESSION, array("I")), answers=[Accepted(1)])
    bench.spend(0.9 * HOLD_SECONDS)
    assert bench.channel.sent == []
    bench.spend(0.2 * HOLD_SECONDS)
    assert bench.channel.sent == [Accepted(1)]
    bench.hear(SUBMIT, answers=[Accepted(2)])
    assert bench.channel.sent == [Accepted(1), Accepted(2)]


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        ([SUBMIT], [Accepted(1)]),
        ([FETCH, SUBMIT], [Accepted(1)]),
        ([SUBMIT, FETCH, GetDump(3)], [Accepted(1)]),
        ([SUBMIT, FETCH], [Refused(1, {})]),
        ([SUBMIT, FETCH], [Accepted(1), Refused(2, {})]),
    ],
)
def test_other_answers_leave_at_once(loop: SimLoop, said: list[Message], answers: list[Message]) -> None:
    bench = Bench(loop)
    bench.hear(*said, answers=answers)
    assert bench.channel.sent == answers


def test_accepted_is_not_lost_at_the_end(loop: SimLoop) -> None:
    bench = Bench(loop)
    bench.hear(SUBMIT, FETCH, answers=[Accepted(1), Drop(1, "no")])
    assert bench.channel.is_closed
    assert bench.channel.sent == [Accepted(1)]
    bench = Bench(loop)
    bench.hear(SUBMIT, FETCH, answers=[Accepted(1)])
    bench.spend(HOLD_SECONDS / 2)
    bench.hear(GetDump(1), answers=[Exit(0)])
    assert bench.channel.sent == [Accepted(1)]
    assert bench.exits == [0]


def test_nothing_is_said_to_a_client_that_is_gone(loop: SimLoop) -> None:
    bench = Bench(loop)
    bench.hear(SUBMIT, FETCH, answers=[Accepted(1)])
    bench.handler.channel_closed(bench.channel, "gone")
    bench.spend(1.0)
    assert bench.channel.sent == []
