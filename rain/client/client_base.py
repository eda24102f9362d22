"""What both clients have in common."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from rain.client.base import BaseSession
from rain.client.connect import dashboard_url
from rain.client.data import DataObject
from rain.client.failures import to_exception
from rain.client.task import Task
from rain.common.errors import RainConnectionError, RainException
from rain.common.failure import Failure
from rain.common.ids import ID
from rain.protocol.messages import (
    GetServerInfo,
    Heartbeat,
    ListSessions,
    NewSession,
    ServerInfo,
    SessionCreated,
    SessionList,
    StopServer,
)

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable

    from rain.client.connect import Target
    from rain.client.front import SubmitFront
    from rain.client.local_cluster import LocalCluster

S = TypeVar("S", bound=BaseSession)

_ID_LISTS = ("tasks", "objects", "objects_to_delete")


class BaseClient(Generic[S]):
    """A connection to a server, and the sessions of this client.

    Args:
        front: by which the server is asked.
        dropped: where finalisers note what is to be unkept: `(session, first id, count)`.
        target: the server.
        cluster: the embedded one.

    Attributes:
        address: of the server, `HOST:PORT`.
        dashboard_url: of the server's dashboard, with the secret in it if the server is on another machine. None if
            there is none, or if neither an access file nor `get_server_info`, once called, told of it.
        cluster: the embedded LocalCluster, or None.
        closed: True after `close`.
    """

    def __init__(
        self, front: SubmitFront, dropped: deque[tuple[int, int, int]], target: Target, cluster: LocalCluster | None
    ) -> None:
        self.cluster = cluster
        self.address = str(target.address)
        self.dashboard_url: str | None = target.dashboard_url
        self._target = target
        self.closed = False
        self._front = front
        self._dropped = dropped
        self._lock = threading.Lock()
        self._sessions: WeakValueDictionary[int, S] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}{' closed' if self.closed else ''}>"

    def _repr_html_(self) -> str:
        from rain.client.html import client_html

        return client_html(self)

    def _check_usable(self) -> None:
        """Raises:
        RainException: the client is closed, or cannot be used here.
        """
        if self.closed:
            raise RainException(f"The client of {self.address} is closed")

    async def _open_session(self, name: str, on_failure: str, persistent: bool) -> int:
        """The number of a new session."""
        if on_failure not in ("fail", "continue"):
            raise ValueError(f'on_failure must be "fail" or "continue", not {on_failure!r}')
        if persistent:
            raise RainException("persistent=True is not supported; supported are sessions that end with their client")
        self._check_usable()
        reply = await self._front.ask(
            lambda seq: NewSession(seq, name, on_failure, persistent), f"opening the session {name!r}"
        )
        if isinstance(reply, Failure):
            raise to_exception(reply, None)
        assert isinstance(reply, SessionCreated)
        return reply.session

    def _add_session(self, session: S) -> S:
        with self._lock:
            self._sessions[session.session_id] = session
        return session

    def _open_sessions(self) -> list[S]:
        with self._lock:
            return list(self._sessions.values())

    def _forget_session(self, session: BaseSession) -> None:
        with self._lock:
            self._sessions.pop(session.session_id, None)

    async def _update(self, items: Task | DataObject | Iterable[Task | DataObject]) -> None:
        things = [items] if isinstance(items, (Task, DataObject)) else list(items)
        by_session: dict[BaseSession, list[Task | DataObject]] = {}
        for thing in things:
            if not isinstance(thing, (Task, DataObject)):
                raise TypeError(f"Tasks and data objects are expected, not {thing!r}")
            if thing._session.client is not self:
                raise RainException(f"{thing!r} does not belong to this client")
            by_session.setdefault(thing._session, []).append(thing)
        for session, own in by_session.items():
            await session._update(own)

    async def _server_info(self) -> dict[str, Any]:
        self._check_usable()
        reply = await self._front.ask(GetServerInfo, "asking for the server's info")
        if isinstance(reply, Failure):
            raise to_exception(reply, None)
        assert isinstance(reply, ServerInfo)
        if self.dashboard_url is None:
            self.dashboard_url = self._told_dashboard(reply.info.get("server", {}).get("http_url"))
        workers = [_worker_entry(entry) for entry in reply.info.get("workers", ())]
        return {**reply.info, "workers": workers, "governors": workers}

    async def _list_sessions(self) -> list[dict[str, Any]]:
        self._check_usable()
        reply = await self._front.ask(lambda seq: ListSessions(seq, 0), "asking for the sessions")
        if isinstance(reply, Failure):
            raise to_exception(reply, None)
        assert isinstance(reply, SessionList)
        return [
            {"id": entry["session"], "persistent": False, **{name: entry[name] for name in ("name", "state", "tasks")}}
            for entry in reply.sessions["sessions"]
        ]

    def _told_dashboard(self, http_url: str | None) -> str | None:
        """The dashboard's address as it is from here: on the host by which the server was found."""
        port = urlsplit(http_url).port if http_url else None
        return dashboard_url(self._target.address.host, port, self._target.secret) if port else None

    async def _stop_server(self, deadline: float) -> None:
        """Have server and workers end; returns when the server has closed the connection."""
        self._check_usable()
        what = f"stopping the server {self.address}"
        reply = await self._front.ask(StopServer, what, timeout=max(deadline - time.monotonic(), 0.0))
        if isinstance(reply, Failure):
            raise to_exception(reply, None)
        with suppress(RainConnectionError):  # what is waited for; a heartbeat has no answer
            left = max(deadline - time.monotonic(), 0.001)
            await self._front.wait(lambda _: Heartbeat(), f"{what}, which confirmed it", session=0, timeout=left)

    async def _end_sessions(self, deadline: float) -> bool:
        """Close the client for new calls, and its sessions; False if it was closed before."""
        with self._lock:
            if self.closed:
                return False
            self.closed = True
            sessions = list(self._sessions.values())
        for session in sessions:
            await session._end(max(deadline - time.monotonic(), 0.0))
        return True


def _worker_entry(entry: dict[str, Any]) -> dict[str, Any]:
    read = {**entry, "governor_id": entry["worker_id"]}
    for key in _ID_LISTS:
        read[key] = [ID(session, number) for session, number in entry.get(key, ())]
    return read
