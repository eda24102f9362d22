"""The server process: puts core, shell, network and files together."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING, Any

import rain
from rain.cache.backend import CacheError
from rain.cache.choice import DEFAULT_SIZE, parse_choice
from rain.cache.opening import prepare
from rain.common.errors import RainException
from rain.common.structs import dataclass
from rain.dashboard import static_files
from rain.eventlog.database import FILE_NAME as EVENT_LOG
from rain.eventlog.writer import EventWriter, open_log
from rain.net.access import AccessFile, remove_access_file, write_access_file
from rain.net.address import Address
from rain.net.dataclient import DataClient
from rain.net.listener import Listener, listen
from rain.net.secret import Secret, generate_secret, given_secret
from rain.process.inspection import LogTail, process_facts
from rain.process.limits import raise_descriptor_limit
from rain.process.spawn import watch_owner
from rain.process.workdir import WorkDirectory, claim_workdir, make_log_directory, write_ready_file
from rain.server.constants import ConstantStore
from rain.server.core.core import ServerCore
from rain.server.core.state import CoreOptions
from rain.server.http.binding import BoundPort, bind_http
from rain.server.http.facts import Facts
from rain.server.http.service import HttpService, HttpSettings
from rain.server.last_events import last_events
from rain.server.relay import ServerValues
from rain.server.shell import ServerShell

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from rain.eventlog.records import Record
    from rain.net.channel import Channel, ChannelHandler
    from rain.protocol.handshake import PeerHello

    Accept = Callable[[Channel, PeerHello], ChannelHandler]
    Beside = Callable[[Accept, Address, Secret, LogTail, asyncio.Future[int]], Coroutine[None, None, None]]

logger = logging.getLogger("rain.server")

BIND_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Options of `run_server`; those of `rain server` on the command line.

    Attributes:
        listen: address for clients and workers; port 0 takes a free one.
        logdir, workdir: directories; None: `/tmp/rain-logs/server-HOST-PID` and `/tmp/rain-work/server-HOST-PID`.
        ready_file: file which gets the line `ready` when connections are accepted, None without.
        token_file: file with the secret; None: RAIN_TOKEN, RAIN_TOKEN_FILE, else a fresh one.
        access_file: where to write the access file, None: in the access directory.
        access_dir: the access directory, None: RAIN_ACCESS_DIR or the default.
        insecure: demand no secret.
        http_listen: address of the dashboard, `none`: there is none; None: 127.0.0.1:7222, or another free port.
        http_auth: the dashboard demands the secret from processes of the same user too.
        http_allow_origin: an origin whose pages may ask the dashboard, or `*`; None: there is none.
        infeasible_timeout, crash_limit, idle_timeout: as in `CoreOptions`.
        owner_fd: read end of a pipe; the server ends when its other end is closed. None: no owner.
        listen_fd: a socket that listens on the address already, so that others may connect before; None: there is none.
    """

    listen: str = "127.0.0.1:7210"
    logdir: str | None = None
    workdir: str | None = None
    ready_file: str | None = None
    token_file: str | None = None
    access_file: str | None = None
    access_dir: str | None = None
    insecure: bool = False
    http_listen: str | None = None
    http_auth: bool = False
    http_allow_origin: str | None = None
    infeasible_timeout: float | None = 60.0
    crash_limit: int = 3
    idle_timeout: float | None = None
    cache: str = "dir"
    cache_size: int = DEFAULT_SIZE
    owner_fd: int | None = None
    listen_fd: int | None = None


def run_server(options: ServerOptions, beside: Beside | None = None) -> int:
    """Run a server until it is told to stop.

    Args:
        options: its options.
        beside: makes what runs in the same loop, from the moment connections are accepted till the future, which is
            done when the server ends. If it raises a RainException the server ends too.

    Returns:
        The exit code: 0 after an orderly stop, 1 after an error, which is logged.
    """
    try:
        with LogTail() as log_tail:
            return asyncio.run(_Server(options, log_tail, beside).run())
    except (RainException, OSError) as error:
        logger.error("%s", error)
        return 1


