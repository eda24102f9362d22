"""A real worker process under a scripted server: registration, work, exit codes, and that nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import cloudpickle
import msgpack
import psutil
import pytest

from rain.common.packing import pack_args
from rain.net.channel import Channel
from rain.net.listener import Listener, listen
from rain.net.secret import Secret
from rain.protocol.handshake import PeerHello
from rain.protocol.messages import (
    AssignTasks,
    DeleteObjects,
    GetWorkerInfo,
    Heartbeat,
    Message,
    PeersProbed,
    ProbePeers,
    ReadTaskLog,
    StopWorker,
    TaskLogRead,
    TasksDone,
    WorkerHello,
    WorkerInfo,
    WorkerMonitoring,
    WorkerWelcome,
)

pytestmark = pytest.mark.cluster

TOKEN = "ab" * 32
SECRET = Secret(TOKEN, "the test")
PROGRAM = """
import logging, sys
from rain.net.secret import Secret
from rain.worker.main import run_worker
from rain.worker.options import WorkerOptions
logging.basicConfig(level=logging.INFO)
sys.exit(run_worker(WorkerOptions(server=sys.argv[1], secret=Secret(sys.argv[2], "x"), **eval(sys.argv[3]))))
"""


class ScriptedServer:
    """Welcomes workers and writes down what they say."""

    def __init__(self) -> None:
        self.channel: Channel | None = None
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.monitoring: asyncio.Queue[WorkerMonitoring] = asyncio.Queue()
        self.closed: asyncio.Queue[str] = asyncio.Queue()
        self.listener: Listener | None = None
        self.welcomes = True
        self._incarnation = 0

    async def start(self, port: int = 0) -> None:
        self.listener = await listen(f"127.0.0.1:{port}", SECRET, self.accept, roles=["worker"])

    @property
    def address(self) -> str:
        assert self.listener is not None
        return str(self.listener.address)

    def accept(self, channel: Channel, hello: PeerHello) -> ScriptedServer:
        self.channel = channel
        return self

    def messages_received(self, channel: Channel, messages: list[Message]) -> None:
        for message in messages:
            if isinstance(message, WorkerHello) and self.welcomes:
                self._incarnation += 1
                channel.send(WorkerWelcome(self._incarnation, message.address))
            if isinstance(message, WorkerMonitoring):
                self.monitoring.put_nowait(message)
            elif not isinstance(message, Heartbeat):
                self.messages.put_nowait(message)

    def channel_closed(self, channel: Channel, reason: str) -> None:
        self.closed.put_nowait(reason)

    def send(self, message: Message) -> None:
        assert self.channel is not None
        self.channel.send(message)

    async def next(self, kind: type[Any]) -> Any:
        """The next message, which must be of this class."""
        message = await asyncio.wait_for(self.messages.get(), 20)
        assert isinstance(message, kind), message
        return message

    async def next_of(self, kind: type[Any]) -> Any:
        """The next message of this class; others are skipped."""
        while not isinstance(message := await asyncio.wait_for(self.messages.get(), 20), kind):
            pass
        return message

    def close(self) -> None:
        if self.channel is not None:
            self.channel.abort()
        if self.listener is not None:
            self.listener.close()


class WorkerProcess:
    """A worker process, in directories of the test."""

    def __init__(self, directory: Path) -> None:
        self.workdir = directory / "work"
        self.logdir = directory / "logs"
        self.ready = directory / "ready"
        self.log = directory / "worker.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, server: str, *, pass_fds: tuple[int, ...] = (), token: str = TOKEN, **options: Any) -> None:
        options = {
            "workdir": str(self.workdir),
            "logdir": str(self.logdir),
            "ready_file": str(self.ready),
            "cpus": 1,
            "gpus": (),
            "spare_executors": 0,
            "memory_budget": 32 << 20,
            **options,
        }
        command = [sys.executable, "-c", PROGRAM, server, token, repr(options)]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                pass_fds=pass_fds,
                start_new_session=True,
                env={**os.environ, "RAIN_DEBUG_MODE": "1"},
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def ended(self) -> int:
        """The exit code."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, 20)

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children(recursive=True)

    def shared_directories(self) -> list[Path]:
        return list(Path("/dev/shm").glob(f"rain-{os.geteuid()}-{self.pid}-*"))

    def text(self) -> str:
        return self.log.read_text()


