"""The fake server, the launcher of real servers, the certificates and the leak checks."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from rain.memcache.addresses import MemcachedHostAddress, MemcachedUnixSocketPath
from rain.memcache.testing import (
    CLOSE,
    SILENCE,
    Certificates,
    FakeServer,
    LeakCheck,
    Leaked,
    MemcachedServer,
    Play,
    ServerFailed,
    leaks,
    loop_leaks,
    missing_program,
    servers as launcher,
    settled,
    success,
)
from rain.memcache.testing.framing import HEADER, REQUEST, next_request, packet
from tests.memcache.conftest import context_that_trusts, need

SECONDS = 10.0


class Peer:
    """A plain connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, request: bytes, size: int) -> bytes:
        self.writer.write(request)
        return await self.read(size)

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)


Connect = Callable[..., Awaitable[Peer]]


@pytest.fixture
async def peer_of() -> AsyncIterator[Connect]:
    """Connects to a fake server; all connections are closed at the end."""
    peers = []

    async def connect(server: FakeServer, **options: object) -> Peer:
        address = server.address
        if isinstance(address, MemcachedUnixSocketPath):
            streams = await asyncio.open_unix_connection(address.path)
        else:
            streams = await asyncio.open_connection(address.address, address.port, **options)
        peers.append(Peer(*streams))
        return peers[-1]

    yield connect
    for peer in peers:
        await peer.close()


# -------------------------------------------------------------------------------------------------- framing and answers


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"get a\r\n",
        b"set a 0 0 5\r\nEND\r\n\r\n",
        b"cas a 0 0 0 7 noreply\r\n\r\n",
        b"set _ _ _ 3\r\na b\r\n",
        b"ms a 2\r\nhi\r\n",
        b"set a 0 0 many\r\n",
        b"set a\r\n",
        b"\r\n",
        packet(0x01, key=b"a", value=b"\r\n" * 9, extras=bytes(8), magic=REQUEST),
        packet(0x0A, magic=REQUEST),
    ],
)
def test_requests_end_where_their_lengths_say(request_bytes: bytes):
    for cut in range(len(request_bytes)):
        assert next_request(request_bytes[:cut]) == 0
    assert next_request(request_bytes) == len(request_bytes)
    assert next_request(request_bytes + b"get b\r\n") == len(request_bytes)


@pytest.mark.parametrize(
    ("request_bytes", "answer"),
    [
        (b"version\r\n", b"VERSION 1.6.18\r\n"),
        (b"mn\r\n", b"MN\r\n"),
        (b"get rain:probe\r\n", b"END\r\n"),
        (b"get a missing b\r\n", b"VALUE a 0 10\r\nvalue of a\r\nVALUE b 0 10\r\nvalue of b\r\nEND\r\n"),
        (b"gats 0 a\r\n", b"VALUE a 0 10 7\r\nvalue of a\r\nEND\r\n"),
        (b"mg a v f c T0\r\n", b"VA 10 f0 c7\r\nvalue of a\r\n"),
        (b"mg a f\r\n", b"HD f0\r\n"),
        (b"mg missing v\r\n", b"EN\r\n"),
        (b"md a C7\r\n", b"HD\r\n"),
        (b"set a 0 0 1\r\nx\r\n", b"STORED\r\n"),
        (b"set a 0 0 1 noreply\r\nx\r\n", b""),
        (b"incr a 1\r\n", b"1\r\n"),
        (b"flush_all 0\r\n", b"OK\r\n"),
        (b"stats\r\n", b"STAT pid 1\r\nSTAT version 1.6.18\r\nEND\r\n"),
        (b"nonsense\r\n", b"ERROR\r\n"),
        (b"\r\n", b"ERROR\r\n"),
    ],
)
def test_success_answers_text(request_bytes: bytes, answer: bytes):
    assert success(request_bytes) == answer


@pytest.mark.parametrize(
    ("opcode", "key", "answer"),
    [
        (0x00, b"a", packet(0x00, extras=bytes(4), value=b"value of a", opaque=9, cas=7)),
        (0x1D, b"missing", packet(0x1D, status=1, value=b"Not found", opaque=9)),
        (0x0D, b"a", packet(0x0D, extras=bytes(4), key=b"a", value=b"value of a", opaque=9, cas=7)),
        (0x24, b"missing", b""),
        (0x11, b"a", b""),
        (0x01, b"a", packet(0x01, opaque=9, cas=7)),
        (0x05, b"a", packet(0x05, value=bytes(7) + b"\x01", opaque=9, cas=7)),
        (0x0B, b"", packet(0x0B, value=b"1.6.18", opaque=9)),
        (0x10, b"", packet(0x10, key=b"pid", value=b"1", opaque=9) + packet(0x10, opaque=9)),
        (0x21, b"PLAIN", packet(0x21, value=b"Authenticated", opaque=9)),
    ],
)
def test_success_answers_packets(opcode: int, key: bytes, answer: bytes):
    assert success(packet(opcode, key=key, opaque=9, magic=REQUEST)) == answer


