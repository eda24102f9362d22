"""The writer of the event log: a thread that takes records from the server and commits them once a second."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain.common.errors import RainException
from rain.common.structs import dataclass
from rain.eventlog.database import DamagedError, is_damage, last_id, lock_directory, move_aside, open_for_writing
from rain.eventlog.expanding import map_of
from rain.eventlog.packing import count_events, pack
from rain.eventlog.plain import json_ready, start_text, time_text
from rain.eventlog.records import (
    Event,
    MembersFinished,
    ObjectsUnkept,
    RunsFinished,
    RunsStarted,
    Submitted,
    TasksEnded,
)
from rain.protocol.messages import SubmitBlock

if TYPE_CHECKING:
    from rain.eventlog.records import Record

FLUSH_SECONDS = 0.8
"""Between commits, so that events can be read within a second."""
RETRY_SECONDS = 10.0
"""After a failure, before it is tried again."""
MOST_WAITING = 200 << 20
"""Bytes (roughly) that may wait for a slow disk."""

_CLOSE_SECONDS = 5.0
_SINGLE = 500
"""Bytes that a single event, or anything that is not counted, is taken for."""
_PER_RUN, _PER_MEMBER, _PER_TASK, _PER_VALUE = 50, 10, 60, 100

_INSERT_EVENT = "INSERT INTO events (id, timestamp, event_type, session, event) VALUES (?, ?, ?, ?, ?)"
_INSERT_BATCH = "INSERT INTO batches (first, count, timestamp, kind, session, data) VALUES (?, ?, ?, ?, ?, ?)"
_INSERT_TEMPLATE = "INSERT OR REPLACE INTO templates (session, number, packed) VALUES (?, ?, ?)"
_HIGHEST = "SELECT coalesce(max(session), 0) FROM events UNION ALL SELECT coalesce(max(session), 0) FROM batches"
_UNCLOSED = (
    "SELECT session FROM events WHERE event_type = 'SessionNew' AND session IS NOT NULL "
    "EXCEPT SELECT session FROM events WHERE event_type = 'SessionClosed' ORDER BY 1"
)

_CONNECTED = (
    "SELECT CASE WHEN json_valid(event) AND json_type(event, '$.worker') = 'text' "
    "THEN json_extract(event, '$.worker') END AS worker FROM events "
    "WHERE event_type IN ('WorkerNew', 'WorkerRemoved') GROUP BY worker HAVING "
    "max(iif(event_type = 'WorkerNew', id, 0)) > max(iif(event_type = 'WorkerRemoved', id, 0)) ORDER BY 1"
)


@dataclass(frozen=True, slots=True)
class OpenedLog:
    """What the log of earlier servers says.

    Attributes:
        next_session: the first number no session has had.
        closed: sessions that were open when their server ended; they are closed now.
    """

    next_session: int
    closed: int


def open_log(path: str | os.PathLike[str], *, log: logging.Logger | None = None) -> OpenedLog:
    """Make the file, or continue one: what a server does first at its start.

    Sessions without SessionClosed get one with the reason ServerLost, workers without WorkerRemoved get one. A file
    that is no event log, or a damaged one, is moved aside, with a warning, and a new one is begun. If the disk is full,
    that is a warning too.

    Raises:
        RainException: the file can be neither read nor made, or another server writes it; the text says what to do.
    """
    file, log = Path(path), log or logging.getLogger("rain.eventlog")
    try:
        lock = lock_directory(file, fcntl.LOCK_EX)
    except BlockingIOError:
        raise RainException(
            f"another server writes the event log {file}; stop that one or choose another --logdir"
        ) from None
    try:
        return _begin(file, log)
    finally:
        if lock is not None:
            os.close(lock)


def _begin(file: Path, log: logging.Logger) -> OpenedLog:
    try:
        return _continue(file, log)
    except DamagedError as error:
        try:
            aside = move_aside(file)
        except OSError as problem:
            raise _unusable(file, f"it is damaged ({error}) and cannot be moved aside: {problem}") from problem
        log.warning(
            "the event log %s cannot be continued: %s; it is kept as %s, a new one is begun", file, error, aside
        )
    try:
        return _continue(file, log)
    except DamagedError as error:
        raise _unusable(file, str(error)) from error


def _unusable(file: Path, reason: str) -> RainException:
    return RainException(f"cannot use the event log {file}: {reason}; make it writable or choose another --logdir")


def _continue(file: Path, log: logging.Logger) -> OpenedLog:
    is_new = not file.exists()
    try:
        database = open_for_writing(file)
    except sqlite3.Error as error:
        if not is_new or not _is_disk_full(error):
            raise _unusable(file, str(error)) from error
        log.warning("cannot make the event log %s: %s; events are not kept until there is space", file, error)
        return OpenedLog(1, 0)
    with contextlib.closing(database):
        try:
            highest = max(int(number) for (number,) in database.execute(_HIGHEST))
            lost = [int(session) for (session,) in database.execute(_UNCLOSED)]
            workers = [worker for (worker,) in database.execute(_CONNECTED) if worker is not None]
        except sqlite3.Error as error:
            if is_damage(error):
                raise DamagedError(str(error)) from error
            raise _unusable(file, str(error)) from error
        except ValueError as error:
            raise DamagedError(f"a session is no number: {error}") from error
        try:
            _end_all(database, lost, workers)
        except (sqlite3.Error, ValueError) as error:
            log.warning("cannot write the event log %s: %s; what ended with its server is not noted", file, error)
            lost = []
    return OpenedLog(highest + 1, len(lost))


def _is_disk_full(error: sqlite3.Error) -> bool:
    return error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


def _end_all(database: sqlite3.Connection, sessions: list[int], workers: list[str]) -> None:
    """Events for what ended with the server."""
    ends: list[tuple[str, int | None, dict[str, Any]]] = []
    for worker in workers:
        ends.append(("WorkerRemoved", None, {"worker": worker, "governor": worker, "error_msg": "the server ended"}))
    for session in sessions:
        message = "the server ended before the session was closed"
        ends.append(("SessionClosed", session, {"session": session, "reason": "ServerLost", "message": message}))
    now = time_text(time.time_ns())
    with _transaction(database):
        for number, (type, of_session, fields) in enumerate(ends, last_id(database) + 1):
            database.execute(_INSERT_EVENT, (number, now, type, of_session, event_text(type, fields)))


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Any:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back by itself after most errors
            database.execute("ROLLBACK")
        raise


def event_text(type: str, fields: dict[str, Any]) -> str:
    """The JSON of a single event; the start of a run becomes a text."""
    info = fields.get("info")
    if isinstance(info, dict) and isinstance(info.get("start_time"), float):
        fields = {**fields, "info": {**info, "start_time": start_text(info["start_time"])}}
    event = {"type": type, **fields}
    try:
        return json.dumps(event, allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps(json_ready(event))


def weight(record: Record) -> int:
    """Roughly the bytes of memory a record holds on to, told without looking at each of its parts."""
    if isinstance(record, RunsFinished):
        infos = sum(map(len, filter(None, record.infos))) if record.infos else 0
        return _SINGLE + infos + _PER_RUN * len(record.tasks)
    if isinstance(record, MembersFinished):
        return _SINGLE + _PER_MEMBER * len(record.durations)
    if isinstance(record, RunsStarted):
        return _SINGLE + _PER_MEMBER * len(record.tasks)
    if isinstance(record, TasksEnded):
        return _SINGLE + _PER_MEMBER * len(record.firsts)
    if isinstance(record, ObjectsUnkept):
        return _SINGLE + _PER_MEMBER * len(record.objects)
    if isinstance(record, Submitted):
        return _SINGLE + sum(map(_weight_of_chunk, record.chunks))
    return _SINGLE


def _weight_of_chunk(chunk: Any) -> int:
    if isinstance(chunk, SubmitBlock):
        return len(chunk.args) + 4 * len(chunk.arg_sizes) + 4 * len(chunk.inputs) + len(chunk.link) + len(chunk.keeps)
    return _PER_TASK * len(chunk.tasks) + _PER_VALUE * len(chunk.objects)


@dataclass(slots=True)
class _Rows:
    """What goes into the file with one commit."""

    events: list[tuple[Any, ...]] = field(default_factory=list)
    batches: list[tuple[Any, ...]] = field(default_factory=list)
    templates: list[tuple[int, int, bytes]] = field(default_factory=list)


class EventWriter:
    """Writes records into a file that `open_log` has prepared, in a thread of its own.

    If the file cannot be written (the disk is full, say), that is one warning; records are lost then until it works
    again, which is tried every RETRY_SECONDS and told with the number of lost events. Nothing of that reaches the
    caller.
    """

    def __init__(self, path: str | os.PathLike[str], *, log: logging.Logger | None = None) -> None:
        """Start the thread. log: gets the warnings."""
        self._path = Path(path)
        self._log = log or logging.getLogger("rain.eventlog")
        self._queue: deque[tuple[list[Record], int, int]] = deque()
        # Each is written by one thread only: `put` adds to the first and the last, the writer to the second.
        self._given = 0
        self._taken = 0
        self._refused = 0
        self._stopping = threading.Event()
        self._lock: int | None = None
        self._database: sqlite3.Connection | None = None
        self._config_templates: dict[int, set[int]] = {}
        self._retry_at: float | None = None
        self._lost = 0
        with contextlib.suppress(BlockingIOError):  # another server looks at the file just now
            self._lock = lock_directory(self._path, fcntl.LOCK_SH)
        self._thread = threading.Thread(target=self._run, name="rain-events", daemon=True)
        self._thread.start()

    def put(self, records: list[Record], time_ns: int) -> None:
        """Have records written that happened at `time_ns` (unix nanoseconds). The list and what is in it must not be
        changed any more. Never waits; records are refused, with one warning, while too much is waiting already."""
        size = sum(map(weight, records))
        if self._given - self._taken + size > MOST_WAITING:
            self._refuse(records)
            return
        if self._refused:
            self._log.info("the event log %s is written in time again; %d events were lost", self._path, self._refused)
            self._refused = 0
        self._given += size
        self._queue.append((records, time_ns, size))

    def close(self, timeout: float = _CLOSE_SECONDS) -> None:
        """Write what is waiting, for at most `timeout` seconds, and end."""
        self._stopping.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._log.warning("the event log %s could not be written within %g s", self._path, timeout)

    def _refuse(self, records: list[Record]) -> None:
        if not self._refused:
            self._log.warning(
                "the event log %s is written too slowly: events are lost until the disk catches up", self._path
            )
        self._refused += sum(map(_events_in, records))

    # --- in the thread ---

    def _run(self) -> None:
        while not self._stopping.wait(FLUSH_SECONDS):
            self._flush()
        self._flush()
        self._disconnect()
        if self._lock is not None:
            os.close(self._lock)

    def _flush(self) -> None:
        """Commit all that is waiting, or count it as lost."""
        taken = [self._queue.popleft() for _ in range(len(self._queue))]
        self._taken += sum(size for _, _, size in taken)
        if not taken:
            return
        if self._retry_at is not None and time.monotonic() < self._retry_at:
            self._lose(taken)
            return
        try:
            self._write(taken)
        except (sqlite3.Error, DamagedError, ValueError) as error:
            self._lose(taken)
            self._disconnect()
            if self._retry_at is None:
                self._log.warning(
                    "cannot write the event log %s: %s; events are lost until it can be written: see that there is "
                    "space on the disk and that the file is in order",
                    self._path,
                    error,
                )
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return
        if self._retry_at is not None:
            self._retry_at = None
            self._log.info("the event log %s is written again; %d events were lost", self._path, self._lost)
            self._lost = 0

    def _lose(self, taken: list[tuple[list[Record], int, int]]) -> None:
        self._lost += sum(_events_in(record) for records, _, _ in taken for record in records)

    def _write(self, taken: list[tuple[list[Record], int, int]]) -> None:
        if self._database is None:
            self._database = open_for_writing(self._path)
        with _transaction(self._database):
            rows = self._rows(taken, last_id(self._database) + 1)
            self._database.executemany(_INSERT_EVENT, rows.events)
            self._database.executemany(_INSERT_BATCH, rows.batches)
            self._database.executemany(_INSERT_TEMPLATE, rows.templates)

    def _rows(self, taken: list[tuple[list[Record], int, int]], first: int) -> _Rows:
        """What to insert; `first`: id of the first event."""
        rows = _Rows()
        for records, time_ns, _ in taken:
            moment = time_text(time_ns)
            for record in records:
                try:
                    first += self._add(rows, record, first, moment)
                except Exception:  # one bad record must not end the log of all others
                    self._log.exception("internal error: a %s cannot be logged", type(record).__name__)
        return rows

    def _add(self, rows: _Rows, record: Record, first: int, moment: str) -> int:
        """Make rows of a record; returns how many events it is."""
        if isinstance(record, Event):
            text = event_text(record.type, record.fields)
            rows.events.append((first, moment, record.type, record.session, text))
            if record.type == "SessionClosed" and record.session is not None:
                self._config_templates.pop(record.session, None)
            return 1
        wanted: set[int] = set()
        if isinstance(record, Submitted):
            wanted = self._config_templates.setdefault(record.session, wanted)
            self._add_templates(rows, record, wanted)
        kind, count, data = pack(record, wanted)
        if count:
            rows.batches.append((first, count, moment, kind, record.session, data))
        return count

    def _add_templates(self, rows: _Rows, record: Submitted, config_templates: set[int]) -> None:
        number = record.first_template
        for chunk in record.chunks:
            for packed in chunk.templates:
                rows.templates.append((record.session, number, packed))
                if "config" not in map_of(packed):
                    config_templates.add(number)
                number += 1

    def _disconnect(self) -> None:
        if self._database is not None:
            database, self._database = self._database, None
            with contextlib.suppress(sqlite3.Error):  # nothing is left to be written
                database.close()


def _events_in(record: Record) -> int:
    return 1 if isinstance(record, Event) else count_events(record)
