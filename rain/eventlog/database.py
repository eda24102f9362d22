"""The file of the event log: its tables, and how it is opened for writing (docs/events.md)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "events.db"
VERSION = 1
"""`user_version` of the file."""

SIDE_FILES = ("-wal", "-shm")
"""What SQLite keeps beside the file while it is written."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, event_type TEXT, session INTEGER NULL, event TEXT);
CREATE INDEX IF NOT EXISTS events_timestamp ON events (timestamp);
CREATE INDEX IF NOT EXISTS events_event_type ON events (event_type);
CREATE INDEX IF NOT EXISTS events_session ON events (session);
CREATE TABLE IF NOT EXISTS batches (
    first INTEGER PRIMARY KEY, count INTEGER, timestamp TEXT, kind TEXT, session INTEGER, data BLOB);
CREATE INDEX IF NOT EXISTS batches_session ON batches (session);
CREATE TABLE IF NOT EXISTS templates (session INTEGER, number INTEGER, packed BLOB, PRIMARY KEY (session, number));
"""
_COLUMNS = {
    "events": ("id", "timestamp", "event_type", "session", "event"),
    "batches": ("first", "count", "timestamp", "kind", "session", "data"),
    "templates": ("session", "number", "packed"),
}
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PRIMARY_CODE = 0xFF
_BUSY_SECONDS = 5.0


class DamagedError(Exception):
    """The file is no event log, or a damaged one."""


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open the file, which is made if there is none, with all its tables.

    In WAL mode readers and the writer do not wait for each other. With `synchronous=NORMAL` a commit waits for no disk:
    what is committed survives the end of the process, and a power failure costs the last seconds but not the file.

    Raises:
        DamagedError: it is no event log that this version of Rain can continue.
        sqlite3.Error: it cannot be opened or written now.
    """
    database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        _set_up(database)
    except sqlite3.Error as error:
        database.close()
        if is_damage(error):
            raise DamagedError(str(error)) from error
        raise
    except DamagedError:
        database.close()
        raise
    return database


def _set_up(database: sqlite3.Connection) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version not in (0, VERSION):
        raise DamagedError(f"it has version {version}, this Rain writes version {VERSION}")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    for table, columns in _COLUMNS.items():
        found = tuple(row[1] for row in database.execute(f"PRAGMA table_info({table})"))
        if found and found != columns:
            raise DamagedError(f"its table {table} has the columns {', '.join(found)}")
    if version == 0:
        database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")


def lock_directory(path: Path, mode: int) -> int | None:
    """Lock the directory of the file until the descriptor is closed or the process ends, however it does.

    Args:
        path: of the file.
        mode: of `flock`: a writer has a shared lock; who gets an exclusive one knows that there is no writer.

    Returns:
        The descriptor; None if directories there cannot be locked.

    Raises:
        BlockingIOError: other locks prevent it.
    """
    try:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # what is wrong with it is told when the file is opened
        return None
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:  # a network file system
        os.close(descriptor)
        return None
    return descriptor


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is at fault, not its disk or who else uses it."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE in _DAMAGED


def last_id(database: sqlite3.Connection) -> int:
    """Id of the last event, 0 if there is none."""
    (single,) = database.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
    (batched,) = database.execute(
        "SELECT coalesce(max(first + count - 1), 0) FROM batches WHERE first = (SELECT max(first) FROM batches)"
    ).fetchone()
    return max(int(single), int(batched))


def move_aside(path: Path) -> Path:
    """Give a broken file, with what SQLite keeps beside it, a name of its own; returns that.

    Raises:
        OSError: it cannot be moved.
    """
    number = 1
    while (new := path.with_name(f"{path.name}.broken-{number}")).exists():
        number += 1
    path.rename(new)
    for ending in SIDE_FILES:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(new.with_name(new.name + ending))
    return new
