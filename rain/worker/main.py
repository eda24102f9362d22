"""The worker process: connects the shell to the server, and keeps it so."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import resource
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rain.common.errors import RainException
from rain.net.address import Address
from rain.net.channel import Channel, connect
from rain.net.dataserver import DataServer
from rain.process import Guard, watch_owner
from rain.protocol.messages import WorkerHello, WorkerWelcome
from rain.worker.builtins import Builtins
from rain.worker.core.core import WorkerCore
from rain.worker.detect import offered_resources
from rain.worker.executors import ExecutorPool
from rain.worker.options import WorkerSetupError
from rain.worker.shell import Parts, WorkerShell
from rain.worker.store import Store
from rain.worker.transfers import StoreSource, Transfers
from rain.worker.workdir import WorkDirectory, claim_workdir, make_log_directory, write_ready_file

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from rain.worker.options import WorkerOptions

log = logging.getLogger("rain.worker")

EXIT_OK, EXIT_ERROR, EXIT_SERVER_LOST = 0, 1, 3

CONNECT_TIMEOUT = 10.0
"""Seconds for one attempt to connect, and for the answer to the registration."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_CLOSE_TIMEOUT = 5.0
_BUILTIN_THREADS = 2


def run_worker(options: WorkerOptions) -> int:
    """Run a worker until it is told to end, loses its server for good, or cannot start.

    To be called in the main thread of a process of its own. Says why it ends in the log.

    Returns:
        The exit code of the process: 0 stopped by the server, 1 error, 3 gave up on the server.
    """
    _prepare_process(options)
    try:
        resources = offered_resources(options)
        name = f"worker-{os.uname().nodename}-{os.getpid()}"
        logdir = make_log_directory(options.logdir or f"/tmp/rain-logs/{name}")
        workdir = claim_workdir(options.workdir or f"/tmp/rain-work/{name}")
    except WorkerSetupError as error:
        log.error("The worker cannot start: %s", error)
        return EXIT_ERROR
    guard = Guard()
    try:
        if options.workdir is None or options.owner_fd is not None:
            guard.add_path(workdir.path)
        return asyncio.run(_run(options, resources, logdir, workdir, guard))
    finally:
        workdir.remove()
        guard.close()


def _prepare_process(options: WorkerOptions) -> None:
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
    if options.owner_fd is not None:
        watch_owner(options.owner_fd)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


async def _run(
    options: WorkerOptions, resources: dict[str, Any], logdir: Path, workdir: WorkDirectory, guard: Guard
) -> int:
    try:
        store = Store(str(workdir.data), memory_budget=options.memory_budget)
    except OSError as error:
        log.error("The worker cannot start: no place for values: %s", error)
        return EXIT_ERROR
    if store.shared_directory is not None:
        guard.add_path(store.shared_directory)
    worker = Worker(options, resources, store, logdir=logdir, workdir=workdir, guard=guard)
    try:
        return await worker.run()
    except RainException as error:
        log.error("The worker ends: %s", error)
        return EXIT_ERROR
    finally:
        await worker.close()
        store.close()


class Worker:
    """A worker in a running event loop; it supervises the shell.

    Args:
        options: as given.
        resources: as announced.
        store: for values.
        logdir, workdir: its directories.
        guard: is told of all executors.
    """

    def __init__(
        self,
        options: WorkerOptions,
        resources: dict[str, Any],
        store: Store,
        *,
        logdir: Path,
        workdir: WorkDirectory,
        guard: Guard,
    ) -> None:
        self._options = options
        self._resources = resources
        self._server = Address.parse(options.server)
        self._loop = loop = asyncio.get_running_loop()
        start = time.time() - loop.time()
        self._exit: asyncio.Future[int] = loop.create_future()
        self._lost: asyncio.Future[str] = loop.create_future()
        self._welcome: asyncio.Future[WorkerWelcome] = loop.create_future()
        self._channel: Channel | None = None
        self._data_server: DataServer | None = None
        core = WorkerCore(
            resources=resources, delete_timeout=options.delete_timeout, spare_executors=options.spare_executors
        )

        def clock() -> float:
            return start + loop.time()

        self._shell = WorkerShell(core, loop=loop, clock=clock, supervisor=self)
        report = self._shell.report
        self._threads = ThreadPoolExecutor(_BUILTIN_THREADS, "rain-builtin")
        self._builtins = Builtins(loop=loop, store=store, report=report, wall_clock=clock, threads=self._threads)
        self._transfers = Transfers(loop=loop, store=store, secret=options.secret, report=report)
        self._executors = ExecutorPool(
            loop=loop,
            workdir=workdir.path,
            logdir=logdir,
            store=store,
            report=report,
            register_timeout=options.executor_timeout,
            guard=guard,
        )
        self._store = store
        self._shell.equip(Parts(store, self._executors, self._transfers, self._builtins))

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
                raise WorkerSetupError(f"cannot write the ready file: {error}") from error
        while True:
            await asyncio.wait((self._exit, self._lost), return_when=asyncio.FIRST_COMPLETED)
            if self._exit.done():
                return self._exit.result()
            log.warning("Lost the server %s: %s", self._server, self._lost.result())
            if not await self._register_again():
                log.error("Gave up on the server %s after %g s", self._server, self._options.reconnect_timeout)
                return EXIT_SERVER_LOST

    async def close(self) -> None:
        """Stop everything."""
        self._shell.close()
        self._builtins.close()
        self._transfers.close()
        if self._data_server is not None:
            self._data_server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._executors.close()
        if self._channel is not None:
            self._channel.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # --- told by the shell ----------------------------------------------------------------------

    def registered(self, welcome: WorkerWelcome) -> None:
        """The server has taken this worker."""
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
        listen = self._options.listen
        address = Address(Address.parse(local).host, 0) if listen is None else Address.parse(listen, default_port=0)
        secret = self._options.secret
        source = StoreSource(self._store, self._loop, self._shell.report)
        return DataServer(address, secret, source, insecure=secret.token is None)

    async def _register_again(self) -> bool:
        """Try for the reconnect timeout to become a new incarnation; False if it was in vain."""
        deadline = self._loop.time() + self._options.reconnect_timeout
        pause = _FIRST_PAUSE
        while (left := deadline - self._loop.time()) > 0:
            try:
                await self._register(min(CONNECT_TIMEOUT, left))
                return True
            except RainException as error:
                log.info("Not registered again yet: %s", error)
            left = deadline - self._loop.time()
            await asyncio.sleep(min(pause * random.uniform(0.5, 1.5), max(left, 0)))
            pause = min(2 * pause, _LONGEST_PAUSE)
        return False
