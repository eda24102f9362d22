"""Values of task arrays: fetched by ranges of ids, decoded without a handle per member."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, TypeAlias

from rain.client.asking import submit, wait_for
from rain.client.deadlines import deadline_of, remaining
from rain.client.fetch import fetch_results
from rain.client.front import run
from rain.client.progress import with_bar
from rain.client.specs import PICKLE5_INFO
from rain.client.states import ask_states
from rain.common.content_type import decode_value, has_codec
from rain.common.data_type import DataType
from rain.common.errors import RainException
from rain.common.packing import unpack
from rain.common.pickle5 import decode_pickle5
from rain.common.states import DataObjectState, TaskState
from rain.protocol.messages import WAIT_ALL, WAIT_SOME, FetchObjects, ObjectsFetched, Wait, WaitDone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from rain.client.array import TaskArray
    from rain.client.front import Front

BATCH = 10_000
"""Members that are waited for, or fetched, by one request."""
WINDOW = 1000
"""Members looked at to find those that are finished."""
SMALL = 64 << 10
"""Smaller values come with the answer, unless it is full."""


def check_kept(array_: TaskArray) -> None:
    """Raises:
    RainException: the values cannot be fetched, since the array is not kept.
    """
    if not array_._keep:
        raise RainException(f"The values of {array_!r} are not kept, so there is no result to give")


async def values_of(front: Front, array_: TaskArray, timeout: float | None) -> list[Any]:
    """All values, in order; see `TaskArray.result`."""
    deadline = deadline_of(timeout)
    values: list[Any] = []
    if not array_._is_submitted:
        array_._set_keep(True)
    check_kept(array_)
    while len(values) < len(array_):
        indices = range(len(values), min(len(values) + BATCH, len(array_)))
        values += await fetch(front, array_, indices, remaining(deadline))
    return values


async def fetch(front: Front, array_: TaskArray, indices: Sequence[int], timeout: float | None) -> list[Any]:
    """The values of the first members of `indices`, at least of one; submits the session first if needed."""
    session = array_._session
    numbers = array("I", [array_._first + index for index in indices])
    make = lambda seq: FetchObjects(seq, session.session_id, numbers, [])  # noqa: E731
    what = f"fetching {len(numbers)} results of {array_!r}"
    reply = await wait_for(front, session, make, what, timeout, submit=not array_._is_submitted)
    assert isinstance(reply, ObjectsFetched)
    return await _take(front, array_, indices, reply)


async def _take(front: Front, array_: TaskArray, indices: Sequence[int], reply: ObjectsFetched) -> list[Any]:
    """Decode the values in an answer; large ones are read from a worker. Ends before a value for which the answer had
    no room, but not before the first."""
    values: list[Any] = []
    static = array_._shape.outputs[0]
    nothing: list[bytes | None] = [None] * len(indices)
    columns = (indices, reply.values or nothing, reply.infos or nothing, reply.sizes)
    for index, value, info, size in zip(*columns, strict=True):
        if value is None and values and size < SMALL:
            break
        if value is None or static.data_type is DataType.DIRECTORY:
            values += await fetch_results(front, array_._session, [array_._output(index)], None)
        elif info == PICKLE5_INFO:
            values.append(decode_pickle5(value))
        else:
            content_type = (unpack(info).get("content_type") if info else None) or static.content_type
            values.append(decode_value(value, content_type) if has_codec(content_type) else value)
    return values


async def wait_for_members(array_: TaskArray, timeout: float | None, progress: bool) -> None:
    """See `TaskArray.wait`."""
    array_._check_submitted()
    if not (progress and len(array_)):
        await _wait_for_members(array_._session._front, array_, timeout)
        return
    title = f"{len(array_)} tasks {array_._shape.options.name or ''}"
    numbers = array_._task_range()
    await with_bar(array_._session, title, numbers, lambda front: _wait_for_members(front, array_, timeout))


async def _wait_for_members(front: Front, array_: TaskArray, timeout: float | None) -> None:
    deadline = deadline_of(timeout)
    session = array_._session
    for start in range(0, len(array_), BATCH):
        numbers = array_._task_numbers(start, min(start + BATCH, len(array_)))
        make = lambda seq, ids=numbers: Wait(seq, session.session_id, WAIT_ALL, ids)  # noqa: E731
        await wait_for(front, session, make, f"waiting for {array_!r}", remaining(deadline))
    array_._take_states(bytes([TaskState.finished]) * len(array_))


class OrderedBatches:
    """The values in order, as soon as each and all before it are there."""

    def __init__(self, front: Front, array_: TaskArray) -> None:
        self._front = front
        self._array = array_
        self._position = 0

    async def more(self) -> list[Any]:
        """The next values, at least one; nothing at the end."""
        array_, position = self._array, self._position
        await _submit(self._front, array_)
        if position == len(array_):
            return []
        stop = min(position + WINDOW, len(array_))
        states = await ask_states(self._front, array_._session, array_._output_numbers(position, stop))
        finished = next((k for k, state in enumerate(states) if state != DataObjectState.finished), len(states))
        values = await fetch(self._front, array_, range(position, position + max(1, finished)), None)
        self._position += len(values)
        return values


class UnorderedBatches:
    """The values in the order in which they are finished, of those that may run at about the same time."""

    def __init__(self, front: Front, array_: TaskArray) -> None:
        self._front = front
        self._array = array_
        self._waiting = dict.fromkeys(range(len(array_)))
        self._found: list[int] = []

    async def more(self) -> list[Any]:
        """The next values, at least one; nothing at the end."""
        array_ = self._array
        await _submit(self._front, array_)
        if not self._waiting:
            return []
        if not self._found:
            self._found = await self._finished()
        values = await fetch(self._front, array_, self._found, None)
        for index in self._found[: len(values)]:
            del self._waiting[index]
        self._found = self._found[len(values) :]
        return values

    async def _finished(self) -> list[int]:
        session, first = self._array._session, self._array._first
        window = array("I", [first + index for index, _ in zip(self._waiting, range(BATCH), strict=False)])
        make = lambda seq: Wait(seq, session.session_id, WAIT_SOME, window)  # noqa: E731
        reply = await wait_for(self._front, session, make, f"waiting for one of {self._array!r}", None)
        assert isinstance(reply, WaitDone)
        return [number - first for number in reply.ids]


async def _submit(front: Front, array_: TaskArray) -> None:
    if not array_._is_submitted:
        array_._set_keep(True)
        await submit(front, array_._session)
    check_kept(array_)


Batches: TypeAlias = "OrderedBatches | UnorderedBatches"


def iterate(batches: Batches) -> Iterator[Any]:
    """The values, one by one, in a synchronous session."""
    while values := run(batches.more()):
        yield from values


async def iterate_in_loop(batches: Batches) -> AsyncIterator[Any]:
    """The values, one by one, in an asyncio session."""
    while values := await batches.more():
        for value in values:
            yield value
