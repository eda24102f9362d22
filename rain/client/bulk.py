"""Values of many results of a session, asked for by their ids in large pieces and decoded without a handle for each."""

from __future__ import annotations

from collections import deque
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from rain.client.asking import wait_for
from rain.client.deadlines import deadline_of, remaining
from rain.client.fetch import fetch_results
from rain.client.specs import PICKLE5_INFO
from rain.common.content_type import decode_value, has_codec
from rain.common.data_type import DataType
from rain.common.number_columns import column_values
from rain.common.packing import unpack
from rain.common.pickle5 import decode_pickle5, decode_pickle5_all
from rain.protocol.messages import FetchObjects, ObjectsFetched, ValuesFetched

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.client.base import BaseSession
    from rain.client.connection import Question
    from rain.client.core import Reply, Request
    from rain.client.data import DataObject
    from rain.client.front import Front
    from rain.client.shape import ObjectShape
    from rain.protocol.fields import Ids

BATCH = 10_000
"""Values that are asked for by one request."""
COLUMN_BATCH = 50_000
"""The same as long as they come as columns of numbers, which are short."""
AHEAD = 2
"""Further requests under way: while the client decodes an answer, the server makes the next."""
SMALL = 64 << 10
"""Smaller values come with the answer, unless it is full."""


class Wanted:
    """What is fetched.

    Args:
        session: theirs.
        numbers: ids of the outputs.
        shape: gives the static spec of one, by position.
        output: gives the handle of one, by position; for values that do not come with an answer.
        name: what they are, for error texts.
    """

    def __init__(
        self,
        session: BaseSession,
        numbers: Ids,
        shape: Callable[[int], ObjectShape],
        output: Callable[[int], DataObject],
        name: str,
    ) -> None:
        self.session = session
        self.numbers = numbers
        self._shape = shape
        self._output = output
        self._name = name

    def question(self, start: int, stop: int) -> Question:
        """The request for some of them."""
        session, numbers = self.session.session_id, self.numbers[start:stop]
        what = f"fetching {len(numbers)} results of {self._name}"
        return (lambda seq: FetchObjects(seq, session, numbers, [], joined=True)), what

    async def take(self, front: Front, start: int, reply: Reply) -> list[Any]:
        """Decode the values of an answer, from position `start` on; large ones are read from a worker. Ends before a
        value for which the answer had no room, but not before the first."""
        if isinstance(reply, ValuesFetched):
            if reply.column:
                return column_values(reply.column, reply.values)
            if reply.infos == [PICKLE5_INFO]:
                return decode_pickle5_all(reply.values, reply.sizes)
            given, infos = _columns(reply)
        else:
            assert isinstance(reply, ObjectsFetched)
            nothing: list[bytes | None] = [None] * len(reply.sizes)
            given, infos = reply.values or nothing, reply.infos or nothing
        values: list[Any] = []
        for value, info, size in zip(given, infos, reply.sizes, strict=True):
            if value is None and values and size < SMALL:
                break
            if value is not None and info == PICKLE5_INFO:
                values.append(decode_pickle5(value))
                continue
            position = start + len(values)
            shape = self._shape(position)
            if value is None or shape.data_type is DataType.DIRECTORY:
                values += await fetch_results(front, self.session, [self._output(position)], None)
                continue
            content_type = (unpack(info).get("content_type") if info else None) or shape.content_type
            values.append(decode_value(value, content_type) if has_codec(content_type) else value)
        return values


def _columns(reply: ValuesFetched) -> tuple[list[bytes | None], list[bytes | None]]:
    """The values and their infos, one by one."""
    ends = list(accumulate(reply.sizes, initial=0))
    values: list[bytes | None] = [reply.values[start:end] for start, end in pairwise(ends)]
    infos = reply.infos or [None]
    return values, [infos[kind] for kind in reply.kinds or bytes(len(values))]


async def fetch_some(front: Front, wanted: Wanted, timeout: float | None, *, submit: bool) -> list[Any]:
    """The first values, at least one; with `submit` the session is submitted before."""
    return await wanted.take(front, 0, await _first_reply(front, wanted, timeout, submit=submit))


async def _first_reply(front: Front, wanted: Wanted, timeout: float | None, *, submit: bool) -> Reply:
    make, what = wanted.question(0, BATCH)
    return await wait_for(front, wanted.session, make, what, timeout, submit=submit)


async def fetch_all(front: Front, wanted: Wanted, timeout: float | None, *, submit: bool = False) -> list[Any]:
    """All values, in order."""
    deadline = deadline_of(timeout)
    session, count = wanted.session, len(wanted.numbers)
    values: list[Any] = []
    batch = BATCH
    if submit:
        reply = await _first_reply(front, wanted, timeout, submit=True)
        batch = _next_batch(reply)
        values = await wanted.take(front, 0, reply)
    session._check_connected()
    asked: deque[tuple[int, Request]] = deque()  # where each ends
    end = len(values)

    def ask(start: int, stop: int) -> tuple[int, Request]:
        make, what = wanted.question(start, stop)
        return stop, front.ask_ahead(make, what, session=session.session_id)

    try:
        while len(values) < count:
            stop, request = asked.popleft() if asked else ask(end, min(end + batch, count))
            end = max(end, stop)
            while end < count and len(asked) < AHEAD:
                asked.append(ask(end, min(end + batch, count)))
                end = asked[-1][0]
            reply = session._raise_failure(await front.finish(request, remaining(deadline)))
            batch = _next_batch(reply)
            values += await wanted.take(front, len(values), reply)
            if len(values) < stop:
                asked.appendleft(ask(len(values), stop))
    finally:
        for _, request in asked:
            front.drop(request)
    return values


def _next_batch(reply: Reply) -> int:
    """How many values to ask for, after this answer."""
    return COLUMN_BATCH if isinstance(reply, ValuesFetched) and reply.column else BATCH
