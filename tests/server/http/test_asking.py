"""Questions to the core."""

from __future__ import annotations

import asyncio

import pytest

from rain.common.failure import Failure
from rain.protocol.messages import Accepted, GetServerInfo, Heartbeat, Refused, ServerInfo
from rain.server.http.asking import Asker, NoAnswer, RefusedError


class Handler:
    """The shell's side: keeps what it is told."""

    def __init__(self):
        self.said = []
        self.closed = []

    def messages_received(self, _channel, messages):
        self.said.append(messages)

    def channel_closed(self, _channel, reason):
        self.closed.append(reason)


class Shell:
    def __init__(self):
        self.joined = []

    def accept(self, channel, role, python):
        assert role == "http"
        self.joined.append(Handler())
        return self.joined[-1]


@pytest.fixture
def shell():
    return Shell()


async def asked(asker):
    """A question that is on its way."""
    task = asyncio.ensure_future(asker.ask(GetServerInfo))
    await asyncio.sleep(0)
    return task


async def test_answers_find_their_questions(shell):
    asker = Asker(shell, "127.0.0.1:1")
    assert shell.joined == []
    first, second = await asked(asker), await asked(asker)
    assert [message.seq for messages in shell.joined[0].said for message in messages] == [1, 2]
    asker.send(Accepted(99))
    asker.send(ServerInfo(2, {"two": 2}))
    asker.send(Refused(1, Failure("session", "There is no session 7").to_map()))
    assert (await second).info == {"two": 2}
    with pytest.raises(RefusedError, match="There is no session 7"):
        await first
    asker.send(ServerInfo(2, {}))
    assert len(shell.joined) == 1


async def test_signs_of_life(shell):
    asker = Asker(shell, "127.0.0.1:1")
    asker.send(Heartbeat())
    task = await asked(asker)
    asker.send(Heartbeat())
    assert shell.joined[0].said[1:] == [[]]
    asker.send(ServerInfo(1, {}))
    await task


async def test_no_answer_in_time(shell):
    asker = Asker(shell, "127.0.0.1:1", timeout=0.01)
    with pytest.raises(NoAnswer, match=r"did not answer within 0\.01 s"):
        await asker.ask(GetServerInfo)
    asker.send(ServerInfo(1, {}))


async def test_the_shell_ends_it(shell):
    """Who waits learns of it; the next question joins anew."""
    asker = Asker(shell, "127.0.0.1:1")
    task = await asked(asker)
    asker.abort()
    with pytest.raises(NoAnswer, match="ask again"):
        await task
    assert shell.joined[0].closed == ["closed"]
    task = await asked(asker)
    assert len(shell.joined) == 2
    asker.send(ServerInfo(2, {}))
    await task
    asker.close()
    asker.close()
    assert shell.joined[1].closed == ["closed"]
