"""Values of task arrays: fetched by ranges of ids, decoded without a handle per member."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from rain.client.results import deadline_of, decoded, remaining
from rain.client.states import ask_states
from rain.common.content_type import decode_value, has_codec
from rain.common.data_type import DataType
from rain.common.errors import RainException
from rain.common.packing import pack, unpack
from rain.common.pickle5 import decode_pickle5
from rain.common.states import DataObjectState
from rain.protocol.messages import WAIT_ALL, WAIT_SOME, FetchObjects, ObjectsFetched, Wait, WaitDone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rain.client.array import TaskArray
    from rain.client.connection import Question

BATCH = 10_000
"""Members that are waited for, or fetched, by one request."""
WINDOW = 1000
"""Members looked at to find those that are finished."""
SMALL = 64 << 10
"""Smaller values come with the answer, unless it is full."""

_PICKLE5 = pack({"content_type": "pickle5"})


def check_kept(array_: TaskArray) -> None:
    """Raises:
    RainException: the values cannot be fetched, since the array is not kept.
    """
    if not array_._keep:
        raise RainException(f"The values of {array_!r} are not kept, so there is no result to give")


def values_of(array_: TaskArray, timeout: float | None) -> list[Any]:
    """All values, in order; see `TaskArray.result`."""
    deadline = deadline_of(timeout)
    values: list[Any] = []
    if not array_._is_submitted:
        array_._set_keep(True)
    check_kept(array_)
    while len(values) < len(array_):
        values += fetch(array_, range(len(values), min(len(values) + BATCH, len(array_))), remaining(deadline))
    return values


def fetch(array_: TaskArray, indices: Sequence[int], timeout: float | None) -> list[Any]:
    """The values of the first members of `indices`, at least of one; submits the session first if needed."""
    session = array_._session
    make, what = question(array_, indices)
    reply = session._wait_for(make, what, timeout, submit=not array_._is_submitted)
    assert isinstance(reply, ObjectsFetched)
    return take(array_, indices, reply)


def question(array_: TaskArray, indices: Sequence[int]) -> Question:
    """The request for the values of members."""
    session, first = array_._session.session_id, array_._first
    numbers = array("I", [first + index for index in indices])
    return (lambda seq: FetchObjects(seq, session, numbers, [])), f"fetching {len(numbers)} results of {array_!r}"


def take(array_: TaskArray, indices: Sequence[int], reply: ObjectsFetched) -> list[Any]:
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
            (instance,) = array_._session._fetch_all([array_._output(index)])
            values.append(decoded(instance))
        elif info == _PICKLE5:
            values.append(decode_pickle5(value))
        else:
            content_type = (unpack(info).get("content_type") if info else None) or static.content_type
            values.append(decode_value(value, content_type) if has_codec(content_type) else value)
    return values


def wait_for(array_: TaskArray, timeout: float | None) -> None:
    """Until all members are finished."""
    deadline = deadline_of(timeout)
    session = array_._session
    for start in range(0, len(array_), BATCH):
        numbers = array_._task_numbers(start, min(start + BATCH, len(array_)))
        session._wait_for(
            lambda seq, ids=numbers: Wait(seq, session.session_id, WAIT_ALL, ids),  # type: ignore[misc]
            f"waiting for {array_!r}",
            remaining(deadline),
        )


def iterate_in_order(array_: TaskArray) -> Iterator[Any]:
    """The values in order, as soon as each and all before it are there."""
    _submit(array_)
    position = 0
    while position < len(array_):
        stop = min(position + WINDOW, len(array_))
        states = ask_states(array_._session, array_._output_numbers(position, stop))
        finished = next((k for k, state in enumerate(states) if state != DataObjectState.finished), len(states))
        for value in fetch(array_, range(position, position + max(1, finished)), None):
            yield value
            position += 1


def iterate_unordered(array_: TaskArray) -> Iterator[Any]:
    """The values in the order in which they are finished, of those that may run at about the same time."""
    _submit(array_)
    session, first = array_._session, array_._first
    waiting = dict.fromkeys(range(len(array_)))
    while waiting:
        window = array("I", [first + index for index, _ in zip(waiting, range(BATCH), strict=False)])
        reply = session._wait_for(
            lambda seq, ids=window: Wait(seq, session.session_id, WAIT_SOME, ids),  # type: ignore[misc]
            f"waiting for one of {array_!r}",
            None,
        )
        assert isinstance(reply, WaitDone)
        found = [number - first for number in reply.ids]
        while found:
            values = fetch(array_, found, None)
            for index in found[: len(values)]:
                del waiting[index]
            found = found[len(values) :]
            yield from values


def _submit(array_: TaskArray) -> None:
    if not array_._is_submitted:
        array_._set_keep(True)
        array_._session.submit()
    check_kept(array_)
