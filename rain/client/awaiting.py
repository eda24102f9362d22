"""`await` on tasks, data objects and task arrays: in any asyncio loop, which is not blocked meanwhile."""

from __future__ import annotations

import asyncio
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rain.client.array_results import BATCH, check_kept, question, take
from rain.client.core import result_of
from rain.client.fetch import Fetch
from rain.client.results import objects_of, prepare, result_from
from rain.protocol.messages import WAIT_ALL, ObjectsFetched, Wait

if TYPE_CHECKING:
    from rain.client.array import TaskArray
    from rain.client.connection import Question
    from rain.client.core import Reply, Request
    from rain.client.data import DataObject
    from rain.client.session import Session
    from rain.client.task import Task


async def result_of_thing(thing: Task | DataObject) -> Any:
    """As `thing.result()`. Cancelling it does not cancel the task."""
    session = thing._session
    prepare(thing)
    await submit(session, thing._number)
    objects = objects_of(thing)
    if not objects:
        numbers = array("I", [thing._number])
        make = lambda seq: Wait(seq, session.session_id, WAIT_ALL, numbers)  # noqa: E731
        await answer(session, (make, f"waiting for {thing!r}"))
        return None
    fetch = Fetch(session, list(objects))
    while not fetch.is_complete:
        reply = await answer(session, fetch.question())
        assert isinstance(reply, ObjectsFetched)
        if _is_whole(reply):
            fetch.take(reply)
        else:
            await asyncio.to_thread(fetch.take, reply)
    return result_from(thing, fetch.instances)


async def result_of_array(array_: TaskArray) -> list[Any]:
    """As `array.result()`."""
    if not array_._is_submitted:
        array_._set_keep(True)
    check_kept(array_)
    await submit(array_._session, array_._first)
    values: list[Any] = []
    while len(values) < len(array_):
        indices = range(len(values), min(len(values) + BATCH, len(array_)))
        reply = await answer(array_._session, question(array_, indices))
        assert isinstance(reply, ObjectsFetched)
        if _is_whole(reply):
            values += take(array_, indices, reply)
        else:
            values += await asyncio.to_thread(take, array_, indices, reply)
    return values


async def submit(session: Session, number: int) -> None:
    """Submit the session if what has this number is not submitted."""
    if number >= session._submitted:
        await asyncio.sleep(0)  # others that were awaited at the same time mark theirs as kept first
    if number >= session._submitted:
        await asyncio.to_thread(session.submit)


async def answer(session: Session, asked: Question) -> Reply:
    """Ask the server. When this coroutine is cancelled, the server forgets the question."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    def on_done(request: Request) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(wake)

    connection = session._connected()
    make, what = asked
    request = connection.listen(make, what, session=session.session_id, on_done=on_done)
    try:
        await done
    finally:
        if not request.done:
            connection.drop(request)
    return session._raise_failure(result_of(request))


def _is_whole(reply: ObjectsFetched) -> bool:
    """Whether no value must be read from elsewhere."""
    return bool(reply.values) and None not in reply.values
