"""A cluster whose server, workers and clients are on hosts of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from rain.client import Client
from rain.launch.processes import LocalProcess, ProcessGroup, child_environment, tail, wait_ready
from rain.testing.netns import Network
from tests.net.partition.functions import HOST_VARIABLE

T = TypeVar("T")

SERVER, CLIENT = "server", "client"
START_SECONDS = 60.0
PORT = 7210

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Mark:
    """A line which a task wrote when it started or ended: `what` is `start` or `end`."""

    what: str
    task: str
    host: str
    pid: int
    when: float

    @property
    def ticket(self) -> str:
        """What the task returns, different for each run."""
        return f"{self.host} {self.pid} {self.task}"


class NetCluster:
    """A server, workers, and room for clients.

    Args:
        workers: cpus by name of the host.
        reconnect_timeout: of the workers, seconds.
        delays: of the network.

    Attributes:
        network: their network.
        address, token: of the server.
        history: file for the marks of tasks.
    """

    def __init__(
        self, workers: dict[str, int], *, reconnect_timeout: float = 30.0, delays: dict[str, float] | None = None
    ) -> None:
        self._workers = workers
        self._reconnect_timeout = reconnect_timeout
        self._processes: dict[str, LocalProcess] = {}
        self._pids: set[int] = set()
        self.network = Network((SERVER, CLIENT, *workers), delays)
        self.address = f"{self.network[SERVER].address}:{PORT}"
        try:
            self._group = ProcessGroup()
        except BaseException:
            self.network.close()
            raise
        self._directory = self._group.directory
        self.history = str(self._directory / "history")
        self.token = os.urandom(32).hex()
        self._token_file = self._directory / "token"
        self._token_file.touch(mode=0o600)
        self._token_file.write_text(self.token)

    def start(self, *without: str) -> None:
        """Start the server, and the workers but these."""
        access = self._directory / "access.json"
        self._start(SERVER, "server", "--listen", self.address, "--access-file", str(access))
        for name in self._workers:
            if name not in without:
                self.start_worker(name)

    def start_worker(self, name: str) -> None:
        """Start a worker; it also offers plenty of a resource with its name, and one `seat`."""
        options = ("--cpus", str(self._workers[name]), "--resource", f"{name}=1000", "--resource", "seat=1")
        options += ("--spare-executors", "0", "--reconnect-timeout", f"{self._reconnect_timeout}s")
        self._start(name, "worker", self.address, *options)

    def _start(self, host: str, *arguments: str) -> None:
        directories = []
        for kind in ("workdir", "logdir"):
            directories += [f"--{kind}", str(self._directory / f"{host}-{kind}")]
        environ = {**child_environment(os.environ), HOST_VARIABLE: host, "PYTHONPATH": str(ROOT), "RAIN_LOG": "info"}
        command = [*arguments, *directories, "--token-file", str(self._token_file)]
        with self.network[host].entered():
            process = self._processes[host] = self._group.start(host, command, self._directory, environ)
        self._pids.add(process.popen.pid)
        wait_ready([process], [process], time.monotonic() + START_SECONDS)

    def close(self) -> None:
        """End everything, and see that nothing is left."""
        self.network.heal_all()
        self._group.close()
        try:
            await_true(lambda: not self.network.processes(), 10.0, "the end of all processes on the hosts")
            await_true(lambda: not self._files(), 10.0, "the end of all files")
        finally:
            self.network.close()

    def _files(self) -> list[Path]:
        """Files and directories of this cluster outside of logs and work directories, and the place of those."""
        shared = [path for pid in self._pids for path in Path("/dev/shm").glob(f"rain-*-{pid}-*")]
        return [*shared, *(path for path in (self._directory,) if path.exists())]

    def client(self, **options: Any) -> Client:
        """A client; to be called on a host (`Host.entered`)."""
        return Client(self.address, token=self.token, **options)

    def log(self, host: str) -> str:
        """What the process of a host has logged."""
        return self._processes[host].log.read_text()

    def await_log(self, host: str, text: str, within: float) -> None:
        """Wait until the log of a host holds a text."""
        await_true(lambda: text in self.log(host), within, f"{text!r} in the log of {host}")

    def await_exit(self, host: str, within: float) -> int:
        """The exit code of the process of a host."""
        return self._processes[host].popen.wait(within)

    def marks(self, what: str | None = None, host: str | None = None) -> list[Mark]:
        """What tasks have noted so far, of one kind and host or of all."""
        path = Path(self.history)
        fields = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        marks = [Mark(what, task, host, int(pid), float(when)) for what, task, host, pid, when in fields]
        return [mark for mark in marks if what in (None, mark.what) and host in (None, mark.host)]

    def running(self, host: str, task: str | None = None) -> set[int]:
        """Process ids of the executors of a host that have started a task and not ended it; of one task or of all."""
        open_marks = {(mark.task, mark.pid) for mark in self.marks("start", host)}
        open_marks -= {(mark.task, mark.pid) for mark in self.marks("end", host)}
        return {pid for name, pid in open_marks if task in (None, name)}

    def pids(self, client: Client) -> dict[str, int]:
        """Process ids of the registered workers by host."""
        known = {process.popen.pid: host for host, process in self._processes.items()}
        return {known[entry["pid"]]: entry["pid"] for entry in client.get_server_info()["workers"]}

    def story(self) -> str:
        """The ends of all logs, and the history."""
        logs = [f"--- {name}\n{tail(process.log)}" for name, process in self._processes.items()]
        return "\n".join([*logs, "--- history", *map(str, self.marks())])


def await_true(condition: Callable[[], Any], within: float, what: str) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: it did not come true in time.
    """
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"not within {within:g} s: {what}"
        time.sleep(0.05)


def await_ended(pids: set[int], within: float) -> None:
    """Wait until none of these processes lives."""
    await_true(lambda: not any(map(_lives, pids)), within, f"the end of {sorted(pids)}")


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def takes(least: float, most: float) -> Iterator[None]:
    """The block must take so many seconds."""
    start = time.monotonic()
    yield
    seconds = time.monotonic() - start
    assert least <= seconds <= most, f"took {seconds:.1f} s instead of {least:g} to {most:g} s"
