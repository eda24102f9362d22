"""What sessions of both clients have in common: the graph being built, and what is known of the submitted part."""

from __future__ import annotations

import threading
from array import array
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar
from weakref import WeakSet

from rain.client.active import clear_default, global_session_push, leave, set_default
from rain.client.array import TaskArray
from rain.client.asking import ask, submit
from rain.client.background import forget_dropped
from rain.client.data import DataObject, to_dataobj
from rain.client.deadlines import in_seconds
from rain.client.failures import blame, to_exception
from rain.client.fetch import fetch_values
from rain.client.front import NoFront
from rain.client.handles import WEAK_TYPES
from rain.client.progress import with_bar
from rain.client.registry import Registry
from rain.client.states import ask_counts
from rain.client.task import Task
from rain.client.updates import update_things
from rain.client.waiting import cancel_tasks, names_of, numbers_of, wait_for_all, wait_for_session, wait_for_some
from rain.common.attributes import SessionSpec
from rain.common.errors import RainException, SessionException
from rain.common.failure import Failure
from rain.common.ids import FIRST_ID
from rain.common.lines import one_line
from rain.protocol.messages import CloseSession, UnkeepObjects

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path
    from typing import Self

    from rain.client.array_results import Batches
    from rain.client.client_base import BaseClient
    from rain.client.core import Reply
    from rain.client.deadlines import Timeout
    from rain.client.front import Front, SubmitFront
    from rain.client.graph import Graph
    from rain.client.registry import Item
    from rain.client.shape import TaskShape
    from rain.common.data_instance import DataInstance
    from rain.common.states import TaskState

    Items = Task | DataObject | Iterable[Task | DataObject]

T = TypeVar("T")
S = TypeVar("S", bound="BaseSession")

_CLOSED = "Session is closed"


