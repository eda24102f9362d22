"""Handles of delayed tasks, which the session holds only weakly once they are submitted.

When the last reference to a kept output, or to a task that stands for it, is gone, a finaliser notes the number; the
client's background thread unkeeps what was noted. Finalisers never talk to the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rain.client.data import CONSTANT, OUTPUT, DataObject, output_object
from rain.client.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.client.array import TaskArray
    from rain.client.base import BaseSession
    from rain.client.shape import ObjectShape, TaskShape
    from rain.client.site import Site


class CallTask(Task):
    """A call of a Python function.

    There are no handles of the outputs until somebody asks for one; till then the task stands for them.
    """

    __slots__ = ("_keeps", "_made", "_value_number")

    _OUTPUT: ClassVar[type[DataObject]] = DataObject

    _args: bytes
    _value_number: int
    """Of the first output."""
    _made: tuple[DataObject, ...] | None
    _keeps: bool
    """Whether the outputs are kept, as long as there are no handles."""

    @property
    def _outputs(self) -> tuple[DataObject, ...]:  # type: ignore[override]
        made = self._made
        return self._make_outputs() if made is None else made

    def _make_outputs(self) -> tuple[DataObject, ...]:
        session = self._session
        with session._lock:
            made = self._made
            if made is None:
                shapes = self._shape.outputs
                if len(shapes) == 1:
                    made = self._made = (self._make_output(shapes[0], self._value_number),)
                else:
                    made = self._made = tuple(map(self._make_output, shapes, self._output_numbers()))
                if self._number < session._submitted:
                    session._registry.know(self, made)
            return made

    def _make_output(self, shape: ObjectShape, number: int) -> DataObject:
        output = _new_object(self._OUTPUT)
        output._shape = shape
        output._role = OUTPUT
        output._data = None
        output._keep = self._keeps
        output._own_spec = None
        output._own_state = None
        output._told = None
        output._session = self._session
        output._number = number
        return output

    def _output_numbers(self) -> range:
        first = self._value_number
        return range(first, first + len(self._shape.outputs))


class DelayedOutput(DataObject):
    """An output of a `DelayedTask`."""

    __slots__ = ()

    def __del__(self) -> None:
        session: BaseSession | None = getattr(self, "_session", None)
        if session is not None and self._keep and session.active and self._number < session._submitted:
            session._dropped.append((session.session_id, self._number, 1))


class DelayedTask(CallTask):
    """A call of a delayed function whose outputs are kept as long as somebody refers to them."""

    __slots__ = ()

    _OUTPUT = DelayedOutput

    def __del__(self) -> None:
        if self._made is None:
            session = self._session
            if session.active and self._number < session._submitted:
                session._dropped.append((session.session_id, self._value_number, len(self._shape.outputs)))


class ArrayTask(Task):
    """A member of a `TaskArray`, made on demand."""

    __slots__ = ("_array",)

    _array: TaskArray


class ArrayOutput(DataObject):
    """The output of an `ArrayTask`; the array knows whether it is kept."""

    __slots__ = ("_array",)

    _array: TaskArray

    @property
    def _keep(self) -> bool:
        return self._array._is_kept(self._number)

    @_keep.setter
    def _keep(self, keep: bool) -> None:
        self._array._keep_one(self._number, keep)


class FoundTask(Task):
    """A task that was found by `Session.tasks`; it can be found again."""

    __slots__ = ()


class FoundObject(DataObject):
    """A data object that was found by `Session.tasks` or `Session.objects`; dropping it unkeeps nothing."""

    __slots__ = ()


WEAK_TYPES: frozenset[type] = frozenset({DelayedTask, DelayedOutput, ArrayTask, ArrayOutput, FoundTask, FoundObject})
"""What a session does not hold once it is submitted."""
OWNED: frozenset[type] = frozenset({DelayedTask, DelayedOutput, ArrayOutput})
"""Handles that own a kept result."""
CALLS: frozenset[type] = frozenset({CallTask, DelayedTask})
_new_call = CallTask.__new__
_new_object = DataObject.__new__


def new_call(
    kind: type[CallTask],
    shape: TaskShape,
    args: bytes,
    inputs: tuple[DataObject | CallTask, ...],
    session: BaseSession,
    site: Site,
) -> CallTask:
    """Make and register a call; a `DelayedTask` keeps its outputs. The hot path of delayed and remote functions.

    Raises:
        SessionException: the session is closed.
    """
    task = _new_call(kind)
    task._made = ()
    task._shape = shape
    task._args = args
    task._inputs = inputs
    task._own_spec = None
    task._own_state = None
    task._info = None
    task._stack = site
    task._session = session
    task._keeps = kind is DelayedTask
    lock = session._lock
    lock.acquire()  # `with` takes twice as long
    try:
        if not session.active:
            session._check_open()
        session._registry.add_call(task)
    finally:
        lock.release()
    return task


def found_task(shape: TaskShape, inputs: tuple[DataObject, ...], outputs: tuple[DataObject, ...]) -> FoundTask:
    """A handle of a submitted task, for `Registry.adopt`."""
    task = FoundTask.__new__(FoundTask)
    task._shape = shape
    task._args = None
    task._inputs = inputs
    task._outputs = outputs
    task._own_spec = None
    task._own_state = None
    task._info = None
    task._stack = ()
    loosen_inputs((task,))
    return task


def found_object(shape: ObjectShape, *, keep: bool, made_by_task: bool) -> FoundObject:
    """A handle of a submitted data object, for `Registry.adopt`."""
    made = FoundObject.__new__(FoundObject)
    made._fill(shape, OUTPUT if made_by_task else CONSTANT)
    made._keep = keep
    return made


def loosen_inputs(tasks: Iterable[Task]) -> None:
    """Submitted tasks do not keep their inputs: handles that do are replaced by ones that do not."""
    loose: dict[DataObject | CallTask, DataObject | CallTask] = {}
    for task in tasks:
        inputs = task._inputs
        if not OWNED.isdisjoint(map(type, inputs)):
            for used in inputs:
                if used not in loose:
                    loose[used] = _loose(used) if type(used) in OWNED else used
            task._inputs = tuple([loose[used] for used in inputs])


def _loose(owner: DataObject | CallTask) -> DataObject:
    if isinstance(owner, DataObject):
        return _copy(owner)
    if owner._made is not None:
        return _copy(owner._made[0])
    made = output_object(owner._shape.outputs[0])
    made._session = owner._session
    made._number = owner._value_number
    made._keep = owner._keeps
    return made


def _copy(dataobj: DataObject) -> DataObject:
    made = output_object(dataobj._shape)
    made._session = dataobj._session
    made._number = dataobj._number
    made._keep = dataobj._keep
    made._own_spec = dataobj._own_spec
    made._own_state = dataobj._own_state
    made._told = dataobj._told
    return made
