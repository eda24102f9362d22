"""Handles of delayed tasks, which the session holds only weakly once they are submitted.

When the last reference to a kept output is gone, its finaliser notes the number; the client's background thread unkeeps
what was noted. Finalisers never talk to the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.client.data import CONSTANT, OUTPUT, DataObject, output_object
from rain.client.task import Task

if TYPE_CHECKING:
    from rain.client.array import TaskArray
    from rain.client.base import BaseSession
    from rain.client.shape import ObjectShape, TaskShape
    from rain.client.site import Site


class DelayedTask(Task):
    """A call of a delayed function whose outputs are kept as long as somebody refers to them."""

    __slots__ = ()


class DelayedOutput(DataObject):
    """An output of a `DelayedTask`."""

    __slots__ = ()

    def __del__(self) -> None:
        session: BaseSession | None = getattr(self, "_session", None)
        if session is not None and self._keep and session.active and self._is_submitted:
            session._dropped.append((session.session_id, self._number, 1))


class ArrayTask(DelayedTask):
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
_OWNED = frozenset({DelayedOutput, ArrayOutput})
_new_task = DelayedTask.__new__
_new_output = DelayedOutput.__new__


def delayed_task(shape: TaskShape, args: bytes, inputs: tuple[DataObject, ...], site: Site) -> DelayedTask:
    """A task with kept outputs, not registered yet."""
    task: DelayedTask = _new_task(DelayedTask)
    task._shape = shape
    task._args = args
    task._inputs = inputs
    task._own_spec = None
    task._own_state = None
    task._info = None
    task._stack = site
    outputs = []
    for one in shape.outputs:
        output: DelayedOutput = _new_output(DelayedOutput)
        output._shape = one
        output._role = OUTPUT
        output._data = None
        output._keep = True
        output._own_spec = None
        output._own_state = None
        output._told = None
        outputs.append(output)
    task._outputs = tuple(outputs)
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
    loosen_inputs(task)
    return task


def found_object(shape: ObjectShape, *, keep: bool, made_by_task: bool) -> FoundObject:
    """A handle of a submitted data object, for `Registry.adopt`."""
    made = FoundObject.__new__(FoundObject)
    made._fill(shape, OUTPUT if made_by_task else CONSTANT)
    made._keep = keep
    return made


def loosen_inputs(task: Task) -> None:
    """A submitted task does not keep its inputs: handles that do are replaced by ones that do not."""
    inputs = task._inputs
    if not _OWNED.isdisjoint(map(type, inputs)):
        task._inputs = tuple(_loose(dataobj) if type(dataobj) in _OWNED else dataobj for dataobj in inputs)


def _loose(dataobj: DataObject) -> DataObject:
    made = output_object(dataobj._shape)
    made._session = dataobj._session
    made._number = dataobj._number
    made._keep = dataobj._keep
    made._own_spec = dataobj._own_spec
    made._own_state = dataobj._own_state
    made._told = dataobj._told
    return made