class BaseSession:
    """A session of either client.

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

    _is_asynchronous: ClassVar[bool]

    def __init__(
        self,
        client: BaseClient[Any] | None,
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
        self._registry = Registry()
        self._submitted = FIRST_ID
        self._has_staged = False
        self._settled = FIRST_ID
        self._noted: list[Task | DataObject] = []
        self._noted_weakly: WeakSet[Task | DataObject] = WeakSet()
        self._front: SubmitFront = NoFront() if client is None else client._front
        self._dropped: deque[tuple[int, int, int]] = deque() if client is None else client._dropped
        self._was_cancelled = False
        self._last_counts: Counter[str] | None = None
        self._known_failure = ""
        self._templates: dict[bytes, int] = {}
        self._static_data: dict[Any, DataObject] = {}
        self._coded_shapes: dict[TaskShape, TaskShape] = {}
        #: inputs of calls that need nothing but the function, by what stands for it; shared by these calls
        self._functions: dict[Any, tuple[DataObject]] = {}
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
    def _has_unsubmitted(self) -> bool:
        with self._lock:
            return self._registry.next > self._submitted

    @property
    def _things(self) -> list[Task | DataObject]:
        """All tasks and objects of which there are handles, in the order of their ids."""
        with self._lock:
            return self._registry.live()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} id={self.session_id} {self.name!r}{'' if self.active else ' closed'}>"

    def _repr_html_(self) -> str:
        from rain.client.html import session_html

        return session_html(self)

    # --- being active -----------------------------------------------------------------------------

    def bind_only(self) -> SessionBinder[Self]:
        """A context manager that makes the session active without closing it at the end."""
        return SessionBinder(self)

    def set_as_default(self) -> None:
        """Make it the default session of the process."""
        set_default(self)

    async def _end(self, timeout: float | None) -> None:
        """Close within `timeout` seconds; None = the timeout of the client. 0 tells the server nothing."""
        with self._lock:
            if not self.active:
                return
            self.active = False
            self._registry = Registry()
            self._noted = []
            self._static_data, self._large_constants, self._functions = {}, {}, {}
        clear_default(self)
        if self.client is None:
            return
        self.client._forget_session(self)
        forget_dropped(self._dropped, self.session_id)
        if timeout is None or timeout > 0:
            with suppress(RainException):
                await self._front.ask(
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

    def _fix_id(self, thing: Task | DataObject) -> None:
        """Somebody looks at the id of what is not submitted: it stays as it is."""
        with self._lock:
            self._registry.fix(thing._number)

    def _register_array(self, made: TaskArray) -> None:
        with self._lock:
            if not self.active:
                raise SessionException(_CLOSED)
            made._first = self._registry.add_array(made, 2 * len(made))

    def _find(self, number: int, *, make: bool = True) -> Task | DataObject | None:
        """This client's handle of a task or object, None if it has none; make: make that of a member of an array."""
        with self._lock:
            return self._registry.find(number, make=make)

    def _adopt(self, number: int, made: Task | DataObject) -> Task | DataObject:
        """Know a handle made of what the server told; returns the one there is already, if there is one."""
        with self._lock:
            return self._registry.adopt(self, number, made)

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

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What a blocking method returns: the result, or in an asyncio session a coroutine that gives it."""
        raise NotImplementedError

    def _iterate(self, batches: Batches) -> Any:
        """An iterator over the values of a task array, plain or asynchronous."""
        raise NotImplementedError

    @property
    def _front_in_loop(self) -> Front:
        """What coroutines in any loop are to use."""
        raise NotImplementedError

    def _check_connected(self) -> None:
        """Raises:
        RainException: there is no client, or it is closed.
        SessionException: the session is closed.
        """
        if self.client is None:
            raise RainException("This session has no client; it only serves to construct graphs")
        self._check_open()
        self.client._check_usable()

    def _raise_failure(self, reply: Reply | Failure) -> Reply:
        if isinstance(reply, Failure):
            task = self._task(reply.task)
            blame(reply, task)
            if reply.kind in ("task", "session", "internal"):
                self._known_failure = self._known_failure or one_line(reply.message)
            raise to_exception(reply, task)
        return reply

    # --- what may take time: coroutines over the front -------------------------------------------

    async def _submit_all(self) -> None:
        await submit(self._front, self)

    async def _wait(self, items: Items, timeout: Timeout, progress: bool = False) -> None:
        limit = in_seconds(timeout)
        things = self._submitted_items(items)
        if not (progress and things):
            await wait_for_all(self._front, self, things, limit)
            return
        title = repr(things[0]) if len(things) == 1 else f"{len(things)} tasks and objects"
        numbers = numbers_of(things)
        await with_bar(self, title, numbers, lambda front: wait_for_all(front, self, things, limit))

    async def _wait_some(
        self, items: Items, dataobjs: Items, timeout: Timeout
    ) -> tuple[list[Task], list[DataObject]]:
        limit = in_seconds(timeout)
        things = self._submitted_items(items) + self._submitted_items(dataobjs)
        return await wait_for_some(self, things, limit)

    async def _wait_all(self, timeout: Timeout, check: bool, progress: bool = False) -> None:
        limit = in_seconds(timeout)
        self._check_connected()
        if self._submitted == FIRST_ID:
            return
        if not progress:
            await wait_for_session(self._front, self, limit, check)
            return
        title = f"Session {self.session_id} {self.name!r}"
        await with_bar(self, title, (), lambda front: wait_for_session(front, self, limit, check))

    async def _cancel(self, timeout: Timeout) -> int:
        self._check_connected()
        if self._submitted == FIRST_ID:
            return 0
        what = f"cancelling the tasks of session {self.session_id}"
        return len(await cancel_tasks(self, array("I"), what, timeout))

    async def _counts(self) -> Counter[str]:
        if self._submitted == FIRST_ID:
            return Counter()
        return await ask_counts(self._front, self)

    def _note_counts(self, counts: Counter[str], failure: str) -> None:
        """What the server told, for those who only look at the session."""
        self._last_counts = counts
        self._known_failure = self._known_failure or failure

    async def _tasks(self, name: str | None, state: TaskState | str | None) -> list[Task]:
        from rain.client.finding import find_tasks

        return await find_tasks(self, name, state)

    async def _objects(self, label: str | None, kept: bool | None) -> list[DataObject]:
        from rain.client.finding import find_objects

        return await find_objects(self, label, kept)

    async def _fetch(
        self, obj: DataObject | Task, to: str | Path | None = None, timeout: Timeout = None
    ) -> DataInstance:
        (instance,) = await fetch_values(self._front, self, [to_dataobj(obj)], in_seconds(timeout), to)
        return instance

    async def _fetch_each(self, objects: Iterable[DataObject]) -> list[DataInstance]:
        return await fetch_values(self._front, self, list(objects), None)

    async def _unkeep(self, objs: DataObject | Iterable[DataObject]) -> None:
        objects = [objs] if isinstance(objs, DataObject) else list(objs)
        for dataobj in objects:
            if not isinstance(dataobj, DataObject):
                raise TypeError(f"unkeep() takes data objects, not {dataobj!r}")
            self._check_own(dataobj)
            if not dataobj._keep:
                raise RainException(f"{dataobj!r} is not kept")
        submitted = [dataobj for dataobj in objects if dataobj._is_submitted]
        if submitted:
            await self._front.to_its_end(self._unkeep_submitted(submitted))
        for dataobj in objects:
            dataobj._keep = False

    async def _unkeep_submitted(self, objects: list[DataObject]) -> None:
        await self._tell_unkept(numbers_of(objects), f"unkeeping {names_of(objects)}")
        for dataobj in objects:
            dataobj._keep = False

    async def _tell_unkept(self, numbers: array[int], what: str) -> None:
        await ask(self._front, self, lambda seq: UnkeepObjects(seq, self.session_id, numbers), what)

    async def _update(self, items: Items) -> None:
        await update_things(self, self._submitted_items(items))

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


class SessionBinder(Generic[S]):
    """`with session.bind_only() as session:` makes a session active without closing it."""

    def __init__(self, session: S) -> None:
        self.session = session

    def __enter__(self) -> S:
        global_session_push(self.session)
        return self.session

    def __exit__(self, *exc_info: object) -> None:
        leave(self.session)
