"""The life of the port: made when somebody comes, limits, slow readers, the end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import re
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from rain.client import LocalCluster, RainException
from rain.common.failure import Failure
from rain.dashboard import static_files
from rain.eventlog.writer import open_log
from rain.net.address import Address
from rain.protocol.messages import Refused, ServerInfo, TaskLog
from rain.server.core.core import ServerCore
from rain.server.http import application, handler, live, service
from rain.server.http.application import make_server
from rain.server.http.binding import BoundPort, bind_http
from rain.server.http.connections import MOST
from rain.server.http.facts import Facts
from rain.server.http.service import HttpService, HttpSettings
from tests.server.http.browser import Answer, Browser, closed, until
from tests.server.http.rig import RunningServer, server

ARRAY = 34_000
"""Tasks; each gives three events."""


def negative(number: int) -> int:
    return -number


def process(running: RunningServer) -> psutil.Process:
    return psutil.Process(running.process.popen.pid)


# --- real servers ---------------------------------------------------------------------------------------


@pytest.mark.cluster
def test_none():
    with server(http="none") as running:
        assert running.access.http_port is None
        with running.client() as client:
            assert client.get_server_info()["server"]["http_url"] is None
            assert client.dashboard_url is None
        listening = [entry.laddr.port for entry in process(running).net_connections() if entry.status == "LISTEN"]
        assert listening == [running.access.port]


@pytest.mark.cluster
def test_given_port_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        wanted = re.escape(f"cannot listen on {address}: Address already in use")
        with pytest.raises(RainException, match=wanted), server(http=address):
            pass


@pytest.mark.cluster
def test_default_port_taken():
    """The dashboard goes elsewhere; the log says so, the access file and the server tell where."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody else has it, which is as good
            taken.bind(("127.0.0.1", 7222))
            taken.listen()
        with server(http=None) as running:
            assert running.access.http_port not in (None, 7222)
            told = f"port 7222 is taken; the dashboard uses port {running.access.http_port}"
            until(lambda: told in running.log())
            assert running.browser.get("/health").text == "ok"
            with running.client() as client:
                assert client.get_server_info()["server"]["http_url"] == client.dashboard_url == running.url


@pytest.mark.cluster
def test_made_when_somebody_comes():
    """The start of a server does not wait for it, and costs nothing if nobody ever comes."""
    with server() as running:
        maps = Path(f"/proc/{running.process.popen.pid}/maps")
        with running.client() as client:
            client.get_server_info()
        assert "tornado" not in maps.read_text()
        assert running.browser.get("/health").text == "ok"
        assert "tornado" in maps.read_text()


@pytest.mark.cluster
def test_stop_with_open_connections():
    """An orderly stop does not wait for pages that are open, nor for requests on their way."""
    with server() as running:
        running.browser.get("/api/status")
        with contextlib.ExitStack() as stack:
            for request in (b"", b"GET /", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"POST /events HTTP/1.1\r\n"
                            b"Host: localhost\r\nContent-Length: 10\r\n\r\n"):  # fmt: skip
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", running.access.http_port), 10))
                sock.sendall(request)
            started = time.monotonic()
            with running.client() as client:
                client.terminate_server()
            assert running.process.popen.wait(30) == 0
            assert time.monotonic() - started < 15
            assert "Traceback" not in running.log()


@pytest.mark.cluster
def test_open_websockets_end_with_the_server():
    async def look(running: RunningServer) -> None:
        request = HTTPRequest(running.url.replace("http", "ws", 1) + "api/live", request_timeout=20)
        websocket = await websocket_connect(request)
        with running.client() as client:
            client.terminate_server()
        await closed(websocket)

    with server() as running:
        asyncio.run(look(running))
        assert running.process.popen.wait(30) == 0
        assert "Traceback" not in running.log()