def alive(process: psutil.Process) -> bool:
    """Does it run? A zombie, whom nobody has asked for yet, does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def wait_until(condition: Callable[[], bool], timeout: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer()
    await server.start()
    yield server
    server.close()
    await asyncio.sleep(0)


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[WorkerProcess]:
    worker = WorkerProcess(tmp_path)
    yield worker
    if worker.process is not None:
        left = worker.descendants() if worker.process.poll() is None else []
        worker.process.kill()
        worker.process.wait()
        assert await wait_until(lambda: not any(map(alive, left)))
        assert await wait_until(lambda: not worker.shared_directories())


def assignment(**columns: Any) -> AssignTasks:
    empty: dict[str, Any] = {
        "session": 1,
        "template_numbers": array("I"),
        "templates": [],
        "tasks": array("I"),
        "runs": array("I"),
        "task_templates": array("I"),
        "args": [],
        "input_counts": array("I"),
        "inputs": array("I"),
        "output_counts": array("I"),
        "outputs": array("I"),
        "solo": array("I"),
        "objects": array("I"),
        "sizes": array("Q"),
        "specs": [],
        "infos": [],
        "values": [],
        "holders": [],
    }
    assert set(columns) <= set(empty)
    return AssignTasks(**{**empty, **columns})


def concat_twice(value: bytes) -> AssignTasks:
    """Task 20 joins object 10 with itself."""
    return assignment(
        template_numbers=array("I", [0]),
        templates=[msgpack.packb({"task_type": "buildin/concat"})],
        tasks=array("I", [20]),
        runs=array("I", [0]),
        task_templates=array("I", [0]),
        input_counts=array("I", [2]),
        inputs=array("I", [10, 10]),
        output_counts=array("I", [1]),
        outputs=array("I", [20]),
        objects=array("I", [10]),
        sizes=array("Q", [len(value)]),
        values=[value],
        holders=[[]],
    )


async def test_registration_work_and_orderly_end(server: ScriptedServer, worker: WorkerProcess) -> None:
    worker.start(server.address, resources={"license": 2.0}, memory=1 << 30)
    hello = await server.next(WorkerHello)
    assert hello.pid == worker.pid
    assert hello.address.startswith("127.0.0.1:")
    assert hello.resources == {"cpus": 1, "gpus": [], "memory": 1 << 30, "license": 2.0}
    assert hello.python == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert hello.hostname == os.uname().nodename
    assert await wait_until(worker.ready.exists)
    assert worker.ready.read_text() == "ready\n"
    assert (worker.workdir / ".rain-workdir").read_text() == f"{worker.pid}\n"

    server.send(concat_twice(b"ab"))
    done = await server.next_of(TasksDone)
    assert list(done.tasks) == [20]
    assert done.values == [b"abab"]
    assert abs(done.starts[0] - time.time()) < 60

    server.send(DeleteObjects(1, array("I", [10])))
    server.send(GetWorkerInfo(7))
    info = await server.next_of(WorkerInfo)
    assert (info.seq, info.info["objects_to_delete"]) == (7, [[1, 10]])

    server.send(StopWorker())
    assert await worker.ended() == 0
    assert not worker.workdir.exists()
    assert (worker.logdir / "executors").is_dir()
    assert not worker.shared_directories()


def python_calls(function: Callable[..., Any], *arguments: Any) -> AssignTasks:
    """Tasks 20, 21 ... call the function, object 10, with one argument each."""
    count = len(arguments)
    return assignment(
        template_numbers=array("I", [0]),
        templates=[msgpack.packb({"task_type": "py/", "config": {"plain": True}, "outputs": [{}]})],
        tasks=array("I", range(20, 20 + count)),
        runs=array("I", [0] * count),
        task_templates=array("I", [0] * count),
        args=[pack_args([argument], {}, cloudpickle.dumps) for argument in arguments],
        input_counts=array("I", [1] * count),
        inputs=array("I", [10] * count),
        output_counts=array("I", [1] * count),
        outputs=array("I", range(20, 20 + count)),
        objects=array("I", [10]),
        sizes=array("Q", [1]),
        values=[cloudpickle.dumps(function)],
        holders=[[]],
    )


async def test_python_tasks_with_small_and_large_results(server: ScriptedServer, worker: WorkerProcess) -> None:
    worker.start(server.address)
    await server.next(WorkerHello)
    server.send(python_calls(lambda size: b"r" * size, 10, 500_000, 20))
    sizes: dict[int, int] = {}
    while len(sizes) < 3:
        done = await server.next_of(TasksDone)
        sizes.update(zip(done.tasks, done.sizes, strict=True))
    assert sizes[21] >= 500_000
    assert sizes[20] < sizes[22] < 1000
    server.send(StopWorker())
    assert await worker.ended() == 0
    assert not worker.shared_directories()


async def test_what_the_server_asks_besides(server: ScriptedServer, worker: WorkerProcess) -> None:
    worker.start(server.address)
    hello = await server.next(WorkerHello)
    server.send(python_calls(lambda number: print("number", number), 1, 2))
    while 21 not in (await server.next_of(TasksDone)).tasks:
        pass
    server.send(ReadTaskLog(5, 1, 21, "stdout", 0, 100))
    assert await server.next_of(TaskLogRead) == TaskLogRead(5, b"number 2\n", 0, 9, True, "")
    server.send(ReadTaskLog(6, 1, 21, "+out", 0, 100))
    assert "no stream '+out'" in (await server.next_of(TaskLogRead)).hint
    server.send(ProbePeers(7, [hello.address, server.address]))
    probed = await server.next_of(PeersProbed)
    assert (probed.seq, probed.errors[0]) == (7, "")
    assert probed.errors[1]  # that is no data port
    monitoring = await asyncio.wait_for(server.monitoring.get(), 20)
    assert set(monitoring.info) == {"cpu_usage", "mem_usage", "net_stat", "store", "executors", "transfers", "cache"}
    server.send(StopWorker())
    assert await worker.ended() == 0


async def test_a_killed_worker_takes_running_tasks_along(server: ScriptedServer, worker: WorkerProcess) -> None:
    def run_program(path: str) -> None:
        import subprocess

        with open(path, "w") as started:
            started.write("x")
        subprocess.run(["sleep", "300"], check=True)

    started = worker.workdir.parent / "started"
    worker.start(server.address)
    await server.next(WorkerHello)
    server.send(python_calls(run_program, str(started)))
    assert await wait_until(started.exists)
    assert await wait_until(lambda: any(child.name() == "sleep" for child in worker.descendants()))
    children = worker.descendants()
    os.kill(worker.pid, signal.SIGKILL)
    await worker.ended()
    assert await wait_until(lambda: not any(map(alive, children)))


async def test_values_come_from_another_worker(server: ScriptedServer, worker: WorkerProcess, tmp_path: Path) -> None:
    value = os.urandom(3 << 20)
    (tmp_path / "second").mkdir()
    second = WorkerProcess(tmp_path / "second")
    worker.start(server.address)
    first_hello = await server.next(WorkerHello)
    server.send(concat_twice(value))
    await server.next_of(TasksDone)
    first_channel = server.channel
    try:
        second.start(server.address)
        await server.next_of(WorkerHello)
        message = concat_twice(b"")
        server.send(
            assignment(
                **{name: getattr(message, name) for name in ("template_numbers", "templates", "tasks", "runs")},
                **{name: getattr(message, name) for name in ("task_templates", "input_counts", "output_counts")},
                inputs=array("I", [20, 20]),
                outputs=array("I", [21]),
                objects=array("I", [20]),
                sizes=array("Q", [2 * len(value)]),
                holders=[[first_hello.address]],
            )
        )
        done = await server.next_of(TasksDone)
        assert list(done.sizes) == [4 * len(value)]
        server.send(StopWorker())
        assert await second.ended() == 0
    finally:
        if second.process is not None:
            second.process.kill()
            second.process.wait()
    assert first_channel is not None
    first_channel.send(StopWorker())
    assert await worker.ended() == 0


async def test_nobody_listens(worker: WorkerProcess) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    worker.start(address)
    assert await worker.ended() == 1
    assert f"cannot connect to {address}" in worker.text()
    assert not worker.workdir.exists()
    assert not worker.ready.exists()


async def test_a_wrong_secret(server: ScriptedServer, worker: WorkerProcess) -> None:
    worker.start(server.address, token="cd" * 32)
    assert await worker.ended() == 1
    assert "secret" in worker.text()


async def test_a_foreign_work_directory_is_refused(server: ScriptedServer, worker: WorkerProcess) -> None:
    worker.workdir.mkdir()
    (worker.workdir / "precious").write_text("x")
    worker.start(server.address)
    assert await worker.ended() == 1
    assert "not empty" in worker.text()
    assert (worker.workdir / "precious").read_text() == "x"


async def test_the_server_is_lost_without_patience(server: ScriptedServer, worker: WorkerProcess) -> None:
    worker.start(server.address, reconnect_timeout=0.0)
    await server.next(WorkerHello)
    assert await wait_until(worker.ready.exists)
    server.close()
    assert await worker.ended() == 3
    assert "Gave up" in worker.text()


async def test_the_server_stays_away(server: ScriptedServer, worker: WorkerProcess) -> None:
    worker.start(server.address, reconnect_timeout=0.5)
    await server.next(WorkerHello)
    assert await wait_until(worker.ready.exists)
    server.close()
    start = time.monotonic()
    assert await worker.ended() == 3
    assert 0.4 < time.monotonic() - start < 20


async def test_a_returning_server_gets_a_new_incarnation(server: ScriptedServer, worker: WorkerProcess) -> None:
    worker.start(server.address, reconnect_timeout=20.0)
    first = await server.next(WorkerHello)
    server.send(concat_twice(b"x" * 100_000))
    await server.next_of(TasksDone)
    assert server.channel is not None
    server.channel.abort()
    second = await server.next_of(WorkerHello)
    assert second == first
    server.send(GetWorkerInfo(1))
    info = await server.next_of(WorkerInfo)
    assert info.info["objects"] == []
    server.send(concat_twice(b"ab"))
    assert (await server.next_of(TasksDone)).values == [b"abab"]
    (directory,) = worker.shared_directories()
    assert list(directory.iterdir()) == []


async def test_a_killed_worker_leaves_nothing(server: ScriptedServer, worker: WorkerProcess) -> None:
    worker.start(server.address, spare_executors=1)
    await server.next(WorkerHello)
    server.send(concat_twice(b"x" * 100_000))
    await server.next_of(TasksDone)
    assert worker.shared_directories()
    assert await wait_until(lambda: len(worker.descendants()) >= 2)  # the guard and the spare executor
    children = worker.descendants()
    os.kill(worker.pid, signal.SIGKILL)
    await worker.ended()
    assert await wait_until(lambda: not any(map(alive, children)))
    assert not worker.shared_directories()
    # the work directory given by the user is left to the next worker
    worker.start(server.address)
    await server.next_of(WorkerHello)
    assert await wait_until(worker.ready.exists)


async def test_sigterm_ends_it_at_once(server: ScriptedServer, worker: WorkerProcess) -> None:
    worker.start(server.address)
    await server.next(WorkerHello)
    assert await wait_until(worker.ready.exists)
    os.kill(worker.pid, signal.SIGTERM)
    assert await worker.ended() == -signal.SIGTERM
    assert (worker.workdir / ".rain-workdir").exists()
    assert await wait_until(lambda: not worker.shared_directories())


async def test_it_ends_with_its_owner(server: ScriptedServer, worker: WorkerProcess) -> None:
    reading, writing = os.pipe()
    try:
        worker.start(server.address, pass_fds=(reading,), owner_fd=reading)
        await server.next(WorkerHello)
        assert await wait_until(worker.ready.exists)
        children = worker.descendants()
        os.close(writing)
        writing = -1
        assert await worker.ended() != 0
        assert await wait_until(lambda: not any(map(alive, children)))
        assert not worker.workdir.exists()
        assert not worker.shared_directories()
    finally:
        os.close(reading)
        if writing >= 0:
            with contextlib.suppress(OSError):
                os.close(writing)


async def test_a_server_that_does_not_welcome(server: ScriptedServer, worker: WorkerProcess) -> None:
    server.welcomes = False
    worker.start(server.address)
    await server.next(WorkerHello)
    assert server.channel is not None
    server.channel.close()
    assert await worker.ended() == 1
    assert "did not take this worker" in worker.text()
