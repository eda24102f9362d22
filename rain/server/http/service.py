"""The HTTP port as the server's start sees it: a bound socket, behind which everything is made when somebody comes."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from rain.common.structs import dataclass
from rain.server.http.gate import Gate

if TYPE_CHECKING:
    from rain.server.http.application import LimitedServer
    from rain.server.http.asking import Shell
    from rain.server.http.binding import BoundPort
    from rain.server.http.facts import Facts
    from rain.server.http.logview import Overview, Reader
    from rain.server.http.site import Site

_log = logging.getLogger("rain.server.http")

ACCEPTED_AT_ONCE = 16
PAUSE_SECONDS = 1.0
"""How long nothing is accepted when there are no descriptors left."""

CLOSE_SECONDS = 1.0

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How the port behaves.

    Attributes:
        token: the secret; None: nobody needs one.
        auth: local processes of the same user need it too.
        allow_origin: as in `Gate`.
    """

    token: str | None
    auth: bool
    allow_origin: str | None


class HttpService:
    """Serves HTTP. Whatever goes wrong in here, the server goes on.

    Args:
        port: where to listen.
        settings: how.
        facts: of the server.
        shell: whom to ask.
    """

    def __init__(self, port: BoundPort, settings: HttpSettings, facts: Facts, shell: Shell) -> None:
        self._sock = port.sock
        self._host = port.address.host
        self._settings = settings
        self._facts = facts
        self._shell = shell
        self._loop = asyncio.get_running_loop()
        self._making: asyncio.Task[None] | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._site: Site | None = None
        self._server: LimitedServer | None = None

    def start(self) -> None:
        """Wait for somebody to come."""
        self._sock.setblocking(False)
        self._loop.add_reader(self._sock, self._first)

    async def close(self) -> None:
        """End it, with all connections."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()
        if self._pause is not None:
            self._pause.cancel()
        if self._making is not None:
            self._making.cancel()
        if self._site is not None:
            self._site.close()
        if self._server is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._server.close_all_connections()

    def _first(self) -> None:
        """Somebody connected; he waits in the backlog until everything is made."""
        self._loop.remove_reader(self._sock)
        self._making = self._loop.create_task(self._make())

    async def _make(self) -> None:
        try:
            names = await asyncio.to_thread(_load)
            self._site = self._make_site([*names, self._host])
            from rain.server.http.application import make_server

            self._server = make_server(self._site)
        except Exception:
            _log.exception("the dashboard does not work: its port is closed; the server goes on without it")
            self._sock.close()
            return
        self._loop.add_reader(self._sock, self._accept)

    def _make_site(self, names: list[str]) -> Site:
        from rain.server.http.site import Site

        settings = self._settings
        gate = Gate(settings.token, demanded=settings.auth, names=names, allow_origin=settings.allow_origin)
        return Site(self._facts, gate, self._shell, self._open_log)

    def _open_log(self) -> tuple[Reader, Overview]:
        from rain.dashboard.overview import Overview
        from rain.eventlog.reader import EventReader

        reader = EventReader(self._facts.log)
        return reader, Overview(reader)

    def _accept(self) -> None:
        assert self._server is not None
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                _log.warning("no HTTP connections are accepted for %g s: %s", PAUSE_SECONDS, error)
                self._loop.remove_reader(self._sock)
                self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume)
                return
            sock.setblocking(False)
            self._server.take(sock)

    def _resume(self) -> None:
        self._loop.add_reader(self._sock, self._accept)


def _load() -> list[str]:
    """Import what takes time; returns the names and addresses of this machine."""
    from rain.server.http.application import own_addresses

    return [socket.gethostname(), *own_addresses()]
