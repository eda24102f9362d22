"""Task arrays: many tasks made of one function and columns of arguments, as one object."""

from __future__ import annotations

import weakref
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Any, cast, overload

from rain.client.array_calls import all_terminal, cancel_members, count_members, unkeep_members
from rain.client.array_results import OrderedBatches, UnorderedBatches, values_of, wait_for_members
from rain.client.blocks import block_messages, parts
from rain.client.data import OUTPUT, DataObject, output_object
from rain.client.handles import ArrayOutput, ArrayTask
from rain.client.site import here
from rain.common.errors import RainException
from rain.common.states import DataObjectState, TaskState
from rain.protocol.messages import KEEP, SubmitChunk

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Generator, Iterator, Sequence

    from rain.client.base import BaseSession
    from rain.client.session import Session
    from rain.client.shape import TaskShape
    from rain.client.task import Task
    from rain.protocol.messages import SubmitBlock

MEMBERS_PER_CHUNK = 5000
"""Members whose tasks and outputs fill one chunk of a submit."""


class TaskArray:
    """The tasks of one `session.map`; made by that only. In an AsyncSession the methods that talk to the server return
    coroutines, and `iter_results` an asynchronous iterator.

    The ids are those of the n outputs, then those of the n tasks. Handles of single members are made when asked for.

    Args:
        session: theirs.
        shape: what the members have in common.
        function: the function, input 0 of each member.
        packed: the packed arguments of each member.
        input_counts, inputs: number of further inputs per member and their ids, flattened; None if no member has any.
        held: handles of these inputs, referred to until submit.
        keep: whether the outputs are kept.
    """

    def __init__(
        self,
        session: BaseSession,
        shape: TaskShape,
        function: DataObject,
        packed: Sequence[bytes],
        input_counts: array[int] | None,
        inputs: array[int] | None,
        held: list[Any],
        keep: bool,
    ) -> None:
        self._session = session
        self._shape = shape
        self._function = function
        self._packed = packed
        self._input_counts = input_counts
        self._inputs = inputs
        self._offsets: list[int] | None = None
        self._held = held
        self._keep = keep
        self._others: set[int] = set()  # positions of outputs whose keep flag is not that of the array
        self._states: bytes | None = None
        self._last_counts: Counter[str] | None = None
        self._members: weakref.WeakValueDictionary[int, ArrayTask] = weakref.WeakValueDictionary()
        self._outputs: weakref.WeakValueDictionary[int, ArrayOutput] = weakref.WeakValueDictionary()
        self._stack = here()
        self._first = 0
        session._register_array(self)

    def __del__(self) -> None:
        if self._first and self._packed and self._session.active and self._is_submitted:
            session = self._session
            for start, count in self._kept_parts():
                session._dropped.append((session.session_id, self._first + start, count))

    @property
    def session(self) -> Session:
        """The session it belongs to; of an asyncio client an AsyncSession."""
        return cast("Session", self._session)

    @property
    def _is_submitted(self) -> bool:
        return self._first < self._session._submitted or not self._packed

    def _task_range(self) -> range:
        first = self._first + len(self._packed)
        return range(first, first + len(self._packed))

    def _task_numbers(self, start: int = 0, stop: int | None = None) -> array[int]:
        return array("I", self._task_range()[start:stop])

    def _output_numbers(self, start: int, stop: int) -> array[int]:
        return array("I", range(self._first + start, self._first + stop))

    # --- members ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [self._member(position) for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        return self._member(position)

    def __iter__(self) -> Iterator[Task]:
        return map(self._member, range(len(self)))

    def _member(self, index: int) -> ArrayTask:
        task = self._members.get(index)
        if task is None:
            task = self._members[index] = self._make_member(index)
        return task

    def _output(self, index: int) -> ArrayOutput:
        output = self._outputs.get(index)
        if output is None:
            output = self._outputs[index] = self._make_output(index)
        return output

    def _make_output(self, index: int) -> ArrayOutput:
        output: ArrayOutput = ArrayOutput.__new__(ArrayOutput)
        output._shape = self._shape.outputs[0]
        output._role = OUTPUT
        output._data = None
        output._own_spec = None
        output._own_state = self._state_of_output(index)
        output._info = None
        output._array = self
        output._session = self._session
        output._number = self._first + index
        return output

    def _make_member(self, index: int) -> ArrayTask:
        task: ArrayTask = ArrayTask.__new__(ArrayTask)
        task._shape = self._shape
        task._args = self._packed[index]
        task._inputs = (self._function, *self._inputs_of(index))
        task._outputs = (self._output(index),)
        task._own_spec = None
        task._own_state = None if self._states is None else TaskState(self._states[index])
        task._info = None
        task._stack = self._stack
        task._array = self
        task._session = self._session
        task._number = self._first + len(self._packed) + index
        return task

    def _state_of_output(self, index: int) -> DataObjectState | None:
        if self._states is None:
            return None
        is_good = self._states[index] == TaskState.finished
        return DataObjectState.finished if is_good else DataObjectState.aborted

    def _inputs_of(self, index: int) -> list[DataObject]:
        if self._inputs is None:
            return []
        offsets = self._input_offsets()
        numbers = self._inputs[offsets[index] : offsets[index + 1]]
        return [self._input(number) for number in numbers]

    def _input(self, number: int) -> DataObject:
        known = self._session._find(number)
        if isinstance(known, DataObject):
            return known
        bare = output_object(self._shape.outputs[0])
        bare._session = self._session
        bare._number = number
        return bare

    def _find(self, number: int, *, make: bool) -> Task | DataObject | None:
        """The handle of a task or output by its number."""
        is_task, index = divmod(number - self._first, len(self._packed))
        if make:
            return self._member(index) if is_task else self._output(index)
        return self._members.get(index) if is_task else self._outputs.get(index)

    def _renumber(self, changed: dict[int, int]) -> None:
        """What the members have as inputs has other numbers, in a session that is not submitted."""
        if self._inputs is not None:
            self._inputs = array("I", [changed.get(number, number) for number in self._inputs])

    def _take_states(self, states: bytes) -> None:
        """All members are terminal, in these states."""
        self._states = states
        for index, task in list(self._members.items()):
            task._own_state = TaskState(states[index])
        for index, output in list(self._outputs.items()):
            output._own_state = self._state_of_output(index)

    def __reduce__(self) -> tuple[Any, ...]:
        return list, ([self._output(index) for index in range(len(self))],)

    def __repr__(self) -> str:
        name = self._shape.options.name
        return f"<TaskArray of {len(self)} tasks {name!r} first id={self._session.session_id}/{self._first}>"

    def _repr_html_(self) -> str:
        from rain.client.html import array_html

        return array_html(self)

    # --- submitting -------------------------------------------------------------------------------

    def _messages(self, template: int, max_size: int) -> Iterator[SubmitBlock | SubmitChunk]:
        """All members, in messages of at most about `max_size` bytes of arguments.

        They travel as blocks if they differ in nothing but their arguments.
        """
        if self._inputs is None and not self._others:
            session, inputs = self._session.session_id, array("I", [self._function._number])
            yield from block_messages(
                session, template, self._first, self._packed, inputs, keep=self._keep, max_size=max_size
            )
        else:
            for start, packed in parts(self._packed, MEMBERS_PER_CHUNK, max_size):
                yield self._chunk(start, template, packed)

    def _chunk(self, start: int, template: int, packed: Sequence[bytes]) -> SubmitChunk:
        count = len(packed)
        counts, inputs = self._input_columns(start, start + count)
        flags = bytearray([KEEP if self._keep else 0]) * count
        for index in self._others:
            if start <= index < start + count:
                flags[index - start] ^= KEEP
        return SubmitChunk(
            self._session.session_id,
            templates=[],
            tasks=self._task_numbers(start, start + count),
            task_templates=array("I", [template]) * count,
            args=list(packed),
            input_counts=counts,
            inputs=inputs,
            output_counts=array("I", [1]) * count,
            outputs=self._output_numbers(start, start + count),
            output_flags=bytes(flags),
            objects=array("I"),
            object_flags=b"",
            object_specs=[],
            values=[],
        )

    def _input_columns(self, start: int, stop: int) -> tuple[array[int], array[int]]:
        """Counts and ids of the inputs of some members, the function included."""
        function = array("I", [self._function._number])
        if self._inputs is None or self._input_counts is None:
            return array("I", [1]) * (stop - start), function * (stop - start)
        width = self._input_counts[0]
        if width * len(self) == len(self._inputs) and self._input_counts.count(width) == len(self):
            inputs = function * ((stop - start) * (width + 1))
            for k in range(width):
                inputs[k + 1 :: width + 1] = self._inputs[start * width + k : stop * width : width]
            return array("I", [width + 1]) * (stop - start), inputs
        offsets = self._input_offsets()
        inputs = array("I")
        for index in range(start, stop):
            inputs += function + self._inputs[offsets[index] : offsets[index + 1]]
        return array("I", [1 + own for own in self._input_counts[start:stop]]), inputs

    def _input_offsets(self) -> list[int]:
        if self._offsets is None:
            self._offsets = list(accumulate(self._input_counts or (), initial=0))
        return self._offsets

    # --- what can be done -------------------------------------------------------------------------

    def result(self, timeout: float | str | None = None) -> list[Any]:
        """The values of all members, in order; submits the session first if needed.

        Raises:
            TaskException: a member failed.
            RainTimeoutError: `timeout` seconds are over.
            RainException: the array is submitted and not kept, or a value cannot be decoded.
        """
        return self._session._run(values_of(self._session._front, self, timeout))

    def iter_results(self, ordered: bool = True) -> Iterator[Any]:
        """The values as they come, or in the order in which they come; submits the session first if needed.

        Raises:
            TaskException: a member failed; when its turn comes.
        """
        batches = OrderedBatches if ordered else UnorderedBatches
        return cast("Iterator[Any]", self._session._iterate(batches(self._session._front, self)))

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return values_of(self._session._front_in_loop, self, None).__await__()

    def wait(self, timeout: float | str | None = None, *, progress: bool = False) -> None:
        """Wait until all members are finished; `progress`: with a progress bar, see `Session.progress`.

        Raises:
            RainException: it is not submitted; a bar is wanted and tqdm is not installed.
            TaskException: a member failed.
            RainTimeoutError: `timeout` seconds are over.
        """
        return self._session._run(wait_for_members(self, timeout, progress))

    def done(self) -> bool:
        """Whether all members are terminal according to the server; False when unsubmitted."""
        return self._session._run(all_terminal(self._session._front, self))

    def counts(self) -> Counter[str]:
        """Number of members per name of their state; nothing when unsubmitted."""
        return self._session._run(count_members(self._session._front, self))

    def cancel(self, timeout: float | str | None = None) -> int:
        """Stop all unfinished members; returns their number.

        Raises:
            RainException: it is not submitted.
            RainTimeoutError: `timeout` seconds are over and something of them still runs.
        """
        return self._session._run(cancel_members(self, timeout))

    def keep(self) -> None:
        """Set the keep flag of all outputs.

        Raises:
            RainException: it is submitted.
        """
        if self._packed and self._is_submitted:
            raise RainException(f"Cannot keep {self!r}: it is submitted; call keep() before submit")
        self._set_keep(True)

    def unkeep(self) -> None:
        """Take the keep flag of all outputs away; the server is told now if it is submitted.

        Raises:
            RainException: it is not kept.
            TaskException: the session has failed; the outputs stay kept.
        """
        return self._session._run(unkeep_members(self))

    def _set_keep(self, keep: bool) -> None:
        self._keep = keep
        self._others.clear()

    def _is_kept(self, number: int) -> bool:
        """Whether the output with this number is kept."""
        return self._keep is not (number - self._first in self._others)

    def _keep_one(self, number: int, keep: bool) -> None:
        """Set the keep flag of one output."""
        if keep is self._keep:
            self._others.discard(number - self._first)
        else:
            self._others.add(number - self._first)

    def _kept_parts(self) -> Iterator[tuple[int, int]]:
        """The outputs that are kept: position of the first and number of consecutive ones."""
        if not self._keep:
            yield from ((index, 1) for index in sorted(self._others))
            return
        start = 0
        for index in [*sorted(self._others), len(self._packed)]:
            if start < index:
                yield start, index - start
            start = index + 1

    def _check_submitted(self) -> None:
        if not self._is_submitted:
            raise RainException(f"{self!r} is not submitted; call session.submit() first")
