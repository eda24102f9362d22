"""What the dashboard shows, made from the event log alone, so that an old log is shown like a running server.

`Overview` reads what is new in the log and takes it into columns (`session_view`); the answers are made from these. It
is used by one thread at a time. The answers are plain data for JSON; docs/design/dashboard.md tells more.
"""

from __future__ import annotations

import time
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

from rain.dashboard import graph, listing, progress, single_events, stream
from rain.dashboard.details import TaskDetails
from rain.dashboard.sessions import Sessions
from rain.dashboard.states import NUMBERS, STATES, UnknownError
from rain.dashboard.submits import add_templates, highest_template, submitted
from rain.dashboard.times import logged_at
from rain.dashboard.workers import Workers
from rain.eventlog.criteria import criteria_of
from rain.eventlog.reader import LoggedEvent
from rain.eventlog.records import (
    Event,
    MembersFinished,
    ObjectsUnkept,
    RunsFinished,
    RunsStarted,
    Submitted,
    TasksEnded,
)

if TYPE_CHECKING:
    from rain.dashboard.session_view import SessionView
    from rain.eventlog.reader import EventReader, StoredBatch
    from rain.eventlog.records import Record

Answer = dict[str, Any]

CATCH_UP_SECONDS = 0.2
"""Work of one call of `catch_up`, roughly."""
MOST_TASKS = 1000
"""Tasks of one answer."""
MOST_EVENTS = 1000
"""Events of one answer."""

_FIRST_WINDOW = 512
_LARGEST_PART = 4 * MOST_EVENTS


