"""From tasks, data objects and task arrays to the messages of a submit."""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import TYPE_CHECKING, cast

from rain.client.alike import AlikeTasks
from rain.client.array import TaskArray
from rain.client.data import CONSTANT, DECLARED, DataObject, to_dataobj
from rain.client.handles import CallTask
from rain.client.linking import LinkedTasks
from rain.client.specs import edited_task, object_shape
from rain.client.task import Task
from rain.common.errors import InvalidRequestError
from rain.protocol.messages import INLINE, KEEP, SAME, UPLOADED, ConstantPiece, SubmitBlock, SubmitChunk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rain.client.base import BaseSession
    from rain.client.registry import Submitted
    from rain.client.shape import ObjectShape, TaskShape

MAX_NODES = 10_000
"""Tasks and objects of a chunk."""
MAX_CHUNK = 8 << 20
"""Bytes of a chunk."""
MAX_INLINE = 1 << 20
"""Larger constants travel in pieces."""
SHARED_FROM = 64 << 10
"""Equal constants of at least so many bytes are uploaded once per session."""
PIECE = 8 << 20
"""Bytes of a piece."""
_NODE_COST = 48


class _Columns:
    """A chunk being filled."""

    def __init__(self) -> None:
        self.templates: list[bytes] = []
        self.tasks = array("I")
        self.task_templates = array("I")
        self.args: list[bytes | None] = []
        self.input_counts = array("I")
        self.inputs = array("I")
        self.output_counts = array("I")
        self.outputs = array("I")
        self.output_flags = bytearray()
        self.objects = array("I")
        self.object_flags = bytearray()
        self.object_specs: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.size = 0
        self.nodes = 0

    def to_message(self, session: int) -> SubmitChunk:
        return SubmitChunk(
            session,
            self.templates,
            self.tasks,
            self.task_templates,
            self.args if any(self.args) else [],
            self.input_counts,
            self.inputs,
            self.output_counts,
            self.outputs,
            bytes(self.output_flags),
            self.objects,
            bytes(self.object_flags),
            self.object_specs if any(self.object_specs) else [],
            self.values if any(value is not None for value in self.values) else [],
        )


