"""Progress bars over real processes, in a terminal of the script's own."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from rain.client import Client, LocalCluster, RainTimeoutError, TaskException, aio, blob, delayed, tasks

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60.0
COLUMNS = 120

PRELUDE = """
import pathlib
import time
from rain.client import Client, RainTimeoutError, TaskException, blob, delayed, tasks
"""


class Screen:
    """A script whose streams are a terminal.

    Attributes:
        text: what it wrote so far.
    """

    def __init__(self, script: str, access_file: str) -> None:
        self._terminal, inner = pty.openpty()
        termios.tcsetwinsize(inner, (40, COLUMNS))
        body = f"{PRELUDE}client = Client(access_file={access_file!r})\n{script}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", body],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        os.close(inner)
        self.text = ""

    def until(self, pattern: str) -> None:
        """Read until it wrote this."""
        deadline = time.monotonic() + LIMIT
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, self.text
            assert self._read(), self.text

    def end(self) -> int:
        """Read all it writes; the exit code."""
        while self._read():
            pass
        return self.process.wait(LIMIT)

    def _read(self) -> bool:
        with suppress(OSError):  # a terminal without anybody behind it
            read = os.read(self._terminal, 1 << 16)
            self.text += read.decode()
            return bool(read)
        return False

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT)
        os.close(self._terminal)

    @property
    def numbers(self) -> list[int]:
        """Ends of tasks, as shown one after the other."""
        return [int(number) for number in re.findall(r"(\d+)/\d+ \[", self.text)]


@contextmanager
def shown(cluster: LocalCluster, script: str) -> Iterator[Screen]:
    screen = Screen(script, cluster.access_file)
    try:
        yield screen
    finally:
        screen.close()


def pause(x: int) -> int:
    time.sleep(0.001)
    return x


def test_ten_thousand_tasks(cluster: LocalCluster) -> None:
    script = """
with client.new_session("many") as session:
    made = [tasks.concat(()) for _ in range(10_000)]
    session.submit()
    session.progress()
    print("counts:", dict(session.counts()))
client.close()
"""
    with shown(cluster, script) as screen:
        assert screen.end() == 0, screen.text
    assert "counts: {'finished': 10000}" in screen.text
    assert "10000/10000 [" in screen.text
    assert screen.numbers == sorted(screen.numbers)
    assert screen.numbers[-1] == 10_000


def test_a_session_that_fails(cluster: LocalCluster) -> None:
    script = """
def one(x):
    if x == 5:
        raise ValueError("five is no good")
    time.sleep(0.01)
    return x

for policy in ("fail", "continue"):
    with client.new_session(policy, on_failure=policy) as session:
        session.map(one, range(20)) if policy == "fail" else [delayed(one)(x) for x in range(20)]
        session.submit()
        try:
            session.progress()
        except TaskException as error:
            print("raised:", type(error.cause).__name__)
client.close()
"""
    with shown(cluster, script) as screen:
        assert screen.end() == 0, screen.text
    first, _, second = screen.text.partition("raised: ValueError")
    for part in (first, second):
        assert part.count("failed: ValueError: five is no good") == 1, part
        assert "failed 1" in part
    assert re.search(r"20/20 \[.*finished 19, failed 1\]", second)
    assert "raised: ValueError" in second


def test_interrupt_stops_the_waiting_only(cluster: LocalCluster, tmp_path: Path) -> None:
    script = f"""
go = pathlib.Path({str(tmp_path / "go")!r})

def when_told():
    end = time.monotonic() + {LIMIT}
    while not go.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return "there"

with client.new_session("interrupted") as session:
    task = delayed(when_told)()
    others = [tasks.concat(()) for _ in range(100)]
    session.submit()
    try:
        session.progress()
    except KeyboardInterrupt:
        print("interrupted")
    go.touch()
    print("result:", task.result())
client.close()
"""
    with shown(cluster, script) as screen:
        screen.until(r"100/101 \[.*running 1")
        screen.process.send_signal(signal.SIGINT)
        assert screen.end() == 0, screen.text
    assert re.search(r"finished 100, running 1\]\r?\ninterrupted", screen.text), screen.text
    assert "result: there" in screen.text


def test_timeout_and_lost_server(cluster: LocalCluster) -> None:
    script = """
session = client.new_session("lost")
with session.bind_only():
    task = tasks.Sleep(blob("x"), 60.0)
    session.submit()
    try:
        task.wait(2.0, progress=True)
    except RainTimeoutError as error:
        print("expired")
    try:
        session.wait_all(progress=True)
    except Exception as error:
        print(type(error).__name__)
"""
    with shown(cluster, script) as screen:
        screen.until(r"expired[\s\S]*running 1")
        (server,) = [one for one in cluster._group.processes if one.name == "server"]
        os.kill(server.popen.pid, signal.SIGKILL)
        assert screen.end() == 0, screen.text
    assert re.search(r"0/1 \[.*\]\r?\nexpired\r?\n", screen.text), screen.text
    assert screen.text.rstrip().endswith("\nRainConnectionError"), screen.text


def test_nothing_is_written_to_pipes(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    with client.new_session(on_failure="continue") as session:
        made = session.map(pause, range(50))
        session.submit()
        made.wait(progress=True)
        session.progress()
        bad = delayed(lambda: 1 / 0)()
        session.submit()
        with pytest.raises(TaskException):
            session.progress()
        sleeper = tasks.Sleep(blob("x"), 60.0)
        session.submit()
        with pytest.raises(RainTimeoutError):
            sleeper.wait(0.1, progress=True)
        assert isinstance(bad.exception(), TaskException)
    assert capfd.readouterr() == ("", "")


async def test_asyncio(cluster: LocalCluster) -> None:
    async with aio.create_client(access_file=cluster.access_file) as client, client.new_session("test") as session:
        made = session.map(pause, range(100))
        await session.submit()
        await made.wait(progress=True)
        await session.progress()
        assert await session.counts() == {"finished": 100}
