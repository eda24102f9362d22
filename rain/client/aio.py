"""The asyncio client.

    client = await create_client("host", 7210)
    async with client.new_session() as session:
        task = tasks.concat((blob("a"), blob("b")))
        print(await task)
    await client.close()

An AsyncClient belongs to the event loop in which it was made and starts no thread: reading, heartbeats, unkeeping and
fetching from workers happen in the loop. A loop that does not run for 15 seconds loses the server.

Graphs are built as in the synchronous client, by the same classes. What blocks there is a coroutine here, the methods
of tasks, data objects and task arrays of an AsyncSession included.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from rain.client.active import global_session_push, leave
from rain.client.array_results import iterate_in_loop
from rain.client.base import BaseSession
from rain.client.client_base import BaseClient
from rain.client.connect import check_unencrypted, find_target
from rain.client.futures import Completed, front_in_loop, gather_results
from rain.client.loop_front import LoopFront, open_front
from rain.common.errors import RainException
from rain.common.units import parse_duration
from rain.launch.processes import ended_pauses
from rain.protocol.messages import CloseSession

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Callable, Generator, Iterable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from rain.client.array import TaskArray
    from rain.client.array_results import Batches
    from rain.client.connect import Target
    from rain.client.data import DataObject
    from rain.client.front import Front
    from rain.client.local_cluster import LocalCluster
    from rain.client.task import Task
    from rain.common.data_instance import DataInstance
    from rain.common.states import TaskState

T = TypeVar("T")


class Opening(Coroutine[Any, Any, T]):
    """What `create_client` and `new_session` return: to be awaited, or used in `async with`. Nothing happens before.

    Args:
        start: makes the coroutine.
    """

    def __init__(self, start: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._start = start
        self._coroutine: Coroutine[Any, Any, T] | None = None
        self._opened: Any = None

    def _begun(self) -> Coroutine[Any, Any, T]:
        if self._coroutine is None:
            self._coroutine = self._start()
        return self._coroutine

    def send(self, value: Any) -> Any:
        """As of any coroutine."""
        return self._begun().send(value)

    def throw(self, *error: Any) -> Any:
        """As of any coroutine."""
        return self._begun().throw(*error)

    def close(self) -> None:
        """As of any coroutine."""
        if self._coroutine is not None:
            self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._begun().__await__()

    async def __aenter__(self) -> T:
        self._opened = await self
        entered: T = await self._opened.__aenter__()
        return entered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.__aexit__(kind, error, trace)


def create_client(
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
) -> Opening[AsyncClient]:
    """Connect to a server: `client = await create_client(...)`, or `async with create_client(...) as client`.

    Args:
        address: `host`, `host:port`, `rain://host:port`, `[IPv6]:port`; None = from `access_file`, RAIN_ADDRESS or
            RAIN_ACCESS_FILE, else an embedded cluster is started.
        port: where the address has none.
        token, token_file, access_file: where the secret comes from; None = as described in the security chapter.
        timeout: seconds for each exchange of a request and its answer; None = no limit.
        connection_timeout: seconds for connecting and the handshake; None = no limit but that of the handshake.
        ssl, ssl_verify, ssl_extra_ca: defaults only.

    Raises:
        RainTimeoutError: `connection_timeout` seconds are over.
        RainConnectionError: no connection, or another version of the protocol.
        AuthenticationError: no secret, or a wrong one.
        ValueError: a malformed address.
    """

    async def create() -> AsyncClient:
        check_unencrypted(ssl, ssl_verify, ssl_extra_ca)
        limits = [None if limit is None else parse_duration(limit) for limit in (timeout, connection_timeout)]
        target = find_target(
            address, port, token=token, token_file=token_file, access_file=access_file, environ=os.environ
        )
        cluster: LocalCluster | None = None
        if target is None:
            from rain.client.local_cluster import LocalCluster

            cluster = await LocalCluster._start_in_loop()
            target = cluster._target()
        try:
            front = await open_front(target, timeout=limits[0], connection_timeout=limits[1])
        except BaseException:
            if cluster is not None:
                cluster.close(0)
            raise
        return AsyncClient(front, target, cluster)

    return Opening(create)


class AsyncClient(BaseClient["AsyncSession"]):
    """A connection to a Rain server, in one event loop; made by `create_client` only.

    Attributes: as of `rain.client.Client`.
    """

    def __init__(self, front: LoopFront, target: Target, cluster: LocalCluster | None = None) -> None:
        self._loop_front = front
        super().__init__(front, front.dropped, target, cluster)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _check_usable(self) -> None:
        self._loop_front.check_usable()
        super()._check_usable()

    def new_session(
        self,
        name: str = "Unnamed Session",
        default: bool = False,
        *,
        on_failure: str = "fail",
        persistent: bool = False,
    ) -> Opening[AsyncSession]:
        """Open a session: `await client.new_session()`, or `async with client.new_session() as session`, which
        activates it and closes it at the end.

        Parameters and exceptions: as of `rain.client.Client.new_session`.
        """

        async def create() -> AsyncSession:
            number = await self._loop_front.to_its_end(
                self._open_session(name, on_failure, persistent), unwanted=self._close_unwanted
            )
            return self._add_session(AsyncSession(self, number, default, name=name, on_failure=on_failure))

        return Opening(create)

    def _close_unwanted(self, session: int) -> None:
        """Its opening was cancelled, so nobody will close it."""
        self._loop_front.tell(lambda seq: CloseSession(seq, session), f"closing session {session}")

    async def update(self, items: Task | DataObject | Iterable[Task | DataObject]) -> None:
        """Refresh state and info of tasks and objects; see `rain.client.Client.update`."""
        await self._update(items)

    async def get_server_info(self) -> dict[str, Any]:
        """What the server and its workers do now; see `rain.client.Client.get_server_info`."""
        return await self._server_info()

    async def list_sessions(self) -> list[dict[str, Any]]:
        """The sessions of the server, of all clients; see `rain.client.Client.list_sessions`."""
        return await self._list_sessions()

    async def terminate_server(self, timeout: float | str = 10.0) -> None:
        """End the server and its workers in order; see `rain.client.Client.terminate_server`."""
        deadline = time.monotonic() + parse_duration(timeout)
        self._check_usable()
        try:
            await self._stop_server(deadline)
            if self.cluster is not None:
                for pause in ended_pauses(self.cluster._group.processes, deadline):
                    await asyncio.sleep(pause)
        finally:
            await self.close(0)

    async def close(self, timeout: float | str = 10.0) -> None:
        """Close the sessions, disconnect, and stop an embedded cluster; idempotent. Never raises because of a failed
        session or a lost server; drops everything when `timeout` seconds are over."""
        self._loop_front.check_usable()
        deadline = time.monotonic() + parse_duration(timeout)
        if self.closed:
            return
        try:
            await self._end_sessions(deadline)
            if self.cluster is not None:
                await self.cluster._close_in_loop(self._loop_front, max(deadline - time.monotonic(), 0.0))
        finally:
            reason = RainException(f"The client of {self.address} is closed")
            await self._loop_front.close(reason, max(deadline - time.monotonic(), 0.0))
            if self.cluster is not None:
                self.cluster.close(0)  # in case this was cancelled


class AsyncSession(BaseSession):
    """A session of an AsyncClient. Names, parameters and exceptions are those of `rain.client.Session`.

    In its tasks, data objects and task arrays the methods `wait fetch fetch_outputs update unkeep unkeep_outputs cancel
    result exception explain done counts` return coroutines, and `iter_results` an asynchronous iterator.

    Attributes: as of `BaseSession`.
    """

    _is_asynchronous = True

    def __init__(
        self,
        client: AsyncClient,
        session_id: int,
        default: bool = False,
        *,
        name: str = "Unnamed Session",
        on_failure: str = "fail",
    ) -> None:
        self._submitting = asyncio.Lock()
        super().__init__(client, session_id, default, name=name, on_failure=on_failure)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> Any:
        return coroutine

    def _iterate(self, batches: Batches) -> AsyncIterator[Any]:
        return iterate_in_loop(batches)

    @property
    def _front_in_loop(self) -> Front:
        return self._front

    async def __aenter__(self) -> Self:
        global_session_push(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leave(self)
        await self.close()

    async def close(self) -> None:
        """End the session: the server stops its tasks and forgets it. Idempotent; never raises for a failed session or
        a lost server."""
        await self._end(None)

    async def submit(self) -> None:
        """Send all unsubmitted tasks and objects; a submit that has begun goes on when this is cancelled."""
        await self._submit_all()

    async def wait(
        self,
        items: Task | DataObject | Iterable[Task | DataObject],
        *,
        timeout: float | str | None = None,
        progress: bool = False,
    ) -> None:
        """Wait until all given tasks and objects are finished."""
        await self._wait(items, timeout, progress)

    async def wait_some(
        self,
        items: Task | DataObject | Iterable[Task | DataObject],
        dataobjs: Task | DataObject | Iterable[Task | DataObject] = (),
        *,
        timeout: float | str | None = None,
    ) -> tuple[list[Task], list[DataObject]]:
        """Wait until at least one item of both arguments together is finished; those that are."""
        return await self._wait_some(items, dataobjs, timeout)

    async def wait_all(self, timeout: float | str | None = None, check: bool = True, *, progress: bool = False) -> None:
        """Wait until no unfinished task is left in the session, over all submits."""
        await self._wait_all(timeout, check, progress)

    async def progress(self, timeout: float | str | None = None) -> None:
        """`wait_all` with a progress bar; see `rain.client.Session.progress`."""
        await self._wait_all(timeout, True, progress=True)

    async def cancel(self, timeout: float | str | None = None) -> int:
        """Stop all unfinished submitted tasks; their number."""
        return await self._cancel(timeout)

    async def counts(self) -> Counter[str]:
        """Number of submitted tasks per name of their state."""
        return await self._counts()

    async def tasks(self, name: str | None = None, state: TaskState | str | None = None) -> list[Task]:
        """The submitted tasks as the server knows them; see `rain.client.Session.tasks`."""
        return await self._tasks(name, state)

    async def objects(self, label: str | None = None, kept: bool | None = None) -> list[DataObject]:
        """The submitted data objects as the server knows them; see `rain.client.Session.objects`."""
        return await self._objects(label, kept)

    async def fetch(
        self, obj: DataObject | Task, *, to: str | Path | None = None, timeout: float | str | None = None
    ) -> DataInstance:
        """The value of a kept object; waits until it is finished."""
        return await self._fetch(obj, to, timeout)

    async def unkeep(self, objs: DataObject | Iterable[DataObject]) -> None:
        """Take the keep flag of objects away."""
        await self._unkeep(objs)

    async def update(self, items: Task | DataObject | Iterable[Task | DataObject]) -> None:
        """Refresh state and info of tasks and objects."""
        await self._update(items)


def as_completed(
    items: Iterable[Task | DataObject | TaskArray], timeout: float | str | None = None
) -> AsyncIterator[Task | DataObject]:
    """Each distinct task and data object when it becomes terminal, for `async for`; see `rain.client.as_completed`.

    Args:
        items: of any sessions and clients, synchronous ones included.
        timeout: seconds for the whole iteration.
    """
    return Completed(items, timeout, in_loop=True)


async def gather(*items: Any, return_exceptions: bool = False, timeout: float | str | None = None) -> Any:
    """The results of everything in a nest of lists, tuples and dicts; see `rain.client.gather`."""
    return await gather_results(items, front_in_loop, return_exceptions, timeout)


__all__ = ["AsyncClient", "AsyncSession", "as_completed", "create_client", "gather"]
