"""What a submit would add to a graph, checked as a whole before anything is changed (spec 6.1).

All ids here are rows. Kept in columns indexed by `row - base`, like the graph itself: a submit of a million tasks
must not need a million objects to be checked.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.common.task_template import read_spec_map
from rain.protocol.messages import INLINE, KEEP, SAME, UPLOADED, SubmitChunk
from rain.server.core.graph import ABSENT, CONSTANT, MAX_ID, OBJECT, TASK
from rain.server.core.session import Session, Template
from rain.server.core.staging import InvalidSubmitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

HAS_DATA = INLINE | UPLOADED | SAME
_DECLARED = 64
"""The object has a row of its own in the columns of objects."""


class Plan:
    """A checked submit.

    Attributes:
        chunks: what was sent.
        templates: new ones.
        inputs: of each task, in the order of the chunks; equal neighbours are one tuple.
        constants: flags by id. specs, values: by id. same: the constant to which one is equal.
        highest: the largest new id.

    Raises:
        InvalidSubmitError: something is wrong with it.
    """

    def __init__(self, session: Session, chunks: list[SubmitChunk], id_of: Callable[[int], int]) -> None:
        """`id_of`: id of a row."""
        self._id_of = id_of
        self._session = session
        self._graph = session.graph
        self.chunks = chunks
        self.templates = _templates(chunks)
        self.inputs: list[tuple[int, ...]] = []
        self.constants: dict[int, int] = {}
        self.specs: dict[int, bytes] = {}
        self.values: dict[int, bytes] = {}
        self.same: dict[int, int] = {}
        self.highest = 0
        self._base = 1
        self._find_bounds()
        size = self.highest + 1 - self._base
        self._kind = bytearray(size)
        self._flags = bytearray(size)
        self._producer = array("I", bytes(4 * size))
        self._level = array("I", bytes(4 * size))
        for chunk in chunks:
            self._read_objects(chunk)
            self._read_tasks(chunk)
        self._check_data()
        self._check_inputs()

    def level(self, task: int) -> int:
        """Depth of a new task in the graph."""
        return self._level[task - self._base] - 1

    def flags(self, obj: int) -> int:
        """Flags of a new object."""
        return self._flags[obj - self._base]

    def tasks(self) -> Iterable[int]:
        """Ids of the new tasks, in the order of the chunks."""
        for chunk in self.chunks:
            yield from chunk.tasks

    def objects(self) -> Iterable[int]:
        """Ids of the new objects, rising."""
        base = self._base
        return [base + position for position, kind in enumerate(self._kind) if kind == OBJECT]

    def _name(self, number: int) -> str:
        return f"{self._session.number}/{self._id_of(number)}"

    # --- ids ---

    def _find_bounds(self) -> None:
        columns = [column for chunk in self.chunks for column in (chunk.tasks, chunk.outputs, chunk.objects) if column]
        if not columns:
            return
        known = len(self._graph)
        limit = min(MAX_ID, known + 2 * sum(map(len, columns)) + (1 << 20))
        self._base = min(map(min, columns))
        self.highest = max(map(max, columns))
        if self._base < 1 or self.highest >= limit:
            wrong = self._base if self._base < 1 else self.highest
            raise InvalidSubmitError(f"id {self._name(wrong)} is out of range")
        if self._base < known:
            kinds = self._graph.kind
            for column in columns:
                for number in column:
                    if number < known and kinds[number] != ABSENT:
                        raise InvalidSubmitError(f"id {self._name(number)} is already in use")

    def _is_new_object(self, number: int) -> bool:
        position = number - self._base
        return 0 <= position < len(self._kind) and self._kind[position] == OBJECT

    # --- chunks ---

    def _read_objects(self, chunk: SubmitChunk) -> None:
        if len(chunk.objects) != len(chunk.object_flags):
            raise InvalidSubmitError("columns of data objects differ in length")
        values = iter(chunk.values)
        for row, number in enumerate(chunk.objects):
            position = number - self._base
            if self._kind[position] == TASK or self._flags[position] & _DECLARED:
                raise InvalidSubmitError(f"id {self._name(number)} is used twice")
            flags = chunk.object_flags[row]
            self._kind[position] = OBJECT
            self._flags[position] |= (flags & (KEEP | HAS_DATA)) | _DECLARED
            spec = chunk.object_specs[row] if chunk.object_specs else None
            if spec is not None:
                self.specs[number] = self._checked_spec(number, spec)
            if flags & HAS_DATA:
                self.constants[number] = flags
            if flags & (INLINE | SAME):
                value = next(values, None)
                if value is None:
                    raise InvalidSubmitError(f"data object {self._name(number)} has no data")
                if flags & SAME:
                    self.same[number] = self._source_of(number, value)
                else:
                    self.values[number] = value
            elif flags & UPLOADED:
                received, total = self._session.uploads.get(self._id_of(number), (0, -1))
                if received != total:
                    raise InvalidSubmitError(f"data object {self._name(number)} was not uploaded completely")

    def _checked_spec(self, number: int, spec: bytes) -> bytes:
        try:
            read_spec_map(spec)
        except ValueError as error:
            raise InvalidSubmitError(f"the spec of data object {self._name(number)}: {error}") from error
        return spec

    def _source_of(self, number: int, packed: bytes) -> int:
        """The constant whose value the object shares; it comes before it, or its data is still here."""
        source = int.from_bytes(packed, "little")
        graph = self._graph
        known = graph.is_object(source) and graph.flags[source] & CONSTANT and graph.at_server(source)
        if not known and not self.constants.get(source, 0) & (INLINE | UPLOADED):
            name, other = self._name(number), self._name(source)
            raise InvalidSubmitError(f"data object {name} is equal to {other}, which has no data here")
        return source

    def _read_tasks(self, chunk: SubmitChunk) -> None:
        count, inputs = len(chunk.tasks), chunk.inputs.tolist()
        columns = (chunk.task_templates, chunk.input_counts, chunk.output_counts)
        if any(len(column) != count for column in columns) or len(chunk.args) not in (0, count):
            raise InvalidSubmitError("columns of tasks differ in length")
        if sum(chunk.input_counts) != len(inputs) or sum(chunk.output_counts) != len(chunk.outputs):
            raise InvalidSubmitError("columns of tasks differ in length")
        if len(chunk.output_flags) != len(chunk.outputs):
            raise InvalidSubmitError("columns of tasks differ in length")
        known_templates = len(self._session.templates) + len(self.templates)
        kinds, base, append = self._kind, self._base, self.inputs.append
        begin = 0
        last: tuple[int, ...] = self.inputs[-1] if self.inputs else ()
        for row, number in enumerate(chunk.tasks):
            if kinds[number - base]:
                raise InvalidSubmitError(f"id {self._name(number)} is used twice")
            kinds[number - base] = TASK
            if chunk.task_templates[row] >= known_templates:
                raise InvalidSubmitError(f"task {self._name(number)} names an unknown template")
            end = begin + chunk.input_counts[row]
            own = tuple(inputs[begin:end])
            if own != last:
                last = own
            append(last)
            begin = end
        self._read_outputs(chunk)

    def _read_outputs(self, chunk: SubmitChunk) -> None:
        kinds, flags, producer, base = self._kind, self._flags, self._producer, self._base
        outputs, kept = chunk.outputs, chunk.output_flags
        at = 0
        for row, number in enumerate(chunk.tasks):
            for position in range(at, at + chunk.output_counts[row]):
                obj = outputs[position] - base
                if kinds[obj] == TASK:
                    raise InvalidSubmitError(f"id {self._name(outputs[position])} is used twice")
                if producer[obj]:
                    raise InvalidSubmitError(f"data object {self._name(outputs[position])} is the output of two tasks")
                kinds[obj] = OBJECT
                producer[obj] = number
                flags[obj] |= kept[position] & KEEP
            at += chunk.output_counts[row]

    def _check_data(self) -> None:
        for number in self.constants:
            if self._producer[number - self._base]:
                raise InvalidSubmitError(f"data object {self._name(number)} has both data and a producer")
        for chunk in self.chunks:
            for number in chunk.objects:
                if number not in self.constants and not self._producer[number - self._base]:
                    raise InvalidSubmitError(f"data object {self._name(number)} has neither data nor a producer")

    # --- inputs ---

    def _check_inputs(self) -> None:
        """Every input exists, and the new part is acyclic; sets the levels."""
        base, levels = self._base, self._level
        late: dict[int, tuple[int, ...]] = {}
        last: tuple[int, ...] | None = None
        level = 0
        for task, inputs in zip(self.tasks(), self.inputs, strict=True):
            if inputs is not last or level < 0:
                last = inputs
                level = self._level_after(task, inputs)
            if level < 0:
                late[task] = inputs
            else:
                levels[task - base] = level + 1
        if late:
            self._order_late(late)

    def _level_after(self, task: int, inputs: tuple[int, ...]) -> int:
        """Level of a task with these inputs, -1 if one of them is made by a task that has none yet."""
        base, kinds, levels, producer = self._base, self._kind, self._level, self._producer
        level = 0
        for obj in inputs:
            position = obj - base
            if 0 <= position < len(kinds) and kinds[position] == OBJECT:
                made_by = producer[position]
                if made_by:
                    after = levels[made_by - base]
                    if not after:
                        return -1
                    if after > level:
                        level = after
            else:
                level = max(level, self._level_after_known(task, obj))
        return level

    def _level_after_known(self, task: int, obj: int) -> int:
        """Level that an input of an earlier submit implies."""
        graph = self._graph
        if not graph.is_object(obj):
            raise InvalidSubmitError(f"input {self._name(obj)} of task {self._name(task)} does not exist")
        if not graph.is_kept(obj):
            raise InvalidSubmitError(
                f"input {self._name(obj)} of task {self._name(task)} comes from an earlier submit and is not kept: "
                "call keep() before its submit"
            )
        made_by = graph.producer[obj] if not graph.flags[obj] & CONSTANT else 0
        return graph.level[made_by] + 1 if made_by else 0

    def _order_late(self, late: dict[int, tuple[int, ...]]) -> None:
        """Levels of tasks that come before their inputs' producers; refuses cycles."""
        base = self._base
        waiting: dict[int, int] = {}
        followers: dict[int, list[int]] = {}
        for task, inputs in late.items():
            before = {self._producer[obj - base] for obj in inputs if self._is_new_object(obj)} & late.keys()
            waiting[task] = len(before)
            for number in before:
                followers.setdefault(number, []).append(task)
        free = [task for task in late if not waiting[task]]
        placed = 0
        while free:
            task = free.pop()
            placed += 1
            self._level[task - base] = self._level_after(task, late[task]) + 1
            for follower in followers.get(task, ()):
                waiting[follower] -= 1
                if not waiting[follower]:
                    free.append(follower)
        if placed < len(late):
            stuck = min(number for number, count in waiting.items() if count)
            raise InvalidSubmitError(f"task {self._name(stuck)} is part of a cycle")


def _templates(chunks: list[SubmitChunk]) -> list[Template]:
    try:
        return [Template(packed) for chunk in chunks for packed in chunk.templates]
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidSubmitError(f"a task template is not well formed: {error}") from error