class Overview:
    """What is known of a cluster by its event log.

    Args:
        reader: of the log.

    Attributes:
        last_event: id of the last event that was taken in.
        last_time: when it was logged, in unix seconds; 0.0: none was.
        is_behind: the log holds more than was taken in by the last `catch_up`.
    """

    def __init__(self, reader: EventReader) -> None:
        self.last_event = 0
        self.last_time = 0.0
        self.is_behind = True
        self._reader = reader
        self._sessions = Sessions()
        self._workers = Workers()
        self._structure: graph.Structure | None = None

    # --- taking in ---

    def catch_up(self, seconds: float = CATCH_UP_SECONDS) -> int:
        """Take in what is new in the log, for about so many seconds; ask again while `is_behind`.

        Returns:
            Id of the last event that was taken in.

        Raises:
            RainException: the log is damaged or cannot be read.
        """
        deadline = time.monotonic() + seconds
        before = self.last_event
        self.is_behind = False
        for entry in self._reader.records(self.last_event):
            self._take(entry)
            if time.monotonic() > deadline:
                self.is_behind = self._reader.last_id() > self.last_event
                break
        if self.last_event != before:
            self._sessions.tidy()
        return self.last_event

    def _take(self, entry: StoredBatch | LoggedEvent) -> None:
        moment = logged_at(entry.time_text)
        if isinstance(entry, LoggedEvent):
            fields = entry.event
            self.apply(entry.id, moment, Event(fields["type"], _session_of(fields), fields))
            self.last_event = entry.id
        else:
            self.apply(entry.first, moment, entry.record)
            self.last_event = entry.first + entry.count - 1

    def apply(self, first_id: int, moment: float, record: Record) -> None:
        """Take in one record.

        Args:
            first_id: id of its first event. moment: when it was logged, in unix seconds. record: what happened.
        """
        self.last_event = max(self.last_event, first_id)
        self.last_time = max(self.last_time, moment)
        if isinstance(record, Event) and record.session is None:
            single_events.worker_event(self._workers, moment, record.type, record.fields)
            return
        assert record.session is not None
        session = self._sessions.get_or_add(record.session, moment)
        if session is None or session.is_reduced:
            return
        if isinstance(record, Event):
            single_events.session_event(session, self._workers, first_id, moment, record.type, record.fields)
        elif isinstance(record, Submitted):
            self._take_templates(session, record)
            submitted(session, first_id, moment, record)
        else:
            self._take_progress(session, first_id, moment, record)
        session.add_to_chart(moment)

    def _take_templates(self, session: SessionView, record: Submitted) -> None:
        known = len(session.names.leaves)
        add_templates(session, (packed for chunk in record.chunks for packed in chunk.templates))
        if known <= highest_template(record) and known == len(session.names.leaves):
            add_templates(session, self._reader.templates(session.number, known))

    def _take_progress(
        self,
        session: SessionView,
        first_id: int,
        moment: float,
        record: RunsStarted | RunsFinished | MembersFinished | TasksEnded | ObjectsUnkept,
    ) -> None:
        if isinstance(record, TasksEnded):
            progress.tasks_ended(session, moment, record)
            return
        if isinstance(record, ObjectsUnkept):
            progress.unkept(session, record)
            return
        worker = self._workers.number(record.worker)
        view = self._workers.get(record.worker, moment)
        if isinstance(record, RunsStarted):
            progress.runs_started(session, moment, record, worker)
        elif isinstance(record, RunsFinished):
            view.finished += len(record.tasks)
            progress.runs_finished(session, first_id, moment, record, worker)
        else:
            view.finished += len(record.durations)
            progress.members_finished(session, moment, record, worker)

    # --- answers ---

    def status(self) -> Answer:
        """Figures of the cluster: last_event, sessions, workers, tasks, cpus."""
        return {
            "last_event": self.last_event,
            "sessions": self._sessions.statuses(),
            "workers": self._workers.counts(),
            "tasks": dict(zip(STATES, self._sessions.task_counts(), strict=True)),
            "cpus": self._workers.cpus(),
        }

    def sessions(self) -> Answer:
        """The newest sessions, newest first."""
        return {"sessions": [session.summary() for session in self._sessions.newest()]}

    def session(self, n: int) -> Answer:
        """One session.

        Raises:
            UnknownError: there is none with this number.
        """
        session = self._sessions.known(n)
        return {
            **session.summary(),
            "on_failure": session.on_failure,
            "unprocessed": session.chart.points(),
            "bytes": session.size,
            "first_error": session.first_error,
        }

    def groups(self, n: int, prefix: str = "") -> Answer:
        """One level of the names of its tasks.

        Raises:
            UnknownError: there is no such session, or no task whose name begins so.
        """
        session = self._sessions.whole(n)
        return session.names.groups(listing.node_of(session, prefix))

    def tasks(self, n: int, group: str = "", state: str = "", after: int = 0, limit: int = 100) -> Answer:
        """Its tasks by rising ids.

        Args:
            n: number of the session. group: a name or the first parts of one; empty: all. state: empty: all.
            after: only larger ids. limit: at most so many.

        Raises:
            UnknownError: there is no such session, group or state.
        """
        session = self._sessions.whole(n)
        if state and state not in NUMBERS:
            raise UnknownError(f"there is no state {state!r}; there are {', '.join(STATES)}")
        limit = min(max(limit, 1), MOST_TASKS)
        return listing.tasks(session, group, NUMBERS.get(state, 0), after, limit, self._workers.names)

    def task(self, n: int, t: int) -> Answer:
        """All about one task.

        Raises:
            UnknownError: there is no such session or task.
            RainException: the log is damaged or cannot be read.
        """
        session = self._sessions.whole(n)
        if not session.state(t):
            raise UnknownError(f"session {n} has no task {t}")
        return TaskDetails(self._reader, session, t, self._workers.names).answer()

    def graph(self, n: int, limit: int = 2000) -> Answer:
        """Its tasks and objects, or groups of tasks if there are more than `limit`.

        Raises:
            UnknownError: there is no such session.
            RainException: the log is damaged or cannot be read.
        """
        session = self._sessions.whole(n)
        limit = min(limit, graph.MOST_NODES)
        if not graph.fits(session, limit):
            return graph.group_graph(session, limit)
        known = self._structure
        if known is None or (known.session, known.submitted) != (n, session.submitted):
            known = self._structure = graph.Structure(self._reader, session)
        return graph.task_graph(session, known, limit)

    def stream(
        self, n: int | None = None, begin: float | None = None, end: float | None = None, width: int = 800
    ) -> Answer:
        """Who ran what when, of one session or of all.

        Args:
            n: number of the session; None: all. begin, end: unix seconds; None: the whole span. width: pixels.

        Raises:
            UnknownError: there is no such session.
        """
        sessions = self._sessions.all_whole() if n is None else [self._sessions.whole(n)]
        return stream.stream(sessions, self._workers.names, self.last_time, begin, end, width, of_all=n is None)

    def workers(self) -> Answer:
        """Workers, connected ones first."""
        running: Counter[str] = Counter()
        for session in self._sessions.all_whole():
            numbers = session.runs.workers
            running.update(self._workers.names[numbers[session.numbers[task]]] for task in session.running)
        return self._workers.answer(running)

    def events(
        self, before: int | None = None, session: int | None = None, type: str | None = None, limit: int = 200
    ) -> Answer:
        """Events, newest first.

        Args:
            before: only smaller ids; None: from the newest on. session: None: of all. type: None: all; aliases of
                types are taken too. limit: at most so many.

        Raises:
            RainException: the log is damaged or cannot be read.
        """
        limit = min(max(limit, 1), MOST_EVENTS)
        criteria = criteria_of(session, [type] if type else [])
        found: list[LoggedEvent] = []
        high = self._reader.last_id() + 1 if before is None else before
        window = _FIRST_WINDOW
        while high > 1 and len(found) < limit:
            low = max(high - window, 1)
            part = list(islice(self._reader.events(criteria, after=low - 1, before=high), _LARGEST_PART + 1))
            if len(part) > _LARGEST_PART:  # far too many: a smaller window
                window //= 8
                continue
            found = part + found
            high, window = low, 4 * window
        shown = found[-limit:][::-1]
        is_more = high > 1 or len(found) > limit
        return {
            "events": [{"id": entry.id, "time": entry.time_text, "event": entry.event} for entry in shown],
            "next": shown[-1].id if shown and is_more else 0,
        }


def _session_of(fields: Answer) -> int | None:
    """The session to which an event belongs."""
    for name in ("task", "dataobject"):
        pair = fields.get(name)
        if isinstance(pair, list) and pair and isinstance(pair[0], int):
            return pair[0]
    session = fields.get("session")
    return session if isinstance(session, int) else None