# ---------------------------------------------------------------------------------------------------------- fake server


async def test_fake_records_and_answers(fake: FakeServer, peer_of: Connect):
    peer = await peer_of(fake)
    assert await peer.ask(b"version\r\nmn\r\n", 20) == b"VERSION 1.6.18\r\nMN\r\n"
    peer.writer.write(b"get ")
    await fake.until(lambda: fake.connections[0].received.endswith(b"get "))
    assert await peer.ask(b"a\r\n", 31) == b"VALUE a 0 10\r\nvalue of a\r\nEND\r\n"
    assert fake.requests == fake.connections[0].requests == [b"version\r\n", b"mn\r\n", b"get a\r\n"]
    assert b"".join(fake.connections[0].chunks) == fake.connections[0].received == b"version\r\nmn\r\nget a\r\n"
    assert fake.asked(b"get") == [b"get a\r\n"]
    await peer.close()
    await fake.until_connections(0)


async def test_fake_listens_on_unix_sockets(unix_fake: FakeServer, peer_of: Connect):
    for _ in range(2):
        peer = await peer_of(unix_fake)
        assert await peer.ask(b"mn\r\n", 4) == b"MN\r\n"
        await peer.close()
        unix_fake.stop_listening()
        unix_fake.stop_listening()
        assert isinstance(unix_fake.address, MemcachedUnixSocketPath)
        assert not os.access(unix_fake.address.path, os.F_OK)
        await unix_fake.start()


async def test_fake_talks_tls(certificates: Certificates, peer_of: Connect):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.certificate, certificates.server.key)
    trust = context_that_trusts(certificates.authority)
    async with FakeServer(ssl=context) as server:
        peer = await peer_of(server, ssl=trust)
        assert await peer.ask(b"mn\r\n", 4) == b"MN\r\n"
        await peer.close()
        await server.until_connections(0)


async def test_fake_plays_rules_in_turn(fake: FakeServer, peer_of: Connect):
    fake.answer(b"get", b"first\r\n", lambda request: request.upper())
    fake.answer_next(b"get b", b"once\r\n", b"twice\r\n")
    peer = await peer_of(fake)
    asked = b"get a\r\nget a\r\nget b\r\nget b\r\nget b\r\nmn\r\n"
    expected = b"first\r\nGET A\r\nonce\r\ntwice\r\nGET B\r\nMN\r\n"
    assert await peer.ask(asked, len(expected)) == expected
    await peer.close()


async def test_fake_plays_slowly_in_order_and_cut(fake: FakeServer, peer_of: Connect):
    gate = asyncio.Event()
    fake.answer_next(b"get", Play(b"gated,", after=gate), Play(b"late,", delay=0.01), Play(b"bytes,", step=1))
    fake.answer_next(b"touch", Play(b"paused,", step=3, pause=0.001))
    fake.answer_next(b"delete", Play(b"cut off", cut=3, end="close"))
    peer = await peer_of(fake)
    peer.writer.write(b"get a\r\nget b\r\nget c\r\ntouch a 0\r\ndelete a\r\n")
    await fake.until_requests(5)
    gate.set()
    assert await peer.rest() == b"gated,late,bytes,paused,cut"
    await peer.close()


async def test_fake_ends_connections(fake: FakeServer, peer_of: Connect):
    fake.answer_next(b"get", CLOSE, Play(b"x", end="reset"), Play(b"x", end="hang"))
    first, second, third = [await peer_of(fake) for _ in range(3)]
    first.writer.write(b"get a\r\n")
    assert await first.rest() == b""
    second.writer.write(b"get a\r\n")
    with pytest.raises(ConnectionResetError):
        await second.rest()
    third.writer.write(b"get a\r\nmn\r\n")
    assert await third.read(1) == b"x"
    await fake.until_requests(4)
    fake.connections[2].send(b"unasked")
    assert await third.read(7) == b"unasked"
    fake.connections[2].close()
    assert await third.rest() == b""
    await fake.until_connections(0)
    assert [connection.open for connection in fake.connections] == [False] * 3


async def test_fake_is_silent(fake: FakeServer, peer_of: Connect):
    fake.answer_next(b"get", SILENCE)
    peer = await peer_of(fake)
    assert await peer.ask(b"get a\r\nmn\r\n", 4) == b"MN\r\n"
    await peer.close()


async def test_fake_refuses_and_listens_again(fake: FakeServer, peer_of: Connect):
    peer = await peer_of(fake)
    assert await peer.ask(b"mn\r\n", 4) == b"MN\r\n"
    before = fake.address
    fake.stop_listening()
    with pytest.raises(ConnectionRefusedError):
        await peer_of(fake)
    assert await peer.ask(b"mn\r\n", 4) == b"MN\r\n"
    await fake.close()
    await fake.start()
    assert fake.address == before
    await peer.close()


