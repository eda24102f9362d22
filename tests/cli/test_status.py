"""`rain status --watch`: on a terminal, into a pipe, until Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rain.cli import live, status
from rain.cli.main import main
from rain.client import LocalCluster
from rain.protocol.codec import encode
from rain.protocol.messages import Heartbeat
from rain.testing.leaks import no_leaks

encode([Heartbeat()])  # the schema is loaded once per process and keeps its file open

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(rb"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d  0 sessions; tasks: -; 1 workers; free: cpus=1/1 .*")
SECONDS = 30.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with no_leaks(), LocalCluster([1], timeout=60) as cluster:
        yield cluster


def watching(cluster: LocalCluster, *arguments: str, out: int) -> subprocess.Popen[bytes]:
    """A process that watches."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAIN_")}
    environment = {**clean, "PYTHONPATH": str(ROOT), "RAIN_ACCESS_FILE": cluster.access_file, "TERM": "xterm"}
    command = [sys.executable, "-m", "rain", "status", "--watch", *arguments]
    return subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.PIPE)


def read_until(descriptor: int, pattern: bytes, count: int) -> bytes:
    """What comes until the pattern has come so many times."""
    text, deadline = b"", time.monotonic() + SECONDS
    while len(re.findall(pattern, text)) < count:
        assert select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0], text
        piece = os.read(descriptor, 65536)
        assert piece, text
        text += piece
    return text


def stopped(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Exit code and errors after Ctrl-C."""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=SECONDS)
    return process.returncode, errors


@pytest.mark.cluster
def test_lines_where_there_is_no_terminal(cluster: LocalCluster) -> None:
    with watching(cluster, out=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = read_until(process.stdout.fileno(), rb"\n", 2).splitlines()
        assert all(map(LINE.fullmatch, lines)), lines
        assert stopped(process) == (0, b"")


@pytest.mark.cluster
def test_a_document_per_line(cluster: LocalCluster) -> None:
    with watching(cluster, "--output", "json", out=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = read_until(process.stdout.fileno(), rb"\n", 2).splitlines()
        assert [json.loads(line)["server"]["address"] for line in lines[:2]] == [cluster.address] * 2
        assert stopped(process) == (0, b"")


@pytest.mark.cluster
def test_in_place_on_a_terminal(cluster: LocalCluster) -> None:
    ours, theirs = pty.openpty()
    try:
        with watching(cluster, out=theirs) as process:
            text = read_until(ours, rb"free/total  cpus=1/1", 2)
            assert text.startswith(b"\x1b[2J\x1b[?25l\x1b[H")
            assert text.count(b"\x1b[2J") == 1
            assert stopped(process) == (0, b"")
            assert read_until(ours, rb"\x1b\[\?25h", 1)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.cluster
def test_a_server_that_goes_away(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """That is an error."""
    with LocalCluster([1], timeout=60) as cluster:
        monkeypatch.setenv("RAIN_ACCESS_FILE", cluster.access_file)
        monkeypatch.setattr(status.time, "sleep", lambda _seconds: cluster.close())
        assert main(["status", "--watch"]) == 1
    printed = capsys.readouterr()
    assert LINE.fullmatch(printed.out.splitlines()[0].encode())
    assert f"the connection to {cluster.address} is lost" in printed.err


def test_there_is_nothing_to_watch_in_ids(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--watch", "--output", "quiet"]) == 1
    assert "--output quiet" in capsys.readouterr().err


class Terminal(io.StringIO):
    """A terminal of 3 lines with 10 columns."""

    def isatty(self) -> bool:
        return True


def test_what_does_not_fit_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.shutil, "get_terminal_size", lambda: os.terminal_size((20, 3)))
    terminal = Terminal()
    with live.Screen(terminal) as screen:
        terminal.seek(0)
        terminal.truncate()
        screen.draw(["x" * 30, "b", "c"])
        screen.draw(["a", "b", "c", "d", "e"])
    first, second = terminal.getvalue().split("\x1b[H")[1:]
    assert first == f"{'x' * 20}\x1b[K\nb\x1b[K\nc\x1b[K\x1b[J"
    assert second.startswith("a\x1b[K\nb\x1b[K\n... and 3 more lines\x1b[K\x1b[J")
