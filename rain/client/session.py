"""Sessions: the container of one task graph."""

from __future__ import annotations

import threading
from array import array
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from rain.client.active import (
    clear_default,
    get_active_session,
    global_session_pop,
    global_session_push,
    leave,
    set_default,
)
from rain.client.array import TaskArray
from rain.client.data import DataObject
from rain.client.failures import blame, to_exception
from rain.client.fetch import fetch_values
from rain.client.handles import WEAK_TYPES, ArrayOutput
from rain.client.registry import Registry
from rain.client.states import ask_states, count_states
from rain.client.submitting import submit as submit_session
from rain.client.task import Task
from rain.client.updates import update_things
from rain.client.waiting import cancel_tasks, names_of, numbers_of, wait_for_all, wait_for_session, wait_for_some
from rain.common.attributes import SessionSpec
from rain.common.errors import RainException, SessionException
from rain.common.failure import Failure
from rain.common.ids import FIRST_ID
from rain.protocol.messages import (
    CloseSession,
    UnkeepObjects,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from rain.client.client import Client
    from rain.client.connection import Connection
    from rain.client.core import Reply
    from rain.client.graph import Graph
    from rain.client.registry import Item
    from rain.common.data_instance import DataInstance
    from rain.protocol.messages import Message

_CLOSED = "Session is closed"


class Session:
    """A session; made by `Client.new_session`.

    The number of a task or object tells whether it is submitted (`< _submitted`) or known to be finished
    (`< _settled`).

    Args:
        client: None for a session that only serves to construct graphs.
        session_id: given by the server.
        default: make it the default session.

    Attributes:
        active: True until closed.
        client: see above.
        session_id: see above.
        name: shown in the dashboard.
        spec: name and policy.
    """

    def __init__(
        self,
        client: Client | None,
        session_id: int,
        default: bool = False,
        *,
        name: str = "Unnamed Session",
        on_failure: str = "fail",
    ) -> None:
        self.active = True
        self.client = client
        self.session_id = session_id
        self.spec = SessionSpec(name=name, on_failure=on_failure)
        self._lock = threading.RLock()
        self._submitting = threading.Lock()
        self._registry = Registry()
        self._submitted = FIRST_ID
        self._settled = FIRST_ID
        self._noted: list[Task | DataObject] = []
        self._noted_weakly: WeakSet[Task | DataObject] = WeakSet()
        self._dropped: deque[tuple[int, int, int]] = deque() if client is None else client._connection.dropped
        self._was_cancelled = False
        self._templates: dict[bytes, int] = {}
        self._static_data: dict[Any, DataObject] = {}
        self._large_constants: dict[bytes, DataObject] = {}
        if default:
            self.set_as_default()

    @property
    def name(self) -> str:
        """The name given to `new_session`."""
        return self.spec.name

    @property
    def task_count(self) -> int:
        """Number of unsubmitted tasks."""
        return sum(len(i) if isinstance(i, TaskArray) else isinstance(i, Task) for i in self._unsubmitted())

    @property
    def dataobj_count(self) -> int:
        """Number of unsubmitted data objects."""
        return sum(len(i) if isinstance(i, TaskArray) else isinstance(i, DataObject) for i in self._unsubmitted())

    def _unsubmitted(self) -> list[Item]:
        with self._lock:
            return self._registry.unsubmitted()

    @property
    def _things(self) -> list[Task | DataObject]:
        """All tasks and objects of which there are handles, in the order of their ids."""
        with self._lock:
            return self._registry.live()

    def __repr__(self) -> str:
        return f"<Session id={self.session_id} {self.name!r}{'' if self.active else ' closed'}>"

    # --- entering and leaving ---------------------------------------------------------------------

    def __enter__(self) -> Self:
        global_session_push(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leave(self)
        self.close()

    def bind_only(self) -> SessionBinder:
        """A context manager that makes the session active without closing it at the end."""
        return SessionBinder(self)

    def set_as_default(self) -> None:
        """Make it the default session of the process."""
        set_default(self)

    def close(self) -> None:
        """End the session: the server stops its tasks and forgets it. Idempotent; never raises for a failed session or
        a lost server."""
        self._end(None)

    def _end(self, timeout: float | None) -> None:
        """Close within `timeout` seconds; None = the timeout of the client. 0 tells the server nothing."""
        with self._lock:
            if not self.active:
                return
            self.active = False
            self._registry = Registry()
            self._noted = []
            self._static_data, self._large_constants = {}, {}
        clear_default(self)
        client = self.client
        if client is None:
            return
        client._forget_session(self)
        if timeout is None or timeout > 0:
            with suppress(RainException):
                client._connection.ask(
                    lambda seq: CloseSession(seq, self.session_id),
                    f"closing session {self.session_id}",
                    timeout=timeout,
                )

    def _check_open(self) -> None:
        if not self.active:
            raise SessionException(_CLOSED)

    # --- building ---------------------------------------------------------------------------------

    def _register(self, *things: Task | DataObject) -> None:
        """Give things made just now their ids, in this order."""
        with self._lock:
            if not self.active:
                raise SessionException(_CLOSED)
            self._registry.add(self, things)

    def _register_array(self, made: TaskArray) -> None:
        with self._lock:
            if not self.active:
                raise SessionException(_CLOSED)
            made._first = self._registry.add_array(made, 2 * len(made))

    def _find(self, number: int, *, make: bool = True) -> Task | DataObject | None:
        """This client's handle of a task or object, None if it has none; make: make that of a member of an array."""
        with self._lock:
            return self._registry.find(number, make=make)

    def _task(self, number: int) -> Task | None:
        thing = self._find(number)
        return thing if isinstance(thing, Task) else None

    def map(self, fn: Any, *iterables: Iterable[Any], **task_options: Any) -> TaskArray:
        """One task per tuple of `zip(*iterables)`, as one compact object. The iterables are consumed at once.

        Args:
            fn: a plain function, or a Delayed with one output.
            iterables: the arguments by position.
            task_options: see `rain.client.options.read_options`.

        Raises:
            RainException: `fn` is not callable, or an argument cannot be pickled.
            TypeError, ValueError: the arguments do not fit the function; a wrong option.
        """
        from rain.client.mapping import map_tasks

        return map_tasks(self, fn, iterables, task_options)

    def keep_all(self) -> None:
        """Set the keep flag of all unsubmitted objects."""
        for thing in self._unsubmitted():
            if isinstance(thing, DataObject):
                thing._keep = True
            elif isinstance(thing, TaskArray):
                thing._set_keep(True)

    def make_graph(self, show_ids: bool = True) -> Graph:
        """A picture of the tasks and objects, submitted and unsubmitted.

        Args:
            show_ids: write the ids into the nodes.
        """
        from rain.client.graph import session_graph

        return session_graph(self, show_ids)

    # --- talking to the server ----------------------------------------------------------------------

    def _connected(self) -> Connection:
        if self.client is None:
            raise RainException("This session has no client; it only serves to construct graphs")
        self._check_open()
        return self.client._connection_or_raise()

    def _raise_failure(self, reply: Reply | Failure) -> Reply:
        if isinstance(reply, Failure):
            task = self._task(reply.task)
            blame(reply, task)
            raise to_exception(reply, task)
        return reply

    def _ask(self, make: Callable[[int], Message], what: str) -> Reply:
        connection = self._connected()
        return self._raise_failure(connection.ask(make, what, session=self.session_id))

    def _wait_for(
        self, make: Callable[[int], Message], what: str, timeout: float | None, *, submit: bool = False
    ) -> Reply:
        """A question whose answer may take long; with `submit` it follows a submit in one go."""
        connection = self._connected()
        if not submit:
            return self._raise_failure(connection.wait(make, what, session=self.session_id, timeout=timeout))
        request = submit_session(self, connection, (make, what))
        assert request is not None
        return self._raise_failure(connection.finish(request, timeout))

    def submit(self) -> None:
        """Send all unsubmitted tasks and objects; returns when the server has accepted them all.

        Raises:
            TaskException: the session has failed; nothing was submitted.
            InvalidRequestError: the server refuses; nothing was submitted.
            RainConnectionError: the connection is lost.
        """
        submit_session(self, self._connected())

    def wait(
        self, items: Task | DataObject | Iterable[Task | DataObject], *, timeout: float | None = None
    ) -> None:
        """Wait until all given tasks and objects are finished.

        Args:
            items: one item, or any number.
            timeout: seconds; 0 polls once, None waits without limit.

        Raises:
            RainTimeoutError: `timeout` seconds are over.
            TaskException: the session has failed.
            RainException: an item is not submitted.
            TypeError: an item is neither a task nor a data object.
        """
        wait_for_all(self, self._submitted_items(items), timeout)

    def wait_some(
        self,
        items: Task | DataObject | Iterable[Task | DataObject],
        dataobjs: Task | DataObject | Iterable[Task | DataObject] = (),
        *,
        timeout: float | None = None,
    ) -> tuple[list[Task], list[DataObject]]:
        """Wait until at least one item of both arguments together is finished.

        Returns:
            The finished tasks and the finished objects; both empty only when nothing was asked for.

        Raises:
            As `wait`.
        """
        return wait_for_some(self, self._submitted_items(items) + self._submitted_items(dataobjs), timeout)

    def wait_all(self, timeout: float | None = None, check: bool = True) -> None:
        """Wait until no unfinished task is left in the session, over all submits.

        Args:
            timeout: seconds; 0 polls once, None waits without limit.
            check: False: no exception for failed tasks in a session that continues; otherwise of no effect.

        Raises:
            RainTimeoutError: `timeout` seconds are over.
            TaskException: the session has failed; in a session that continues, the first task that failed.
        """
        self._connected()
        if self._submitted > FIRST_ID:
            wait_for_session(self, timeout, check)

    def cancel(self, timeout: float | None = None) -> int:
        """Stop all unfinished submitted tasks; the session stays open.

        Args:
            timeout: seconds to wait until nothing of them runs; None waits without limit.

        Returns:
            Number of tasks that were stopped before their end.

        Raises:
            RainTimeoutError: `timeout` seconds are over; they are cancelled nevertheless.
        """
        self._connected()
        if self._submitted == FIRST_ID:
            return 0
        return len(cancel_tasks(self, array("I"), f"cancelling the tasks of session {self.session_id}", timeout))

    def counts(self) -> Counter[str]:
        """Number of submitted tasks per name of their state; absent names read as 0.

        Raises:
            TaskException: the session has failed.
        """
        if self._submitted == FIRST_ID:
            return Counter()
        return count_states(ask_states(self, array("I"), everything=True))

    def fetch(
        self, obj: DataObject | Task, *, to: str | Path | None = None, timeout: float | None = None
    ) -> DataInstance:
        """The value of a kept object; waits until it is finished.

        Args:
            obj: the object, or a task with one output.
            to: file or directory to write the value to; the instance is backed by it.
            timeout: seconds; 0 polls once, None waits without limit.

        Raises:
            RainException: the object is not kept or not submitted.
            RainTimeoutError: `timeout` seconds are over.
            TaskException: the session has failed.
        """
        from rain.client.data import to_dataobj

        return fetch_values(self, [to_dataobj(obj)], timeout, to)[0]

    def _fetch_all(self, objects: Iterable[DataObject], timeout: float | None = None) -> list[DataInstance]:
        return fetch_values(self, list(objects), timeout, None)

    def unkeep(self, objs: DataObject | Iterable[DataObject]) -> None:
        """Take the keep flag of objects away; the server is told now of submitted ones.

        Raises:
            RainException: an object is not kept.
            TaskException: the session has failed; the objects stay kept.
            TypeError: an item is not a data object.
        """
        objects = [objs] if isinstance(objs, DataObject) else list(objs)
        for dataobj in objects:
            if not isinstance(dataobj, DataObject):
                raise TypeError(f"unkeep() takes data objects, not {dataobj!r}")
            self._check_own(dataobj)
            if not dataobj._keep:
                raise RainException(f"{dataobj!r} is not kept")
        submitted = [dataobj for dataobj in objects if dataobj._is_submitted]
        if submitted:
            self._tell_unkept(numbers_of(submitted), f"unkeeping {names_of(submitted)}")
        for dataobj in objects:
            dataobj._keep = False
            if isinstance(dataobj, ArrayOutput):
                dataobj._array._unkept.add(dataobj._number - dataobj._array._first)

    def _tell_unkept(self, numbers: array[int], what: str) -> None:
        self._ask(lambda seq: UnkeepObjects(seq, self.session_id, numbers), what)

    def update(self, items: Task | DataObject | Iterable[Task | DataObject]) -> None:
        """Refresh state and info of tasks and objects.

        Raises:
            RainException: an item is not submitted.
            TaskException: the session has failed.
            TypeError: an item is neither a task nor a data object.
        """
        update_things(self, self._submitted_items(items))

    # --- checks and states --------------------------------------------------------------------------

    def _submitted_items(self, items: Any) -> list[Task | DataObject]:
        if isinstance(items, (Task, DataObject)):
            items = (items,)
        if not isinstance(items, Iterable):
            raise TypeError(f"Tasks and data objects are expected, not {items!r}")
        things = list(items)
        for thing in things:
            if not isinstance(thing, (Task, DataObject)):
                raise TypeError(f"Tasks and data objects are expected, not {thing!r}")
            self._check_own(thing)
            if not thing._is_submitted:
                raise RainException(f"{thing!r} is not submitted; call session.submit() first")
        return things

    def _check_own(self, thing: Task | DataObject) -> None:
        if thing._session is not self:
            raise RainException(
                f"{thing!r} belongs to session {thing._session.session_id}, not to session {self.session_id}"
            )

    @property
    def _is_uneven(self) -> bool:
        """Whether terminal things may be in another state than finished while the session goes on."""
        return self._was_cancelled or self.spec.on_failure == "continue"

    def _note(self, thing: Task | DataObject) -> None:
        """The thing gets a state of its own, which a later `wait_all` takes away."""
        if thing._own_state is not None:
            return
        if type(thing) in WEAK_TYPES:
            self._noted_weakly.add(thing)
        else:
            self._noted.append(thing)


class SessionBinder:
    """`with session.bind_only() as session:` makes a session active without closing it."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def __enter__(self) -> Session:
        global_session_push(self.session)
        return self.session

    def __exit__(self, *exc_info: object) -> None:
        leave(self.session)


__all__ = [
    "Session",
    "SessionBinder",
    "get_active_session",
    "global_session_pop",
    "global_session_push",
]