async def test_waiting_in_vain_says_what_came(fake: FakeServer):
    with pytest.raises(TimeoutError, match="0 open connections and got \\[\\]"):
        await fake.until(lambda: False, seconds=0.01)


# ---------------------------------------------------------------------------------------------------------------- leaks


def test_leak_check_finds_descriptors_and_processes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(leaks, "GRACE_SECONDS", 0.05)
    ours, theirs = socket.socketpair()
    with pytest.raises(Leaked, match="socket"), LeakCheck():
        extra = ours.dup()
    extra.close()
    with pytest.raises(Leaked, match=r"process .* -c"), LeakCheck():
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=ours)
    child.kill()
    child.wait(SECONDS)
    with pytest.raises(ZeroDivisionError), LeakCheck():
        leave_descriptor_and_fail(ours, kept := [])
    for end in (*kept, ours, theirs):
        end.close()


def leave_descriptor_and_fail(end: socket.socket, kept: list[socket.socket]) -> None:
    kept.append(end.dup())
    raise ZeroDivisionError


def test_leak_check_waits_for_what_ends():
    with LeakCheck():
        child = subprocess.Popen([sys.executable, "-c", "pass"])
        assert any("process" in found for found in leaks.children())
        child.wait(SECONDS)


def test_vanished_processes_are_none():
    assert leaks._text(Path("/proc/self/task/none/children")) == ""


async def test_loop_leaks_finds_tasks_and_timers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(leaks, "GRACE_SECONDS", 0.05)
    before = loop_leaks()
    event = asyncio.Event()
    task = asyncio.create_task(event.wait())
    with pytest.raises(Leaked, match="task"):
        await settled(before)
    event.set()
    await settled(before)
    assert task.done()
    timer = asyncio.get_running_loop().call_later(60.0, print)
    with pytest.raises(Leaked, match="timer"):
        await settled(before)
    timer.cancel()
    await settled(before)


# --------------------------------------------------------------------------------------------------------- real servers


def test_missing_programs_are_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launcher, "PATH", "/nowhere")
    assert missing_program() == "missing Debian packages; as root: apt-get install memcached"
    with pytest.raises(ServerFailed, match="apt-get install memcached"), MemcachedServer():
        pass
    assert str(missing_program("memcached", "saslpasswd2")).endswith("memcached sasl2-bin")
    monkeypatch.undo()
    assert missing_program("openssl") is None


def test_server_keeps_its_address(start_server: Callable[..., MemcachedServer]):
    server = start_server()
    address = server.address
    assert isinstance(address, MemcachedHostAddress)
    assert server.ask(b"set a 0 0 1\r\nx\r\n") == b"STORED\r\n"
    assert server.stats()["pid"] == str(server.pid)
    server.restart()
    assert server.address == address
    assert server.ask(b"get a\r\n") == b"END\r\n"
    server.stop()
    assert not server.running
    with pytest.raises(RuntimeError, match="not started"):
        server.pause()
    server.start()
    with pytest.raises(RuntimeError, match="already"):
        server.launch()


