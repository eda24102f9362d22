"""Values of task arrays: fetched by ranges of ids, decoded without a handle per member."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, TypeAlias

from rain.client.asking import submit, wait_for
from rain.client.bulk import BATCH, Wanted, fetch_all, fetch_some
from rain.client.deadlines import deadline_of, in_seconds, remaining
from rain.client.front import run
from rain.client.progress import with_bar
from rain.client.states import ask_states
from rain.common.errors import RainException
from rain.common.states import DataObjectState, TaskState
from rain.protocol.messages import WAIT_ALL, WAIT_SOME, Wait, WaitDone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from rain.client.array import TaskArray
    from rain.client.deadlines import Timeout
    from rain.client.front import Front
    from rain.protocol.fields import Ids

WINDOW = 1000
"""Members looked at to find those that are finished."""


def check_kept(array_: TaskArray) -> None:
    """Raises:
    RainException: the values cannot be fetched, since the array is not kept.
    """
    if not array_._keep:
        raise RainException(f"The values of {array_!r} are not kept, so there is no result to give")


async def values_of(front: Front, array_: TaskArray, timeout: Timeout) -> list[Any]:
    """All values, in order; see `TaskArray.result`."""
    limit = in_seconds(timeout)
    submits = not array_._is_submitted
    if submits:
        array_._set_keep(True)
    check_kept(array_)
    if not len(array_):
        return []
    return await fetch_all(front, _wanted(array_, range(len(array_))), limit, submit=submits)


def _wanted(array_: TaskArray, indices: Sequence[int]) -> Wanted:
    first = array_._first
    numbers: Ids
    if isinstance(indices, range):
        numbers = range(first + indices.start, first + indices.stop)
    else:
        numbers = array("I", map(first.__add__, indices))
    static = array_._shape.outputs[0]
    output = lambda position: array_._output(indices[position])  # noqa: E731
    return Wanted(array_._session, numbers, lambda _: static, output, repr(array_))


async def wait_for_members(array_: TaskArray, timeout: Timeout, progress: bool) -> None:
    """See `TaskArray.wait`."""
    limit = in_seconds(timeout)
    array_._check_submitted()
    if not (progress and len(array_)):
        await _wait_for_members(array_._session._front, array_, limit)
        return
    title = f"{len(array_)} tasks {array_._shape.options.name or ''}"
    numbers = array_._task_range()
    await with_bar(array_._session, title, numbers, lambda front: _wait_for_members(front, array_, limit))


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
        indices = range(position, position + max(1, finished))
        values = await fetch_some(self._front, _wanted(array_, indices), None, submit=False)
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
        values = await fetch_some(self._front, _wanted(array_, self._found), None, submit=False)
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
