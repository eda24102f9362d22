"""A worker in the process of its server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rain.client import Client, RainException, delayed
from rain.client.connect import open_connection
from rain.net.pair import PairedChannel, pair
from rain.process.inspection import LogTail
from rain.protocol.codec import encode
from rain.protocol.messages import Accepted, Heartbeat, StopWorkers, WorkerHello, WorkerWelcome
from rain.testing.leaks import no_leaks
from rain.worker.main import run_inside
from rain.worker.options import WorkerOptions
from rain.worker.place import take_place

LIMIT = 20.0

encode([Heartbeat()])  # the schema is loaded once per process and keeps its file open


class Server:
    """Takes every worker."""

    def __init__(self) -> None:
        self.hellos: list[WorkerHello] = []
        self.channel: PairedChannel | None = None
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.reasons: list[str] = []
        self.news = asyncio.Event()

    async def connect(self, handler, timeout) -> PairedChannel:
        here, self.channel = pair("127.0.0.1:0", "127.0.0.1:7210")
        self.channel.start(self)
        here.start(handler)
        return here

    def messages_received(self, channel, messages) -> None:
        for message in messages:
            if isinstance(message, WorkerHello):
                self.hellos.append(message)
                self.news.set()
                channel.send(WorkerWelcome(len(self.hellos), message.address))

    def channel_closed(self, channel, reason) -> None:
        self.reasons.append(reason)

    async def welcomed(self, count: int) -> None:
        async with asyncio.timeout(LIMIT):
            while len(self.hellos) < count:
                self.news.clear()
                await self.news.wait()


@pytest.mark.cluster
async def test_it_comes_back_and_ends_with_its_server(tmp_path: Path) -> None:
    options = WorkerOptions(
        server="127.0.0.1:7210",
        cpus=1,
        workdir=str(tmp_path / "work"),
        logdir=str(tmp_path / "logs"),
        ready_file=str(tmp_path / "ready"),
        spare_executors=0,
    )
    with no_leaks(), LogTail() as log_tail:
        place = take_place(options)
        assert place is not None
        server = Server()
        working = asyncio.create_task(run_inside(options, place, log_tail, server.connect, server.ended))
        await server.welcomed(1)
        assert server.hellos[0].pid == os.getpid()
        assert server.hellos[0].address.startswith("127.0.0.1:")
        assert server.channel is not None
        server.channel.abort()
        await server.welcomed(2)
        assert not working.done()
        server.ended.set_result(0)
        async with asyncio.timeout(LIMIT):
            assert await working == 0
        assert server.reasons == ["closed by this side", "closed by the other side"]
        assert (tmp_path / "ready").exists()
        assert not (tmp_path / "work").exists()
        await asyncio.get_running_loop().shutdown_default_executor()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch):
    for name in ("RAIN_ADDRESS", "RAIN_ACCESS_FILE"):
        monkeypatch.delenv(name, raising=False)
    with no_leaks(), Client() as client:
        yield client


@pytest.mark.cluster
def test_one_process(client: Client) -> None:
    assert client.cluster is not None
    (process,) = client.cluster._group.processes
    (worker,) = client.get_server_info()["workers"]
    assert worker["pid"] == process.popen.pid
    assert worker["resources"]["cpus"] == len(os.sched_getaffinity(0))
    with client.new_session():
        assert delayed(os.getpid)().result() not in (os.getpid(), process.popen.pid)


@pytest.mark.cluster
def test_the_server_goes_on_without_its_worker(client: Client) -> None:
    cluster = client.cluster
    assert cluster is not None
    (worker,) = client.get_server_info()["workers"]
    connection = open_connection(cluster._target(), timeout=LIMIT, connection_timeout=LIMIT)
    try:
        ask = lambda seq: StopWorkers(seq, [worker["worker_id"]], now=True)  # noqa: E731
        assert isinstance(connection.ask(ask, "stopping the worker"), Accepted)
    finally:
        connection.close(RainException("done"))
    assert client.get_server_info()["workers"] == []
    added = cluster.add_worker(1)
    assert [one["worker_id"] for one in client.get_server_info()["workers"]] == [added]
    with client.new_session():
        assert delayed(len)("abc").result() == 3


@pytest.mark.cluster
def test_a_worker_that_cannot_start_ends_both(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "rain", "server", "--listen", "127.0.0.1:0", "--http-listen", "none"]
    command += ["--workdir", str(tmp_path / "server"), "--logdir", str(tmp_path / "logs")]
    command += ["--access-file", str(tmp_path / "access"), "--ready-file", str(tmp_path / "ready")]
    command += ["--with-worker", "1", str(tmp_path / "work"), str(tmp_path / "file")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert ended.returncode == 1
    assert "The worker cannot start" in ended.stderr
    assert not (tmp_path / "ready").exists()


@pytest.mark.cluster
def test_what_runs_beside_a_server_can_end_it(tmp_path: Path) -> None:
    script = f"""
import sys
from rain.common.errors import RainException
from rain.server.main import ServerOptions, run_server
async def beside(accept, address, secret, log_tail, ended):
    raise RainException("no way")
options = ServerOptions(listen="127.0.0.1:0", http_listen="none", workdir={str(tmp_path / "work")!r},
                        logdir={str(tmp_path / "logs")!r}, access_file={str(tmp_path / "access")!r})
sys.exit(run_server(options, beside))
"""
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (ended.returncode, ended.stderr.strip()) == (1, "no way")
    assert not (tmp_path / "access").exists()