def test_server_pauses(start_server: Callable[..., MemcachedServer]):
    server = start_server(unix=True)
    server.pause()
    with server.connect() as connection:
        connection.settimeout(0.05)
        connection.sendall(b"mn\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(10)
        server.resume()
        connection.settimeout(SECONDS)
        assert connection.recv(10) == b"MN\r\n"
    server.pause()  # a paused server can be ended


def test_a_server_that_does_not_pause_is_told(
    start_server: Callable[..., MemcachedServer], monkeypatch: pytest.MonkeyPatch
):
    server = start_server()
    monkeypatch.setattr(launcher, "_state", lambda task: "S")
    monkeypatch.setattr(launcher, "STOP_SECONDS", 0.02)
    with pytest.raises(ServerFailed, match="does not pause"):
        server.pause()
    monkeypatch.undo()


@pytest.mark.usefixtures("memcached")
def test_failed_starts_say_why():
    with pytest.raises(ServerFailed, match="ended as it started"), MemcachedServer(options=["--nonsense"]):
        pass


@pytest.mark.usefixtures("memcached")
def test_a_port_that_is_taken_is_left(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        ports = [taken, launcher._free_port()]
        monkeypatch.setattr(launcher, "_free_port", lambda: ports.pop(0))
        with MemcachedServer() as server:
            assert server.address.port != taken
        monkeypatch.setattr(launcher, "_free_port", lambda: taken)
        with pytest.raises(ServerFailed, match="in use"), MemcachedServer():
            pass


def test_taken_ports_are_not_free(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        taken = other.getsockname()[1]
        monkeypatch.setattr(launcher, "PORTS", range(taken, taken + 1))
        with pytest.raises(ServerFailed, match="no free port"):
            launcher._free_port()


def test_a_server_that_does_not_listen_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    program = tmp_path / "memcached"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(launcher, "PATH", f"{tmp_path}:{launcher.PATH}")
    monkeypatch.setattr(launcher, "START_SECONDS", 0.05)
    with pytest.raises(ServerFailed, match="does not listen"), MemcachedServer():
        pass


def test_ask_tells_when_the_server_closes(start_server: Callable[..., MemcachedServer]):
    with pytest.raises(ServerFailed, match="closed the connection after b''"):
        start_server().ask(b"quit\r\n")


@pytest.mark.usefixtures("memcached")
def test_files_are_removed():
    with MemcachedServer(unix=True) as server:
        assert isinstance(server.address, MemcachedUnixSocketPath)
        folder = Path(server.address.path).parent
        assert folder.exists()
    assert not folder.exists()


@pytest.mark.usefixtures("memcached")
def test_servers_die_with_their_owner(tmp_path: Path):
    program = (
        "import os, signal; from rain.memcache.testing import MemcachedServer\n"
        "server = MemcachedServer(); server.start(); print(server.pid, server.address.port, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=SECONDS, env=environment, check=False
    )
    port = int(ended.stdout.split()[1])
    deadline = time.monotonic() + SECONDS
    while listens(port):
        assert time.monotonic() < deadline, "memcached still listens"
        time.sleep(0.02)


def listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("named", ["server", "nameless"])
def test_server_talks_tls(start_server: Callable[..., MemcachedServer], certificates: Certificates, named: str):
    server = start_server(tls=getattr(certificates, named))
    trust = context_that_trusts(certificates.authority)
    with trust.wrap_socket(server.connect(), server_hostname="localhost") as connection:
        connection.sendall(b"mn\r\n")
        assert connection.recv(10) == b"MN\r\n"
    stranger = context_that_trusts(certificates.stranger)
    with server.connect() as plain, pytest.raises(ssl.SSLCertVerificationError):
        stranger.wrap_socket(plain, server_hostname="localhost")
    with server.connect() as plain, pytest.raises(ssl.SSLCertVerificationError):
        trust.wrap_socket(plain, server_hostname="example.org")


def test_server_wants_certificates(start_server: Callable[..., MemcachedServer], certificates: Certificates):
    server = start_server(tls=certificates.server, client_authority=certificates.authority.certificate)
    trust = context_that_trusts(certificates.authority)
    trust.load_cert_chain(certificates.client.certificate, certificates.client.key)
    with trust.wrap_socket(server.connect(), server_hostname="localhost") as connection:
        connection.sendall(b"mn\r\n")
        assert connection.recv(10) == b"MN\r\n"


def test_server_wants_passwords(start_server: Callable[..., MemcachedServer]):
    server = start_server(users={"a": "b"})
    assert server.ask(b"mn\r\n") == b"CLIENT_ERROR unauthenticated\r\n"
    assert server.ask(b"set _ _ _ 3\r\na b\r\n") == b"STORED\r\n"
    server.set_users({"a": "new"})
    deadline = time.monotonic() + SECONDS
    while server.ask(b"set _ _ _ 5\r\na new\r\n") != b"STORED\r\n":
        assert time.monotonic() < deadline, "the new password is not taken"
        time.sleep(0.02)


def sasl_status(server: MemcachedServer, password: bytes) -> int:
    with server.connect() as connection:
        connection.sendall(packet(0x21, key=b"PLAIN", value=b"\0a\0" + password, magic=REQUEST))
        return HEADER.unpack(connection.recv(HEADER.size))[5]


def test_server_wants_sasl(start_server: Callable[..., MemcachedServer]):
    need("saslpasswd2")
    server = start_server(users={"a": "b"}, sasl=True)
    assert sasl_status(server, b"b") == 0
    assert sasl_status(server, b"c") == 0x20
    server.set_users({"a": "c"})
    assert sasl_status(server, b"c") == 0
    assert struct.calcsize(HEADER.format) == 24


# ---------------------------------------------------------------------------------------------------------------- guide


@pytest.mark.usefixtures("memcached")
def test_the_scripts_of_the_guide_run():
    """docs/memcache/testing.md."""
    page = (Path(__file__).parents[2] / "docs" / "memcache" / "testing.md").read_text("utf-8")
    printed = []
    for script in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        command = [sys.executable, "-W", "error", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, done.stderr
        printed += done.stdout.splitlines()
    assert printed == [
        "Item(value=b'value of a', flags=None, cas=None)",
        "SERVER_ERROR out of memory storing object",
        "True",
        "[b'incr n 1\\r\\n']",
        "b'STORED\\r\\n'",
        "b'END\\r\\n'",
    ]
