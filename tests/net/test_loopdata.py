"""Values fetched in an event loop: against both kinds of servers, and everything that goes wrong."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from rain.net.dataclient import DataUnavailable
from rain.net.loopdata import LoopDataClient
from rain.net.secret import generate_secret
from rain.protocol.data import NOT_HERE, OK, DataAnswer, pack_answer
from tests.net.test_data import BIG, SECRET, MemorySource, SlowSource, loop_server, scripted_port, thread_server


@pytest.fixture(params=["threads", "loop", "coroutines"])
def port(request):
    if request.param == "threads":
        with thread_server(MemorySource()) as address:
            yield address
    else:
        with loop_server(MemorySource() if request.param == "loop" else SlowSource()) as address:
            yield address


@pytest.fixture
async def client() -> AsyncIterator[LoopDataClient]:
    connected = LoopDataClient(SECRET)
    yield connected
    await connected.closed()


async def test_values(port, client):
    assert [bytes(await client.fetch_bytes(port, 1, number)) for number in (10, 11, 12, 13)] == [
        b"small",
        BIG,
        b"",
        b"tar",
    ]
    assert (await client.fetch_bytes(port, 1, 11)).readonly
    assert len(client._open) == 1


async def test_value_into_a_file(port, client, tmp_path):
    path = tmp_path / "value"
    path.write_bytes(b"longer than the value")
    for number, value in ((10, b"small"), (11, BIG), (12, b"")):
        await client.fetch_file(port, 1, number, path)
        assert path.read_bytes() == value


@pytest.mark.parametrize("piece", [1 << 16, 1000003, 1 << 22])
async def test_pieces_of_any_size(port, piece):
    client = LoopDataClient(SECRET, piece=piece)
    assert await client.fetch_bytes(port, 1, 11) == BIG
    await client.closed()


@pytest.mark.parametrize(("number", "reason"), [(99, "missing"), (66, "unreadable"), (67, "unreadable")])
async def test_not_to_be_had(port, client, number, reason):
    with pytest.raises(DataUnavailable) as caught:
        await client.fetch_bytes(port, 1, number)
    assert caught.value.reason == reason
    assert caught.value.address == str(port)
    assert await client.fetch_bytes(port, 1, 10) == b"small"


async def test_many_at_once(port, client):
    found = await asyncio.gather(*(client.fetch_bytes(port, 1, 10 + n % 4) for n in range(40)))
    assert found == [b"small", BIG, b"", b"tar"] * 10
    assert len(client._idle) == 8
    await client.closed()
    assert not client._open


async def test_cancelling_leaves_the_client_usable(port, client):
    for turns in range(12):
        task = asyncio.create_task(client.fetch_bytes(port, 1, 11))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await client.fetch_bytes(port, 1, 10) == b"small"


async def test_the_loop_goes_on_meanwhile(port, client, tmp_path):
    turns = 0

    async def watch():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    watching = asyncio.create_task(watch())
    for fetch in (client.fetch_bytes(port, 1, 11), client.fetch_file(port, 1, 11, tmp_path / "value")):
        turns = 0
        await fetch
        assert turns > len(BIG) // (4 << 20)
    watching.cancel()


async def test_wrong_secret(port):
    client = LoopDataClient(generate_secret())
    with pytest.raises(DataUnavailable) as caught:
        await client.fetch_bytes(port, 1, 10)
    assert caught.value.reason == "connection"
    await client.closed()


async def test_nobody_listens(client):
    with pytest.raises(DataUnavailable, match="Connection refused"):
        await client.fetch_bytes("127.0.0.1:1", 1, 10)


async def test_a_server_that_restarts_on_its_port(client):
    with thread_server(MemorySource()) as address:
        assert await client.fetch_bytes(address, 1, 10) == b"small"
    with pytest.raises(DataUnavailable):
        await client.fetch_bytes(address, 1, 10)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"x" * 100, "magic"),
        (pack_answer(DataAnswer(5, OK, 0, 1, 1)) + b"x", "out of step"),
        (pack_answer(DataAnswer(0, OK, 0, 10, 3)) + b"abc", "a piece of 3 bytes came instead of 4"),
        (pack_answer(DataAnswer(0, OK, 0, 10, 4)) + b"ab", "closed"),
        (pack_answer(DataAnswer(0, OK, 0, 10, 4)) + b"abcd" + pack_answer(DataAnswer(1, OK, 0, 11, 4)), "piece"),
        (pack_answer(DataAnswer(0, 9, 0, 10, 4)), "unknown status"),
        (b"", "closed"),
    ],
)
async def test_broken_answers(answer, text, tmp_path):
    client = LoopDataClient(SECRET, piece=4, timeout=5)
    with scripted_port(answer) as address:
        with pytest.raises(DataUnavailable, match=text) as caught:
            await client.fetch_file(address, 1, 10, tmp_path / "value")
        assert caught.value.reason == "connection"
        await client.closed()


async def test_value_that_vanishes_between_two_pieces():
    answer = pack_answer(DataAnswer(0, OK, 0, 10, 4)) + b"abcd" + pack_answer(DataAnswer(1, NOT_HERE, 0, 0, 0))
    client = LoopDataClient(SECRET, piece=4)
    with scripted_port(answer) as address:
        with pytest.raises(DataUnavailable) as caught:
            await client.fetch_bytes(address, 1, 10)
        assert caught.value.reason == "missing"
        await client.closed()


async def test_bytes_that_nobody_asked_for_end_a_connection(client):
    with scripted_port(pack_answer(DataAnswer(0, OK, 0, 0, 0)) + b"more") as address:
        assert await client.fetch_bytes(address, 1, 10) == b""
        async with asyncio.timeout(5):
            while client._open:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


async def test_an_error_of_the_file_is_not_the_connections(port, client, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left") as caught:
            await client.fetch_file(port, 1, 11, tmp_path / "value")
        assert not isinstance(caught.value, DataUnavailable)
    with pytest.raises(FileNotFoundError):
        await client.fetch_file(port, 1, 11, tmp_path / "no" / "value")
    await client.fetch_file(port, 1, 11, tmp_path / "value")


async def test_closing_ends_transfers(client):
    with scripted_port(pack_answer(DataAnswer(0, OK, 0, 5, 5)) + b"sm", silent=True) as address:
        task = asyncio.create_task(client.fetch_bytes(address, 1, 10))
        async with asyncio.timeout(5):
            while not any(one.transfer is not None and one.transfer.received for one in client._open):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await client.closed()
        with pytest.raises(DataUnavailable):
            await task
    with pytest.raises(DataUnavailable, match="closing"):
        await client.fetch_bytes(address, 1, 10)


async def test_silent_port_is_avoided_for_a_while():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = "{}:{}".format(*sock.getsockname())
        client = LoopDataClient(SECRET, connect_timeout=0.1, avoid=60.0)
        for text in ("no answer within", "did not answer a moment ago"):
            with pytest.raises(DataUnavailable, match=text) as caught:
                await client.fetch_bytes(address, 1, 10)
            assert caught.value.reason == "connection"
        await client.closed()


async def test_silence_within_a_transfer():
    client = LoopDataClient(SECRET, timeout=0.1)
    with scripted_port(pack_answer(DataAnswer(0, OK, 0, 5, 5)) + b"sm", silent=True) as address:
        with pytest.raises(DataUnavailable, match="nothing came in time"):
            await client.fetch_bytes(address, 1, 10)
        await client.closed()
