"""What the server says of sessions and tasks, asked for in portions, as rows for the verbs that show them."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from rain.cli import values
from rain.cli.output import format_time
from rain.common.errors import InvalidRequestError
from rain.common.lines import one_line
from rain.common.states import TaskState
from rain.common.structs import dataclass
from rain.protocol.messages import ListObjects, ListSessions, ListTasks, ObjectList, SessionList, TaskList

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rain.cli.connection import Talk
    from rain.cli.values import Selector


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task. worker: where it is or was, or empty; start: unix seconds, 0 if unknown; duration: seconds, or 0."""

    session: int
    number: int
    state: TaskState
    name: str
    type: str
    worker: str
    start: float
    duration: float

    @property
    def id(self) -> str:
        """`1/12`."""
        return f"{self.session}/{self.number}"

    def document(self) -> dict[str, Any]:
        """For JSON: what is not known is null."""
        return {
            "task": self.id,
            "session": self.session,
            "id": self.number,
            "name": self.name or None,
            "type": self.type,
            "state": self.state.name,
            "worker": self.worker or None,
            "start": timestamp(self.start) if self.start else None,
            "duration": self.duration if self.start or self.duration else None,
        }


def tasks_between(
    talk: Talk, session: int, first: int = 0, last: int = values.LARGEST_ID, states: Iterable[TaskState] = ()
) -> Iterator[TaskRow]:
    """Tasks of a session whose ids are in `first` to `last`, rising; only those in `states` if there are any.

    Raises:
        RainTimeoutError: there are more than can be told in time.
        InvalidRequestError: the session is gone or failed.
    """
    wanted = bytes(states)
    complaint = f"{talk.server.address} has more tasks to list than fit into {talk.timeout:g} s"
    while True:
        portion = partial(ListTasks, session=session, first=first, last=last, states=wanted, name="")
        found = talk.ask(portion, TaskList, complaint)
        columns = found.ids, found.states, found.names, found.types, found.workers, found.starts, found.durations
        for number, state, *rest in zip(*columns, strict=True):
            yield TaskRow(session, number, TaskState(state), *rest)
        if found.next <= first:
            return
        first = found.next


def selected_tasks(talk: Talk, wanted: Selector, states: Iterable[TaskState] = ()) -> list[TaskRow]:
    """The tasks that a selector names; only those in `states` if there are any.

    Raises:
        InvalidRequestError: it names ids, and none of them is a task; its session is not open.
    """
    chosen = frozenset(states)
    with told_why(talk, wanted.session):
        rows = list(tasks_between(talk, wanted.session, wanted.first, wanted.last))
    if not rows and wanted.last < values.LARGEST_ID:
        what = _why_no_task(talk, wanted) if wanted.is_single else "there are no tasks with these ids"
        raise InvalidRequestError(f"{wanted.text}: {what}; `rain task list --session {wanted.session}` lists them")
    return [row for row in rows if not chosen or row.state in chosen]


def _why_no_task(talk: Talk, wanted: Selector) -> str:
    """Of an id without a task: that of an object is easily taken for it."""
    asked = wanted.session, wanted.first, wanted.first, 0, ""
    found = talk.ask(lambda seq: ListObjects(seq, *asked), ObjectList)
    if not found.ids:
        return "there is no such task"
    if not found.producers[0]:
        return "this is a data object, a constant; tasks are meant here"
    return f"this is a data object, made by task {wanted.session}/{found.producers[0]}; tasks are meant here"


@contextmanager
def told_why(talk: Talk, number: int) -> Iterator[None]:
    """Around requests about a session: when one is refused since the session failed or is gone, say so.

    Raises:
        InvalidRequestError: in place of the one inside.
    """
    try:
        yield
    except InvalidRequestError:
        entry = session_entry(talk, number)
        if entry["state"] != "failed":
            raise
        reason = one_line(entry["error"] or "no reason is known")
        raise InvalidRequestError(
            f"session {number} failed, and its tasks are gone: {reason}; see `rain session info {number}`"
        ) from None


def session_entry(talk: Talk, number: int) -> dict[str, Any]:
    """All about a session.

    Raises:
        InvalidRequestError: there is none with this number.
    """
    found = talk.ask(lambda seq: ListSessions(seq, number), SessionList).sessions
    entry: dict[str, Any] = found["sessions"][0]
    return entry


def session_entries(talk: Talk) -> list[dict[str, Any]]:
    """All sessions."""
    entries: list[dict[str, Any]] = talk.ask(lambda seq: ListSessions(seq, 0), SessionList).sessions["sessions"]
    return entries


def timestamp(seconds: float) -> str:
    """Unix seconds as RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def created(entry: Mapping[str, Any]) -> float:
    """When a session was opened, by the clock of this machine; unix seconds."""
    return time.time() - float(entry["age"])


def format_created(entry: Mapping[str, Any]) -> str:
    """The same for people."""
    return format_time(created(entry))


def format_counts(counts: Mapping[str, int]) -> str:
    """Numbers by state: `3 finished, 1 running`."""
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "-"
