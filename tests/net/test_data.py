"""Data connections: thread server and loop server, the client against both, and everything that goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time

import pytest

from rain.common.errors import AuthenticationError, RainException
from rain.net.address import Address
from rain.net.dataclient import DataClient, DataUnavailable
from rain.net.dataserver import DataServer
from rain.net.listener import listen
from rain.net.secret import Secret, generate_secret
from rain.net.sockets import bind_listening, open_connection, server_handshake, shake_hands
from rain.protocol.data import (
    ANSWER_SIZE,
    NOT_HERE,
    OK,
    TAR,
    UNREADABLE,
    DataAnswer,
    DataRequest,
    pack_answer,
    pack_request,
    unpack_answer,
)
from rain.protocol.limits import MAX_DATA_READ
from tests.net.hostile import fire, fire_one, hello, nothing_left, recorded_handshake

SECRET = generate_secret()
BIG = os.urandom(1 << 20) * 21 + b"end"


class MemorySource:
    """Objects of session 1 by id; counts reads."""

    def __init__(self) -> None:
        self.values = {10: b"small", 11: BIG, 12: b"", 13: b"tar"}
        self.reads = 0

    def read(self, session, object_id, offset, length):
        self.reads += 1
        if object_id == 66:
            raise RuntimeError("damaged")
        if object_id == 67:
            return UNREADABLE, 0, 0, b""
        value = self.values.get(object_id) if session == 1 else None
        if value is None:
            return NOT_HERE, 0, 0, b""
        end = offset + length if length else len(value)
        return OK, TAR if object_id == 13 else 0, len(value), memoryview(value)[offset:end]


class SlowSource(MemorySource):
    """The same as coroutines."""

    async def read(self, session, object_id, offset, length):
        await asyncio.sleep(0)
        return super().read(session, object_id, offset, length)


@contextlib.contextmanager
def loop_server(source):
    """A listener with a data source in a loop of its own thread."""
    ready: list = []
    started = threading.Event()

    async def main():
        listener = await listen("127.0.0.1:0", SECRET, lambda channel, peer: None, roles=(), data_source=source)
        stop = asyncio.Event()
        ready.extend([listener.address, asyncio.get_running_loop(), stop])
        started.set()
        await stop.wait()
        listener.close()
        await asyncio.sleep(0)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert started.wait(10)
    address, loop, stop = ready
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


@contextlib.contextmanager
def thread_server(source, **options):
    server = DataServer("127.0.0.1:0", SECRET, source, **options)
    try:
        yield server.address
    finally:
        server.close()


@pytest.fixture(params=["threads", "loop", "coroutines"])
def port(request):
    with nothing_left():
        if request.param == "threads":
            with thread_server(MemorySource()) as address:
                yield address
        else:
            with loop_server(MemorySource() if request.param == "loop" else SlowSource()) as address:
                yield address


@pytest.fixture
def client():
    connected = DataClient(SECRET)
    yield connected
    connected.close()


def test_values(port, client):
    for object_id, value, flags in ((10, b"small", 0), (11, BIG, 0), (12, b"", 0), (13, b"tar", TAR)):
        assert client.fetch_bytes(port, 1, object_id) == (value, flags)


def test_value_into_a_file(port, client, tmp_path):
    path = tmp_path / "value"
    path.write_bytes(b"something longer than nothing")
    assert client.fetch_file(str(port), 1, 12, path) == (0, 0)
    assert path.read_bytes() == b""
    assert client.fetch_file(str(port), 1, 11, path) == (len(BIG), 0)
    assert path.read_bytes() == BIG


@pytest.mark.parametrize("piece", [1000, 7 << 20, 32 << 20])
def test_pieces_of_any_size(port, piece):
    client = DataClient(SECRET, piece=piece)
    value = 11 if piece > 1000 else 10
    assert client.fetch_bytes(port, 1, value)[0] == (BIG if value == 11 else b"small")
    client.close()


def test_one_byte_pieces(port):
    client = DataClient(SECRET, piece=1)
    assert client.fetch_bytes(port, 1, 10)[0] == b"small"
    client.close()


@pytest.mark.parametrize(("object_id", "reason"), [(99, "missing"), (67, "unreadable"), (66, "unreadable")])
def test_not_to_be_had(port, client, object_id, reason):
    for _ in range(2):
        with pytest.raises(DataUnavailable, match=f"object 1/{object_id} from {port}") as caught:
            client.fetch_bytes(port, 1, object_id)
        assert caught.value.reason == reason
        assert caught.value.address == str(port)
    assert client.fetch_bytes(port, 1, 10)[0] == b"small"


def test_connections_are_used_again(port, client):
    for _ in range(5):
        client.fetch_bytes(port, 1, 10)
    assert len(client._idle) == 1


def test_many_threads(port, client):
    results = []
    threads = [threading.Thread(target=lambda: results.append(client.fetch_bytes(port, 1, 11)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [len(result) for result in results] == [len(BIG)] * 4
    assert all(result == BIG for result in results)


def test_wrong_secret(port):
    client = DataClient(Secret("wrong", "RAIN_TOKEN"))
    with pytest.raises(DataUnavailable, match="RAIN_TOKEN") as caught:
        client.fetch_bytes(port, 1, 10)
    assert isinstance(caught.value.__cause__, AuthenticationError)


def test_hostile_input(port, caplog):
    caplog.set_level(logging.INFO, "rain.net")
    count = fire(port)
    deadline = time.monotonic() + 20
    while len(caplog.records) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(caplog.records) == count
    assert all(record.message.startswith("refused connection from 127.0.0.1:") for record in caplog.records)
    assert all(record.exc_info is None for record in caplog.records)
    client = DataClient(SECRET)
    assert client.fetch_bytes(port, 1, 10)[0] == b"small"
    client.close()


@pytest.mark.parametrize(
    "garbage",
    [b"x", b"\xff" * 100, pack_request(DataRequest(1, 1, 10, 0, MAX_DATA_READ + 1)), b"RQ01" * 20],
    ids=["x", "ones", "large", "magics"],
)
def test_garbage_after_the_handshake(port, garbage, caplog):
    sock, _ = open_connection(port, "data", SECRET, 5)
    with sock:
        sock.settimeout(5)
        sock.sendall(garbage)
        if garbage == b"RQ01" * 20:  # valid requests for nonsense, the second one broken
            with contextlib.suppress(ConnectionError):
                while sock.recv(4096):
                    pass
        else:
            with contextlib.suppress(ConnectionError):
                assert sock.recv(1) == b""
    assert "closed: a request" in caplog.text
    assert "Traceback" not in caplog.text


def test_whole_rest_and_beyond_the_end(port):
    sock, _ = open_connection(port, "data", SECRET, 5)
    with sock, sock.makefile("rb") as stream:
        sock.sendall(
            pack_request(DataRequest(7, 1, 10, 2, 0))
            + pack_request(DataRequest(8, 1, 10, 3, 100))
            + pack_request(DataRequest(9, 1, 10, 100, 100))
        )
        for tag, expected in ((7, b"all"), (8, b"ll"), (9, b"")):
            answer = unpack_answer(stream.read(ANSWER_SIZE))
            assert answer == DataAnswer(tag, OK, 0, 5, len(expected))
            assert stream.read(answer.length) == expected


def test_many_requests_at_once(port):
    sock, _ = open_connection(port, "data", SECRET, 5)
    requests = b"".join(pack_request(DataRequest(tag, 1, 10, 0, 0)) for tag in range(3000))
    with sock, sock.makefile("rb") as stream:
        writer = threading.Thread(target=sock.sendall, args=(requests,))
        writer.start()
        for tag in range(3000):
            assert unpack_answer(stream.read(ANSWER_SIZE)).tag == tag
            assert stream.read(5) == b"small"
        writer.join()


def test_server_that_restarts_on_its_port(client):
    with nothing_left():
        with thread_server(MemorySource()) as address:
            client.fetch_bytes(address, 1, 10)
        server = DataServer(address, SECRET, MemorySource())
        assert client.fetch_bytes(address, 1, 10)[0] == b"small"
        server.close()
        with pytest.raises(DataUnavailable, match="Connection refused") as caught:
            client.fetch_bytes(address, 1, 10)
        assert caught.value.reason == "connection"
        client.close()


def test_full_server_drops_the_longest_idle_connection():
    with nothing_left(), thread_server(MemorySource(), connections=2) as address:
        clients = [DataClient(SECRET) for _ in range(4)]
        for client in [*clients, *clients]:
            assert client.fetch_bytes(address, 1, 10)[0] == b"small"
        for client in clients:
            client.close()


def test_silent_connections_keep_nobody_out():
    with nothing_left(), thread_server(MemorySource(), connections=2) as address, contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socket.create_connection((address.host, address.port))).sendall(hello("data")[:10])
        client = DataClient(SECRET)
        assert client.fetch_bytes(address, 1, 10)[0] == b"small"
        client.close()


class HeldSource(MemorySource):
    def __init__(self):
        super().__init__()
        self.asked, self.go_on = threading.Event(), threading.Event()

    def read(self, *request):
        self.asked.set()
        assert self.go_on.wait(10)
        return super().read(*request)


def test_busy_server_refuses(caplog):
    source = HeldSource()
    with nothing_left(), thread_server(source, connections=1) as address:
        client = DataClient(SECRET)
        fetching = threading.Thread(target=client.fetch_bytes, args=(address, 1, 10))
        fetching.start()
        assert source.asked.wait(10)
        assert fire_one(address, hello("data"))
        assert "all 1 data connections are busy" in caplog.text
        source.go_on.set()
        fetching.join()
        client.close()


@pytest.mark.parametrize("total", [1 << 50, 1 << 63, (1 << 64) - 1])
def test_source_that_lies_about_the_size(total, tmp_path):
    """The value is unavailable there, whatever it is received into."""

    class Lying(MemorySource):
        def read(self, session, object_id, offset, length):
            return OK, 0, total, b"x"

    with nothing_left(), thread_server(Lying()) as address:
        client = DataClient(SECRET)
        with pytest.raises(DataUnavailable) as caught:
            client.fetch_bytes(address, 1, 10)
        assert caught.value.reason == "unreadable"
        with pytest.raises((DataUnavailable, OSError)):
            client.fetch_file(address, 1, 10, tmp_path / "value")
        client.close()


def test_slow_handshake_ends(caplog):
    with nothing_left(), thread_server(MemorySource(), handshake_timeout=0.2) as address:
        assert fire_one(address, hello("data")[:10], end=False)
    assert "took more than 0.2 s" in caplog.text


def test_replayed_handshake(caplog):
    with nothing_left(), loop_server(MemorySource()) as address, pytest.raises(AssertionError):
        recorded_handshake(address, SECRET)  # role client is not served here
    assert "role client is not served" in caplog.text


def test_closing_ends_transfers():
    with nothing_left():
        server = DataServer("127.0.0.1:0", SECRET, MemorySource())
        sock, _ = open_connection(server.address, "data", SECRET, 5)
        sock.sendall(pack_request(DataRequest(1, 1, 11, 0, 0)))
        sock.recv(10)
        server.close()
        server.close()
        sock.close()


def test_port_of_a_data_server_can_be_taken():
    with thread_server(MemorySource()) as address, pytest.raises(RainException, match="cannot listen"):
        DataServer(address, SECRET, MemorySource())
    with pytest.raises(AuthenticationError):
        DataServer("127.0.0.1:0", Secret(None, "nowhere"), MemorySource())


def test_insecure_data_server():
    none = Secret(None, "nowhere")
    server = DataServer("127.0.0.1:0", none, MemorySource(), insecure=True)
    client = DataClient(none)
    assert client.fetch_bytes(server.address, 1, 10)[0] == b"small"
    client.close()
    server.close()


@contextlib.contextmanager
def scripted_port(answer: bytes, *, silent: bool = False):
    """A data port that answers the first request with these bytes, then ends its stream or says nothing more."""
    listening = bind_listening(Address("127.0.0.1", 0))

    def serve():
        sock, _ = listening.accept()
        with sock, contextlib.suppress(OSError):
            shake_hands(sock, server_handshake(SECRET, ("data",)), time.monotonic() + 5)
            sock.settimeout(5)
            assert sock.recv(4096)
            sock.sendall(answer)
            if not silent:
                sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    yield Address("127.0.0.1", listening.getsockname()[1])
    thread.join(10)
    listening.close()


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
def test_broken_answers(answer, text, tmp_path):
    with nothing_left(), scripted_port(answer) as address:
        client = DataClient(SECRET, piece=4, timeout=5)
        with pytest.raises(DataUnavailable, match=text) as caught:
            client.fetch_file(address, 1, 10, tmp_path / "value")
        assert caught.value.reason == "connection"
        client.close()
        del caught


def test_value_that_vanishes_between_two_pieces():
    answer = pack_answer(DataAnswer(0, OK, 0, 10, 4)) + b"abcd" + pack_answer(DataAnswer(1, NOT_HERE, 0, 0, 0))
    with nothing_left(), scripted_port(answer) as address:
        client = DataClient(SECRET, piece=4)
        with pytest.raises(DataUnavailable) as caught:
            client.fetch_bytes(address, 1, 10)
        assert caught.value.reason == "missing"
        assert client._idle == []
        client.close()


def test_silent_port():
    with nothing_left(), socket.create_server(("127.0.0.1", 0)) as sock:
        client = DataClient(SECRET, connect_timeout=0.1)
        with pytest.raises(DataUnavailable, match="no answer within"):
            client.fetch_bytes(Address("127.0.0.1", sock.getsockname()[1]), 1, 10)


def test_silent_port_is_avoided_for_a_while():
    with nothing_left(), socket.create_server(("127.0.0.1", 0)) as sock:
        address = Address("127.0.0.1", sock.getsockname()[1])
        client = DataClient(SECRET, connect_timeout=0.1, avoid=0.5)
        for text in ("no answer within", "did not answer a moment ago"):
            with pytest.raises(DataUnavailable, match=text) as caught:
                client.fetch_bytes(address, 1, 10)
            assert caught.value.reason == "connection"
        time.sleep(0.5)
        with pytest.raises(DataUnavailable, match="no answer within"):
            client.fetch_bytes(address, 1, 10)


def test_refusing_port_is_not_avoided():
    with nothing_left():
        client = DataClient(SECRET, avoid=60.0)
        with socket.create_server(("127.0.0.1", 0)) as sock:
            address = Address("127.0.0.1", sock.getsockname()[1])
        for _ in range(2):
            with pytest.raises(DataUnavailable, match="refused"):
                client.fetch_bytes(address, 1, 10)


def test_silence_within_a_transfer():
    with nothing_left(), scripted_port(pack_answer(DataAnswer(0, OK, 0, 10, 10)), silent=True) as address:
        client = DataClient(SECRET, timeout=0.1)
        with pytest.raises(DataUnavailable, match="nothing came in time"):
            client.fetch_bytes(address, 1, 10)
        client.close()


def test_error_of_the_target_is_not_the_connections():
    def full(size, flags):
        raise OSError(28, "No space left on device")

    with nothing_left(), thread_server(MemorySource()) as address:
        client = DataClient(SECRET)
        with pytest.raises(OSError, match="No space left"):
            client.fetch(address, 1, 10, into=full)
        with pytest.raises(FileNotFoundError):
            client.fetch_file(address, 1, 10, "/nonexistent/file")
        assert client.fetch_bytes(address, 1, 10)[0] == b"small"
        client.close()


def test_closed_client(client):
    client.close()
    with pytest.raises(DataUnavailable, match="closing"):
        client.fetch_bytes("127.0.0.1:1", 1, 10)
