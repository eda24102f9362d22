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
from functools import partial
from typing import TYPE_CHECKING, Any

from rain.common.errors import RainException
from rain.common.structs import dataclass
from rain.net.address import Address
from rain.net.channel import Channel, connect
from rain.net.dataserver import DataServer
from rain.process import watch_owner
from rain.process.inspection import LogTail
from rain.process.limits import raise_descriptor_limit
from rain.process.workdir import SetupError, write_ready_file
from rain.protocol.messages import WorkerHello, WorkerWelcome
from rain.worker.builtins import Builtins
from rain.worker.core.core import WorkerCore
from rain.worker.dumping import completed
from rain.worker.executors import ExecutorPool
from rain.worker.gathering import Gatherer
from rain.worker.inquiries import Inquiries
from rain.worker.monitor import MemoryMonitor
from rain.worker.options import WorkerOptions
from rain.worker.parts import Parts
from rain.worker.place import DATA, SANDBOXES, Place, take_place
from rain.worker.result_cache import ResultCache
from rain.worker.shell import WorkerShell
from rain.worker.store import Store
from rain.worker.task_logs import TaskLogs
from rain.worker.transfers import StoreSource, Transfers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from rain.net.channel import ChannelHandler
    from rain.net.secret import Secret
    from rain.worker.core.actions import WorkerAction
    from rain.worker.core.events import WorkerEvent

    Connect = Callable[[ChannelHandler, float], Awaitable[Channel]]
    """Connects a handler to the server, within so many seconds."""

log = logging.getLogger("rain.worker")

EXIT_OK, EXIT_ERROR, EXIT_SERVER_LOST = 0, 1, 3

CONNECT_TIMEOUT = 10.0
"""Seconds for one attempt to connect again, and for the answer to the registration."""

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
        try:
            server = Address.parse(options.server)
        except ValueError as error:
            log.error("The worker cannot start: %s", error)
            return EXIT_ERROR
        place = take_place(options)
        if place is None:
            return EXIT_ERROR
        dial = partial(_dial, server, options.secret)
        code, clean = asyncio.run(_run(Setup(options, server, place, log_tail, dial)))
        place.leave(clean)
        return code


async def run_inside(
    options: WorkerOptions, place: Place, log_tail: LogTail, connect: Connect, ended: asyncio.Future[int]
) -> int:
    """Run a worker in the process and the loop of its server.

    Args:
        options: its options; nobody owns it but the process.
        place: what was made with them.
        log_tail: of the process.
        connect: connects to the server.
        ended: is done when the worker is to end, though the server may have said nothing.

    Returns:
        As `run_worker`.
    """
    setup = Setup(options, Address.parse(options.server), place, log_tail, connect)
    code, clean = await _run(setup, ended)
    place.leave(clean)
    return code


async def _dial(server: Address, secret: Secret, handler: ChannelHandler, timeout: float) -> Channel:
    return await connect(server, "worker", secret, handler, timeout=timeout)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is made of.

    Attributes:
        options: as given.
        server: where to register.
        place: what was made before.
        log_tail: remembers the end of the log.
        connect: connects a handler to the server, within so many seconds.
    """

    options: WorkerOptions
    server: Address
    place: Place
    log_tail: LogTail
    connect: Connect


def _prepare_process(options: WorkerOptions) -> None:
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
    if options.owner_fd is not None:
        watch_owner(options.owner_fd)
    raise_descriptor_limit()
    gc.freeze()
    gc.enable()
    gc.set_threshold(100_000, 50, 100)


async def _run(setup: Setup, ended: asyncio.Future[int] | None = None) -> tuple[int, bool]:
    """The exit code, and whether everything was stopped in order; `ended` as of `run_inside`."""
    place = setup.place
    try:
        store = Store(str(place.workdir.path / DATA), memory_budget=setup.options.memory_budget)
    except OSError as error:
        log.error("The worker cannot start: no place for values: %s", error)
        return EXIT_ERROR, False
    if store.shared_directory is not None:
        place.guard.add_path(store.shared_directory)
    worker = Worker(setup, store)
    if ended is not None:
        ended.add_done_callback(lambda _: worker.leave(EXIT_OK))
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
        resources=setup.place.resources, delete_timeout=options.delete_timeout, spare_executors=options.spare_executors
    )


class Worker:
    """A worker in a running event loop; it supervises the shell."""

    def __init__(self, setup: Setup, store: Store) -> None:
        self._options = setup.options
        self._resources = setup.place.resources
        self._server = setup.server
        self._connect = setup.connect
        self._data_address = setup.place.listen
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
        place = setup.place
        task_logs = TaskLogs(place.logdir)
        self._threads = ThreadPoolExecutor(_BUILTIN_THREADS, "rain-builtin")
        self._builtins = Builtins(
            loop=loop,
            store=store,
            task_logs=task_logs,
            report=report,
            hear=self._shell.hear,
            wall_clock=clock,
            sandboxes=place.workdir.path / SANDBOXES,
            threads=self._threads,
            guard=place.guard,
        )
        self._transfers = Transfers(
            loop=loop, store=store, secret=options.secret, report=report, relay=str(setup.server)
        )
        self._executors = ExecutorPool(
            loop=loop,
            workdir=place.workdir.path,
            logdir=place.logdir,
            store=store,
            task_logs=task_logs,
            report=report,
            hear=self._shell.hear,
            register_timeout=options.executor_timeout,
            guard=place.guard,
            commands=place.commands,
            first=place.first,
        )
        self._monitor = MemoryMonitor(
            loop=loop, sources=(self._executors.watched, self._builtins.watched), report=report
        )
        self._source = StoreSource(store, loop, report)
        self._results = ResultCache(
            loop=loop, store=store, threads=self._threads, report=report, wall_clock=clock
        )
        inquiries = Inquiries(
            loop=loop,
            task_logs=task_logs,
            under_way=self._executors.under_way,
            gatherer=Gatherer(store, self._executors, self._transfers, self._source, self._results),
            secret=options.secret,
        )
        parts = Parts(store, self._executors, self._transfers, self._builtins, self._results, inquiries, self._complete)
        self._shell.equip(parts)

    async def run(self) -> int:
        """Work until the end; returns the exit code.

        Raises:
            RainException: the server cannot be reached or does not take this worker, the first time.
        """
        await self._register(self._options.connect_timeout)
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
        channel = await self._connect(self._shell, timeout)
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
