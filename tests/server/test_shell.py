"""The server's shell: what it adds to what the core says."""

from __future__ import annotations

from typing import Any

import pytest

from rain.protocol.messages import Accepted, Dump, GetDump, Message
from rain.server.core.actions import Send
from rain.server.shell import ServerShell
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
