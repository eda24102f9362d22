"""Sessions: the container of one task graph."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rain.client.active import (
    clear_default,
    get_active_session,
    global_session_pop,
    global_session_push,
    leave,
    set_default,
)
from rain.client.data import DataObject
from rain.client.failures import to_exception
from rain.client.fetch import fetch_values
from rain.client.interrupts import InterruptGuard
from rain.client.submit import SubmitPacker
from rain.client.task import Task
from rain.client.updates import update_things
from rain.common.attributes import SessionSpec
from rain.common.errors import RainException, SessionException
from rain.common.failure import Failure
from rain.common.ids import FIRST_ID
from rain.common.states import DataObjectState, TaskState
from rain.protocol.messages import (
    WAIT_ALL,
    WAIT_SESSION,
    WAIT_SOME,
    CloseSession,
    SubmitCommit,
    UnkeepObjects,
    Wait,
    WaitDone,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from rain.client.client import Client
    from rain.client.connection import Connection
    from rain.client.core import Reply
    from rain.common.data_instance import DataInstance
    from rain.protocol.messages import Message

_CLOSED = "Session is closed"


class Session:
    """A session; made by `Client.new_session`.

    Things are kept in the order of their ids, so the number of a task or object tells whether it is submitted
    (`< _submitted`) or known to be finished (`< _settled`).

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
        self, client: Client | None, session_id: int, default: bool = False, *, name: str = "Unnamed Session"
    ) -> None:
        self.active = True
        self.client = client
        self.session_id = session_id
        self.spec = SessionSpec(name=name)
        self._lock = threading.Lock()
        self._submitting = threading.Lock()
        self._things: list[Task | DataObject] = []
        self._submitted = FIRST_ID
        self._settled = FIRST_ID
        self._noted: list[Task | DataObject] = []
        self._templates: dict[bytes, int] = {}
        self._static_data: dict[Any, DataObject] = {}
        if default:
            self.set_as_default()

    @property
    def name(self) -> str:
        """The name given to `new_session`."""
        return self.spec.name

    @property
    def task_count(self) -> int:
        """Number of unsubmitted tasks."""
        return sum(isinstance(thing, Task) for thing in self._unsubmitted())

    @property
    def dataobj_count(self) -> int:
        """Number of unsubmitted data objects."""
        return sum(isinstance(thing, DataObject) for thing in self._unsubmitted())

    def _unsubmitted(self) -> list[Task | DataObject]:
        with self._lock:
            return self._things[self._submitted - FIRST_ID :]

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
            self._things = []
            self._noted = []
            self._static_data = {}
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
            known = self._things
            number = FIRST_ID + len(known)
            for thing in things:
                thing._session = self
                thing._number = number
                number += 1
            known.extend(things)

    def _task(self, number: int) -> Task | None:
        """This client's handle of a task, None if it has none."""
        position = number - FIRST_ID
        with self._lock:
            thing = self._things[position] if 0 <= position < len(self._things) else None
        return thing if isinstance(thing, Task) else None

    def keep_all(self) -> None:
        """Set the keep flag of all unsubmitted objects."""
        for thing in self._unsubmitted():
            if isinstance(thing, DataObject):
                thing._keep = True

    # --- talking to the server ----------------------------------------------------------------------

    def _connected(self) -> Connection:
        if self.client is None:
            raise RainException("This session has no client; it only serves to construct graphs")
        self._check_open()
        return self.client._connection_or_raise()

    def _raise_failure(self, reply: Reply | Failure) -> Reply:
        if isinstance(reply, Failure):
            raise to_exception(reply, self._task(reply.task))
        return reply

    def _ask(self, make: Callable[[int], Message], what: str) -> Reply:
        connection = self._connected()
        return self._raise_failure(connection.ask(make, what, session=self.session_id))

    def _wait_for(self, make: Callable[[int], Message], what: str, timeout: float | None) -> Reply:
        connection = self._connected()
        return self._raise_failure(connection.wait(make, what, session=self.session_id, timeout=timeout))

    def submit(self) -> None:
        """Send all unsubmitted tasks and objects; returns when the server has accepted them all.

        Raises:
            TaskException: the session has failed; nothing was submitted.
            InvalidRequestError: the server refuses; nothing was submitted.
            RainConnectionError: the connection is lost.
        """
        connection = self._connected()
        with self._submitting:
            things = self._unsubmitted()
            if not things and self._submitted == FIRST_ID:
                return
            packer = SubmitPacker(self, self._templates)
            last: tuple[Message, ...] = ()
            try:
                for message in packer.messages(things):
                    if last:
                        connection.post(*last)
                    last = (message,)
            except BaseException:
                self._discard(connection)
                raise
            # Whether the server took it must be known, so Ctrl-C waits for the answer.
            with InterruptGuard():
                reply = connection.ask(
                    lambda seq: SubmitCommit(seq, self.session_id, discard=False),
                    f"submitting {len(things)} tasks and objects to session {self.session_id}",
                    session=self.session_id,
                    before=last,
                )
                self._raise_failure(reply)
                self._templates |= packer.new_templates
                with self._lock:
                    self._submitted += len(things)

    def _discard(self, connection: Connection) -> None:
        with suppress(RainException):
            connection.ask(
                lambda seq: SubmitCommit(seq, self.session_id, discard=True),
                f"taking back a submit to session {self.session_id}",
            )

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
        things = self._submitted_items(items)
        self._wait_for(
            lambda seq: Wait(seq, self.session_id, WAIT_ALL, _numbers(things)),
            f"waiting for {_names(things)}",
            timeout,
        )
        self._note_finished(things)

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
        things = self._submitted_items(items) + self._submitted_items(dataobjs)
        self._check_open()
        reply = self._wait_for(
            lambda seq: Wait(seq, self.session_id, WAIT_SOME if things else WAIT_ALL, _numbers(things)),
            f"waiting for one of {_names(things)}",
            timeout,
        )
        assert isinstance(reply, WaitDone)
        finished = set(reply.ids)
        found = list({thing._number: thing for thing in things if thing._number in finished}.values())
        self._note_finished(found)
        tasks = [thing for thing in found if isinstance(thing, Task)]
        return tasks, [thing for thing in found if isinstance(thing, DataObject)]

    def wait_all(self, timeout: float | None = None, check: bool = True) -> None:
        """Wait until no unfinished task is left in the session, over all submits.

        Args:
            timeout: seconds; 0 polls once, None waits without limit.
            check: of no effect in a session that fails as a whole.

        Raises:
            RainTimeoutError: `timeout` seconds are over.
            TaskException: the session has failed.
        """
        self._connected()
        submitted = self._submitted
        if submitted == FIRST_ID:
            return
        self._wait_for(
            lambda seq: Wait(seq, self.session_id, WAIT_SESSION, array("I")),
            f"waiting for all tasks of session {self.session_id}",
            timeout,
        )
        with self._lock:
            self._settled = max(self._settled, submitted)
            noted, self._noted = self._noted, []
            for thing in noted:
                if thing._own_state != DataObjectState.removed or isinstance(thing, Task):
                    thing._own_state = None

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
            self._ask(
                lambda seq: UnkeepObjects(seq, self.session_id, _numbers(submitted)),
                f"unkeeping {_names(submitted)}",
            )
        for dataobj in objects:
            dataobj._keep = False

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

    def _note_finished(self, things: Iterable[Task | DataObject]) -> None:
        for thing in things:
            self._note(thing)
            if isinstance(thing, Task):
                thing._own_state = TaskState.finished
            else:
                thing._own_state = DataObjectState.finished

    def _note(self, thing: Task | DataObject) -> None:
        """The thing gets a state of its own, which a later `wait_all` takes away."""
        if thing._own_state is None:
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


def _numbers(things: Iterable[Task | DataObject]) -> array[int]:
    return array("I", [thing._number for thing in things])


def _names(things: list[Any]) -> str:
    shown = ", ".join(repr(thing) for thing in things[:3])
    return f"{shown} and {len(things) - 3} more" if len(things) > 3 else shown or "nothing"


__all__ = [
    "Session",
    "SessionBinder",
    "get_active_session",
    "global_session_pop",
    "global_session_push",
]
