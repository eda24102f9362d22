"""The worker process: connects the shell to the server, and keeps it so."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain.common.errors import RainException
from rain.net.address import Address
from rain.net.channel import Channel, connect
from rain.net.dataserver import DataServer
from rain.process import Guard, watch_owner
from rain.process.inspection import LogTail
from rain.process.limits import raise_descriptor_limit
from rain.process.workdir import SetupError, claim_workdir, make_log_directory, write_ready_file
from rain.protocol.messages import WorkerHello, WorkerWelcome
from rain.worker.builtins import Builtins
from rain.worker.config import read_executor_commands
from rain.worker.core.core import WorkerCore
from rain.worker.detect import offered_resources
from rain.worker.dumping import completed
from rain.worker.executors import ExecutorPool
from rain.worker.gathering import Gatherer
from rain.worker.inquiries import Inquiries
from rain.worker.monitor import MemoryMonitor
from rain.worker.options import WorkerOptions
from rain.worker.parts import Parts
from rain.worker.result_cache import ResultCache
from rain.worker.shell import WorkerShell
from rain.worker.store import Store
from rain.worker.task_logs import TaskLogs
from rain.worker.transfers import StoreSource, Transfers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rain.worker.core.actions import WorkerAction
    from rain.worker.core.events import WorkerEvent

log = logging.getLogger("rain.worker")

DATA, SANDBOXES = "data", "tmp"
SUBDIRECTORIES = (DATA, SANDBOXES, "executors/work")
"""Folders of the work directory."""

EXIT_OK, EXIT_ERROR, EXIT_SERVER_LOST = 0, 1, 3

CONNECT_TIMEOUT = 10.0
"""Seconds for one attempt to connect, and for the answer to the registration."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_CLOSE_TIMEOUT = 5.0
_BUILTIN_THREADS = 4


def run_worker(options: WorkerOptions) -> int:
    """Run a worker until it is told to end, loses its server for good, or cannot start.

    To be called in the main thread of a process of its own. Says why it ends in the log.

    Returns:
        The exit code of the process: 0 stopped by the server, 1 error, 3 gave up on the server.
    """
    _prepare_process(options)
    with LogTail() as log_tail:
        return _run_process(options, log_tail)


