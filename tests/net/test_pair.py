"""Channels inside one process: order, ends, failures of handlers, as over a socket."""

from __future__ import annotations

import asyncio

from rain.net.pair import PairedChannel, pair
from rain.protocol import messages as m
from tests.net.test_channel import Recorder


def connected(here: Recorder, there: Recorder) -> tuple[PairedChannel, PairedChannel]:
    ends = pair("127.0.0.1:1", "127.0.0.1:2")
    ends[0].start(here)
    ends[1].start(there)
    return ends


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_names() -> None:
    here, there = pair("127.0.0.1:1", "127.0.0.1:2")
    assert (here.local, here.peer) == (there.peer, there.local) == ("127.0.0.1:1", "127.0.0.1:2")


async def test_messages_arrive_at_once() -> None:
    one, other = Recorder(), Recorder()
    here, there = connected(one, other)
    message = m.Accepted(1)
    here.send(message)
    here.send_all([m.Accepted(2), m.Accepted(3)])
    there.send(m.Accepted(4))
    assert other.reads == [[m.Accepted(1)], [m.Accepted(2), m.Accepted(3)]]
    assert other.messages[0] is message
    assert one.messages == [m.Accepted(4)]
    await turns()
    assert len(other.messages) == 3


async def test_what_is_sent_while_one_side_handles_comes_in_the_next_turn() -> None:
    handling: list[str] = []

    def answer(channel: PairedChannel, messages: list[m.Message]) -> None:
        handling.append("begins")
        channel.send(m.Accepted(10))
        channel.send(m.Accepted(11))
        here.send(m.Accepted(2))
        handling.append("ends")

    one, other = Recorder(), Recorder()
    here, there = connected(one, other)
    other.react = lambda channel, messages: answer(channel, messages) if messages[0].seq == 1 else None
    here.send(m.Accepted(1))
    assert handling == ["begins", "ends"]
    assert (one.reads, other.reads) == ([], [[m.Accepted(1)]])
    await turns()
    assert one.reads == [[m.Accepted(10), m.Accepted(11)]]
    assert other.reads == [[m.Accepted(1)], [m.Accepted(2)]]
    there.send(m.Accepted(12))
    assert one.messages[-1] == m.Accepted(12)


async def test_what_came_before_the_start() -> None:
    here, there = pair("127.0.0.1:1", "127.0.0.1:2")
    here.send(m.Accepted(1))
    here.close()
    await turns()
    other = Recorder()
    there.start(other)
    await turns()
    assert other.messages == [m.Accepted(1)]
    assert other.reason == "closed by the other side"


async def test_closing_comes_after_what_was_sent() -> None:
    one, other = Recorder(), Recorder()
    here, there = connected(one, other)
    there.send(m.Accepted(1))
    here.send(m.Accepted(2))
    here.close()
    here.send(m.Accepted(3))
    there.send(m.Accepted(4))
    assert (one.reason, other.reason) == (None, None)  # nobody is told of an end while calling
    await turns()
    assert (one.messages, one.reason) == ([m.Accepted(1)], "closed by this side")
    assert (other.messages, other.reason) == ([m.Accepted(2)], "closed by the other side")
    here.close()
    there.abort()
    await turns()


async def test_closed_by_its_handler() -> None:
    one, other = Recorder(), Recorder(lambda channel, messages: channel.abort())
    here, _ = connected(one, other)
    here.send(m.Accepted(1))
    await turns()
    here.send(m.Accepted(2))
    await turns()
    assert (other.messages, other.reason) == ([m.Accepted(1)], "closed by this side")
    assert one.reason == "closed by the other side"


async def test_a_handler_that_fails_loses_its_channel(caplog) -> None:
    def fail(channel, messages) -> None:
        raise KeyError("x")

    one, other = Recorder(), Recorder(fail)
    here, _ = connected(one, other)
    here.send(m.Accepted(1))
    await turns()
    assert one.reason == "closed by the other side"
    assert other.reason is not None
    assert "the handler failed" in caplog.text


async def test_a_handler_that_fails_at_the_end(caplog) -> None:
    class Failing(Recorder):
        def channel_closed(self, channel, reason) -> None:
            raise KeyError("x")

    here, _ = connected(Recorder(), Failing())
    here.close()
    await turns()
    assert "the handler failed at the end" in caplog.text
