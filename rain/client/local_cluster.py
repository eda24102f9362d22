"""A cluster of this process: a server and workers as its children."""

from __future__ import annotations

import os
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain.client.connect import Target, dashboard_url_of, open_connection
from rain.common.errors import RainConnectionError, RainException
from rain.common.packing import cloudpickle
from rain.common.units import parse_duration
from rain.launch.processes import (
    ProcessGroup,
    access_file_pauses,
    child_environment,
    ended_pauses,
    ready_pauses,
    wait_ready,
)
from rain.net.address import Address
from rain.net.secret import Secret, generate_secret
from rain.net.sockets import bind_listening
from rain.protocol.messages import GetServerInfo, ServerInfo, StopServer

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from rain.client.client import Client
    from rain.client.front import Front
    from rain.launch.processes import LocalProcess

HOST = "127.0.0.1"

_STOP_SECONDS = 2.0


class LocalCluster:
    """A server and workers on this machine, on loopback and free ports. It ends with `close()` or with this process.

    Args:
        workers: number of workers, or a list of the cpus of each.
        cpus: of each worker; default all cpus of the machine shared equally, at least 1.
        resources: further resources of each worker: `gpus`, `memory`, custom names.
        http: whether the server has a dashboard.
        workdir: directory for data; default a private temporary one.
        logdir: directory for logs; default in a private temporary directory, hence removed at the end.
        timeout: seconds for all to be ready.

    Attributes:
        address: of the server, `HOST:PORT`.
        http_url: of the dashboard, None without one.
        access_file: path of the access file.
        logdir: path of the logs.

    Raises:
        RainException: a process ended or is not ready in time; with the last lines of its log.
        ValueError: no worker, or a number of cpus below 1.
    """

    def __init__(
        self,
        workers: int | Sequence[int] = 1,
        cpus: int | None = None,
        *,
        resources: Mapping[str, Any] | None = None,
        http: bool = True,
        workdir: str | Path | None = None,
        logdir: str | Path | None = None,
        timeout: float | str = 10.0,
    ) -> None:
        cpus_of_workers = _cpus_of_workers(workers, cpus)
        for seconds in self._starting(cpus_of_workers, resources, workdir, logdir, timeout, http):
            time.sleep(seconds)

    @classmethod
    def _embedded(cls) -> LocalCluster:
        """The cluster of a `Client()`: server and worker are one process."""
        made = cls.__new__(cls)
        for seconds in made._starting(_cpus_of_workers(1, None), None, None, None, 10.0, True, is_one=True):
            time.sleep(seconds)
        return made

    @classmethod
    async def _start_in_loop(cls) -> LocalCluster:
        """The same, made without blocking the loop."""
        import asyncio

        made = cls.__new__(cls)
        starting = made._starting(_cpus_of_workers(1, None), None, None, None, 10.0, True, is_one=True)
        with closing(starting) as pauses:
            for seconds in pauses:
                await asyncio.sleep(seconds)
        return made

    def _starting(
        self,
        cpus_of_workers: list[int],
        resources: Mapping[str, Any] | None,
        workdir: str | Path | None,
        logdir: str | Path | None,
        timeout: float | str,
        http: bool,
        *,
        is_one: bool = False,
    ) -> Generator[float, None, None]:
        """Start everything; the caller does the waiting: it is told how many seconds. is_one: the server is to have the
        only worker in its process."""
        self._resources = dict(resources or {})
        self._timeout = parse_duration(timeout)
        self._started_workers = 0
        self._group = ProcessGroup()
        try:
            private = self._group.directory
            self._workdir = _directory(workdir, private / "work")
            self.logdir = str(_directory(logdir, private / "logs"))
            self._environ = child_environment(os.environ)
            yield from self._start(cpus_of_workers, http, is_one)
        except BaseException:
            self._group.close()
            raise

    def _start(self, cpus_of_workers: list[int], http: bool, is_one: bool) -> Generator[float, None, None]:
        deadline = time.monotonic() + self._timeout
        private = self._group.directory
        self._token_file = private / "token"
        token = generate_secret().token
        descriptor = os.open(self._token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{token}\n")
        access_dir = _directory(None, private / "access")
        with bind_listening(Address(HOST, 0)) as listening:  # so that workers need not wait for the server
            self.address = f"{HOST}:{listening.getsockname()[1]}"
            arguments = [
                *("server", "--listen", self.address, "--listen-fd", str(listening.fileno())),
                *("--token-file", str(self._token_file)),
                *("--access-dir", str(access_dir), "--workdir", str(self._workdir / "server")),
                *("--logdir", str(Path(self.logdir) / "server")),
                *("--http-listen", f"{HOST}:0" if http else "none"),
                *(self._inner_worker(cpus_of_workers.pop()) if is_one else ()),
            ]
            server = self._group.start(
                "server", arguments, Path(self.logdir), self._environ, [listening.fileno()]
            )
        for count in cpus_of_workers:
            self._start_worker(count)
        cloudpickle()  # loaded while they start
        path, access = yield from access_file_pauses(access_dir, server, deadline)
        self.http_url = dashboard_url_of(access)
        self.access_file = str(path)
        self._known = Target(access.address, Secret(token, f"access file {path}"), self.http_url)
        yield from ready_pauses(self._group.processes, self._group.processes, deadline)

    def _next_worker(self) -> tuple[str, str, str]:
        """Name, work directory and log directory."""
        name = f"worker-{self._started_workers}"
        self._started_workers += 1
        return name, str(self._workdir / name), str(Path(self.logdir) / name)

    def _inner_worker(self, cpus: int) -> list[str]:
        """Arguments of a server that has a worker in its process."""
        _, workdir, logdir = self._next_worker()
        return ["--with-worker", str(cpus), workdir, logdir]

    def _start_worker(self, cpus: int) -> LocalProcess:
        name, workdir, logdir = self._next_worker()
        arguments = ["worker", self.address, "--cpus", str(cpus), "--token-file", str(self._token_file)]
        arguments += ["--workdir", workdir, "--logdir", logdir, "--connect-timeout", str(self._timeout)]
        for resource, amount in self._resources.items():
            if resource in ("gpus", "memory"):
                arguments += [f"--{resource}", str(amount)]
            else:
                arguments += ["--resource", f"{resource}={amount}"]
        return self._group.start(name, arguments, Path(self.logdir), self._environ)

    def __repr__(self) -> str:
        return f"<LocalCluster {self.address}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _target(self) -> Target:
        return self._known

    def client(self, **options: Any) -> Client:
        """A client of this cluster; options as for `Client`."""
        from rain.client.client import Client

        if not {"token", "token_file", "access_file"}.intersection(options):
            options["access_file"] = self.access_file
        return Client(self.address, **options)

    def add_worker(self, cpus: int | None = None) -> str:
        """Start another worker.

        Args:
            cpus: of the worker; default all cpus of the machine.

        Returns:
            Its id, `IP:PORT`.

        Raises:
            RainException: it is not ready in time; the other workers go on.
        """
        process = self._start_worker(_cpus_of_workers(1, cpus)[0])
        wait_ready([process], [process], time.monotonic() + self._timeout)
        connection = open_connection(self._known, timeout=self._timeout, connection_timeout=self._timeout)
        try:
            reply = connection.ask(GetServerInfo, "asking for the workers")
        finally:
            connection.close(RainException("the connection is closed"))
        entries = reply.info.get("workers", ()) if isinstance(reply, ServerInfo) else ()
        for entry in entries:
            if entry["pid"] == process.popen.pid:
                return str(entry["worker_id"])
        raise RainException(f"The {process.name} of the local cluster is ready, but the server does not know it")

    def close(self, timeout: float | str = 5.0) -> None:
        """End all processes and remove what they left; idempotent. Does nothing in a forked child.

        Args:
            timeout: seconds for an orderly end; then the processes are killed.
        """
        seconds = parse_duration(timeout)
        if not self._group.is_owner:
            return
        if seconds and all(process.popen.poll() is None for process in self._group.processes):
            with suppress(RainException):
                self._stop_in_order(seconds)
        self._group.close()

    async def _close_in_loop(self, front: Front, seconds: float) -> None:
        """As `close`, over a connection of the loop and without blocking it."""
        import asyncio

        if not self._group.is_owner:
            return
        deadline = time.monotonic() + seconds
        with suppress(RainException):
            await front.ask(StopServer, "stopping the server", timeout=min(seconds, _STOP_SECONDS))
            for pause in ended_pauses(self._group.processes, deadline):
                await asyncio.sleep(pause)
        self._group.close()

    def _stop_in_order(self, seconds: float) -> None:
        """Ask the server to end its workers and itself."""
        deadline = time.monotonic() + seconds
        connection = open_connection(self._known, timeout=seconds, connection_timeout=min(seconds, _STOP_SECONDS))
        try:
            with suppress(RainConnectionError):
                connection.ask(StopServer, "stopping the server")
        finally:
            connection.close(RainException("the connection is closed"))
        self._group.wait_ended(max(deadline - time.monotonic(), 0.0))


def _directory(given: str | Path | None, default: Path) -> Path:
    directory = default if given is None else Path(given).absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def _cpus_of_workers(workers: int | Sequence[int], cpus: int | None) -> list[int]:
    if cpus is not None and cpus < 1:
        raise ValueError(f"A worker needs at least 1 cpu, not {cpus}")
    if not isinstance(workers, int):
        if cpus is not None:
            raise ValueError("Give the cpus either as list in workers= or by cpus=, not both")
        counts = list(workers)
        if not counts or min(counts) < 1:
            raise ValueError(f"Each worker needs at least 1 cpu: workers={counts}")
        return counts
    if workers < 1:
        raise ValueError(f"A cluster needs at least 1 worker, not {workers}")
    available = len(os.sched_getaffinity(0))
    return [cpus if cpus is not None else max(1, available // workers)] * workers