def _run_process(options: WorkerOptions, log_tail: LogTail) -> int:
    try:
        resources = offered_resources(options)
        commands = {} if options.config is None else read_executor_commands(options.config)
        name = f"worker-{os.uname().nodename}-{os.getpid()}"
        logdir = make_log_directory(options.logdir or f"/tmp/rain-logs/{name}", ("executors",))
        server = Address.parse(options.server)
        listen = None if options.listen is None else Address.parse(options.listen, default_port=0)
        workdir = claim_workdir(options.workdir or f"/tmp/rain-work/{name}", SUBDIRECTORIES)
    except (SetupError, ValueError) as error:
        log.error("The worker cannot start: %s", error)
        return EXIT_ERROR
    guard = Guard()
    if options.workdir is None or options.owner_fd is not None:
        guard.add_path(workdir.path)
    setup = Setup(options, server, listen, resources, commands, logdir, workdir.path, guard, log_tail)
    code, clean = asyncio.run(_run(setup))
    if clean:
        workdir.remove()
        guard.close()
    else:  # something could not be stopped: the guard does it when this process is gone
        guard.add_path(workdir.path)
    return code


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is made of.

    Attributes:
        options: as given.
        server: where to register.
        listen: the data port, None: where the connection to the server comes from.
        resources: as announced.
        commands: of configured executor types.
        logdir, workdir: its directories.
        guard: is told of all executors.
        log_tail: remembers the end of the log.
    """

    options: WorkerOptions
    server: Address
    listen: Address | None
    resources: dict[str, Any]
    commands: dict[str, list[str]]
    logdir: Path
    workdir: Path
    guard: Guard
    log_tail: LogTail


def _prepare_process(options: WorkerOptions) -> None:
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
    if options.owner_fd is not None:
        watch_owner(options.owner_fd)
    raise_descriptor_limit()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


async def _run(setup: Setup) -> tuple[int, bool]:
    """The exit code, and whether everything was stopped in order."""
    try:
        store = Store(str(setup.workdir / DATA), memory_budget=setup.options.memory_budget)
    except OSError as error:
        log.error("The worker cannot start: no place for values: %s", error)
        return EXIT_ERROR, True
    if store.shared_directory is not None:
        setup.guard.add_path(store.shared_directory)
    worker = Worker(setup, store)
    try:
        code = await worker.run()
    except RainException as error:
        log.error("The worker ends: %s", error)
        code = EXIT_ERROR
    try:
        return code, await worker.close()
    finally:
        store.close()


class CheckedCore(WorkerCore):
    """A core that checks its invariants after each step (RAIN_DEBUG_MODE=1)."""

    def handle(self, events: Iterable[WorkerEvent], now: float) -> list[WorkerAction]:
        """Take events, return what to do; an AssertionError tells of an error of Rain."""
        actions = super().handle(events, now)
        self.sanity_check()
        return actions


def _core(setup: Setup) -> WorkerCore:
    core_class = CheckedCore if os.environ.get("RAIN_DEBUG_MODE") == "1" else WorkerCore
    options = setup.options
    return core_class(
        resources=setup.resources, delete_timeout=options.delete_timeout, spare_executors=options.spare_executors
    )


class Worker:
    """A worker in a running event loop; it supervises the shell."""

    def __init__(self, setup: Setup, store: Store) -> None:
        self._options = setup.options
        self._resources = setup.resources
        self._server = setup.server
        self._data_address = setup.listen
        self._log_tail = setup.log_tail
        self._store = store
        self._loop = loop = asyncio.get_running_loop()
        start = time.time() - loop.time()
        self._exit: asyncio.Future[int] = loop.create_future()
        self._lost: asyncio.Future[str] = loop.create_future()
        self._welcome: asyncio.Future[WorkerWelcome] = loop.create_future()
        self._channel: Channel | None = None
        self._data_server: DataServer | None = None

        def clock() -> float:
            return start + loop.time()

        self._shell = WorkerShell(_core(setup), loop=loop, clock=clock, supervisor=self)
        self._make_parts(setup, clock)

    def _make_parts(self, setup: Setup, clock: Callable[[], float]) -> None:
        """Make what does the work, and give it to the shell."""
        options, loop, store, report = self._options, self._loop, self._store, self._shell.report
        task_logs = TaskLogs(setup.logdir)
        self._threads = ThreadPoolExecutor(_BUILTIN_THREADS, "rain-builtin")
        self._builtins = Builtins(
            loop=loop,
            store=store,
            task_logs=task_logs,
            report=report,
            wall_clock=clock,
            sandboxes=setup.workdir / SANDBOXES,
            threads=self._threads,
            guard=setup.guard,
        )
        self._transfers = Transfers(
            loop=loop, store=store, secret=options.secret, report=report, relay=str(setup.server)
        )
        self._executors = ExecutorPool(
            loop=loop,
            workdir=setup.workdir,
            logdir=setup.logdir,
            store=store,
            task_logs=task_logs,
            report=report,
            register_timeout=options.executor_timeout,
            guard=setup.guard,
            commands=setup.commands,
        )
        self._monitor = MemoryMonitor(
            loop=loop, sources=(self._executors.watched, self._builtins.watched), report=report
        )
        self._source = StoreSource(store, loop, report)
        inquiries = Inquiries(
            loop=loop,
            task_logs=task_logs,
            under_way=self._executors.under_way,
            gatherer=Gatherer(store, self._executors, self._transfers, self._source),
            secret=options.secret,
        )
        self._results = ResultCache(
            loop=loop, store=store, threads=self._threads, report=report, wall_clock=clock
        )
        parts = Parts(store, self._executors, self._transfers, self._builtins, self._results, inquiries, self._complete)
        self._shell.equip(parts)

    async def run(self) -> int:
        """Work until the end; returns the exit code.

        Raises:
            RainException: the server cannot be reached or does not take this worker, the first time.
        """
        await self._register(CONNECT_TIMEOUT)
        if self._options.ready_file is not None:
            try:
                write_ready_file(self._options.ready_file)
            except OSError as error:
                raise SetupError(f"cannot write the ready file: {error}") from error
        while True:
            await asyncio.wait((self._exit, self._lost), return_when=asyncio.FIRST_COMPLETED)
            if self._exit.done():
                return self._exit.result()
            log.warning("Lost the server %s: %s", self._server, self._lost.result())
            if not await self._register_again():
                log.error("Gave up on the server %s after %g s", self._server, self._options.reconnect_timeout)
                return EXIT_SERVER_LOST

    async def close(self) -> bool:
        """Stop everything; False if that took too long."""
        self._shell.close()
        self._monitor.close()
        self._transfers.close()
        if self._data_server is not None:
            self._data_server.close()
        if self._channel is not None:
            self._channel.close()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await asyncio.gather(self._builtins.close(), self._executors.close(), self._results.close())
        except TimeoutError:
            log.error("Executors and programs could not be stopped within %g s", _CLOSE_TIMEOUT)
            return False
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)
        return True

    # --- told by the shell ----------------------------------------------------------------------

    def registered(self, welcome: WorkerWelcome) -> None:
        """The server has taken this worker."""
        self._results.use(welcome.cache)
        if not self._welcome.done():
            self._welcome.set_result(welcome)

    def server_lost(self, reason: str) -> None:
        """The connection is lost."""
        if not self._lost.done():
            self._lost.set_result(reason)

    def leave(self, code: int) -> None:
        """End with this code."""
        if not self._exit.done():
            self._exit.set_result(code)

    # --- asked by the shell ---------------------------------------------------------------------

    def _complete(self, info: dict[str, Any]) -> dict[str, Any]:
        """What the core tells for a dump, completed."""
        return completed(
            info,
            processes=self._executors.processes(),
            store=self._store,
            log_tail=self._log_tail,
            secret=self._options.secret.token,
        )

    # --- inside ---------------------------------------------------------------------------------

    async def _register(self, timeout: float) -> None:
        """Connect, announce this worker and wait for the welcome.

        Raises:
            RainException: why it failed.
        """
        self._lost = self._loop.create_future()
        self._welcome = self._loop.create_future()
        channel = await connect(self._server, "worker", self._options.secret, self._shell, timeout=timeout)
        self._channel = channel
        if self._data_server is None:
            self._data_server = self._listen(channel.local)
        hello = WorkerHello(
            address=str(self._data_server.address),
            resources=self._resources,
            hostname=os.uname().nodename,
            pid=os.getpid(),
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
        )
        self._shell.attach(channel, hello)
        await asyncio.wait(
            (self._welcome, self._lost, self._exit), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
        if self._welcome.done():
            welcome = self._welcome.result()
            log.info("Registered at %s as %s (incarnation %d)", self._server, welcome.worker_id, welcome.incarnation)
        elif self._lost.done():
            raise RainException(f"the server {self._server} did not take this worker: {self._lost.result()}")
        elif not self._exit.done():
            channel.abort()
            raise RainException(f"the server {self._server} did not answer the registration within {timeout:g} s")

    def _listen(self, local: str) -> DataServer:
        """Open the data port, by default on the address under which the server sees this machine."""
        address = self._data_address or Address(Address.parse(local).host, 0)
        secret = self._options.secret
        return DataServer(address, secret, self._source, insecure=secret.token is None, place=self._source.place)

    async def _register_again(self) -> bool:
        """Try for the reconnect timeout to become a new incarnation; False if it was in vain.

        Also True when the worker is to end for another reason."""
        deadline = self._loop.time() + self._options.reconnect_timeout
        pause = _FIRST_PAUSE
        while (left := deadline - self._loop.time()) > 0 and not self._exit.done():
            try:
                await self._register(min(CONNECT_TIMEOUT, left))
                return True
            except RainException as error:
                log.info("Not registered again yet: %s", error)
            left = deadline - self._loop.time()
            await asyncio.sleep(min(pause * random.uniform(0.5, 1.5), max(left, 0)))
            pause = min(2 * pause, _LONGEST_PAUSE)
        return self._exit.done()
