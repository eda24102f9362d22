"""Real servers with an HTTP port."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rain.client import Client
from rain.launch.processes import LocalProcess, ProcessGroup, access_file_pauses, child_environment, wait_ready
from rain.net.access import AccessFile
from rain.testing.leaks import no_leaks
from tests.server.http.browser import Browser

START_SECONDS = 30.0


class RunningServer:
    """A server with its directories.

    Attributes:
        url: of the dashboard.
    """

    def __init__(self, group: ProcessGroup, process: LocalProcess, path: Path, access: AccessFile) -> None:
        self.group = group
        self.process = process
        self.access_file = path
        self.access = access
        self.token = access.token or ""
        self.url = f"http://127.0.0.1:{access.http_port}/"
        self.browser = Browser(self.url)

    def client(self) -> Client:
        return Client(str(self.access.address), access_file=self.access_file)

    def log(self) -> str:
        return self.process.log.read_text()

    def add_worker(self) -> None:
        private = self.group.directory
        worker = self.group.start(
            "worker",
            [
                *("worker", str(self.access.address), "--cpus", "2", "--access-file", str(self.access_file)),
                *("--workdir", str(private / "w"), "--logdir", str(private / "wl")),
            ],
            private,
            child_environment(os.environ),
        )
        wait_ready([worker], [worker, self.process], time.monotonic() + START_SECONDS)


@contextmanager
def server(*options: str, http: str | None = "127.0.0.1:0") -> Iterator[RunningServer]:
    """`rain server` with these options on a free port; `http`: where it listens for HTTP, None: it is not told."""
    with no_leaks():
        group = ProcessGroup()
        try:
            private = group.directory
            access = private / "access"
            access.mkdir()
            given = options if http is None else ("--http-listen", http, *options)
            process = group.start(
                "server",
                [
                    *("server", "--listen", "127.0.0.1:0", "--access-dir", str(access)),
                    *("--workdir", str(private / "work"), "--logdir", str(private / "log"), *given),
                ],
                private,
                child_environment(os.environ),
            )
            deadline = time.monotonic() + START_SECONDS
            pauses = access_file_pauses(access, process, deadline)
            while True:
                try:
                    time.sleep(next(pauses))
                except StopIteration as found:
                    path, content = found.value
                    break
            wait_ready([process], [process], deadline)
            yield RunningServer(group, process, path, content)
            assert process.poll() in (None, 0), process.log.read_text()
        finally:
            group.close()


_ASK_AS = """
import os, socket, sys
uid, host, port, request = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4].encode()
os.setgroups([]); os.setgid(uid); os.setuid(uid)
sock = socket.socket()
sock.settimeout(20)
sock.connect((host, port))
sock.sendall(request)
while data := sock.recv(65536):
    os.write(1, data)
"""


def ask_as(uid: int, netloc: str, path: str, *headers: str) -> tuple[int, str]:
    """Status and body of a GET from a process of another user; needs root."""
    host, _, port = netloc.rpartition(":")
    lines = [f"GET {path} HTTP/1.1", *headers, "Connection: close"]
    if not any(header.startswith("Host:") for header in headers):
        lines.append(f"Host: {netloc}")
    request = "\r\n".join([*lines, "", ""])
    command = [sys.executable, "-I", "-c", _ASK_AS, str(uid), host, port, request]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    head, _, body = output.partition("\n\n")
    return int(head.split()[1]), body