@pytest.mark.cluster
def test_many_events_streamed():
    """More than 100,000 events in one answer; a reader that takes nothing costs no memory and hinders nobody."""
    with LocalCluster(1, cpus=2, timeout=60) as cluster, cluster.client() as client:
        assert cluster.http_url is not None
        browser = Browser(cluster.http_url)
        with client.new_session() as session:
            assert session.map(negative, range(ARRAY)).result() == [-number for number in range(ARRAY)]
        until(lambda: browser.events({"event_types": [{"value": "SessionClosed", "mode": "="}]}))
        server_process = psutil.Process(cluster._group.processes[0].popen.pid)
        browser.get("/api/status")
        before = server_process.memory_info().rss
        host, _, port = browser.netloc.rpartition(":")
        with socket.socket() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.connect((host, int(port)))
            lazy.sendall(b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
            started = time.monotonic()
            events = browser.events()
            assert time.monotonic() - started < 60
            assert browser.get("/health").text == "ok"
            assert lazy.recv(15) == b"HTTP/1.1 200 OK"
        assert len(events) > 3 * ARRAY > 100_000
        assert [event["id"] for event in events] == list(range(1, len(events) + 1))
        kinds = Counter(event["event"]["type"] for event in events)
        assert {kinds[name] for name in ("TaskStarted", "TaskFinished", "DataObjectFinished")} == {ARRAY}
        assert server_process.memory_info().rss < before + (64 << 20)


@pytest.mark.cluster
def test_many_silent_connections():
    """More than there may be: who asks is served, descriptors come back."""
    with server() as running, contextlib.ExitStack() as stack:
        assert running.browser.get("/health").text == "ok"
        before = process(running).num_fds()
        for number in range(MOST + 50):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", running.access.http_port), 10))
            with contextlib.suppress(ConnectionError):  # the oldest have been closed
                sock.sendall(b"GET / HTTP/1.1\r\n"[: number % 16])
        assert running.browser.get("/health").text == "ok"
        assert process(running).num_fds() <= before + MOST + 2
        stack.close()
        until(lambda: process(running).num_fds() <= before + 2)


# --- inside this process --------------------------------------------------------------------------------


class Prepared:
    """A shell that answers every question with what was prepared."""

    def __init__(self) -> None:
        self.questions: list[Any] = []
        self.answer: Callable[[Any], Any] | None = None

    def accept(self, channel: Any, role: str, python: str) -> Any:
        self.channel = channel
        return self

    def messages_received(self, channel: Any, messages: list[Any]) -> None:
        assert self.answer is not None
        for message in messages:
            self.questions.append(message)
            asyncio.get_running_loop().call_soon(channel.send, self.answer(message))

    def channel_closed(self, channel: Any, reason: str) -> None:
        pass


class Service:
    """An HTTP port inside this process."""

    def __init__(self, port: BoundPort, tmp_path: Path) -> None:
        self.is_ending = False
        open_log(tmp_path / "events.db")
        facts = Facts(
            version="1", address="127.0.0.1:7210", started=0.0, log=tmp_path / "events.db", static=static_files(),
            metrics=ServerCore().metrics, turns=lambda: (1, 0.5), is_ending=lambda: self.is_ending,
        )  # fmt: skip
        settings = HttpSettings(token=None, auth=False, allow_origin=None)
        self.port = port.address.port
        self.shell = Prepared()
        self.service = HttpService(port, settings, facts, self.shell)
        self.browser = Browser(f"http://{port.address}/")

    async def get(self, path: str, **headers: str) -> Answer:
        return await asyncio.to_thread(self.browser.get, path, **headers)


@pytest.fixture
async def inside(tmp_path):
    port = await bind_http("127.0.0.1:0", 0.0)
    assert port is not None
    inside = Service(port, tmp_path)
    inside.service.start()
    yield inside
    await inside.service.close()


async def test_not_healthy_at_the_end(inside):
    assert (await inside.get("/health")).status == 200
    inside.is_ending = True
    assert (await inside.get("/health")).status == 503


async def test_pieces_of_a_task_log(inside):
    """A character that is cut in two comes whole with the next piece; what is no text does not stop it."""
    written = "aé€".encode() + b"\xff" + "é".encode()[:1]

    async def piece(limit: int, offset: int, *, ended: bool) -> tuple[str, int]:
        inside.shell.answer = lambda asked: TaskLog(
            asked.seq, written[asked.offset :][:limit], asked.offset, len(written), ended, ""
        )
        answer = (await inside.get(f"/api/tasks/3/4/log?stream=stderr&offset={offset}")).json
        assert (answer["offset"], answer["size"], answer["ended"]) == (offset, 8, ended)
        return answer["text"], answer["next"]

    assert await piece(2, 0, ended=False) == ("a", 1)
    assert await piece(4, 1, ended=False) == ("é", 3)
    assert await piece(100, 3, ended=False) == ("€\ufffd", 7)
    assert await piece(100, 7, ended=False) == ("", 7)
    assert await piece(100, 7, ended=True) == ("\ufffd", 8)
    asked = inside.shell.questions[-1]
    assert (asked.session, asked.task, asked.stream, asked.offset, asked.limit) == (3, 4, "stderr", 7, 65536)


async def test_what_the_core_refuses(inside):
    inside.shell.answer = lambda asked: Refused(asked.seq, Failure("session", "Session 3 is <gone>").to_map())
    for path in ("explain", "log"):
        answer = await inside.get(f"/api/tasks/3/4/{path}")
        assert (answer.status, answer.json) == (404, {"error": "Session 3 is <gone>"})
    assert (await inside.get("/lite/")).status == 404


async def test_lite_escapes(inside):
    workers = [{"worker_id": "<b>", "resources": {}}, {"worker_id": "w", "resources": {"cpus": 3}}]
    inside.shell.answer = lambda asked: ServerInfo(asked.seq, {"workers": workers})
    text = (await inside.get("/lite/")).text
    assert "<td>&lt;b&gt;</td><td>None</td>" in text
    assert "<td>w</td><td>3</td>" in text


async def test_slow_headers(inside, monkeypatch):
    """Who does not say what he wants within the time is disconnected, be it byte by byte."""
    monkeypatch.setattr(application, "make_server", lambda site: make_server(site, 0.4))
    reader, writer = await asyncio.open_connection("127.0.0.1", inside.port)
    started = time.monotonic()
    writer.write(b"GET / HTTP/1.1\r\nX: ")
    ended = asyncio.ensure_future(reader.read())
    while not ended.done():
        assert time.monotonic() - started < 30
        writer.write(b"x")
        await asyncio.sleep(0.05)
    assert ended.result() == b""
    writer.close()


async def test_idle_connections(inside, monkeypatch):
    monkeypatch.setattr(application, "make_server", lambda site: make_server(site, 1.0))
    reader, writer = await asyncio.open_connection("127.0.0.1", inside.port)
    for _ in range(2):
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"ok")
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * application.MAX_HEADER,
        b"GET /" + b"x" * application.MAX_HEADER,
        b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n" + b" " * 65537,
        b"POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + b"8000\r\n" + b" " * 32768
        + b"\r\n8000\r\n" + b" " * 32768 + b"\r\n8000\r\n",
        b"\r\n" * 20_000,
    ],
    ids=["header", "path", "body", "chunks", "empty lines"],
)  # fmt: skip
async def test_too_long(inside, request_):
    """It is not read to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", inside.port)
    writer.write(request_)
    answer = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(30):
            answer = await reader.read()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    writer.close()
    assert (await inside.get("/health")).text == "ok"


async def test_a_stuck_reader_is_left(inside, monkeypatch):
    """Who takes nothing of an answer loses his connection, be it streamed or not."""
    monkeypatch.setattr(handler, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(handler, "as_json", lambda answer: " " * (8 << 20))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", inside.port))
        await loop.sock_sendall(sock, b"GET /api/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(30):
            while True:
                assert inside.service._site is None or len(inside.service._site.connections) <= 1
                if inside.service._site is not None and len(inside.service._site.connections) == 0:
                    break
                await asyncio.sleep(0.05)
    assert (await inside.get("/health")).text == "ok"


async def test_a_stuck_reader_of_events_is_left(inside, monkeypatch):
    async def endless(self: Any, criteria: Any) -> Any:
        while True:
            yield b" " * (1 << 20)

    monkeypatch.setattr(handler, "STALL_SECONDS", 0.2)
    monkeypatch.setattr("rain.server.http.logview.LogView.events", endless)
    reader, writer = await asyncio.open_connection("127.0.0.1", inside.port, limit=1024)
    writer.write(b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    site = inside.service._site
    assert site is not None
    async with asyncio.timeout(30):
        while True:
            await asyncio.sleep(0.05)
            if not len(site.connections):
                break
    writer.transport.abort()


async def test_too_many_websockets(inside, monkeypatch):
    monkeypatch.setattr(live, "MOST", 1)
    url = f"ws://127.0.0.1:{inside.port}/api/live"
    first = await websocket_connect(url)
    second = await websocket_connect(url)
    async with asyncio.timeout(30):
        assert await second.read_message() is None
    assert second.close_code == 1013
    second.close()
    await closed(first)
    await asyncio.sleep(0.05)
    third = await websocket_connect(url)
    third.write_message("")
    await closed(third)


async def test_without_the_page(inside, tmp_path, monkeypatch):
    """Everything else works."""
    assert (await inside.get("/")).status == 200
    site = inside.service._site
    assert site is not None
    monkeypatch.setattr(type(site.facts), "static", tmp_path, raising=False)
    answer = await inside.get("/")
    assert (answer.status, "/lite/ and /metrics work" in answer.text) == (404, True)
    assert (await inside.get("/metrics")).status == 200


async def test_what_cannot_be_made_ends_nothing(inside, monkeypatch, caplog):
    """The port is closed, and the log says why."""

    def broken() -> list[str]:
        raise ImportError("no tornado today")

    monkeypatch.setattr(service, "_load", broken)
    with pytest.raises(ConnectionError):
        await inside.get("/health")
    assert "no tornado today" in caplog.text
    assert "the server goes on without it" in caplog.text


class NoDescriptors:
    """A listening socket whose first `accept` finds no free descriptor."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def accept(self) -> Any:
        if self.failures == 0:
            self.failures += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._sock.accept()


