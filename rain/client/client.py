"""The synchronous client: one connection, many sessions."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any
from weakref import finalize

from rain.client.blocking_front import BlockingFront
from rain.client.client_base import BaseClient
from rain.client.connect import check_unencrypted, find_target, open_connection
from rain.client.front import run
from rain.client.session import Session
from rain.common.errors import RainException
from rain.common.units import parse_duration
from rain.net.dataclient import DataClient
from rain.net.silence import AVOID

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from rain.client.connect import Target
    from rain.client.connection import Connection
    from rain.client.data import DataObject
    from rain.client.front import Front
    from rain.client.local_cluster import LocalCluster
    from rain.client.task import Task


class Client(BaseClient[Session]):
    """A connection to a Rain server; thread-safe.

    Args:
        address: `host`, `host:port`, `rain://host:port`, `[IPv6]:port`; None = from `access_file`, RAIN_ADDRESS or
            RAIN_ACCESS_FILE, else an embedded cluster is started.
        port: where the address has none.
        token, token_file, access_file: where the secret comes from; None = as described in the security chapter.
        timeout: seconds for each exchange of a request and its answer; None = no limit.
        connection_timeout: seconds for connecting and the handshake; None = no limit but that of the handshake.
        ssl, ssl_verify, ssl_extra_ca: defaults only.

    Attributes:
        address: of the server, `HOST:PORT`.
        dashboard_url: of the server's dashboard, with the secret in it if the server is on another machine. None if
            there is none, or if neither an access file nor `get_server_info`, once called, told of it.
        cluster: the embedded LocalCluster, or None.
        closed: True after `close`.

    Raises:
        RainTimeoutError: `connection_timeout` seconds are over.
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
        connection_timeout: float | str | None = 5.0,
        ssl: Any = None,
        ssl_verify: bool = True,
        ssl_extra_ca: str | Path | None = None,
    ) -> None:
        check_unencrypted(ssl, ssl_verify, ssl_extra_ca)
        target = find_target(
            address, port, token=token, token_file=token_file, access_file=access_file, environ=os.environ
        )
        cluster: LocalCluster | None = None
        if target is None:
            from rain.client.local_cluster import LocalCluster

            cluster = LocalCluster._embedded()
            target = cluster._target()
        try:
            connection = open_connection(target, timeout=timeout, connection_timeout=connection_timeout)
        except BaseException:
            if cluster is not None:
                cluster.close()
            raise
        self._attach(connection, target, cluster)

    def _attach(self, connection: Connection, target: Target, cluster: LocalCluster | None = None) -> None:
        self._connection = connection
        self._data = DataClient(target.secret, avoid=AVOID, maps=True)
        connection.at_end(self._data.close)  # a transfer under way learns of the loss
        finalize(self, _close_own, self._data, os.getpid())
        self._blocking_front = BlockingFront(connection, self._data)
        super().__init__(self._blocking_front, connection.dropped, target, cluster)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_usable(self) -> None:
        self._connection.check_owner()
        super()._check_usable()

    @property
    def _front_in_loop(self) -> Front:
        from rain.client.listening_front import ListeningFront

        return ListeningFront(self._blocking_front)

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
        number = run(self._open_session(name, on_failure, persistent))
        return self._add_session(Session(self, number, default, name=name, on_failure=on_failure))

    def update(self, items: Task | DataObject | Iterable[Task | DataObject]) -> None:
        """Refresh state and info of tasks and objects of any sessions of this client.

        Raises:
            TypeError: an item is neither a task nor a data object.
            RainException: an item is not submitted, or belongs to another client.
        """
        run(self._update(items))

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
        return run(self._server_info())

    def list_sessions(self) -> list[dict[str, Any]]:
        """The sessions of the server, of all clients; of more than 10,000 the newest.

        Returns:
            Per session `id`, `name`, `state` (`"open"`, `"failed"`), `persistent` (False), `tasks` (number by name of
            TaskState).

        Raises:
            RainConnectionError: the connection is lost.
        """
        return run(self._list_sessions())

    # --- the end ------------------------------------------------------------------------------------

    def terminate_server(self, timeout: float | str = 10.0) -> None:
        """End the server and its workers in order, as `rain stop` does: sessions end, of all clients. Returns when the
        server is gone; the client is closed then, also if this raises.

        Args:
            timeout: seconds, or text.

        Raises:
            RainTimeoutError: `timeout` seconds are over; what was begun goes on.
            RainConnectionError: the server went away before it confirmed.
        """
        deadline = time.monotonic() + parse_duration(timeout)
        self._check_usable()
        try:
            run(self._stop_server(deadline))
            if self.cluster is not None:
                self.cluster._group.wait_ended(max(deadline - time.monotonic(), 0.0))
        finally:
            self.close(0)

    def close(self, timeout: float | str = 10.0) -> None:
        """Close the sessions, disconnect, and stop an embedded cluster; idempotent. Never raises because of a failed
        session or a lost server; drops everything when `timeout` seconds are over."""
        if not run(self._end_sessions(time.monotonic() + parse_duration(timeout))):
            return
        self._connection.close(RainException(f"The client of {self.address} is closed"))
        self._data.close()
        if self.cluster is not None:
            self.cluster.close()


def _close_own(data: DataClient, pid: int) -> None:
    if os.getpid() == pid:  # a forked child would end the connections of its parent
        data.close()
