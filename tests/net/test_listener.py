"""Hostile input on a listener of an event loop: refused with one log line each, nothing breaks, nothing is left."""

from __future__ import annotations

import asyncio
import logging

import pytest

from rain.net.channel import connect
from rain.net.listener import listen
from rain.net.secret import generate_secret
from rain.protocol import messages as m
from tests.net.hostile import fire, fire_one, hello, hostile_inputs, nothing_left, recorded_handshake
from tests.net.test_channel import Recorder
from tests.net.test_data import MemorySource

SECRET = generate_secret()


async def _under_attack(attack) -> int:
    """Run `attack` (blocking, with the address) against a listener; check that it serves afterwards."""
    there = Recorder()
    listener = await listen(
        "127.0.0.1:0", SECRET, lambda channel, peer: there, roles=("client", "worker"), data_source=MemorySource()
    )
    try:
        result = await asyncio.to_thread(attack, listener.address)
        assert there.messages == []
        channel = await connect(listener.address, "client", SECRET, Recorder(), timeout=5)
        channel.send(m.Accepted(1))
        assert (await there.wait_for(1))[-1] == m.Accepted(1)
        channel.abort()
        await there.wait_closed()
        await asyncio.sleep(0.02)
        return result
    finally:
        listener.close()
        await asyncio.sleep(0)


def run(attack) -> int:
    """In a loop of its own; whatever it opened is closed at the end."""
    with nothing_left():
        return asyncio.run(_under_attack(attack))


def test_hostile_input_is_refused_with_one_line_each(caplog):
    caplog.set_level(logging.INFO, "rain.net")
    count = run(fire)
    refusals = [record for record in caplog.records if record.message.startswith("refused connection from 127.0.0.1:")]
    assert len(refusals) == count
    assert len(caplog.records) == count
    assert all(record.levelno == logging.WARNING and record.exc_info is None for record in caplog.records)
    assert all("\n" not in record.message for record in caplog.records)


def test_replayed_handshake(caplog):
    def replay(address):
        return fire_one(address, recorded_handshake(address, SECRET) + b"more", end=False)

    assert run(replay)
    assert "wrong secret" in caplog.text


def test_log_names_the_peer_and_the_reason(caplog):
    run(lambda address: fire(address, [("http", b"GET / HTTP/1.1\r\n"), ("old", hello(protocol=0))]))
    assert "not a Rain peer (it sent b'GET / HTTP/1.1" in caplog.text
    assert "it speaks protocol 0, this side protocol 1" in caplog.text


def test_log_lines_cannot_be_forged(caplog):
    run(lambda address: fire(address, [("line", b"x\nWARNING forged\x1b[31m")]))
    assert len(caplog.records) == 1
    assert "\x1b" not in caplog.text
    assert caplog.text.count("\n") == 1


@pytest.mark.parametrize("name", ["data hello and a request", "hello and a message", "megabyte"])
def test_many_at_once(name):
    data = dict(hostile_inputs())[name]

    async def attack():
        listener = await listen("127.0.0.1:0", SECRET, lambda channel, peer: Recorder(), roles=("client",))
        shots = (asyncio.to_thread(fire_one, listener.address, data) for _ in range(50))
        assert all(await asyncio.gather(*shots))
        listener.close()

    with nothing_left():
        asyncio.run(attack())


def test_closing_during_handshakes_and_data_connections():
    async def close_early():
        source = MemorySource()
        listener = await listen("127.0.0.1:0", SECRET, lambda channel, peer: Recorder(), roles=(), data_source=source)
        silent = asyncio.to_thread(fire_one, listener.address, hello(), end=False)
        asyncio.get_running_loop().call_later(0.1, listener.close)
        assert await silent

    with nothing_left():
        asyncio.run(close_early())