async def test_no_descriptors_left(tmp_path, monkeypatch, caplog):
    """It waits for better times instead of trying on and on."""
    monkeypatch.setattr(service, "PAUSE_SECONDS", 0.2)
    port = await bind_http("127.0.0.1:0", 0.0)
    assert port is not None
    listening = NoDescriptors(port.sock)
    inside = Service(BoundPort(listening, Address("127.0.0.1", port.address.port)), tmp_path)  # type: ignore[arg-type]
    inside.service.start()
    assert (await inside.get("/health")).text == "ok"
    assert listening.failures == 1
    assert caplog.text.count("no HTTP connections are accepted for 0.2 s: [Errno 24] Too many open files") == 1
    await inside.service.close()


async def test_never_used(tmp_path):
    port = await bind_http("127.0.0.1:0", 0.0)
    assert port is not None
    inside = Service(port, tmp_path)
    inside.service.start()
    await inside.service.close()
    with pytest.raises(ConnectionError):
        await inside.get("/health")


async def test_internal_errors_are_not_shown(inside, monkeypatch, caplog):
    def broken(*_: Any) -> str:
        raise ZeroDivisionError("a detail")

    assert (await inside.get("/metrics")).status == 200
    monkeypatch.setattr("rain.server.http.pages.metrics_page", broken)
    answer = await inside.get("/metrics?token=hush")
    assert (answer.status, answer.text) == (500, "Internal Server Error\n")
    assert "a detail" in caplog.text
    assert "hush" not in caplog.text
    assert json.loads((await inside.get("/api/status")).body)["live"] is True
