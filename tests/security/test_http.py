"""The HTTP port of a real server against everything but who may ask: promise P10."""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from rain.net.address import Address
from rain.testing.leaks import GRACE
from tests.net.hostile import fire, fire_one, hostile_inputs
from tests.security.conftest import Target
from tests.security.test_ports import served, until

pytestmark = pytest.mark.cluster

SLOW_ONES = 50
HOST = b"Host: localhost\r\n"
SECRET_NAMES = ("/etc/passwd", "/proc/self/environ", "/proc/self/cmdline")


@pytest.fixture(scope="module")
def netloc(target: Target) -> str:
    assert target.cluster.http_url is not None
    return urlsplit(target.cluster.http_url).netloc


def server_of(target: Target, netloc: str) -> psutil.Process:
    port = Address.parse(netloc).port
    (found,) = [
        process
        for process in target.processes()
        if any(entry.laddr.port == port and entry.status == "LISTEN" for entry in process.net_connections("inet"))
    ]
    return found


def status_of(netloc: str, request: bytes) -> int | None:
    """Of the answer to these bytes; None: it was closed without one."""
    address = Address.parse(netloc)
    with socket.create_connection((address.host, address.port), GRACE) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while b"\r\n" not in answer and (data := sock.recv(65536)):
                answer += data
    return int(answer.split()[1]) if answer else None


@contextmanager
def healthy(netloc: str) -> Iterator[None]:
    """Who may ask is answered before and afterwards."""
    for turn in range(2):
        connection = http.client.HTTPConnection(netloc, timeout=GRACE)
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b"ok"
        connection.close()
        if turn == 0:
            yield


def test_garbage(target: Target, netloc: str) -> None:
    """Each input ends with the connection closed; the cluster notices nothing, no log has the secret."""
    with healthy(netloc), served(target):
        fire(netloc, timeout=GRACE)
    assert "Traceback" not in target.log()
    assert target.secret not in target.log()


def test_malformed_requests(netloc: str) -> None:
    bodies = b"Content-Length: 5\r\nContent-Length: 6\r\n", b"Content-Length: -1\r\n", b"Content-Length: 1e9\r\n"
    smuggled = b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"
    with healthy(netloc):
        others = b"Content-Length: 99999999999\r\n", b"Host: evil\r\n", b"X : y\r\n", b"\0: y\r\n"
        for head in (*bodies, smuggled, *others):
            status = status_of(netloc, b"POST /events HTTP/1.1\r\n" + HOST + head + b"\r\n{}...")
            assert status in (None, 400, 403, 413), head
        lines = b"GET", b"GET /", b"GET / HTTP/3.0", b"G\0T / HTTP/1.1", b"GET /\r / HTTP/1.1", b"GET  /  HTTP/1.1"
        for line in lines:
            assert status_of(netloc, line + b"\r\n" + HOST + b"\r\n") in (None, 400), line


def test_too_long(netloc: str) -> None:
    with healthy(netloc):
        for request in (
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
            b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 20_000 + b"\r\n",
            b"POST /events HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n" + b"[" * 1_000_000,
            b"POST /events HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nf4240\r\n" + b"[" * 1_000_000,
        ):
            assert status_of(netloc, request) in (None, 400, 413, 431)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"])
def test_methods(netloc: str, method: str) -> None:
    for path in ("/", "/events", "/api/status", "/static/icon.svg", "/metrics", "*"):
        request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        assert status_of(netloc, request) in (400, 405), path


@pytest.mark.parametrize("prefix", ["/static/", "/static//", "/", "/api/", "/static/js/"])
@pytest.mark.parametrize("up", ["..", "%2e%2e", "..%2f..", "....", "..%5c", "%252e%252e", "..;"])
def test_path_traversal(netloc: str, prefix: str, up: str) -> None:
    address = Address.parse(netloc)
    for name in SECRET_NAMES:
        path = prefix + "/".join([up] * 12) + name
        request = b"GET " + path.encode() + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
        with socket.create_connection((address.host, address.port), GRACE) as sock:
            sock.sendall(request)
            answer = b"".join(iter(lambda sock=sock: sock.recv(65536), b""))  # type: ignore[misc]
        assert answer.split()[1] in (b"200", b"400", b"403", b"404")
        assert b"root:" not in answer
        assert b"PATH=" not in answer
        assert b"rain\0" not in answer


def test_slow_requests_keep_nobody_out(target: Target, netloc: str) -> None:
    """Half requests, held open: who asks properly is answered at once."""
    address = Address.parse(netloc)
    with contextlib.ExitStack() as stack:
        socks = [
            stack.enter_context(socket.create_connection((address.host, address.port), GRACE))
            for _ in range(SLOW_ONES)
        ]
        for _ in range(3):
            for sock in socks:
                sock.sendall(b"GET / HT" if sock is socks[0] else b"X")
            started = time.monotonic()
            with healthy(netloc):
                pass
            assert time.monotonic() - started < GRACE
        with served(target):
            pass


@pytest.mark.slow
def test_slow_requests_end(netloc: str) -> None:
    """With the real limit of 20 s, be they sent byte by byte."""
    address = Address.parse(netloc)
    with socket.create_connection((address.host, address.port), GRACE) as sock:
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - started < 40:
                sock.sendall(b"X")
                time.sleep(0.2)
        assert 15 < time.monotonic() - started < 35
    assert fire_one(address, b"GET / HTTP/1.1\r\n", timeout=30, end=False)


_ASK_WITHOUT_END = """
import os, socket, sys, time
os.setgroups([]); os.setgid(65534); os.setuid(int(sys.argv[1]))
kept = []
for _ in range(300):
    sock = socket.socket(); sock.settimeout(20); sock.connect((sys.argv[2], int(sys.argv[3])))
    sock.sendall(b"GET /api/status HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    kept.append(sock)
answers = set()
for sock in kept:
    try:
        answers.add(sock.recv(65536)[:12])
    except ConnectionError:
        answers.add(b"closed")
print(sorted(answers), flush=True)
time.sleep(30)
"""


def test_another_user_can_keep_nobody_out(target: Target, netloc: str) -> None:
    """He takes all connections there may be, learns nothing, and who may ask is answered."""
    if os.geteuid() != 0:
        pytest.skip("requests of other users are not tested: only root may become another user")
    address = Address.parse(netloc)
    uid = str(pwd.getpwnam("nobody").pw_uid)
    command = [sys.executable, "-I", "-c", _ASK_WITHOUT_END, uid, address.host, str(address.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            answers = other.stdout.readline()
            assert "401" in answers
            assert "200" not in answers
            with healthy(netloc), served(target):
                pass
        finally:
            other.kill()
    until(lambda: "refused request from 127.0.0.1 port" in target.log())
    assert target.secret not in target.log()


def test_nothing_grows(target: Target, netloc: str) -> None:
    server = server_of(target, netloc)
    inputs = [*hostile_inputs(), ("good", b"GET /api/status HTTP/1.1\r\n" + HOST + b"\r\n")] * 3
    for _ in range(2):  # the first round fills what is kept
        before = (server.num_fds(), server.num_threads(), server.memory_info().rss)
        fire(netloc, inputs, timeout=GRACE)
    until(lambda: server.num_fds() <= before[0] + 5)
    assert server.num_threads() <= before[1] + 3
    assert server.memory_info().rss < before[2] + (8 << 20)
    assert Path(f"/proc/{server.pid}").exists()