class _Server:
    """One run of the server."""

    def __init__(self, options: ServerOptions, log_tail: LogTail, beside: Beside | None) -> None:
        self._options = options
        self._beside = beside
        self._log_tail = log_tail
        self._environ = dict(os.environ)
        if options.access_dir is not None:
            self._environ["RAIN_ACCESS_DIR"] = options.access_dir
        self._server_id = secrets.token_hex(8)

    async def run(self) -> int:
        """Serve until the core or an error ends it."""
        options = self._options
        raise_descriptor_limit()
        if options.owner_fd is not None:
            watch_owner(options.owner_fd)
        name = f"server-{socket.gethostname()}-{os.getpid()}"
        logdir = make_log_directory(options.logdir or f"/tmp/rain-logs/{name}")
        workdir = claim_workdir(options.workdir or f"/tmp/rain-work/{name}")
        try:
            return await self._serve(workdir, logdir / EVENT_LOG)
        finally:
            workdir.remove()

    def _secret(self) -> Secret:
        if self._options.insecure:
            if self._options.http_auth:
                raise RainException("--http-auth demands a secret and --insecure says there is none: leave one out")
            logger.warning("--insecure: everybody who can reach the port can run code as this user")
            return Secret(None, "--insecure")
        return given_secret(self._environ, token_file=self._options.token_file) or generate_secret()

    def _core(self, first_session: int, http_url: str | None, workdir: Path) -> ServerCore:
        options = self._options
        try:
            cache = prepare(parse_choice(options.cache, workdir, options.cache_size))
        except (OSError, ValueError, CacheError) as error:
            raise RainException(f"the result cache cannot be used: {error}") from error
        return ServerCore(
            CoreOptions(
                crash_limit=options.crash_limit,
                infeasible_timeout=options.infeasible_timeout,
                idle_timeout=options.idle_timeout,
                first_session=first_session,
                version=rain.__version__,
                check=self._environ.get("RAIN_DEBUG_MODE") == "1",
                test_mode=self._environ.get("RAIN_TEST_MODE") == "1",
                http_url=http_url,
                cache=cache,
            )
        )

    async def _serve(self, workdir: WorkDirectory, event_log: Path) -> int:
        options = self._options
        secret = self._secret()
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()
        port = await bind_http(options.http_listen, BIND_RETRY_SECONDS)
        http_url = None if port is None else url_of(port.address)
        core = self._core(open_log(event_log).next_session, http_url, workdir.path)
        events = EventWriter(event_log)
        constants = ConstantStore(workdir.path / "constants")

        def look() -> dict[str, Any]:
            log = self._log_tail.lines(secret.token)
            return {"process": process_facts(), "log": log, "events": last_events(event_log)}

        def record(records: list[Record]) -> None:
            events.put(records, time.time_ns())

        shell = ServerShell(core, loop, constants, ended.set_result, look, record)
        client = DataClient(secret)
        values = ServerValues(core, constants, workdir.path / "relay", client, shell.post)

        def accept(channel: Channel, hello: PeerHello) -> ChannelHandler:
            return shell.accept(channel, "client" if hello.role == "client" else "worker", hello.python)

        listener = await listen(
            Address.parse(options.listen),
            secret,
            accept,
            roles=("client", "worker"),
            insecure=options.insecure,
            bind_retry=BIND_RETRY_SECONDS,
            data_source=values,
            sock=None if options.listen_fd is None else socket.socket(fileno=options.listen_fd),
        )
        access = self._announce(listener, secret, port)
        shell.start()
        http = None if port is None else self._http(port, secret, event_log, listener.address, shell, ended)
        beside = self._start_beside(accept, listener.address, secret, ended)
        gc.freeze()
        gc.enable()
        gc.set_threshold(100_000, 50, 100)
        try:
            code = await ended
            await asyncio.sleep(0)  # let the last answers be written
            if beside is not None:
                await beside
        finally:
            if http is not None:
                await http.close()
            listener.close()
            client.close()
            events.close()
            remove_access_file(access, self._server_id)
        return code

    def _start_beside(
        self, accept: Accept, address: Address, secret: Secret, ended: asyncio.Future[int]
    ) -> asyncio.Task[None] | None:
        if self._beside is None:
            return None
        task = asyncio.get_running_loop().create_task(self._beside(accept, address, secret, self._log_tail, ended))

        def check(task: asyncio.Task[None]) -> None:
            if task.exception() is not None and not ended.done():
                ended.set_result(1)  # and it is raised where the task is awaited

        task.add_done_callback(check)
        return task

    def _http(
        self,
        port: BoundPort,
        secret: Secret,
        event_log: Path,
        address: Address,
        shell: ServerShell,
        ended: asyncio.Future[int],
    ) -> HttpService:
        options = self._options
        facts = Facts(
            version=rain.__version__,
            address=str(Address(reachable_addresses(address.host)[0], address.port)),
            started=time.time(),
            log=event_log,
            static=static_files(),
            metrics=shell.core.metrics,
            turns=lambda: (shell.turns, shell.turn_seconds),
            is_ending=lambda: ended.done() or shell.core.state.stopping is not None,
        )
        settings = HttpSettings(token=secret.token, auth=options.http_auth, allow_origin=options.http_allow_origin)
        service = HttpService(port, settings, facts, shell)
        service.start()
        return service

    def _announce(self, listener: Listener, secret: Secret, http: BoundPort | None) -> Path:
        """Write the access file and the ready file."""
        options = self._options
        address = listener.address
        if not address.is_loopback:
            logger.warning("listening on %s: traffic is authenticated but not encrypted", address)
        access = AccessFile(
            server_id=self._server_id,
            hostname=socket.gethostname(),
            addresses=reachable_addresses(address.host),
            port=address.port,
            http_port=None if http is None else http.address.port,
            token=secret.token,
            tls_fingerprint=None,
            pid=os.getpid(),
            created=time.time(),
        )
        path = write_access_file(access, self._environ, options.access_file)
        logger.info("listening on %s, access file %s", address, path)
        if http is not None:
            logger.info("dashboard at %s", url_of(http.address))
        if options.ready_file is not None:
            write_ready_file(options.ready_file)
        return path


def url_of(address: Address) -> str:
    """Where a browser finds the dashboard that listens there."""
    return f"http://{Address(reachable_addresses(address.host)[0], address.port)}/"


def reachable_addresses(host: str) -> list[str]:
    """Addresses under which a server that listens on `host` can be reached, best first."""
    if host not in ("0.0.0.0", "::"):
        return [host]
    import psutil

    family = socket.AF_INET if host == "0.0.0.0" else socket.AF_INET6
    found = [
        entry.address.partition("%")[0]
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == family
    ]
    loopback = {"127.0.0.1", "::1"}
    return [address for address in found if address not in loopback] + [a for a in found if a in loopback]
