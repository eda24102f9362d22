"""Reading the event log, while a server writes it or after its end."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rain.common.errors import RainException
from rain.common.structs import dataclass
from rain.eventlog.criteria import LARGEST, Criteria
from rain.eventlog.database import FILE_NAME, is_damage, last_id
from rain.eventlog.expanding import expand
from rain.eventlog.packing import Batch, count_events, unpack

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

_PAGE = 200
"""Rows read at a time. Between pages the file is not held open for reading, so the writer can tidy up."""
_BUSY_SECONDS = 5.0
_EVENT_COLUMNS = "id, 0, timestamp, event_type, session, event"
_BATCH_COLUMNS = "first, count, timestamp, kind, session, NULL"


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event. id: rising in the log; time_text: when it was logged, `YYYY-MM-DD HH:MM:SS.fffffffff UTC`."""

    id: int
    time_text: str
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch as it was stored: `count` events with ids from `first` on, logged at `time_text`.

    record: its columns. A submit comes without templates, values and arguments of calls; see `EventReader.templates`.
    """

    first: int
    count: int
    time_text: str
    record: Batch


_Row = tuple[int, int, str, str, Any, Any]
"""id or first, 0 or count, timestamp, type or kind, session, JSON or None."""


class EventReader:
    """Reads an event log; used by one thread at a time. Nothing it does waits for the writer or hinders it.

    What is committed while an iteration goes on may be part of it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file.

        Args:
            path: `events.db`, or the log directory of a server.

        Raises:
            RainException: there is none, or it cannot be read; the text says what to do.
        """
        path = Path(path)
        self._path = path / FILE_NAME if path.is_dir() else path
        if not self._path.is_file():
            raise RainException(f"there is no event log {self._path}; name an events.db or the --logdir of a server")
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        try:
            self._database = self._open()
        except (sqlite3.Error, OSError, ValueError) as error:
            self._drop_copy()
            raise self._trouble(error) from error

    def close(self) -> None:
        """Close the file."""
        self._database.close()
        self._drop_copy()

    def events(
        self, criteria: Criteria, *, after: int = 0, before: int | None = None, limit: int | None = None
    ) -> Iterator[LoggedEvent]:
        """Events in the order of their ids, read as they are asked for.

        Args:
            criteria: which.
            after, before: besides, only those with larger and smaller ids. None: no limit.
            limit: at most so many.

        Raises:
            RainException: the file is damaged or cannot be read.
        """
        left = LARGEST if limit is None else limit
        low = max(criteria.ids.low, after + 1)
        high = min(criteria.ids.high, LARGEST if before is None else before - 1)
        for row in self._rows(low, high, criteria):
            for event in self._events_of(row, low, high):
                if left <= 0:
                    return
                if criteria.has_type(event.event):
                    left -= 1
                    yield event

    def records(self, after: int = 0) -> Iterator[StoredBatch | LoggedEvent]:
        """All that was logged, in the order of ids, batches as they are; beginning with the one that holds the first
        event after `after`.

        Raises:
            RainException: the file is damaged or cannot be read.
        """
        for row in self._rows(after + 1, LARGEST, Criteria()):
            number, count, moment = row[:3]
            yield StoredBatch(number, count, moment, self._record(row)) if count else self._single(row)

    def last_id(self) -> int:
        """Id of the newest event, 0 if there is none.

        Raises:
            RainException: the file is damaged or cannot be read.
        """
        with self._explained():
            return last_id(self._database)

    def templates(self, session: int, first: int = 0) -> list[bytes]:
        """Packed task templates of a session, by their numbers, from number `first` on.

        Raises:
            RainException: the file is damaged or cannot be read.
        """
        query = "SELECT packed FROM templates WHERE session = ? AND number >= ? ORDER BY number"
        return [packed for (packed,) in self._all(query, (session, first))]

    # --- opening ---

    def _open(self) -> sqlite3.Connection:
        """Open it as it is. Where SQLite cannot (it needs a file of its own beside the log, and the directory cannot be
        written): without that file if everything is in the log, else open a copy."""
        try:
            return _connected(self._path, "mode=ro")
        except sqlite3.Error as error:
            if is_damage(error):
                raise
        wal = self._path.with_name(f"{self._path.name}-wal")
        if not wal.exists() or not wal.stat().st_size:
            return _connected(self._path, "mode=ro&immutable=1")
        self._copy = tempfile.TemporaryDirectory(prefix="rain-events-")
        copied = Path(self._copy.name) / FILE_NAME
        shutil.copyfile(self._path, copied)
        shutil.copyfile(wal, copied.with_name(f"{FILE_NAME}-wal"))
        return _connected(copied, "mode=rw")

    def _drop_copy(self) -> None:
        if self._copy is not None:
            self._copy.cleanup()

    def _trouble(self, error: Exception) -> RainException:
        if isinstance(error, sqlite3.Error) and not is_damage(error):
            advice = "it must be readable, and be an events.db that a server of Rain made"
        elif isinstance(error, OSError):
            advice = "see that it and its directory are readable and that there is space for temporary files"
        else:
            advice = "it is damaged; what `sqlite3 FILE .recover` saves may still be read"
        return RainException(f"cannot read the event log {self._path}: {error}; {advice}")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, RecursionError) as error:
            raise self._trouble(error) from error

    # --- rows ---

    def _all(self, query: str, values: Sequence[Any]) -> list[Any]:
        with self._explained():
            return self._database.execute(query, values).fetchall()

    def _rows(self, low: int, high: int, criteria: Criteria) -> Iterator[_Row]:
        """Rows which hold events with ids from `low` to `high`."""
        conditions, values = _conditions(criteria)
        types, type_values = _type_conditions(criteria)
        kinds = sorted(criteria.kinds()) if criteria.types is not None else []
        kind_condition = f" AND kind IN ({_marks(kinds)})" if criteria.types is not None else ""
        query = (
            f"SELECT {_EVENT_COLUMNS} FROM events WHERE id BETWEEN ? AND ?{conditions}{types} UNION ALL "
            f"SELECT {_BATCH_COLUMNS} FROM batches WHERE first BETWEEN ? AND ?{conditions}{kind_condition} "
            f"ORDER BY 1 LIMIT {_PAGE}"
        )
        while low <= high:
            begin = self._begin_of_batch(low)
            page = self._all(query, [low, high, *values, *type_values, begin, high, *values, *kinds])
            for row in page:
                with self._explained():
                    _check_row(row, begin)
                begin = row[0] + max(row[1], 1)
                if begin > low:
                    yield row
            if len(page) < _PAGE:
                return
            low = begin

    def _begin_of_batch(self, number: int) -> int:
        """The first id of the batch with this id, if there is one; else `number` or less."""
        found = self._all("SELECT coalesce(max(first), 1) FROM batches WHERE first <= ?", (number,))
        with self._explained():
            return int(found[0][0])

    # --- what rows hold ---

    def _events_of(self, row: _Row, low: int, high: int) -> Iterator[LoggedEvent]:
        number, count, moment = row[:3]
        if not count:
            yield self._single(row)
            return
        record = self._record(row)
        skip = max(low - number, 0)

        def packed_template(wanted: int) -> bytes | None:
            query = "SELECT packed FROM templates WHERE session = ? AND number = ?"
            found = self._all(query, (record.session, wanted))
            return found[0][0] if found else None

        for position, event in enumerate(expand(record, packed_template, skip), number + skip):
            if position > high:
                return
            yield LoggedEvent(position, moment, event)

    def _single(self, row: _Row) -> LoggedEvent:
        with self._explained():
            event = json.loads(row[5])
            if not isinstance(event, dict) or "type" not in event:
                raise ValueError(f"the event {row[0]} is no event")
        return LoggedEvent(row[0], row[2], event)

    def _record(self, row: _Row) -> Batch:
        found = self._all("SELECT data FROM batches WHERE first = ?", (row[0],))
        with self._explained():
            record = unpack(row[3], row[4], found[0][0] if found else b"")
            if count_events(record) != row[1]:
                raise ValueError(f"the batch {row[0]} does not hold {row[1]} events")
            return record


def _connected(path: Path, parameters: str) -> sqlite3.Connection:
    """Open a file and look into it, because SQLite opens it only then."""
    uri = f"file:{quote(str(path.absolute()))}?{parameters}"
    database = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        last_id(database)
    except (sqlite3.Error, ValueError):
        database.close()
        raise
    return database


def _check_row(row: _Row, begin: int) -> None:
    """Check the types of a row, which SQLite does not, and that it does not begin before `begin`.

    Raises:
        ValueError: it is damaged.
    """
    number, count, moment, kind, session, event = row
    sound = type(number) is int and type(count) is int and isinstance(moment, str) and isinstance(kind, str)
    if not sound or not begin <= number <= number + count <= LARGEST:
        raise ValueError(f"the row {number!r:.50} is malformed, or out of order")
    if not isinstance(event, str if not count else type(None)) or (count and type(session) is not int):
        raise ValueError(f"the row {number} is malformed")


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


# A plus sign keeps SQLite from using an index whose order is not that of ids: it would sort all that is left again for
# each page.


def _conditions(criteria: Criteria) -> tuple[str, list[int]]:
    sessions = criteria.sessions
    if sessions is None:
        return "", []
    if sessions.low == sessions.high:
        return " AND session = ?", [sessions.low]
    return " AND +session BETWEEN ? AND ?", [sessions.low, sessions.high]


def _type_conditions(criteria: Criteria) -> tuple[str, list[str]]:
    if criteria.types is None:
        return "", []
    types = sorted(criteria.types | ({"TaskFinished"} if criteria.failed else set()))
    if len(types) == 1 and criteria.sessions is None:
        return " AND event_type = ?", types
    return f" AND +event_type IN ({_marks(types)})", types
