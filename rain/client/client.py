"""The synchronous client: one connection, many sessions."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary, finalize

from rain.client.connect import find_target, open_connection
from rain.client.data import DataObject
from rain.client.failures import to_exception
from rain.client.session import Session
from rain.client.task import Task
from rain.common.errors import RainException
from rain.common.failure import Failure
from rain.common.ids import ID
from rain.net.dataclient import DataClient
from rain.protocol.messages import GetServerInfo, NewSession, ServerInfo, SessionCreated

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from rain.client.connect import Target
    from rain.client.connection import Connection
    from rain.client.local_cluster import LocalCluster

_ID_LISTS = ("tasks", "objects", "objects_to_delete")


class Client:
    """A connection to a Rain server; thread-safe.

    Args:
        address: `host`, `host:port`, `rain://host:port`, `[IPv6]:port`; None = from `access_file`, RAIN_ADDRESS or
            RAIN_ACCESS_FILE, else an embedded cluster is started.
        port: where the address has none.
        token, token_file, access_file: where the secret comes from; None = as described in the security chapter.
        timeout: seconds for each exchange of a request and its answer; None = no limit.
        connection_timeout: seconds to connect.
        ssl, ssl_verify, ssl_extra_ca: defaults only.

    Attributes:
        address: of the server, `HOST:PORT`.
        dashboard_url: of the server's dashboard, None if it has none or it is not known.
        cluster: the embedded LocalCluster, or None.
        closed: True after `close`.

    Raises:
        RainConnectionError: no connection, or another version of the protocol.
        AuthenticationError: no secret, or a wrong one.
        ValueError: a malformed address.
    """

    def __init__(
        self,
        address: str | None = None,
        port: int | str | None = None,
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        access_file: str | Path | None = None,
        timeout: float | str | None = 30.0,
        connection_timeout: float | str = 5.0,
        ssl: Any = None,
        ssl_verify: bool = True,
        ssl_extra_ca: str | Path | None = None,
    ) -> None:
        if ssl is not None or not ssl_verify or ssl_extra_ca is not None:
            raise RainException("Encrypted connections are not supported: leave ssl, ssl_verify and ssl_extra_ca out")
        target = find_target(
            address, port, token=token, token_file=token_file, access_file=access_file, environ=os.environ
        )
        cluster: LocalCluster | None = None
        if target is None:
            from rain.client.local_cluster import LocalCluster

            cluster = LocalCluster()
            target = cluster._target()
        try:
            connection = open_connection(target, timeout=timeout, connection_timeout=connection_timeout)
        except BaseException:
            if cluster is not None:
                cluster.close()
            raise
        self._attach(connection, target, cluster)

    def _attach(self, connection: Connection, target: Target, cluster: LocalCluster | None = None) -> None:
        self.cluster = cluster
        self._connection = connection
        self._data = DataClient(target.secret)
        finalize(self, _close_own, self._data, os.getpid())
        self.address = str(target.address)
        self.dashboard_url: str | None = target.dashboard_url
        self.closed = False
        self._lock = threading.Lock()
        self._sessions: WeakValueDictionary[int, Session] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<Client {self.address}{' closed' if self.closed else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connection_or_raise(self) -> Connection:
        self._connection.check_owner()
        if self.closed:
            raise RainException(f"The client of {self.address} is closed")
        return self._connection

    # --- sessions -----------------------------------------------------------------------------------

    def new_session(
        self,
        name: str = "Unnamed Session",
        default: bool = False,
        *,
        on_failure: str = "fail",
        persistent: bool = False,
    ) -> Session:
        """Open a session.

        Args:
            name: shown in the dashboard.
            default: make it the default session of the process.
            on_failure: `"fail"`: a failed task fails the session; `"continue"`: only what depends on it.
            persistent: False.

        Raises:
            ValueError: another `on_failure`.
            RainException: persistent=True, which is not supported; the client is closed.
            RainConnectionError: the connection is lost.
        """
        if on_failure not in ("fail", "continue"):
            raise ValueError(f'on_failure must be "fail" or "continue", not {on_failure!r}')
        if persistent:
            raise RainException("persistent=True is not supported; supported are sessions that end with their client")
        reply = self._connection_or_raise().ask(
            lambda seq: NewSession(seq, name, on_failure, persistent), f"opening the session {name!r}"
        )
        if isinstance(reply, Failure):
            raise to_exception(reply, None)
        assert isinstance(reply, SessionCreated)
        session = Session(self, reply.session, default, name=name, on_failure=on_failure)
        with self._lock:
            self._sessions[reply.session] = session
        return session

    def _forget_session(self, session: Session) -> None:
        with self._lock:
            self._sessions.pop(session.session_id, None)

    def update(self, items: Task | DataObject | Iterable[Task | DataObject]) -> None:
        """Refresh state and info of tasks and objects of any sessions of this client.

        Raises:
            TypeError: an item is neither a task nor a data object.
            RainException: an item is not submitted, or belongs to another client.
        """
        things = [items] if isinstance(items, (Task, DataObject)) else list(items)
        by_session: dict[Session, list[Task | DataObject]] = {}
        for thing in things:
            if not isinstance(thing, (Task, DataObject)):
                raise TypeError(f"Tasks and data objects are expected, not {thing!r}")
            if thing._session.client is not self:
                raise RainException(f"{thing!r} does not belong to this client")
            by_session.setdefault(thing._session, []).append(thing)
        for session, own in by_session.items():
            session.update(own)

    # --- the server ---------------------------------------------------------------------------------

    def get_server_info(self) -> dict[str, Any]:
        """What the server and its workers do now; every worker is asked.

        Returns:
            `"workers"` (also as `"governors"`): per worker `worker_id`, `governor_id`, `tasks`, `objects`,
            `objects_to_delete` (lists of ID), `resources`, `hostname`, `pid`; `"server"`: `version`, `address`,
            `http_url`, `uptime`, `sessions`.

        Raises:
            RainConnectionError: the connection is lost.
        """
        reply = self._connection_or_raise().ask(GetServerInfo, "asking for the server's info")
        if isinstance(reply, Failure):
            raise to_exception(reply, None)
        assert isinstance(reply, ServerInfo)
        workers = [_worker_entry(entry) for entry in reply.info.get("workers", ())]
        return {**reply.info, "workers": workers, "governors": workers}

    # --- the end ------------------------------------------------------------------------------------

    def close(self, timeout: float | str = 10.0) -> None:
        """Close the sessions, disconnect, and stop an embedded cluster; idempotent. Never raises because of a failed
        session or a lost server; drops everything when `timeout` seconds are over."""
        from rain.common.units import parse_duration

        deadline = time.monotonic() + parse_duration(timeout)
        with self._lock:
            if self.closed:
                return
            self.closed = True
            sessions = list(self._sessions.values())
        for session in sessions:
            session._end(max(deadline - time.monotonic(), 0.0))
        self._connection.close(RainException(f"The client of {self.address} is closed"))
        self._data.close()
        if self.cluster is not None:
            self.cluster.close()


def _close_own(data: DataClient, pid: int) -> None:
    if os.getpid() == pid:  # a forked child would end the connections of its parent
        data.close()


def _worker_entry(entry: dict[str, Any]) -> dict[str, Any]:
    read = {**entry, "governor_id": entry["worker_id"]}
    for key in _ID_LISTS:
        read[key] = [ID(session, number) for session, number in entry.get(key, ())]
    return read
