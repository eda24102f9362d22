"""Memory and process groups of tasks, with real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from rain.worker.core.actions import Run
from rain.worker.core.events import LimitExceeded
from rain.worker.grace import GroupEnd
from rain.worker.monitor import (
    INTERVAL,
    MemoryMonitor,
    descendants,
    exceeds,
    is_alive_in,
    memory_request,
    proportional_size,
    resident_size,
)

MIB = 1 << 20
NOBODY = 2**22 + 1
"""More than any process id."""

TREE = """
import subprocess, sys, time
program = "import time; data = b'x' * (64 << 20); print('child', flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", program])
print("parent", flush=True)
time.sleep(60)
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
"""Does not obey SIGTERM."""
LEADER = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {STUBBORN!r}])
time.sleep(60)
"""
SLEEPER = "import time; print('on', flush=True); time.sleep(60)"


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts programs in groups of their own and waits for lines of output."""
    started: list[subprocess.Popen[bytes]] = []

    def run(program: str, lines: int = 1) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", program]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        started.append(process)
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        return process

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.close()
        process.wait()


def test_the_whole_tree_counts(start: Any) -> None:
    process = start(TREE, lines=2)
    pids = descendants(process.pid)
    assert set(pids) == {process.pid, *(child.pid for child in psutil.Process(process.pid).children())}
    assert len(pids) == 2
    assert exceeds(process.pid, 64 * MIB)
    assert not exceeds(process.pid, 512 * MIB)
    assert resident_size(pids[1]) > 64 * MIB
    assert proportional_size(pids[1]) > 64 * MIB


def test_shared_pages_count_once() -> None:
    data = bytearray(os.urandom(MIB)) * 64
    children = []
    for _ in range(3):
        pid = os.fork()
        if not pid:
            signal.pause()
            os._exit(0)
        children.append(pid)
    try:
        sizes = sum(map(resident_size, [os.getpid(), *children]))
        assert sizes > 4 * len(data)
        assert not exceeds(os.getpid(), sizes - len(data))
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_processes_that_ended(start: Any) -> None:
    process = start("print('x')")
    process.wait()
    assert descendants(NOBODY) == [NOBODY]
    assert resident_size(NOBODY) == proportional_size(NOBODY) == 0
    assert not exceeds(process.pid, 0)
    assert not is_alive_in(process.pid, process.pid)


def test_requests() -> None:
    def run(**template: Any) -> Run:
        return Run((1, 20, 1), 0, template, None, (), ())

    assert memory_request(run(resources={"memory": 5})) == 5
    for template in ({"resources": {"cpus": 1}}, {"resources": None}, {}):
        assert memory_request(run(**template)) == 0


async def test_the_monitor_reports_who_takes_too_much(start: Any) -> None:
    process = start(SLEEPER)
    events: asyncio.Queue[Any] = asyncio.Queue()
    watched = [((1, 20, 1), process.pid, 1024), ((1, 21, 1), process.pid, 1 << 40)]
    monitor = MemoryMonitor(
        loop=asyncio.get_running_loop(), sources=[lambda: [], lambda: watched], report=events.put_nowait
    )
    try:
        async with asyncio.timeout(20):
            assert await events.get() == LimitExceeded((1, 20, 1), "Memory limit of 1.0 KiB exceeded")
        monitor.close()
        await asyncio.sleep(2 * INTERVAL)
        assert events.empty()
    finally:
        monitor.close()


class Ending:
    """A group that ends, watched as the pool does it."""

    def __init__(self, process: subprocess.Popen[bytes], grace: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.process = process
        self.done = asyncio.Event()
        self.end = GroupEnd(self.loop, process.pid, grace, self.done.set)
        self._pidfd = os.pidfd_open(process.pid)
        self.loop.add_reader(self._pidfd, self._leader_ended)

    def _leader_ended(self) -> None:
        self.loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.end.leader_ended()

    async def seconds(self) -> float:
        start = self.loop.time()
        async with asyncio.timeout(20):
            await self.done.wait()
        return self.loop.time() - start


async def test_a_group_that_obeys_ends_at_once(start: Any) -> None:
    ending = Ending(start(SLEEPER), 15.0)
    assert await ending.seconds() < 10.0
    assert ending.process.wait() == -signal.SIGTERM


async def test_a_leader_that_does_not_obey_is_killed(start: Any) -> None:
    ending = Ending(start(STUBBORN), 0.3)
    assert await ending.seconds() >= 0.25
    assert ending.process.wait() == -signal.SIGKILL


async def test_members_get_the_grace_too(start: Any) -> None:
    process = start(LEADER)
    (member,) = psutil.Process(process.pid).children()
    ending = Ending(process, 0.5)
    assert await ending.seconds() >= 0.4
    assert not member.is_running() or member.status() == psutil.STATUS_ZOMBIE
    assert process.wait() == -signal.SIGTERM


async def test_grace_can_be_cut_short(start: Any) -> None:
    ending = Ending(start(STUBBORN), 15.0)
    ending.end.kill()
    ending.end.kill()
    assert await ending.seconds() < 10.0
    ending.end.kill()
