"""Channels of an event loop over loopback: batching, order, ends, failures of handlers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager

import pytest

from rain.common.errors import AuthenticationError, RainConnectionError, RainException
from rain.net.address import Address
from rain.net.channel import connect
from rain.net.listener import Listener, listen
from rain.net.secret import Secret, generate_secret
from rain.protocol import codec, messages as m
from rain.protocol.limits import ProtocolError
from tests.net.hostile import hello

SECRET = generate_secret()
NONE = Secret(None, "nowhere")


class Recorder:
    """A handler that remembers, and lets tests wait."""

    def __init__(self, react=None) -> None:
        self.reads: list[list[m.Message]] = []
        self.reason: str | None = None
        self.closed = asyncio.Event()
        self.news = asyncio.Event()
        self.channel = None
        self.react = react

    def messages_received(self, channel, messages) -> None:
        self.reads.append(messages)
        self.news.set()
        if self.react is not None:
            self.react(channel, messages)

    def channel_closed(self, channel, reason) -> None:
        assert self.reason is None, "told twice"
        self.reason = reason
        self.closed.set()

    @property
    def messages(self) -> list[m.Message]:
        return [message for read in self.reads for message in read]

    async def wait_for(self, count: int) -> list[m.Message]:
        async with asyncio.timeout(10):
            while len(self.messages) < count:
                self.news.clear()
                await self.news.wait()
        return self.messages

    async def wait_closed(self) -> str:
        async with asyncio.timeout(10):
            await self.closed.wait()
        assert self.reason is not None
        return self.reason


@asynccontextmanager
async def pair(react=None, role="client"):
    """A connected pair: the connecting channel, its handler, the accepted channel, its handler."""
    accepted: asyncio.Future = asyncio.get_running_loop().create_future()
    there = Recorder(react)

    def accept(channel, peer):
        accepted.set_result((channel, peer))
        return there

    listener = await listen("127.0.0.1:0", SECRET, accept, roles=("client", "worker"))
    here = Recorder()
    channel = await connect(listener.address, role, SECRET, here, timeout=5)
    other, there.peer = await accepted
    try:
        yield channel, here, other, there
    finally:
        channel.abort()
        other.abort()
        listener.close()
        await here.wait_closed()
        await there.wait_closed()


async def test_both_ways_and_what_sides_learn_of_each_other():
    async with pair(role="worker") as (channel, here, other, there):
        assert there.peer.role == "worker"
        assert there.peer.local == channel.peer == other.local
        assert channel.local == other.peer
        channel.send(m.Accepted(1))
        assert await there.wait_for(1) == [m.Accepted(1)]
        other.send(m.Accepted(2))
        assert await here.wait_for(1) == [m.Accepted(2)]


async def test_one_turn_of_the_loop_is_one_write_and_one_read():
    async with pair() as (channel, _, _, there):
        sent = [m.Accepted(number) for number in range(500)]
        for message in sent:
            channel.send(message)
        await there.wait_for(500)
        assert there.reads == [sent]


async def test_large_messages_between_small_ones():
    async with pair() as (channel, _, _, there):
        sent = [m.Accepted(1), m.ConstantPiece(1, 10, 0, 8 << 20, bytes(range(256)) * (8 << 12)), m.Accepted(2)]
        for message in sent:
            channel.send(message)
        assert await there.wait_for(3) == sent


async def test_parts_of_a_long_message_are_signs_of_life():
    """Over a slow link one message may take longer than anybody may be silent."""
    async with pair() as (channel, _, _, there):
        message = m.ConstantPiece(1, 10, 0, 4 << 20, bytes(4 << 20))
        data = codec.encode([message])
        for start in range(0, len(data), 1 << 20):
            seen = len(there.reads)
            channel._transport.write(data[start : start + (1 << 20)])
            async with asyncio.timeout(10):
                while len(there.reads) == seen:
                    there.news.clear()
                    await there.news.wait()
        assert await there.wait_for(1) == [message]
        assert there.reads.count([]) >= 3


async def test_what_is_sent_at_once_follows_what_is_queued():
    async with pair() as (channel, _, _, there):
        channel.send(m.Accepted(1))
        channel.send_checked(m.Accepted(2), m.Accepted(3))
        channel.send(m.Accepted(4))
        assert await there.wait_for(4) == [m.Accepted(number) for number in range(1, 5)]
        with pytest.raises(ProtocolError):
            channel.send_checked(m.Accepted(5), m.Accepted(-1))
        channel.send_checked(m.Accepted(6))
        assert (await there.wait_for(5))[4:] == [m.Accepted(6)]
        channel.abort()
        channel.send_checked(m.Accepted(7))


async def test_a_sender_waits_for_a_peer_that_is_behind():
    piece = m.ConstantPiece(1, 10, 0, 8 << 20, bytes(8 << 20))
    async with pair() as (channel, _, other, there):
        await channel.drained()
        other._transport.pause_reading()
        for _ in range(4):
            channel.send_checked(piece)
        waiting = [asyncio.create_task(channel.drained()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        assert not any(one.done() for one in waiting)
        other._transport.resume_reading()
        await asyncio.wait(waiting)
        await waiting[1]
        await there.wait_for(4)


async def test_a_sender_that_waits_is_woken_by_the_end():
    async with pair() as (channel, _, other, _):
        other._transport.pause_reading()
        for _ in range(4):
            channel.send_checked(m.ConstantPiece(1, 10, 0, 8 << 20, bytes(8 << 20)))
        waiting = asyncio.create_task(channel.drained())
        await asyncio.sleep(0)
        assert not waiting.done()
        channel.abort()
        await waiting
        await channel.drained()


async def test_a_sender_that_waits_is_woken_by_its_own_side_closing():
    async with pair() as (channel, _, other, _):
        other._transport.pause_reading()
        channel.send(m.ConstantPiece(1, 10, 0, 32 << 20, bytes(32 << 20)))
        waiting = asyncio.create_task(channel.drained())
        await asyncio.sleep(0)
        channel.close()
        async with asyncio.timeout(5):
            await waiting


async def test_opening_that_is_cancelled_leaves_no_connection():
    accepted = []

    def accept(channel, peer):
        accepted.append(Recorder())
        return accepted[-1]

    listener = await listen("127.0.0.1:0", SECRET, accept, roles=("client",))
    for turns in range(25):
        opening = asyncio.ensure_future(connect(listener.address, "client", SECRET, Recorder(), timeout=5))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not opening.done():
            opening.cancel()
        await asyncio.wait([opening])
        if not opening.cancelled():
            opening.result().abort()
    for one in accepted:
        await one.wait_closed()
    listener.close()


async def test_close_sends_what_is_queued():
    async with pair() as (channel, here, _, there):
        channel.send(m.Accepted(1))
        channel.close()
        channel.send(m.Accepted(2))
        channel.close()
        assert await there.wait_closed() == "closed by the other side"
        assert there.messages == [m.Accepted(1)]
        assert await here.wait_closed() == "closed by this side"


async def test_close_of_a_peer_that_reads_nothing_is_bounded(monkeypatch):
    monkeypatch.setattr("rain.net.channel._CLOSE_TIMEOUT", 0.1)
    async with pair() as (channel, here, other, _):
        other._transport.pause_reading()
        channel.send(m.ConstantPiece(1, 10, 0, 1, bytes(32 << 20)))
        await asyncio.sleep(0)
        channel.close()
        await here.wait_closed()


async def test_abort():
    async with pair() as (channel, here, _, there):
        channel.abort()
        assert await here.wait_closed() == "closed by this side"
        await there.wait_closed()
        channel.send(m.Accepted(1))
        assert there.messages == []


async def test_handler_that_fails_loses_its_channel_only(caplog):
    def fail(channel, messages):
        raise ValueError("oops")

    async with pair(fail) as (channel, here, _, there), pair() as (second, _, _, there_too):
        channel.send(m.Accepted(1))
        assert "oops" in await there.wait_closed()
        await here.wait_closed()
        second.send(m.Accepted(2))
        assert await there_too.wait_for(1) == [m.Accepted(2)]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "the handler failed" in caplog.text


async def test_a_message_that_cannot_be_encoded_ends_the_channel(caplog):
    async with pair() as (channel, here, _, _):
        channel.send(m.Accepted(-1))
        assert "cannot encode a Accepted message" in await here.wait_closed()
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "garbage",
    [b"\xff" * 64, bytes(4) + b"\xff" * 4, codec.encode([m.Accepted(1)])[:24].ljust(24, b"\0") + b"\xff" * 16,
     bytes.fromhex("0000000001000000ffffffffffffffff")],
)  # fmt: skip
async def test_garbage_after_the_handshake_ends_the_channel(garbage, caplog):
    async with pair() as (channel, here, _, there):
        channel._transport.write(garbage)
        await there.wait_closed()
        await here.wait_closed()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Traceback" not in caplog.text


async def test_frame_cut_by_the_end_of_the_connection():
    async with pair() as (channel, _, _, there):
        channel._transport.write(codec.encode([m.Accepted(1), m.Accepted(2)])[:-8])
        assert await there.wait_for(1) == [m.Accepted(1)]
        channel.abort()
        await there.wait_closed()


async def test_wrong_and_missing_secrets(caplog):
    listener = await listen("127.0.0.1:0", SECRET, lambda channel, peer: Recorder(), roles=("client",))
    try:
        for secret, text in (
            (Secret("wrong", "token file /x"), "token file /x"),
            (Secret(None, "RAIN_TOKEN is not set"), "RAIN_TOKEN is not set"),
        ):
            with pytest.raises(AuthenticationError, match=text):
                await connect(listener.address, "client", secret, Recorder(), timeout=5)
        with pytest.raises(RainConnectionError, match="does not serve this kind of connection"):
            await connect(listener.address, "worker", SECRET, Recorder(), timeout=5)
        await asyncio.sleep(0.05)
    finally:
        listener.close()
    assert len([record for record in caplog.records if "refused connection from 127.0.0.1:" in record.message]) == 3


async def test_insecure_listener():
    listener = await listen("127.0.0.1:0", NONE, lambda channel, peer: Recorder(), roles=("client",), insecure=True)
    try:
        channel = await connect(listener.address, "client", NONE, Recorder(), timeout=5)
        channel.abort()
        with pytest.raises(AuthenticationError, match="--insecure"):
            await connect(listener.address, "client", SECRET, Recorder(), timeout=5)
    finally:
        listener.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_no_listening_without_a_secret(host):
    with pytest.raises(AuthenticationError, match="without a secret"):
        await listen(Address(host, 0), NONE, lambda channel, peer: Recorder(), roles=("client",))


async def test_nobody_listens():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", sock.getsockname()[1])
        with pytest.raises(RainConnectionError, match=f"cannot connect to {address}.*[Rr]efused"):
            await connect(address, "client", SECRET, Recorder(), timeout=5)


async def test_a_port_that_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = Address("127.0.0.1", sock.getsockname()[1])
        with pytest.raises(RainConnectionError, match=r"no answer within 0\.1 s"):
            await connect(address, "client", SECRET, Recorder(), timeout=0.1)


async def test_a_port_of_something_else():
    def greet(listening):
        sock, _ = listening.accept()
        with sock:
            sock.sendall(b"SSH-2.0-OpenSSH\r\n")
            sock.settimeout(5)
            with contextlib.suppress(ConnectionError):
                while sock.recv(100):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        greeting = asyncio.create_task(asyncio.to_thread(greet, listening))
        with pytest.raises(RainException, match="is not a Rain server"):
            await connect(f"127.0.0.1:{listening.getsockname()[1]}", "client", SECRET, Recorder(), timeout=5)
        await greeting


async def test_who_connects_to_an_open_socket_is_served_when_the_listener_comes():
    sock = socket.create_server(("127.0.0.1", 0))
    address = Address("127.0.0.1", sock.getsockname()[1])
    early = asyncio.create_task(connect(address, "client", SECRET, Recorder(), timeout=30))
    await asyncio.sleep(0.05)
    assert not early.done()
    listener = await listen(address, SECRET, lambda channel, peer: Recorder(), roles=("client",), sock=sock)
    assert listener.address == address
    (await early).close()
    listener.close()


async def test_a_taken_port_is_tried_again():
    blocker = socket.create_server(("127.0.0.1", 0))
    address = Address("127.0.0.1", blocker.getsockname()[1])

    async def start(retry) -> Listener:
        return await listen(address, SECRET, lambda channel, peer: Recorder(), roles=("client",), bind_retry=retry)

    with pytest.raises(RainException, match=f"cannot listen on {address}.*in use"):
        await start(0)
    asyncio.get_running_loop().call_later(0.15, blocker.close)
    listener = await start(5.0)
    assert listener.address == address
    listener.close()


async def test_a_port_is_free_at_once_after_its_listener():
    async with pair() as (channel, _, _, _):
        port = Address.parse(channel.peer)
    listener = await listen(port, SECRET, lambda channel, peer: Recorder(), roles=("client",))
    listener.close()


async def test_accept_that_fails_closes_the_connection(caplog):
    def refuse(channel, peer):
        raise RuntimeError("no room")

    listener = await listen("127.0.0.1:0", SECRET, refuse, roles=("client",))
    handler = Recorder()
    await connect(listener.address, "client", SECRET, handler, timeout=5)
    await handler.wait_closed()
    listener.close()
    assert "no room" in caplog.text


async def test_slow_handshakes_end(caplog):
    listener = await listen(
        "127.0.0.1:0", SECRET, lambda channel, peer: Recorder(), roles=("client",), handshake_timeout=0.2
    )
    _, writer = await asyncio.open_connection("127.0.0.1", listener.address.port)
    with pytest.raises(ConnectionError):  # noqa: PT012
        for byte in hello():
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)
    writer.close()
    listener.close()
    assert [record.message for record in caplog.records if "took more than 0.2 s" in record.message]


async def test_unfinished_handshakes_are_bounded(monkeypatch, caplog):
    monkeypatch.setattr("rain.net.listener.MAX_UNPROVEN", 3)
    listener = await listen("127.0.0.1:0", SECRET, lambda channel, peer: Recorder(), roles=("client",))
    port = ("127.0.0.1", listener.address.port)
    sockets = [socket.create_connection(port) for _ in range(3)]
    await asyncio.sleep(0.05)
    channel = await connect(listener.address, "client", SECRET, Recorder(), timeout=5)
    assert "3 newer connections have not finished their handshake" in caplog.text
    sockets[0].settimeout(5)
    with contextlib.suppress(ConnectionResetError):
        assert sockets[0].recv(1) == b""
    sockets[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        sockets[1].recv(1)
    channel.abort()
    listener.close()
    for sock in sockets:
        sock.close()
    await asyncio.sleep(0.01)