class SubmitPacker:
    """Packs one submit of a session.

    Args:
        session: the session; things of others are refused.
        templates: number of each template of the session; new ones are added to `new_templates` only.
    """

    def __init__(self, session: BaseSession, templates: dict[bytes, int]) -> None:
        self._session = session
        self._known = templates
        self.new_templates: dict[bytes, int] = {}
        self._by_shape: dict[TaskShape, int] = {}
        self._undefined: dict[int, DataObject] = {}
        self._columns = _Columns()
        self._large: set[int] = set()

    def messages(
        self, things: Iterable[Submitted]
    ) -> Iterator[SubmitChunk | SubmitBlock | ConstantPiece]:
        """The messages of the submit, in the order to be sent; the commit is the caller's.

        Raises:
            InvalidRequestError: a task uses an object of another session.
            ValueError, TypeError, RainException: an edited spec holds something that is not allowed.
        """
        for thing in things:
            columns = self._columns
            if columns.nodes >= MAX_NODES or columns.size >= MAX_CHUNK:
                yield self._flush()
            if isinstance(thing, Task):
                args = thing._args
                if args is not None and columns.nodes and columns.size + len(args) > MAX_CHUNK:
                    yield self._flush()
                self._add_task(thing)
            elif isinstance(thing, LinkedTasks):
                templates = {shape: self._number_of(shape.packed) for shape in thing.shapes}
                if columns.nodes or columns.templates:
                    yield self._flush()
                yield from thing.messages(self._session.session_id, templates)
            elif isinstance(thing, TaskArray):
                template = self._number_of(thing._shape.packed)
                if columns.nodes or columns.templates:
                    yield self._flush()
                yield from thing._messages(template, MAX_CHUNK)
            elif isinstance(thing, AlikeTasks):
                template = self._number_of(thing.sample._shape.packed)
                _check_own(thing.sample)
                if columns.nodes or columns.templates:
                    yield self._flush()
                yield from thing.messages(self._session.session_id, template, MAX_CHUNK)
            elif thing._role == CONSTANT:
                yield from self._add_constant(thing)
            elif thing._role == DECLARED:
                self._undefined[thing._number] = thing
        for dataobj in self._undefined.values():
            # The server refuses it and says why: an object needs data or a producer.
            self._add_object(dataobj, object_shape(dataobj), 0)
        if self._columns.nodes:
            yield self._flush()

    def _flush(self) -> SubmitChunk:
        message = self._columns.to_message(self._session.session_id)
        self._columns = _Columns()
        return message

    def _add_task(self, task: Task) -> None:
        columns, session = self._columns, self._session
        shape, args = task._shape, task._args
        if task._own_spec is not None:
            shape, args = edited_task(task)
        template = self._by_shape.get(shape)
        if template is None:
            template = self._by_shape[shape] = self._number_of(shape.packed)
        columns.tasks.append(task._number)
        columns.task_templates.append(template)
        columns.args.append(args)
        inputs = task._inputs
        columns.input_counts.append(len(inputs))
        for used in inputs:
            if used._session is not session:
                raise _foreign(task, to_dataobj(used), "input")
            columns.inputs.append(used._value_number)
        if isinstance(task, CallTask) and task._made is None:
            numbers = task._output_numbers()
            columns.output_counts.append(len(numbers))
            columns.outputs.extend(numbers)
            columns.output_flags += bytes([KEEP if task._keeps else 0]) * len(numbers)
        else:
            self._add_outputs(task, shape)
        columns.nodes += 1 + columns.output_counts[-1]
        columns.size += _NODE_COST + 4 * len(inputs) + (len(args) if args is not None else 0)

    def _add_outputs(self, task: Task, shape: TaskShape) -> None:
        columns, session, outputs = self._columns, self._session, task._outputs
        columns.output_counts.append(len(outputs))
        for position, dataobj in enumerate(outputs):
            if dataobj._session is not session:
                raise _foreign(task, dataobj, "output")
            columns.outputs.append(dataobj._number)
            columns.output_flags.append(KEEP if dataobj._keep else 0)
            if dataobj._role == DECLARED:
                self._undefined.pop(dataobj._number, None)
            if dataobj._own_spec is not None:
                self._add_edited(dataobj, shape.outputs[position])

    def _number_of(self, packed: bytes) -> int:
        number = self._known.get(packed)
        if number is None:
            number = self.new_templates.get(packed)
        if number is None:
            number = self.new_templates[packed] = len(self._known) + len(self.new_templates)
            self._columns.templates.append(packed)
            self._columns.size += len(packed)
        return number

    def _add_edited(self, dataobj: DataObject, prototype: ObjectShape) -> None:
        shape = object_shape(dataobj)
        if shape.packed != prototype.packed:
            self._add_object(dataobj, shape, 0)

    def _add_constant(self, dataobj: DataObject) -> Iterator[SubmitChunk | ConstantPiece]:
        data = cast(bytes, dataobj._data)
        source = self._equal_constant(dataobj, data) if len(data) >= SHARED_FROM else None
        if source is not None:
            self._add_object(dataobj, object_shape(dataobj), SAME)
            self._columns.values.append(source._number.to_bytes(4, "little"))
            return
        if len(data) > MAX_INLINE:
            yield from self._pieces(dataobj._number, data)
            self._add_object(dataobj, object_shape(dataobj), UPLOADED)
            return
        if self._columns.nodes and self._columns.size + len(data) > MAX_CHUNK:
            yield self._flush()
        self._add_object(dataobj, object_shape(dataobj), INLINE)
        self._columns.values.append(data)
        self._columns.size += len(data)

    def _equal_constant(self, dataobj: DataObject, data: bytes) -> DataObject | None:
        """A constant with the same value which the server has: of this submit, or kept."""
        digest = blake2b(data, digest_size=16).digest()
        known = self._session._large_constants.get(digest)
        if known is not None and (known._number in self._large or (known._is_submitted and known.is_kept())):
            return known
        self._session._large_constants[digest] = dataobj
        self._large.add(dataobj._number)
        return None

    def _add_object(self, dataobj: DataObject, shape: ObjectShape, flags: int) -> None:
        columns = self._columns
        spec = shape.packed
        columns.objects.append(dataobj._number)
        columns.object_flags.append(flags | (KEEP if dataobj._keep else 0))
        columns.object_specs.append(spec)
        columns.nodes += 1
        columns.size += _NODE_COST + len(spec)

    def _pieces(self, number: int, data: bytes) -> Iterator[ConstantPiece]:
        total = len(data)
        for offset in range(0, total, PIECE):
            yield ConstantPiece(self._session.session_id, number, offset, total, data[offset : offset + PIECE])


def _check_own(task: Task) -> None:
    for used in task._inputs:
        if used._session is not task._session:
            raise _foreign(task, to_dataobj(used), "input")


def _foreign(task: Task, dataobj: DataObject, role: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{role} {dataobj.id} of {task!r} belongs to session {dataobj._session.session_id}, "
        f"the task to session {task._session.session_id}; fetch the value and make a new data object of it"
    )
