"""Sessions: the container of one task graph."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from rain.client.active import get_active_session, global_session_pop, global_session_push, leave
from rain.client.array_results import iterate
from rain.client.base import BaseSession, SessionBinder
from rain.client.front import run

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Coroutine, Iterable, Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from rain.client.array_results import Batches
    from rain.client.client import Client
    from rain.client.data import DataObject
    from rain.client.front import Front
    from rain.client.task import Task
    from rain.common.data_instance import DataInstance
    from rain.common.states import TaskState

T = TypeVar("T")


class Session(BaseSession):
    """A session; made by `Client.new_session`.

    Args:
        client: None for a session that only serves to construct graphs.
        session_id: given by the server.
        default: make it the default session.

    Attributes: as of `BaseSession`.
    """

    _is_asynchronous = False
    client: Client | None

    def __init__(
        self,
        client: Client | None,
        session_id: int,
        default: bool = False,
        *,
        name: str = "Unnamed Session",
        on_failure: str = "fail",
    ) -> None:
        self._submitting = threading.Lock()
        super().__init__(client, session_id, default, name=name, on_failure=on_failure)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return run(coroutine)

    def _iterate(self, batches: Batches) -> Iterator[Any]:
        return iterate(batches)

    @property
    def _front_in_loop(self) -> Front:
        return self._front if self.client is None else self.client._front_in_loop

    def __enter__(self) -> Self:
        global_session_push(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leave(self)
        self.close()

    def close(self) -> None:
        """End the session: the server stops its tasks and forgets it. Idempotent; never raises for a failed session or
        a lost server."""
        run(self._end(None))

    def submit(self) -> None:
        """Send all unsubmitted tasks and objects; returns when the server has accepted them all.

        Raises:
            TaskException: the session has failed; nothing was submitted.
            InvalidRequestError: the server refuses; nothing was submitted.
            RainConnectionError: the connection is lost.
        """
        run(self._submit_all())

    def wait(
        self,
        items: Task | DataObject | Iterable[Task | DataObject],
        *,
        timeout: float | str | None = None,
        progress: bool = False,
    ) -> None:
        """Wait until all given tasks and objects are finished.

        Args:
            items: one item, or any number.
            timeout: seconds, or text such as `"5 s"`; 0 polls once, None waits without limit.
            progress: show a progress bar meanwhile, in a terminal or notebook; see `progress`.

        Raises:
            RainTimeoutError: `timeout` seconds are over.
            TaskException: the session has failed.
            RainException: an item is not submitted; a bar is wanted and tqdm is not installed.
            TypeError: an item is neither a task nor a data object.
        """
        run(self._wait(items, timeout, progress))

    def wait_some(
        self,
        items: Task | DataObject | Iterable[Task | DataObject],
        dataobjs: Task | DataObject | Iterable[Task | DataObject] = (),
        *,
        timeout: float | str | None = None,
    ) -> tuple[list[Task], list[DataObject]]:
        """Wait until at least one item of both arguments together is finished.

        Returns:
            The finished tasks and the finished objects; both empty only when nothing was asked for.

        Raises:
            As `wait`.
        """
        return run(self._wait_some(items, dataobjs, timeout))

    def wait_all(self, timeout: float | str | None = None, check: bool = True, *, progress: bool = False) -> None:
        """Wait until no unfinished task is left in the session, over all submits.

        Args:
            timeout: seconds, or text such as `"5 s"`; 0 polls once, None waits without limit.
            check: False: no exception for failed tasks in a session that continues; otherwise of no effect.
            progress: show a progress bar meanwhile, in a terminal or notebook; see `progress`.

        Raises:
            RainTimeoutError: `timeout` seconds are over.
            TaskException: the session has failed; in a session that continues, the first task that failed.
            RainException: a bar is wanted and tqdm is not installed.
        """
        run(self._wait_all(timeout, check, progress))

    def progress(self, timeout: float | str | None = None) -> None:
        """`wait_all` with a progress bar: the tasks by state, and the first failure when it happens. Interrupting it
        stops the waiting only.

        The bar is one of tqdm (`pip install 'rain[progress]'`), on stderr, in a notebook in the output of the cell.
        Where stderr is no terminal nothing is written.

        Raises:
            As `wait_all`.
        """
        run(self._wait_all(timeout, True, progress=True))

    def cancel(self, timeout: float | str | None = None) -> int:
        """Stop all unfinished submitted tasks; the session stays open.

        Args:
            timeout: seconds to wait until nothing of them runs; None waits without limit.

        Returns:
            Number of tasks that were stopped before their end.

        Raises:
            RainTimeoutError: `timeout` seconds are over; they are cancelled nevertheless.
        """
        return run(self._cancel(timeout))

    def counts(self) -> Counter[str]:
        """Number of submitted tasks per name of their state; absent names read as 0.

        Raises:
            TaskException: the session has failed.
        """
        return run(self._counts())

    def tasks(self, name: str | None = None, state: TaskState | str | None = None) -> list[Task]:
        """The submitted tasks as the server knows them, by rising id, in the states that they have now. Handles that
        this client has are reused, members of task arrays are those of the array, the others are made of what the
        server tells.

        Args:
            name: only those with this name.
            state: only those in this state, e.g. `"failed"`.

        Raises:
            ValueError: there is no such state; the name is empty or no Unicode text.
            TypeError: an argument of a wrong type.
            TaskException: the session has failed.
        """
        return run(self._tasks(name, state))

    def objects(self, label: str | None = None, kept: bool | None = None) -> list[DataObject]:
        """The submitted data objects as the server knows them, by rising id; handles as of `tasks`.

        Args:
            label: only those with this label.
            kept: True: only those that are kept; False: only the others.

        Raises:
            ValueError: the label is empty or no Unicode text.
            TypeError: an argument of a wrong type.
            TaskException: the session has failed.
        """
        return run(self._objects(label, kept))

    def fetch(
        self, obj: DataObject | Task, *, to: str | Path | None = None, timeout: float | str | None = None
    ) -> DataInstance:
        """The value of a kept object; waits until it is finished.

        Args:
            obj: the object, or a task with one output.
            to: file or directory to write the value to; the instance is backed by it.
            timeout: seconds, or text such as `"5 s"`; 0 polls once, None waits without limit.

        Raises:
            RainException: the object is not kept or not submitted.
            RainTimeoutError: `timeout` seconds are over.
            TaskException: the session has failed.
        """
        return run(self._fetch(obj, to, timeout))

    def unkeep(self, objs: DataObject | Iterable[DataObject]) -> None:
        """Take the keep flag of objects away; the server is told now of submitted ones.

        Raises:
            RainException: an object is not kept.
            TaskException: the session has failed; the objects stay kept.
            TypeError: an item is not a data object.
        """
        run(self._unkeep(objs))

    def update(self, items: Task | DataObject | Iterable[Task | DataObject]) -> None:
        """Refresh state and info of tasks and objects.

        Raises:
            RainException: an item is not submitted.
            TaskException: the session has failed.
            TypeError: an item is neither a task nor a data object.
        """
        run(self._update(items))

    def _fetch_all(self, objects: Iterable[DataObject]) -> list[DataInstance]:
        return run(self._fetch_each(objects))


__all__ = [
    "Session",
    "SessionBinder",
    "get_active_session",
    "global_session_pop",
    "global_session_push",
]
